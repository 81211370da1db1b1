"""Intersection over union of the thresholded saliency: values by hand."""

from __future__ import annotations

import pytest
import torch

from lightning_gcam.metrics import SaliencyIoU
from lightning_gcam.metrics.functional import saliency_iou

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
