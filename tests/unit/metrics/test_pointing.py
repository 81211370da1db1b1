"""The pointing game: values by hand, ties, and the tolerance as a Euclidean disc."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_gcam.metrics import PointingGame
from lightning_gcam.metrics.functional import pointing_game
from lightning_gcam.metrics.localization import dilate


def single(height: int, width: int, *pixels: tuple[int, int]) -> torch.Tensor:
    """One grid that is 1 at the pixels given."""
    grid = torch.zeros(1, height, width)
    for row, column in pixels:
        grid[0, row, column] = 1
    return grid


def test_value_by_hand() -> None:
    saliency = torch.tensor([[[1.0, 9.0], [0.0, 0.0]], [[1.0, 9.0], [0.0, 0.0]], [[0.0, 0.0], [5.0, 4.0]]])
    mask = torch.tensor(
        [[[True, False], [True, True]], [[False, True], [False, False]], [[False, False], [True, True]]]
    )
    assert pointing_game(saliency, mask).item() == pytest.approx(2 / 3)
    assert PointingGame()(saliency, mask).item() == pytest.approx(2 / 3)


def test_tied_peaks_count_by_their_share_wherever_they_stand() -> None:
    mask = single(1, 4, (0, 0)).bool()
    first, last = single(1, 4, (0, 0), (0, 2), (0, 3)), single(1, 4, (0, 2), (0, 3))
    assert pointing_game(first, mask).item() == pytest.approx(1 / 3)
    assert pointing_game(last, mask).item() == 0


@pytest.mark.parametrize(("tolerance", "hit"), [(0, 0), (4.9, 0), (5, 1), (6, 1), (1000, 1)])
def test_tolerance_is_a_euclidean_radius(tolerance, hit) -> None:
    # 3 down and 4 to the right: 5 pixels away, where a square would ask for 4 and a diamond for 7.
    saliency, mask = single(9, 9, (4, 5)), single(9, 9, (1, 1)).bool()
    assert pointing_game(saliency, mask, tolerance=tolerance).item() == hit
    assert PointingGame(tolerance=tolerance)(saliency, mask).item() == hit


@settings(max_examples=40, deadline=None)
@given(
    pixels=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 6)), max_size=4),
    tolerance=st.floats(0, 9, allow_nan=False) | st.integers(0, 9),
)
def test_dilate_is_every_pixel_within_reach(pixels, tolerance) -> None:
    grown = dilate(single(6, 7, *pixels).bool(), tolerance)[0]
    for row in range(6):
        for column in range(7):
            near = any((row - r) ** 2 + (column - c) ** 2 <= tolerance**2 for r, c in pixels)
            assert grown[row, column].item() == near


@pytest.mark.parametrize("tolerance", [-1, float("nan"), float("inf"), "15"])
@pytest.mark.parametrize(
    "score", [PointingGame, lambda tolerance: pointing_game(single(2, 2), None, tolerance)]
)
def test_wrong_tolerance_is_refused(score, tolerance) -> None:
    with pytest.raises(ValueError, match=r"`tolerance` must be a finite number of pixels, at least 0, got "):
        score(tolerance=tolerance)
