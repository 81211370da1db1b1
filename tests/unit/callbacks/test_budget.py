"""How often the causal checks are made within a share of the training's forwards: the rule, by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_gcam import SaliencyMonitor
from lightning_gcam.callbacks.budget import CheckBudget, Interval
from lightning_gcam.callbacks.positions import num_samples_in
from lightning_gcam.data import SaliencyBatch
from lightning_gcam.pipeline.record import LookCost, SaliencyRecord, Stamp
from lightning_gcam.utils.errors import InputError
from tests.support.toys import listening

USUAL = Interval(training=1600, maps=16, checks=240, step=20, steps=10)


@pytest.mark.parametrize(
    ("interval", "max_overhead", "every"),
    [
        (USUAL, 0.05, 4),  # 80 forwards a look, of which 64 are left for 240
        (USUAL, 0.16, 1),  # 256 is just enough
        (USUAL, 0.1599, 2),
        (replace(USUAL, training=160_000), 0.05, 1),
        (replace(USUAL, training=340), 0.05, 240),  # one forward is left
        (replace(USUAL, training=100), 0.05, 240),  # the maps alone are dearer
        (replace(USUAL, training=0), 0.05, 240),
        (replace(USUAL, checks=0), 0.05, 1),
    ],
)
def test_the_looks_cost_no_more_than_the_bound(interval: Interval, max_overhead: float, every: int) -> None:
    assert interval.looks_per_check(max_overhead) == every
    bound = max_overhead * interval.training
    if bound > interval.maps:
        assert interval.maps + interval.checks / every <= bound + 1e-9
        assert every == 1 or interval.maps + interval.checks / (every - 1) > bound


@pytest.mark.parametrize("looks", range(2, 30))
def test_two_looks_behind_the_first_have_checks_where_the_length_is_known(looks: int) -> None:
    scarce = replace(USUAL, training=1)
    every = scarce.looks_per_check(0.05, total_steps=10 * looks)
    with_checks = range(1, looks + 1, every)
    assert len(with_checks) >= min(looks, 3)
    assert every == max((looks - 1) // 2, 1)


def test_a_narrower_bound_never_makes_more_checks() -> None:
    shares = [0.001 * number for number in range(1, 300)]
    found = [USUAL.looks_per_check(share) for share in shares]
    assert found == sorted(found, reverse=True) and found[0] == 240 and found[-1] == 1


def test_an_unknown_length_sets_no_limit() -> None:
    assert USUAL.looks_per_check(0.011, math.inf) == math.ceil(240 / (0.011 * 1600 - 16))
    assert replace(USUAL, steps=0).looks_per_check(0.05, 100) == 4


def look(step: int, checks: int = 240) -> SaliencyRecord:
    """A record of which only the step and the cost are read."""
    return SaliencyRecord(None, None, {}, Stamp(step), cost=LookCost(16, checks))  # type: ignore[arg-type]


def train(budget: CheckBudget) -> None:
    """Count a training with 500 samples and 100 for validation."""
    budget.count_trained(torch.zeros(500, 1))
    budget.count_validated(torch.zeros(100, 1))


def run(budget: CheckBudget, looks: int, first: int = 1, total: float = math.inf) -> list[int]:
    """The numbers of the looks with checks."""
    made = []
    for number in range(first, first + looks):
        train(budget)
        if budget.allows_checks(10 * number, total):
            made.append(number)
        budget.add_look(look(10 * number, 240 if number in made else 0))
    return made


def test_the_first_look_has_checks_and_then_one_in_so_many() -> None:
    with listening() as said:
        assert run(CheckBudget(0.05), 10) == [1, 5, 9]
    (words,) = [each for each in said if "one look in 4" in each]
    for part in ("240 forwards", "allows 80 a look", "max_overhead=0.05", "`max_overhead=None`"):
        assert part in words
    assert run(CheckBudget(None), 10) == list(range(1, 11))
    assert run(CheckBudget(0.16), 10) == list(range(1, 11))


def test_a_short_run_has_more_than_the_bound_allows_and_is_told_so() -> None:
    with listening() as said:
        assert run(CheckBudget(0.02), 6, total=60) == [1, 3, 5]
    assert any("so short a run has two looks with checks" in each for each in said)


def test_a_look_whose_checks_wait_is_followed_by_another_try() -> None:
    budget = CheckBudget(0.05)
    assert run(budget, 4) == [1]
    train(budget)
    assert budget.allows_checks(50)
    budget.add_look(look(50, checks=0))
    train(budget)
    assert budget.allows_checks(60)


def test_looks_at_uneven_intervals_are_averaged() -> None:
    """Two looks a step apart, and then 15 steps none, as an epoch's and a step's looks may lie."""
    budget, made, before = CheckBudget(0.05), [], 0
    for step in [8, 9, 16, 18, 24, 27, 32, 36, 40, 45, 48, 54, 56, 63, 64]:
        budget.count_trained(torch.zeros(8 * (step - before), 1))
        if budget.allows_checks(step, 64):
            made.append(step)
        budget.add_look(look(step, 240 if step in made else 0))
        before = step
    assert made[0] == 8 and len(made) >= 3


def test_where_a_check_is_monitored_all_looks_have_checks() -> None:
    budget = CheckBudget(0.05)
    with listening() as said:
        for number in range(1, 6):
            budget.count_trained(torch.zeros(10, 1))
            assert budget.allows_checks(number, 100, {"saliency/color_follow_rate"})
            budget.add_look(look(number))
    (words,) = [each for each in said if "monitors saliency/color_follow_rate" in each]
    assert "beyond `max_overhead`" in words


def test_without_checks_nothing_is_decided() -> None:
    budget = CheckBudget(0.05)
    for number in range(5):
        assert budget.allows_checks(number)
        budget.add_look(look(number, checks=0))
    assert budget.state_dict() == {}


@pytest.mark.parametrize("stop", [1, 2, 3, 4, 5, 7])
def test_a_resumed_run_takes_the_same_looks(stop: int) -> None:
    whole, first, second = CheckBudget(0.05), CheckBudget(0.05), CheckBudget(0.05)
    before = run(first, stop)
    second.load_state_dict(first.state_dict())
    assert before + run(second, 12 - stop, first=stop + 1) == run(whole, 12)


@pytest.mark.parametrize("max_overhead", [0, -0.1, True, "5%", math.nan, math.inf, [0.05]])
def test_what_is_no_share_is_refused(max_overhead: Any) -> None:
    with pytest.raises(InputError, match=r"`max_overhead` must be a share of the training's forwards"):
        SaliencyMonitor(max_overhead=max_overhead)


@pytest.mark.parametrize(
    "change", [{"training": "many"}, {"checked": [1, 2]}, {"looks": None}, {"since_checks": -1}]
)
def test_a_broken_state_is_refused(change: dict[str, Any]) -> None:
    budget = CheckBudget(0.05)
    run(budget, 3)
    with pytest.raises(InputError, match="`budget`"):
        CheckBudget(0.05).load_state_dict({**budget.state_dict(), **change})


@pytest.mark.parametrize(
    ("batch", "n"),
    [
        ((torch.zeros(6, 3, 4, 4), torch.zeros(6)), 6),
        ({"image": torch.zeros(5, 1, 2, 2), "label": torch.zeros(5), "ids": ["a"] * 5}, 5),
        (SaliencyBatch(torch.zeros(3, 1, 2, 2)), 3),
        ({"image": torch.zeros(8, 3, 32, 32), "label": torch.zeros(8), "boxes": [torch.zeros(1, 4)] * 8}, 8),
        ((torch.zeros(8, 3, 32, 32), [{"boxes": torch.zeros(2, 4), "labels": torch.zeros(2)}] * 8), 8),
        (([torch.zeros(3, 32, 32 + each) for each in range(8)], [{"boxes": torch.zeros(2, 4)}] * 8), 8),
        ((torch.zeros(9, 2, 187), torch.zeros(9)), 9),
        (torch.zeros(7, 12), 7),
        (None, 1),
        (object(), 1),
        ([], 1),
    ],
)
def test_the_samples_of_a_batch_are_counted(batch: Any, n: int) -> None:
    assert num_samples_in(batch) == n


def test_the_table_of_the_docs() -> None:
    page = (Path(__file__).parents[3] / "docs" / "guides" / "cost.md").read_text(encoding="utf-8")
    table = page.split("| training samples |")[1].split("\n\n")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:]]
    assert len(rows) == 5
    for samples, *texts in rows:
        n = int(samples.split()[0].replace(",", ""))
        for text, versions in zip(texts, (15, 22), strict=True):
            found = Interval(3 * n + n // 5, maps=16, checks=versions * 16, step=2, steps=1)
            every = found.looks_per_check(0.05)
            assert text == "every look" if every == 1 else text.split()[-1] == str(every)
