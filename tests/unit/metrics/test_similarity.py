"""Drift and the random model: by hand, and against SciPy and torchmetrics."""

from __future__ import annotations

import pytest
import torch
from torchmetrics.functional.image import structural_similarity_index_measure
from torchmetrics.functional.regression import spearman_corrcoef

from lightning_gcam.metrics import RandomModelSimilarity, RandomModelSSIM, SaliencyDrift
from lightning_gcam.metrics.functional import drift, random_model_similarity, random_model_ssim
from lightning_gcam.metrics.similarity import average_ranks


def pair(seed: int, levels: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Two maps that have something in common; of few levels, so with ties, where `levels` says so."""
    first, noise = torch.rand(2, 10, 12, 12, generator=torch.Generator().manual_seed(seed))
    maps = first, first + noise
    return maps if levels is None else tuple((each * levels).round() for each in maps)


def test_ranks_with_ties() -> None:
    ranks = average_ranks(torch.tensor([[5.0, 1.0, 5.0, 9.0]])) * 4
    assert ranks.tolist() == [[2.5, 1.0, 2.5, 4.0]]


def test_value_by_hand() -> None:
    # Ranks 1 2 3 4 and 1 3 2 4: 1 - 6 * (1 + 1) / (4 * 15).
    first, second = torch.tensor([[[1.0, 2.0, 3.0, 4.0]]]), torch.tensor([[[0.0, 8.0, 7.0, 90.0]]])
    for score in (drift, random_model_similarity, SaliencyDrift(), RandomModelSimilarity()):
        assert score(first, second).item() == pytest.approx(0.8)
        assert score(first, first**3).item() == pytest.approx(1)
        assert score(first, 5 - first).item() == pytest.approx(-1)


@pytest.mark.parametrize("levels", [None, 3])
@pytest.mark.parametrize("seed", range(3))
def test_against_scipy_and_torchmetrics(seed, levels) -> None:
    stats = pytest.importorskip("scipy.stats")
    first, second = pair(seed, levels)
    theirs = [stats.spearmanr(a.flatten(), b.flatten()).statistic for a, b in zip(first, second, strict=True)]
    assert drift(first, second).item() == pytest.approx(sum(theirs) / 10, abs=1e-5)
    torchs = spearman_corrcoef(first.flatten(1).T, second.flatten(1).T)
    assert drift(first, second).item() == pytest.approx(torchs.mean().item(), abs=1e-4)


def test_large_maps_keep_their_precision() -> None:
    first, noise = torch.rand(2, 1, 300, 300, generator=torch.Generator().manual_seed(0))
    stats = pytest.importorskip("scipy.stats")
    expected = stats.spearmanr(first.flatten(), (first + noise).flatten()).statistic
    assert drift(first, first + noise).item() == pytest.approx(expected, abs=1e-5)


def test_a_map_that_is_the_same_everywhere_has_no_order_and_is_left_out() -> None:
    first, second = pair(0)
    second[3] = 0.1  # its mean in float32 is not quite 0.1
    second[5] = 0
    metric = SaliencyDrift()
    metric.update(first, second)
    assert (metric.n, metric.left_out, metric.blank) == (8, 2, 1)
    kept = [0, 1, 2, 4, 6, 7, 8, 9]
    assert metric.compute().item() == pytest.approx(drift(first[kept], second[kept]).item(), abs=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_ssim_is_that_of_torchmetrics_on_maps_scaled_by_their_peaks(seed) -> None:
    first, second = pair(seed)
    scaled = [each / each.amax(dim=(1, 2), keepdim=True) for each in (first, second)]
    theirs = [
        structural_similarity_index_measure(a[None, None], b[None, None], data_range=1.0)
        for a, b in zip(*scaled, strict=True)
    ]
    assert random_model_ssim(first * 7, second).item() == pytest.approx(sum(theirs).item() / 10, abs=1e-5)
    assert RandomModelSSIM()(first, second).item() == pytest.approx(sum(theirs).item() / 10, abs=1e-5)
    assert random_model_ssim(first, first).item() == pytest.approx(1)


@pytest.mark.parametrize("size", [(10, 20), (11, 10, 11), (200,)])
def test_ssim_of_small_maps_and_of_signals_is_refused(size) -> None:
    expected = r"`random_model_ssim` takes `saliency` of two or three dimensions of at least 11 pixels each, got \(1, "
    with pytest.raises(ValueError, match=expected):
        random_model_ssim(torch.ones(1, *size), torch.ones(1, *size))


@pytest.mark.parametrize(
    ("score", "name"),
    [(drift, "earlier"), (random_model_similarity, "randomized"), (random_model_ssim, "randomized")],
)
@pytest.mark.parametrize("other", [torch.ones(2, 12, 12), torch.ones(1, 12, 12).long(), None])
def test_what_is_no_other_map_is_refused(score, name, other) -> None:
    with pytest.raises(
        ValueError, match=rf"`{name}` must be floating maps of the shape of `saliency` \(1, 12, 12\)"
    ):
        score(torch.ones(1, 12, 12), other)
    with pytest.raises(TypeError, match="`saliency` must be floating"):
        score(torch.ones(1, 12, 12).long(), other)
