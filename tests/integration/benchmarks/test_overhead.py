"""A tiny run of the benchmark: its rows, its goals, and that nothing in it is zero. No seconds are asserted."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

SMALL = ["--size=48", "--samples=2", "--epochs=2", "--batches=1", "--threads=1", "--rounds=1"]
PARTS = [
    "plain forward",
    "model time",
    "scores",
    "rendering",
    "logging",
    "**a look of ours**",
    "causal checks",
    "**a look of ours with the checks**",
    "by hand: grad-cam",
    "by hand: one figure, `add_figure`",
    "**a look by hand**",
    "by hand: a figure a sample instead",
]


@pytest.fixture
def measure() -> ModuleType:
    from benchmarks.common import measure

    return measure


@pytest.fixture
def overhead(measure: ModuleType) -> ModuleType:
    from benchmarks.cost import overhead

    return overhead


@pytest.fixture
def same_loggers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A run seeds everything and silences Lightning; both go back."""
    loggers = [
        logging.getLogger(name) for name in ("pytorch_lightning", "lightning.pytorch", "lightning_gcam")
    ]
    levels = [each.level for each in loggers]
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")
    yield
    for each, level in zip(loggers, levels, strict=True):
        each.setLevel(level)


@pytest.mark.slow
@pytest.mark.usefixtures("same_loggers")
def test_a_small_run_prints_and_writes_every_row(
    overhead: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    page, numbers = tmp_path / "benchmarks.md", tmp_path / "numbers.json"
    fewer = overhead.NETWORKS["small"]._replace(size=32, batch=8, times=2)
    monkeypatch.setitem(overhead.NETWORKS, "small", fewer)
    monkeypatch.chdir(tmp_path)

    overhead.main([*SMALL, f"--output={page}", f"--json={numbers}"])

    printed, results = capsys.readouterr().out, json.loads(numbers.read_text())

    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in printed.splitlines() if "|" in line]
    trainings, parts = [row for row in rows if len(row) == 9][2:], [row for row in rows if len(row) == 6][2:]
    assert [row[1].split(":")[0] for row in trainings] == [
        "none",
        "**SaliencyMonitor**, `checks=[]`",
        "**SaliencyMonitor**, all checks at every look",
        "**SaliencyMonitor()**",
        "by hand",
    ] * 2
    assert [row[8] for row in trainings if "Monitor" in row[1]] == ["the same"] * 6
    assert [row[0] for row in parts] == PARTS
    assert all(float(row[1]) > 0 for row in parts)
    assert printed.count("- Goal ") == 6
    assert printed.strip() in page.read_text()

    for name, found in results["training"].items():
        assert len(found["looks"]) == (0 if name.endswith("none") else 2)  # one round of two epochs
        assert all(wall > 0 and processor > 0 for wall, processor in [*found["looks"], *found["took"]])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["benchmarks.md", "numbers.json"]


@pytest.mark.parametrize(
    ("parts", "look", "verdicts"),
    [
        ({"attribution": 1.10, "scores": 0.20, "rendering": 0.02, "logging": 0.03}, 0.2, ["met"] * 6),
        (
            {"attribution": 1.20, "scores": 0.20, "rendering": 0.05, "logging": 0.03},
            0.25,
            ["MISSED", "MISSED", "MISSED", "met", "MISSED", "MISSED"],
        ),
    ],
)
def test_goals_are_met_or_missed(
    overhead: ModuleType, measure: ModuleType, parts: dict[str, float], look: float, verdicts: list[str]
) -> None:
    training = {
        f"{network} {callback}": {"looks": [measure.Took(seconds, seconds)]}
        for network in overhead.NETWORKS
        for callback, seconds in [("ours", look), ("checked", 5 * look), ("by_hand", 1.0)]
    }
    took = {name: [measure.Took(value, value)] for name, value in {"forward": 1.0001, **parts}.items()}

    goals = overhead.goals(training, took)

    assert [str(goal).split(":")[0] for goal in goals] == verdicts


def test_parts_are_added_up_round_by_round(overhead: ModuleType, measure: ModuleType) -> None:
    parts = {
        "rendering": [measure.Took(1, 2), measure.Took(5, 6)],
        "logging": [measure.Took(2, 1), measure.Took(1, 1)],
    }

    assert overhead.together(parts, ["rendering", "logging"]) == [(3, 3), (6, 7)]
