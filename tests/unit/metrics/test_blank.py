"""The blank rate: every sample counts."""

from __future__ import annotations

import pytest
import torch

from lightning_gcam.metrics import BlankRate
from lightning_gcam.metrics.functional import blank_rate


def test_zero_and_non_finite_maps_are_blank(gaps) -> None:
    saliency, _ = gaps
    assert blank_rate(saliency).item() == pytest.approx(3 / 7)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_one_non_finite_pixel_makes_a_map_blank(value) -> None:
    saliency = torch.ones(4, 2, 2)
    saliency[1, 0, 1] = value
    assert blank_rate(saliency).item() == pytest.approx(1 / 4)


def test_the_mask_makes_no_difference(gaps) -> None:
    saliency, mask = gaps
    with_mask, without = BlankRate(), BlankRate()
    with_mask.update(saliency, mask)
    without.update(saliency)
    without.update(saliency, mask=None)
    assert with_mask.compute() == without.compute() == pytest.approx(3 / 7)
    assert (with_mask.n, with_mask.left_out) == (7, 0)
    assert (without.n, without.left_out) == (14, 0)


def test_a_map_is_not_blank_for_being_faint() -> None:
    assert blank_rate(torch.full((1, 2, 2), 1e-40)).item() == 0
