"""Measurements: what stands beside a value, and what may not change it."""

from __future__ import annotations

import math
import pickle

import pytest
import torch
from torchmetrics import MeanMetric

from lightning_gcam.metrics import (
    AverageDrop,
    BlankRate,
    EnergyChance,
    EnergyPointingGame,
    Measured,
    PointingGame,
    RegionLift,
    available_scores,
    measure,
    measure_groups,
    resolve_scores,
)
from lightning_gcam.metrics.measurement import ScoreKey, ScoreResults
from lightning_gcam.metrics.samples import bootstrap_interval

GROUPS = torch.tensor([0, 1, 1, 0, -1, 1, 1])
every_score = pytest.mark.parametrize("name", available_scores())


def as_measured(name: str, *inputs, **options):
    metric = Measured(resolve_scores(name)[name], resamples=50, **options)
    metric.update(*inputs)
    return metric.compute().overall


def normal_sample(n: int, seed: int) -> torch.Tensor:
    return torch.randn(n, generator=torch.Generator().manual_seed(seed)).double()


@every_score
def test_the_value_and_the_counts_are_those_of_the_metric(name, gaps, inputs_for) -> None:
    metric, inputs = resolve_scores(name)[name], inputs_for(name, gaps)
    metric.update(*inputs)
    found = as_measured(name, *inputs)
    assert found.value == pytest.approx(metric.compute().item(), abs=1e-6)
    assert (found.n, found.left_out, found.blank, found.no_mask) == (
        metric.n,
        metric.left_out,
        metric.blank,
        metric.no_mask,
    )
    low, high = found.interval
    assert low <= high
    assert low - 1e-6 <= found.value <= high + 1e-6 or name in ("positional_concentration", "best_iou")


@every_score
def test_the_split_and_the_order_change_nothing(name, gaps, inputs_for) -> None:
    inputs = inputs_for(name, gaps)
    whole, split = as_measured(name, *inputs), Measured(resolve_scores(name)[name], resamples=50)
    order = torch.tensor([4, 2, 6, 0, 1, 5, 3])
    for part in zip(*(tensor[order].split([1, 4, 2]) for tensor in inputs), strict=True):
        split.update(*part)
    found = split.compute().overall
    assert found[1:5] == whole[1:5]
    assert found.value == pytest.approx(whole.value, abs=1e-6)
    assert found.interval == pytest.approx(whole.interval, abs=1e-6)


def test_why_samples_are_left_out(gaps) -> None:
    found = measure(EnergyPointingGame(), *gaps)
    assert (found.n, found.blank, found.no_mask, found.undefined, found.left_out) == (3, 3, 1, 0, 4)
    drop = measure(
        AverageDrop(),
        torch.tensor([0.5, 0.0, 0.5]),
        torch.tensor([0.25, 0.5, 0.5]),
        torch.tensor([False, False, True]),
    )
    assert (drop.value, drop.n, drop.blank, drop.no_mask, drop.undefined) == (0.5, 1, 1, 0, 1)
    assert str(drop) == "0.500, n = 1, left out 2 (1 blank, 1 undefined)"


def test_without_samples_there_is_no_value() -> None:
    for n in (0, 2):
        found = measure(EnergyPointingGame(), torch.zeros(n, 3, 3), torch.ones(n, 3, 3, dtype=torch.bool))
        assert math.isnan(found.value)
        assert (found.n, found.blank, found.interval) == (0, n, None)


def test_the_score_that_was_given_is_left_as_it_was(gaps) -> None:
    mine = PointingGame(tolerance=2)
    mine.update(*gaps)
    measured = Measured(mine)
    measured.update(*gaps)
    assert (mine.n, measured.score.n, measured.score.tolerance) == (3, 0, 2)


