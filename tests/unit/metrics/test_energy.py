"""Energy, its chance level, and the lift: values by hand."""

from __future__ import annotations

import pytest
import torch

from lightning_gcam.metrics import EnergyChance, EnergyPointingGame, RegionLift
from lightning_gcam.metrics.functional import energy_chance, energy_pointing_game, region_lift

# Sample 0: (1 + 2) of 6 in the mask, 2 of 4 pixels. Sample 1: 8 of 10, 1 of 4 pixels.
SALIENCY = torch.tensor([[[1.0, 2.0], [3.0, 0.0]], [[8.0, 2.0], [0.0, 0.0]]])
MASK = torch.tensor([[[True, True], [False, False]], [[True, False], [False, False]]])


@pytest.mark.parametrize(
    ("metric", "function", "expected"),
    [
        (EnergyPointingGame(), energy_pointing_game, (3 / 6 + 8 / 10) / 2),
        (EnergyChance(), energy_chance, (2 / 4 + 1 / 4) / 2),
        (RegionLift(), region_lift, (3 / 6 + 8 / 10) / (2 / 4 + 1 / 4)),
    ],
)
def test_value_by_hand(metric, function, expected) -> None:
    assert function(SALIENCY, MASK).item() == pytest.approx(expected, abs=1e-6)
    assert metric(SALIENCY, MASK).item() == pytest.approx(expected, abs=1e-6)


def test_lift_is_a_ratio_of_means_not_a_mean_of_ratios() -> None:
    mean_of_ratios = ((3 / 6) / (2 / 4) + (8 / 10) / (1 / 4)) / 2
    lift = region_lift(SALIENCY, MASK).item()
    assert lift == pytest.approx(
        (energy_pointing_game(SALIENCY, MASK) / energy_chance(SALIENCY, MASK)).item()
    )
    assert lift != pytest.approx(mean_of_ratios, abs=0.1)


def test_lift_equals_the_two_logged_numbers_with_gaps(gaps) -> None:
    metrics = [EnergyPointingGame(), EnergyChance(), RegionLift()]
    energy, chance, lift = (metric(*gaps) for metric in metrics)
    assert lift.item() == pytest.approx((energy / chance).item(), rel=1e-6)
    assert len({metric.n for metric in metrics}) == 1


def test_uniform_map_scores_its_chance_level(batch) -> None:
    _, mask = batch
    uniform = torch.full(mask.shape, 0.7)
    assert energy_pointing_game(uniform, mask).item() == pytest.approx(
        energy_chance(uniform, mask).item(), abs=1e-6
    )
    assert region_lift(uniform, mask).item() == pytest.approx(1, abs=1e-6)


def test_full_mask_holds_all_the_energy(batch) -> None:
    saliency, mask = batch
    assert energy_pointing_game(saliency, torch.ones_like(mask)).item() == 1


@pytest.mark.parametrize("scale", [3e38, 1e-38])
def test_neither_overflow_nor_underflow(scale) -> None:
    saliency = torch.tensor([[[1.0, 1.0], [1.0, 1.0]]]) * scale
    assert energy_pointing_game(saliency, MASK[1:]).item() == pytest.approx(0.25)
