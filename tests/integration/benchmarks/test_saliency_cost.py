"""A tiny run of the benchmark: its rows, its report, and that nothing in it is zero. No seconds are asserted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[3]
SCRIPT = "benchmarks.cost.saliency_cost"
SMALL = ["--model=resnet18", "--batch=2", "--size=64", "--threads=1", "--volume=16"]
ROWS = [
    "plain forward, no maps",
    "forward and backward, no maps",
    "**lightning-gcam**, one map",
    "**lightning-gcam**, six maps",
    "torchcam, one map",
    "torchcam, four in turn",
    "captum, one map",
    "grad-cam, one map",
    "grad-cam, five in turn",
    "MONAI, one map",
]
VOLUMES = [
    "plain forward, no maps",
    "forward and backward, no maps",
    "**lightning-gcam**, one map",
    "torchcam, one map",
    "captum, one map",
    "grad-cam, one map",
    "MONAI, one map",
]


def run(*arguments: str) -> str:
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", SCRIPT, *SMALL, *arguments],
        env=os.environ | {"PYTHONPATH": path},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout


@pytest.fixture
def measure() -> ModuleType:
    from benchmarks.common import measure

    return measure


@pytest.fixture
def saliency_cost(measure: ModuleType) -> ModuleType:
    from benchmarks.cost import saliency_cost

    return saliency_cost


@pytest.mark.slow
def test_a_small_run_prints_and_writes_every_row(
    saliency_cost: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page, numbers = tmp_path / "benchmarks.md", tmp_path / "numbers.json"
    saliency_cost.main([*SMALL, "--rounds=2", "--memory-rounds=0", f"--output={page}", f"--json={numbers}"])
    printed = capsys.readouterr().out

    lines = [line.split("|") for line in printed.splitlines() if line.startswith("| ")]
    rows = [line for line in lines if line[2].strip().isdigit()]
    assert [row[1].strip() for row in rows] == ROWS + VOLUMES
    assert [int(row[2]) for row in rows] == [0, 0, 1, 6, 1, 4, 1, 1, 5, 1, 0, 0, 1, 1, 1, 1, 1]
    missing = [row for row in rows if row[3].strip() in ("not installed", "refuses them")]
    assert {row[1].strip() for row in missing} <= {"MONAI, one map", "**lightning-gcam**, one map"}
    assert all(float(row[3]) > 0 and float(row[5]) > 0 for row in rows if row not in missing)
    assert float(rows[0][3]) == 1
    assert "six maps for at most 1.10 forwards" in printed
    assert printed.strip() in page.read_text()

    results = json.loads(numbers.read_text())
    assert all(len(calls) == 2 for calls in results["took"].values())
    assert all(wall > 0 and processor > 0 for calls in results["took"].values() for wall, processor in calls)
    assert all(difference < 1e-4 for difference in results["agreement"].values())
    assert set(results["agreement"]) == {"grad-cam", "torchcam"}


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is measured on Linux")
def test_memory_of_one_contender_is_measured_in_a_process_of_its_own() -> None:
    assert float(run("--memory-of=ours_six").splitlines()[-1]) > 0


PASSING = """
from benchmarks.common.measure import peak_extra_memory

def call():
    passing = bytearray(b"1") * (64 * 1024 * 1024)
    del passing

print(peak_extra_memory(call))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is measured on Linux")
def test_peak_memory_sees_what_was_freed_before_the_end() -> None:
    """In a process of its own: one that has freed as much before may be given the same memory again."""
    done = subprocess.run(
        [sys.executable, "-c", PASSING], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    )
    assert float(done.stdout) == pytest.approx(64, abs=4)


def test_timing_calls_everything_once_a_round_and_once_before(measure: ModuleType) -> None:
    called: list[str] = []
    calls = {name: (lambda name=name: called.append(name)) for name in "abc"}
    took = measure.clock_interleaved(calls, rounds=4, between=lambda: None)
    assert [len(values) for values in took.values()] == [4, 4, 4]
    assert [sorted(called[start : start + 3]) for start in range(0, 15, 3)] == [["a", "b", "c"]] * 5