def test_groups_by_hand() -> None:
    # Shares of 1, 0.5 | 0.25, 0.75 | 0: the last in no group.
    first = torch.tensor([4.0, 2.0, 1.0, 3.0, 0.0])
    saliency = torch.stack([first, 4 - first], dim=1)[:, None]
    mask = torch.tensor([[[True, False]]]).repeat(5, 1, 1)
    found = measure_groups(EnergyPointingGame(), saliency, mask, groups=torch.tensor([3, 3, 5, 5, -1]))
    assert found.overall.value == pytest.approx((1 + 0.5 + 0.25 + 0.75 + 0) / 5)
    assert {group: (each.value, each.n) for group, each in found.groups.items()} == {
        3: (0.75, 2),
        5: (0.5, 2),
    }
    assert found.worst == 5
    names = ["a", "b", "c", "d", "e", "f"]
    named = measure_groups(
        EnergyPointingGame(), saliency, mask, groups=torch.tensor([3, 3, 5, 5, -1]), names=names
    )
    assert (list(named.groups), named.worst) == (["d", "f"], "f")


@every_score
def test_a_group_is_what_its_samples_are_alone(name, gaps, inputs_for) -> None:
    inputs = inputs_for(name, gaps)
    metric = Measured(resolve_scores(name)[name], resamples=20)
    metric.update(*inputs, groups=GROUPS)
    _, groups, worst = metric.compute()
    assert list(groups) == [0, 1]
    for group, found in groups.items():
        alone = resolve_scores(name)[name]
        alone.update(*(tensor[group == GROUPS] for tensor in inputs))
        assert (found.n, found.left_out) == (alone.n, alone.left_out)
        assert found.value == pytest.approx(alone.compute().item(), abs=1e-6, nan_ok=True)
    higher = metric.score.higher_is_better
    ends = {None: None, True: min, False: max}[higher]
    values = {group: found.value for group, found in groups.items() if not math.isnan(found.value)}
    assert worst == (ends(values, key=values.get) if ends and len(values) > 1 else None)


def test_a_sample_may_be_in_several_groups_or_none() -> None:
    saliency = torch.tensor([[[1.0, 1.0]], [[3.0, 1.0]], [[1.0, 3.0]]])
    mask = torch.tensor([[[True, False]]]).repeat(3, 1, 1)
    metric = Measured(EnergyPointingGame())
    metric.update(saliency, mask, groups=torch.tensor([[1, 1, 0], [0, 1, 0], [0, 0, 0]]))
    metric.update(saliency[2:], mask[2:], groups=torch.tensor([[0, 0, 0, 1]]))  # of another width
    found = {group: (each.value, each.n) for group, each in metric.compute().groups.items()}
    assert found == {0: (0.5, 1), 1: (0.625, 2), 3: (0.25, 1)}


def test_where_low_is_better_the_worst_is_the_highest() -> None:
    saliency = torch.zeros(4, 2, 2)
    saliency[0] = 1
    found = measure_groups(BlankRate(), saliency, groups=torch.tensor([0, 0, 1, 1]))
    assert ({group: each.value for group, each in found.groups.items()}, found.worst) == ({0: 0.5, 1: 1.0}, 1)


def test_where_no_end_is_better_none_is_the_worst(batch) -> None:
    groups = torch.arange(7)
    assert measure_groups(EnergyChance(), *batch, groups=groups).worst is None
    assert measure_groups(EnergyPointingGame(), *batch, groups=groups * 0).worst is None


@pytest.mark.parametrize(
    "groups", [torch.zeros(3).long(), torch.zeros(7), torch.zeros(7, 2, 2).long(), [0] * 7]
)
def test_wrong_groups_are_refused(groups, batch) -> None:
    with pytest.raises(ValueError, match=r"`groups` must be \(7,\) integers, negative for none, or \(7, K\)"):
        measure_groups(PointingGame(), *batch, groups=groups)


@pytest.mark.parametrize("order", [(GROUPS, None), (None, GROUPS)])
def test_groups_come_with_every_batch_or_with_none(order, batch) -> None:
    metric = Measured(PointingGame())
    metric.update(*batch, groups=order[0])
    with pytest.raises(ValueError, match="`groups` must come with every batch, or with none"):
        metric.update(*batch, groups=order[1])


def test_a_foreign_metric_has_no_numbers_a_sample() -> None:
    with pytest.raises(ValueError, match="`score` must be one of this package's scores, got MeanMetric"):
        Measured(MeanMetric())


