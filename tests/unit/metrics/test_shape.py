"""Gini and entropy: by hand and against Quantus; how much the position varies: by hand."""

from __future__ import annotations

import math

import pytest
import torch

from lightning_gcam.metrics import PositionalConcentration, SaliencyEntropy, SaliencyGini
from lightning_gcam.metrics.functional import (
    centre_map,
    positional_concentration,
    saliency_entropy,
    saliency_gini,
)


def at(cell: int, size: int = 16) -> torch.Tensor:
    """A map with all it has in one of the 8 x 8 cells."""
    grid = torch.zeros(1, size, size)
    side, (row, column) = size // 8, divmod(cell, 8)
    grid[0, row * side : (row + 1) * side, column * side : (column + 1) * side] = 1
    return grid


def test_gini_by_hand() -> None:
    # In order 0, 2, 3, 3, with the weights -3, -1, 1, 3; the sum is 8.
    saliency = torch.tensor([[[3.0, 0.0], [2.0, 3.0]]])
    assert saliency_gini(saliency).item() == pytest.approx((-1 * 2 + 1 * 3 + 3 * 3) / (4 * 8))
    assert SaliencyGini()(saliency).item() == pytest.approx(10 / 32)


def test_entropy_by_hand() -> None:
    # Shares 1/2, 1/4, 1/4: 1.5 bits of the 2 that four pixels can have.
    saliency = torch.tensor([[[2.0, 1.0], [1.0, 0.0]]])
    assert saliency_entropy(saliency).item() == pytest.approx(1.5 / 2)
    assert SaliencyEntropy()(saliency).item() == pytest.approx(1.5 / 2)


def test_the_ends_of_both() -> None:
    point = torch.zeros(1, 5, 5)
    point[0, 2, 3] = 7
    assert saliency_gini(point).item() == pytest.approx(1 - 1 / 25)
    assert saliency_entropy(point).item() == 0
    assert saliency_gini(torch.ones(1, 5, 5)).item() == pytest.approx(0, abs=1e-6)
    assert saliency_entropy(torch.ones(1, 5, 5)).item() == pytest.approx(1)
    assert saliency_entropy(torch.ones(1, 1, 1)).item() == 0


def test_where_the_pixels_are_makes_no_difference(batch) -> None:
    saliency, _ = batch
    order = torch.randperm(72, generator=torch.Generator().manual_seed(0))
    moved = saliency.flatten(1)[:, order].reshape(saliency.shape)
    for score in (saliency_gini, saliency_entropy):
        assert score(moved).item() == pytest.approx(score(saliency).item(), abs=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_against_quantus(quantus, seed, make_batch) -> None:
    saliency, _ = make_batch(n=20, seed=seed)
    options = {"disable_warnings": True, "abs": False, "normalise": False}
    # Both change the array that they are given.
    sparse = quantus.Sparseness(**options).evaluate_batch(
        x_batch=None, a_batch=saliency[:, None].numpy().copy()
    )
    assert saliency_gini(saliency).item() == pytest.approx(sparse.mean(), abs=1e-4)  # they add 1e-7 to each
    spread = quantus.Complexity(**options).evaluate_batch(
        x_batch=None, a_batch=saliency[:, None].numpy().copy()
    )
    assert saliency_entropy(saliency).item() == pytest.approx(spread.mean() / math.log(72), abs=1e-6)


def test_a_model_that_follows_the_objects_is_not_concentrated() -> None:
    maps = torch.cat([at(cell) for cell in (0, 9, 30, 63)])
    assert positional_concentration(maps, maps.bool()).item() == pytest.approx(0, abs=1e-6)
    assert PositionalConcentration()(maps, maps.bool()).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("looks", "expected"),
    # One cell; two, evenly: log 2 / log 4 of the entropy; four others.
    [([5] * 4, 1), ([5, 5, 6, 6], 1 / 2), ([1, 2, 3, 4], 0)],
)
def test_concentration_by_hand(looks, expected) -> None:
    objects = torch.cat([at(cell) for cell in (0, 9, 30, 63)]).bool()
    maps = torch.cat([at(cell) for cell in looks])
    assert positional_concentration(maps, objects).item() == pytest.approx(expected, abs=1e-6)


def test_a_map_that_is_everywhere_is_below_zero() -> None:
    objects = torch.cat([at(cell) for cell in (0, 9, 30, 63)]).bool()
    everywhere = torch.ones(objects.shape)
    assert positional_concentration(everywhere, objects).item() == pytest.approx(
        1 - math.log(64) / math.log(4)
    )


def test_each_map_counts_alike_whatever_its_scale() -> None:
    objects = torch.cat([at(cell) for cell in (0, 9, 30, 63)]).bool()
    maps = torch.cat([at(cell) * 10**cell for cell in (1, 1, 2, 2)])
    assert positional_concentration(maps, objects).item() == pytest.approx(1 / 2, abs=1e-6)


def test_where_the_objects_never_move_there_is_no_answer() -> None:
    objects = at(5).bool().repeat(3, 1, 1)
    metric = PositionalConcentration()
    metric.update(centre_map((16, 16)).repeat(3, 1, 1), objects)
    assert math.isnan(metric.compute())
    assert metric.n == 3


@pytest.mark.parametrize("size", [(4, 4), (16, 16), (30, 20)])
def test_a_grid_of_any_size(size) -> None:
    maps = torch.zeros(2, *size)
    maps[0, 0, 0], maps[1, -1, -1] = 1, 1
    assert positional_concentration(maps, maps > 0).item() == pytest.approx(0, abs=1e-6)
    assert positional_concentration(maps[:1].repeat(2, 1, 1), maps > 0).item() == pytest.approx(1, abs=1e-6)