def test_timing_gives_seconds_on_the_wall_and_of_the_processor(measure: ModuleType) -> None:
    took = measure.clock_once(lambda: time.sleep(0.05))
    assert took.processor < took.wall
    seconds = measure.time_interleaved({"pause": lambda: time.sleep(0.01)}, rounds=2)
    assert all(second >= 0.01 for second in seconds["pause"])


def test_spread_of_one_value_and_of_several(measure: ModuleType) -> None:
    assert measure.spread([2.0]) == (2, 2, 2)
    assert measure.spread([5.0, 1.0, 3.0, 2.0, 4.0]) == (2, 3, 4)
    assert measure.spread([5.0, 1.0, 3.0, 2.0, 4.0]).over(2) == (1, 1.5, 2)


def test_a_section_is_written_again_and_the_rest_is_kept(measure: ModuleType, tmp_path: Path) -> None:
    page = tmp_path / "docs" / "page.md"
    measure.write_section(page, "one", "first")
    measure.write_section(page, "two", "other")
    page.write_text(page.read_text().replace("# Benchmarks", "# Benchmarks\n\nBy hand."))
    measure.write_section(page, "one", "second")
    assert page.read_text() == (
        "# Benchmarks\n\nBy hand.\n\n<!-- one: begin -->\nsecond\n<!-- one: end -->\n\n"
        "<!-- two: begin -->\nother\n<!-- two: end -->\n"
    )


@pytest.mark.parametrize(
    ("six", "memory", "verdicts"), [(1.10, 50, ["met", "met"]), (1.11, 51, ["MISSED"] * 2)]
)
def test_goals_are_met_or_missed(
    saliency_cost: ModuleType, measure: ModuleType, six: float, memory: float, verdicts: list[str]
) -> None:
    times = {"ours_six": measure.Spread(six, six, six)}
    mebibytes = {"ours_six": [memory], "torchcam_one": [150], "captum_one": [160], "grad_cam_one": [300]}
    goals = saliency_cost.goals(times, mebibytes)
    assert [str(goal).split(":")[0] for goal in goals] == verdicts
    assert "torchcam, one map" in goals[1].text


def test_a_busy_machine_is_told(saliency_cost: ModuleType, measure: ModuleType) -> None:
    assert saliency_cost.noise({"forward": measure.Spread(0.97, 1, 1.05)}) == []
    (line,) = saliency_cost.noise({"forward": measure.Spread(0.6, 1, 1.7)})
    assert "busy" in line and "0.60" in line and "1.70" in line


def test_a_contender_that_is_not_there_has_a_row_that_says_so(
    saliency_cost: ModuleType, measure: ModuleType
) -> None:
    from benchmarks.cost.explainers import Contender

    contenders = {
        "forward": Contender("plain forward", 0, [], lambda scene: []),
        "absent": Contender("a stranger", 1, ["no_such_package.maps"], lambda scene: []),
        "refusing": Contender("one who refuses", 1, ["torch"], lambda scene: []),
    }
    lines = saliency_cost.table(contenders, {"forward": [measure.Took(1, 1)]}, {}).splitlines()
    assert lines[-2:] == [
        "| a stranger | 1 | not installed |  |  |  |",
        "| one who refuses | 1 | refuses them |  |  |  |",
    ]


def test_hooks_that_a_library_leaves_on_a_layer_are_removed() -> None:
    from torch import nn

    from benchmarks.cost.explainers import added_hooks_removed

    layer, seen = nn.Linear(1, 1), []
    layer.register_forward_hook(lambda *_: seen.append("own"))
    with added_hooks_removed(layer):
        layer.register_forward_hook(lambda *_: seen.append("theirs"))
        layer.register_full_backward_hook(lambda *_: None)
    assert len(layer._forward_hooks) == 1
    assert len(layer._backward_hooks) == 0
