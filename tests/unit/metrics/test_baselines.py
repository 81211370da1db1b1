"""Maps that know nothing: their values, and what they score."""

from __future__ import annotations

import math

import pytest
import torch

from lightning_gcam.metrics import (
    PointingGame,
    available_scores,
    baseline_scores,
    default_scores,
    resolve_scores,
)
from lightning_gcam.metrics.functional import centre_map, uniform_map


def test_the_centre_map_is_a_gaussian_of_a_quarter_of_each_side() -> None:
    grid = centre_map((41, 81))
    assert grid.shape == (41, 81)
    assert grid.max() == grid[20, 40] == 1
    assert grid[20, 60].item() == pytest.approx(math.exp(-0.5 * (20 / (81 / 4)) ** 2))
    assert grid[30, 40].item() == pytest.approx(math.exp(-0.5 * (10 / (41 / 4)) ** 2))
    torch.testing.assert_close(grid, grid.flip(0, 1))


def test_the_uniform_map_scores_chance(batch) -> None:
    _, mask = batch
    uniform = baseline_scores(mask)["uniform"]
    area = mask.float().flatten(1).mean(dim=1).mean().item()
    for name in ("energy", "energy_chance", "pointing_game", "rank_accuracy", "iou"):
        assert uniform[name] == pytest.approx(area, abs=1e-6), name
    assert uniform["object_lift"] == pytest.approx(1, abs=1e-6)


def test_the_centre_map_does_well_on_objects_in_the_middle() -> None:
    mask = torch.zeros(2, 20, 20, dtype=torch.bool)
    mask[0, 6:14, 6:14], mask[1, :8, :8] = True, True
    for sample, better in ((0, True), (1, False)):
        found = baseline_scores(mask[sample : sample + 1])
        assert found["centre"]["pointing_game"] == float(better)
        assert (found["centre"]["energy"] > found["uniform"]["energy"]) == better


def test_only_scores_of_masks_are_taken(batch) -> None:
    by_default = [each for each in default_scores() if each not in ("suspect_lift", "blank_rate")]
    on_masks = [*by_default, "best_iou", "pixel_average_precision", "max_box_accuracy", "max_box_accuracy_v1"]
    on_masks += ["positional_concentration"]
    found = baseline_scores(batch[1], available_scores())
    assert list(found) == ["uniform", "centre"]
    assert list(found["uniform"]) == list(found["centre"]) == on_masks
    assert list(baseline_scores(batch[1])["centre"]) == by_default


def test_they_are_what_the_scores_give_for_these_maps(batch) -> None:
    _, mask = batch
    found = baseline_scores(mask, {"near": PointingGame(tolerance=1), "iou": resolve_scores("iou")["iou"]})
    centre = centre_map((9, 8)).expand(mask.shape)
    assert found["centre"]["near"] == PointingGame(tolerance=1)(centre, mask).item()
    assert found["centre"]["iou"] == resolve_scores("iou")["iou"](centre, mask).item()


def test_without_objects_there_is_no_baseline() -> None:
    assert baseline_scores(torch.zeros(2, 4, 4, dtype=torch.bool)) == {"uniform": {}, "centre": {}}


@pytest.mark.parametrize("make", [uniform_map, centre_map])
@pytest.mark.parametrize("size", [(), (0, 4), (2.0, 2), (1, 2, 3, 4)])
def test_wrong_size_is_refused(make, size) -> None:
    with pytest.raises(ValueError, match="`size` must be one to three sides in pixels, .* got "):
        make(size)
