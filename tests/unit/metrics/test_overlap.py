"""Intersection over union of the thresholded saliency: values by hand."""

from __future__ import annotations

import math

import pytest
import torch

from lightning_gcam.metrics import BestSaliencyIoU, MaxBoxAccuracy, SaliencyIoU
from lightning_gcam.metrics.functional import best_saliency_iou, max_box_accuracy, saliency_iou

SALIENCY = torch.tensor([[[10.0, 5.0, 3.0, 2.0]]])
MASK = torch.tensor([[[True, False, False, True]]])


@pytest.mark.parametrize(
    ("threshold", "expected"),
    # 1.0: {10}, 1 of 2. 0.5: {10, 5}, the 5 stands on the threshold. 0.51: {10}. 0.01: all four.
    [(1.0, 1 / 2), (0.5, 1 / 3), (0.51, 1 / 2), (0.01, 2 / 4)],
)
def test_value_by_hand(threshold, expected) -> None:
    assert saliency_iou(SALIENCY, MASK, threshold).item() == pytest.approx(expected)
    assert SaliencyIoU(threshold)(SALIENCY, MASK).item() == pytest.approx(expected)


def test_the_default_threshold_is_three_tenths_of_each_maps_own_peak() -> None:
    two = torch.cat([SALIENCY, SALIENCY / 128])
    assert saliency_iou(two, MASK.expand(2, -1, -1)).item() == pytest.approx(1 / 4)
    assert SaliencyIoU().threshold == 0.3


@pytest.mark.parametrize("threshold", [0, 1.01, -0.3, float("nan"), float("inf"), "0.3"])
@pytest.mark.parametrize("score", [SaliencyIoU, lambda threshold: saliency_iou(SALIENCY, MASK, threshold)])
def test_wrong_threshold_is_refused(score, threshold) -> None:
    with pytest.raises(ValueError, match=r"`threshold` must be a number in \(0, 1\], .* got "):
        score(threshold=threshold)


def test_the_best_threshold_by_hand() -> None:
    # The mask is {10, 5, 3}. 0.3 takes just these; 0.2 takes the 2 as well, 0.4 leaves the 3 out.
    mask = SALIENCY >= 3
    metric = BestSaliencyIoU(num_thresholds=10)
    assert metric(SALIENCY, mask).item() == 1
    assert metric.best_threshold == pytest.approx(0.3)
    assert best_saliency_iou(SALIENCY, mask, num_thresholds=2).item() == pytest.approx(2 / 3)


def test_one_threshold_serves_all_samples() -> None:
    # Alone, sample 0 is best at 1/2 and sample 1 at 1; together both must take one of them.
    saliency = torch.tensor([[[4.0, 2.0]], [[4.0, 2.0]]])
    mask = torch.tensor([[[True, True]], [[True, False]]])
    assert best_saliency_iou(saliency, mask, num_thresholds=2).item() == pytest.approx((1 + 1 / 2) / 2)


@pytest.mark.parametrize("num_thresholds", [1, 7, 20])
def test_the_best_is_the_highest_over_the_grid(num_thresholds, gaps) -> None:
    grid = [saliency_iou(*gaps, threshold=(k + 1) / num_thresholds).item() for k in range(num_thresholds)]
    metric = BestSaliencyIoU(num_thresholds)
    assert metric(*gaps).item() == pytest.approx(max(grid), abs=1e-6)
    assert metric.best_threshold == pytest.approx((grid.index(max(grid)) + 1) / num_thresholds)


def test_without_samples_there_is_no_best_threshold() -> None:
    assert math.isnan(BestSaliencyIoU().best_threshold)


@pytest.mark.parametrize("count", [0, -1, 2.5, True, "20"])
@pytest.mark.parametrize(
    "score",
    [
        BestSaliencyIoU,
        MaxBoxAccuracy,
        lambda num_thresholds: best_saliency_iou(SALIENCY, MASK, num_thresholds),
        lambda num_thresholds: max_box_accuracy(SALIENCY, MASK, num_thresholds=num_thresholds),
    ],
)
def test_a_wrong_number_of_thresholds_is_refused(score, count) -> None:
    with pytest.raises(ValueError, match=r"`num_thresholds` must be a whole number from 1; got "):
        score(num_thresholds=count)
