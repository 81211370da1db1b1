"""The rivals draw the picture that they are timed for; the table says what was measured. No seconds are asserted."""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture
def rendering() -> ModuleType:
    from benchmarks.cost import rendering

    return rendering


@pytest.mark.parametrize("name", ["ours", "matplotlib", "matplotlib_complete", "cv2", "cv2_complete"])
def test_everyone_draws_five_samples_that_differ_with_their_maps(rendering: ModuleType, name: str) -> None:
    scene = rendering.set_scene(5, 32)
    draws = rendering.CONTENDERS[name].draws
    picture, other = draws(scene), draws(scene._replace(maps=scene.maps.flip(0)))
    assert picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3
    assert picture.shape[0] * picture.shape[1] > 5 * 2 * 160 * 160
    assert picture.shape == other.shape and not np.array_equal(picture, other)


@pytest.mark.parametrize("name", ["matplotlib", "cv2"])
def test_the_same_picture_has_outlines_and_the_bare_one_has_none(rendering: ModuleType, name: str) -> None:
    scene = rendering.set_scene(2, 32)
    elsewhere = scene._replace(masks=scene.masks.roll(8, dims=2), captions=["other"] * 2)
    for contender, differs in ((name, False), (f"{name}_complete", True)):
        draws = rendering.CONTENDERS[contender].draws
        assert np.array_equal(draws(scene), draws(elsewhere)) is not differs


def test_ratios_are_of_our_median(rendering: ModuleType) -> None:
    from benchmarks.common.measure import Took

    def found(*seconds: float) -> dict[str, object]:
        return {"took": [Took(each, 2 * each) for each in seconds], "pixels": [30, 20], "memory": None}

    measured = {name: found(0.3, 0.2, 0.1) for name in rendering.CONTENDERS}
    measured["cv2"] = {**found(0.1, 0.05, 0.9), "memory": 12.4}
    rows = [line.split(" | ") for line in rendering.table(measured).splitlines()]
    assert rows[2][2:] == ["200", "150 to 250", "1.00", "1.00", "not measured |"]
    assert rows[5][1:] == ["30 x 20", "100", "75 to 500", "0.50", "0.50", "12 |"]


def test_the_goal_is_three_times_the_same_picture_of_cv2(rendering: ModuleType) -> None:
    from benchmarks.common.measure import Took

    for seconds, met in ((0.3, True), (0.4, False)):
        found = {"ours": {"took": [Took(seconds, 0.5)]}, "cv2_complete": {"took": [Took(0.1, 0.1)]}}
        goal = rendering.goal(224, found)
        assert goal.met is met and f"{10 * seconds:.1f} times (processor time 5.0)" in goal.text


@pytest.mark.slow
def test_a_small_run_prints_and_writes_every_row(
    rendering: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "benchmarks.md"
    small = [
        "--samples=2",
        "--sizes",
        "32",
        "48",
        "--growth",
        "64",
        "--rounds=1",
        "--threads=1",
        "--no-memory",
        f"--output={page}",
    ]
    rendering.main(small)
    printed = capsys.readouterr().out
    assert printed.strip() in page.read_text()
    for contender in rendering.CONTENDERS.values():
        assert printed.count(f"| {contender.label} |") == 2
    assert printed.count("- Goal ") == 2
    assert "| 4 x 64 x 64 |" in printed and "| 64 x 32 x 32 |" in printed


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak is the Linux kernel's")
def test_memory_is_measured_in_a_process_of_its_own(
    rendering: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    assert rendering.measure_memory("ours", 4, 160, 1) > 1  # a picture alone is some 0.9 MiB
