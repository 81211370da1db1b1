"""Pixel average precision: by hand, and against torchmetrics."""

from __future__ import annotations

import pytest
import torch
from torchmetrics.classification import BinaryAveragePrecision

from lightning_gcam.metrics import PixelAveragePrecision
from lightning_gcam.metrics.functional import pixel_average_precision


def test_value_by_hand() -> None:
    # In order: hit (precision 1, recall 1/2), miss, hit (precision 2/3, recall 1), miss.
    saliency = torch.tensor([[[4.0, 3.0, 2.0, 1.0]]])
    mask = torch.tensor([[[True, False, True, False]]])
    assert pixel_average_precision(saliency, mask).item() == pytest.approx((1 + 2 / 3) / 2)
    assert PixelAveragePrecision()(saliency, mask).item() == pytest.approx((1 + 2 / 3) / 2)


def test_pixels_of_all_samples_count_together() -> None:
    # Sample 0 has its object on top, sample 1 has a tiny one below: 3 of 4 positives come first.
    saliency = torch.tensor([[[2.0, 2.0, 2.0, 0.0]], [[2.0, 2.0, 2.0, 1.0]]])
    mask = torch.tensor([[[True, True, True, False]], [[False, False, False, True]]])
    expected = 3 / 4 * (3 / 6) + 1 / 4 * (4 / 7)
    assert pixel_average_precision(saliency, mask).item() == pytest.approx(expected)


def test_a_uniform_map_scores_the_objects_share(batch) -> None:
    _, mask = batch
    expected = mask.float().mean().item()
    assert pixel_average_precision(torch.ones(mask.shape), mask).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("num_thresholds", [2, 11, 101, 1001])
@pytest.mark.parametrize("seed", range(3))
def test_against_torchmetrics(seed, num_thresholds, make_batch) -> None:
    saliency, mask = make_batch(n=20, seed=seed)
    scaled = saliency / saliency.amax(dim=(1, 2), keepdim=True)
    expected = BinaryAveragePrecision(thresholds=num_thresholds)(scaled, mask.long()).item()
    assert pixel_average_precision(saliency, mask, num_thresholds).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("count", [1, 0, 2.0])
@pytest.mark.parametrize("score", [PixelAveragePrecision, lambda n: pixel_average_precision(None, None, n)])
def test_fewer_than_two_thresholds_are_refused(score, count) -> None:
    with pytest.raises(ValueError, match=r"`num_thresholds` must be a whole number from 2; got "):
        score(count)