def test_measured_can_be_pickled_and_reset(gaps) -> None:
    metric = Measured(RegionLift())
    metric.update(*gaps)
    before = metric.compute()
    assert pickle.loads(pickle.dumps(metric)).compute() == before
    metric.reset()
    metric.update(*gaps)
    assert metric.compute() == before


def test_the_interval_of_a_mean_is_that_of_the_normal_distribution() -> None:
    rows = normal_sample(400, seed=0)
    low, high = bootstrap_interval(rows, resamples=4000)
    half = 1.96 * rows.std().item() / 20
    assert low == pytest.approx(rows.mean().item() - half, abs=0.1 * half)
    assert high == pytest.approx(rows.mean().item() + half, abs=0.1 * half)


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    held = 0
    for seed in range(200):
        low, high = bootstrap_interval(normal_sample(30, seed), resamples=200)
        held += low <= 0 <= high
    assert 0.88 <= held / 200 <= 0.99


def test_the_interval_of_a_ratio_draws_both_of_a_sample_together() -> None:
    # Each sample's energy is twice its area, whatever the area: the lift is 2 in every resample.
    areas = torch.linspace(0.1, 0.4, 8)
    rows = torch.stack([2 * areas, areas], dim=1)
    assert bootstrap_interval(rows, RegionLift()._value) == pytest.approx((2, 2))


def test_large_numbers_of_samples_are_drawn_in_blocks() -> None:
    rows = torch.rand(50_000, generator=torch.Generator().manual_seed(0))
    low, high = bootstrap_interval(rows, resamples=200)
    assert low < rows.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * rows.std().item() / 50_000**0.5, rel=0.2)


@pytest.mark.parametrize(("n", "low"), [(1, 0.025), (4, 0.025**0.25), (16, 0.025 ** (1 / 16))])
def test_all_at_one_end_is_no_certainty(n, low) -> None:
    assert bootstrap_interval(torch.ones(n), bounds=(0, 1)) == pytest.approx((low, 1))
    assert bootstrap_interval(torch.zeros(n), bounds=(0, 1)) == pytest.approx((0, 1 - low))
    hits = torch.zeros(n, 2, 2)
    hits[:, 0, 0] = 1
    found = measure(PointingGame(), hits, hits > 0)
    assert (found.value, found.interval) == (1, pytest.approx((low, 1)))


def test_too_little_has_no_interval() -> None:
    assert bootstrap_interval(torch.tensor([0.5]), bounds=(0, 1)) is None
    assert bootstrap_interval(torch.ones(1)) is None
    assert bootstrap_interval(torch.zeros(0), bounds=(0, 1)) is None
    assert bootstrap_interval(torch.ones(3, 2), lambda total, n: total[..., 0] * torch.nan) is None


def test_a_fixed_seed_and_no_other_stream() -> None:
    rows, before = normal_sample(20, seed=3), torch.get_rng_state()
    first = bootstrap_interval(rows)
    assert torch.equal(torch.get_rng_state(), before)
    assert bootstrap_interval(rows) == bootstrap_interval(rows.flip(0)) == first
    assert bootstrap_interval(rows, seed=1) != first


def test_results_are_measured_under_the_names_they_are_logged_by() -> None:
    """The first map's scores go without its name, also where a map's name or a score's has a slash."""
    energy, mask = EnergyPointingGame(), torch.tensor([[[True, False]]] * 2)
    maps = {"a": torch.tensor([[[3.0, 1.0]], [[1.0, 3.0]]]), "b/c": torch.tensor([[[1.0, 0.0]]] * 2)}
    samples = {
        ScoreKey(name, "x/energy"): (energy, energy.per_sample(each, mask)) for name, each in maps.items()
    }
    results = ScoreResults(samples=samples, maps=tuple(maps))
    found = results.measure(torch.tensor([0, 1]), ["cats", "dogs"])
    assert {name: each.overall.value for name, each in found.items()} == {
        "x/energy": 0.5,
        "b/c/x/energy": 1.0,
    }
    assert {name: each.value for name, each in found["x/energy"].groups.items()} == {
        "cats": 0.75,
        "dogs": 0.25,
    }
    assert results.measure()["x/energy"].groups == {}
    assert [results.name_of(key) for key in samples] == list(found)
