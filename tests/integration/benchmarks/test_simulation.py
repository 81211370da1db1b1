"""The simulation of the alarm's rule: what is simulated, and what the rule makes of it."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.shortcuts import simulation
from benchmarks.shortcuts.simulation import Task, answers, exchanged, measured, spoken, without_object


@pytest.mark.parametrize(
    ("task", "chance", "mates"),
    [
        (Task(16, 2, 0.9), 0.5, 16),
        (Task(16, 10, 0.9), 2 / 16, 12),
        (Task(64, 100, 0.9), 1 / 64, 0),
        (Task(64, 10, 0.9), 7 / 64, 64),
    ],
)
def test_chance_and_mates_are_those_of_balanced_samples(task, chance, mates):
    assert (task.chance, task.mates) == (pytest.approx(chance), mates)


def test_answers_have_their_share_and_go_together_from_look_to_look():
    draw = np.random.default_rng(1)
    found = answers(draw, 0.3, 2, 20000)
    assert found.shape == (2, 20, 20000) and found.mean() == pytest.approx(0.3, abs=0.03)
    found = found[1]
    near, far = (np.corrcoef(found[0], found[look])[0, 1] for look in (1, 19))
    assert near == pytest.approx(0.75, abs=0.05) and far == pytest.approx(0.5, abs=0.05)
    assert (answers(draw, 1.0, 3, 8, 2) == 2).all()


def test_measurements_are_those_of_the_checks():
    once, twice = (measured(np.array([[[0, 1, 1, times]]]), times)[0][0] for times in (1, 2))
    assert (once.value, once.n) == (0.75, 4) and (twice.value, twice.n) == (0.5, 4)
    assert not measured(np.zeros((1, 1, 0), dtype=int))[0][0].n


def test_the_alarm_speaks_of_what_is_left_and_seldom_where_nothing_is():
    """At most 1 run in 20 of those where nothing is left; with 60 runs a few more by chance."""
    for task in (Task(16, 2, 0.9), Task(16, 10, 0.6)):
        assert spoken(without_object, task, 0.0, 60) <= 0.1
        assert spoken(without_object, task, 1.0, 20) >= 0.9
    assert spoken(exchanged, Task(16, 10, 0.95), 0.0, 10) == 0
    assert spoken(exchanged, Task(16, 10, 0.95), 0.75, 10) == 1


def test_the_page_has_both_tables(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(simulation, "TASKS", ((10, 0.9),))
    monkeypatch.setattr(simulation, "SAMPLES", (16,))
    simulation.main(["--runs", "2", "--output", str(tmp_path / "page.md")])
    page = (tmp_path / "page.md").read_text()
    assert page.count("| --- |") == 2 and "<!-- simulation: end -->" in page
    assert "`trusted_share=0.38`" in capsys.readouterr().out
