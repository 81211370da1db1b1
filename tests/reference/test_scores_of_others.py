"""The scores against other people's implementations, on seeded maps: at least 0, no ties, no empty mask."""

from __future__ import annotations

import pytest
from torchmetrics.classification import BinaryJaccardIndex

from lightning_gcam.metrics.functional import (
    energy_pointing_game,
    pointing_game,
    relevance_rank_accuracy,
    saliency_iou,
)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("function", "reference"),
    [
        (relevance_rank_accuracy, "RelevanceRankAccuracy"),
        (energy_pointing_game, "RelevanceMassAccuracy"),
        (pointing_game, "PointingGame"),
    ],
)
def test_against_quantus(quantus, function, reference, seed, make_batch) -> None:
    saliency, mask = make_batch(n=20, seed=seed)
    theirs = getattr(quantus, reference)(disable_warnings=True)
    expected = theirs.evaluate_batch(a_batch=saliency[:, None].numpy(), s_batch=mask[:, None].numpy())
    assert function(saliency, mask).item() == pytest.approx(expected.mean(), abs=1e-6)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("threshold", [0.3, 0.75])
def test_iou_against_torchmetrics(threshold, seed, make_batch) -> None:
    saliency, mask = make_batch(n=20, seed=seed)
    jaccard = BinaryJaccardIndex()
    expected = [jaccard(s >= threshold * s.max(), m).item() for s, m in zip(saliency, mask, strict=True)]
    assert saliency_iou(saliency, mask, threshold).item() == pytest.approx(sum(expected) / 20, abs=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_rank_accuracy_is_the_top_k_of_quantus_with_k_the_objects_size(quantus, seed, make_batch) -> None:
    saliency, mask = make_batch(n=20, seed=seed)
    expected = [
        quantus.TopKIntersection(k=int(m.sum()), disable_warnings=True)
        .evaluate_batch(a_batch=s[None, None].numpy(), s_batch=m[None, None].numpy())
        .item()
        for s, m in zip(saliency, mask, strict=True)
    ]
    assert relevance_rank_accuracy(saliency, mask).item() == pytest.approx(sum(expected) / 20, abs=1e-6)
