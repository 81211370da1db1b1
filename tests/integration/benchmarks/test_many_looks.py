"""The courses of the benchmark of many looks: whole runs of few looks, and the arithmetic. No seconds are asserted."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.common.measure import Took
from benchmarks.cost import many_looks
from lightning_gcam.report import read_run


def test_the_exponent_is_the_power_that_was_put_in() -> None:
    for power in (1, 1.5, 2):
        assert many_looks.exponent({count: 3.0 * count**power for count in (50, 200, 1000)}) == pytest.approx(
            power
        )


def test_a_course_has_its_tenths_and_its_end() -> None:
    course = many_looks.Course(tuple(Took(2.0, number) for number in range(100)), Took(50.0, 7.0))
    assert course.tenths == [4.5 + 10 * tenth for tenth in range(10)]
    assert course.processor == sum(range(100)) + 7
    assert course.wall == 2.5


@pytest.mark.parametrize("name", [name for name in many_looks.CONTENDERS if name != "W&B, offline"])
def test_every_look_is_there(tmp_path: Path, name: str) -> None:
    record = many_looks.first_look()
    look, finish = many_looks.CONTENDERS[name](tmp_path / "run")
    for step in range(12):
        look(many_looks.restamped(record, step))
    finish()
    run = read_run(tmp_path / "run" if name != "TensorBoard" else tmp_path)
    assert sorted(next(iter(run.monitors.values())).looks) == [*range(12)]
    assert {alert["step"] for alert in run.alerts} == {0, 10}


def test_the_section_has_a_row_each_and_says_what_was_missed() -> None:
    def course(count: int, power: float) -> many_looks.Course:
        return many_looks.Course((Took(0.1, 0.0),) * count, Took(0.0, count**power))

    found = {
        name: {count: course(count, power) for count in (10, 100)} for name, power in (("a", 1), ("b", 2))
    }
    section = many_looks.report(found, (10, 100, 1000), {"CPU": "one"})
    assert "| a | 10.00 | 100.00 |  | 1.00 |" in section and "| b | 100.00 | 10000.00 |  | 2.00 |" in section
    assert "- met: a" in section and "- MISSED: b" in section and "CPU one" in section
