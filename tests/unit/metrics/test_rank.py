"""Relevance rank accuracy: values by hand, and ties by expectation."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_gcam.metrics import RelevanceRankAccuracy
from lightning_gcam.metrics.functional import relevance_rank_accuracy


def test_value_by_hand() -> None:
    # Sample 0: of the three highest (9, 8, 7) two are in the mask. Sample 1: the highest is.
    saliency = torch.tensor([[[9.0, 8.0, 7.0], [3.0, 2.0, 1.0]], [[0.0, 0.0, 0.0], [0.0, 1.0, 2.0]]])
    mask = torch.tensor(
        [[[True, True, False], [True, False, False]], [[False, False, False], [False, False, True]]]
    )
    assert relevance_rank_accuracy(saliency, mask).item() == pytest.approx((2 / 3 + 1) / 2)
    assert RelevanceRankAccuracy()(saliency, mask).item() == pytest.approx((2 / 3 + 1) / 2)


def test_ties_for_the_last_place_count_by_their_expected_share() -> None:
    # Two places: 5 takes one, off the mask; three 2s draw for the other, two of them on the mask.
    saliency = torch.tensor([[[5.0, 2.0, 2.0, 2.0, 1.0]]])
    mask = torch.tensor([[[False, True, True, False, False]]])
    assert relevance_rank_accuracy(saliency, mask).item() == pytest.approx((2 / 3) / 2)


def test_full_mask_scores_one_and_disjoint_mask_none() -> None:
    saliency = torch.tensor([[[3.0, 2.0, 1.0, 0.0]]])
    assert relevance_rank_accuracy(saliency, torch.ones(1, 1, 4, dtype=torch.bool)).item() == 1
    assert relevance_rank_accuracy(saliency, saliency < 2).item() == 0


@settings(max_examples=40, deadline=None)
@given(
    pixels=st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=1, max_size=5).filter(
        lambda pixels: any(value for value, _ in pixels) and any(inside for _, inside in pixels)
    )
)
def test_equals_the_mean_over_every_order_of_the_ties(pixels) -> None:
    size = sum(inside for _, inside in pixels)
    orders = [sorted(order, key=lambda pixel: -pixel[0]) for order in permutations(pixels)]
    expected = sum(sum(inside for _, inside in order[:size]) / size for order in orders) / len(orders)
    values, insides = zip(*pixels, strict=True)
    saliency, mask = torch.tensor([[values]]).float(), torch.tensor([[insides]])
    assert relevance_rank_accuracy(saliency, mask).item() == pytest.approx(expected, abs=1e-6)
