"""Two real processes share an evaluation: each sample counts once, and the table is that of one process."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.support.evaluation_script import evaluate
from tests.support.processes import Ended, run_script

TIMEOUT = 280
ODD = 21
"""Samples: eleven for one process, ten and a second one of the first for the other."""


def run(directory: Path, **options: Any) -> Ended:
    """An evaluation by two processes."""
    directory.mkdir(exist_ok=True)
    given = json.dumps({"devices": 2, **options})
    return run_script("tests.support.evaluation_script", str(directory), given, processes=2, timeout=TIMEOUT)


def seen(directory: Path) -> list[dict[str, Any]]:
    """What each process had in the end."""
    return [json.loads((directory / f"rank{rank}.json").read_text()) for rank in (0, 1)]


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("together")
    done = run(directory, n=ODD)
    assert done.returncode == 0, done.said[-4000:]
    return directory


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return evaluate(tmp_path_factory.mktemp("alone"), n=ODD)


def test_both_have_the_same_table(together: Path) -> None:
    left, right = seen(together)
    assert (left["rows"], left["facts"]) == (right["rows"], right["facts"])
    assert left["facts"]["processes"] == 2


def test_the_table_is_that_of_one_process(together: Path, alone: dict[str, Any]) -> None:
    """All numbers to the last bit, though each process had other batches; no sample counts twice."""
    found, _ = seen(together)
    assert found["facts"]["samples"] == ODD
    assert {row["n"] + row["left_out"] for row in found["rows"]} == {ODD}
    assert found["rows"] == alone["rows"]
    assert found["facts"]["forwards"] == alone["facts"]["forwards"]


def test_the_work_is_shared(together: Path, alone: dict[str, Any]) -> None:
    assert max(each["looks"] for each in seen(together)) < 0.8 * alone["looks"]


def test_only_one_writes(together: Path) -> None:
    names = sorted(path.name for path in together.iterdir())
    assert names == ["evaluation.json", "rank0.json", "rank1.json", "scores.csv"]


@pytest.mark.parametrize("size", [64, 8])
def test_the_checks_are_those_of_one_process(size: int, tmp_path: Path) -> None:
    """On the same balanced samples, each once; in both, the same model, of which each ran its share."""
    options: dict[str, Any] = {"n": ODD, "bordered": True, "check_samples": size, "checks": ["border"]}
    done = run(tmp_path / "together", **options)
    assert done.returncode == 0, done.said[-4000:]
    left, right = seen(tmp_path / "together")
    alone = evaluate(tmp_path / "alone", **options)
    assert left["reliance"] == right["reliance"] == alone["reliance"]
    measured = alone["reliance"]["measurements"]
    assert (measured["border_follow_rate"]["value"], measured["border_follow_rate"]["n"]) == (
        1.0,
        min(size, ODD),
    )
    assert max(each["looks"] for each in (left, right)) < 0.8 * alone["looks"]


def test_checks_that_fail_in_one_process_are_left_out_in_both(tmp_path: Path) -> None:
    """Neither waits for the other forever, and the table comes all the same."""
    breaks = {"at": 2, "how": "break in the second process", "on_error": "warn"}
    options: dict[str, Any] = {"n": ODD, "bordered": True}
    done = run(tmp_path / "together", checks=["border"], **options, **breaks)
    assert done.returncode == 0, done.said[-4000:]
    assert "Checking what the model relies on failed, and the test goes on without it" in done.said
    left, right = seen(tmp_path / "together")
    assert left["reliance"] == right["reliance"] is None
    assert left["rows"] == right["rows"] == evaluate(tmp_path / "alone", **options)["rows"]


@pytest.mark.slow
def test_two_that_are_killed_go_on(tmp_path: Path, alone: dict[str, Any]) -> None:
    """Both are killed in their second batch; one process alone finishes what they began."""
    stopped = run(tmp_path, n=ODD, at=1, how="kill")
    assert stopped.codes == (-signal.SIGKILL, -signal.SIGKILL)
    kept = list(tmp_path.glob("saliency_evaluation-*/*.npz"))
    assert len(kept) >= 2
    resumed = evaluate(tmp_path, n=ODD)
    assert resumed["rows"] == alone["rows"]
