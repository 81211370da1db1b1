"""The shortcut benchmark, small: its cues, its verdicts by hand, and two trainings that differ in one thing only."""

from __future__ import annotations

import json
import math
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from lightning_gcam.cam import available_methods
from lightning_gcam.metrics import Measurement
from lightning_gcam.shortcuts import Evidence, Reliance, Thresholds
from lightning_gcam.shortcuts.removal import DEFAULT_REMOVAL


@pytest.fixture(scope="module")
def modules() -> Any:
    from benchmarks.common import cues, three_digits
    from benchmarks.shortcuts import comparisons, runs, shortcuts, verdicts

    return {
        "cues": cues,
        "runs": runs,
        "comparisons": comparisons,
        "script": shortcuts,
        "digits": three_digits,
        "verdicts": verdicts,
    }


@pytest.fixture(scope="module")
def cues(modules: dict[str, ModuleType]) -> ModuleType:
    return modules["cues"]


@pytest.fixture(scope="module")
def runs(modules: dict[str, ModuleType]) -> ModuleType:
    return modules["runs"]


@pytest.fixture(scope="module")
def verdicts(modules: dict[str, ModuleType]) -> ModuleType:
    return modules["verdicts"]


# ------------------------------------------------------------------------------------------------ cues


def test_a_shuffled_cue_is_all_that_differs(cues: ModuleType) -> None:
    scans = cues.Scans(torch.rand(20, 8, 8), torch.arange(20) % 10)
    for cue in [*cues.CUES, cues.ON_THE_OBJECT, *cues.FURTHER]:
        told, shuffled = (cues.draw(scans, 20, cues.Plan(cue, p), seed=3) for p in (1.0, 0.0))
        assert torch.equal(told.labels, shuffled.labels)
        assert torch.equal(told.masks, shuffled.masks)
        assert torch.equal(told.suspect, shuffled.suspect)
        assert not torch.equal(told.images, shuffled.images)
        assert not (told.masks & told.suspect).any()
        same = (told.images == shuffled.images).all(dim=1)
        if told.suspect.any():
            assert same[~told.suspect].all()
        if cue == cues.ON_THE_OBJECT:
            assert same[~told.masks].all()
        assert told.suspect.any() == (cue in ("corner", "frame", "mark", "plate"))


def test_strength_is_the_share_of_samples_whose_cue_tells(cues: ModuleType) -> None:
    labels = torch.arange(10_000) % 10
    for strength in (1.0, 0.9, 0.0):
        right = (cues.kinds_of(labels, strength, seed=1) == labels).float().mean()
        assert float(right) == pytest.approx(strength + (1 - strength) / 10, abs=0.01)


def test_materials_differ_in_texture_only(cues: ModuleType) -> None:
    for material in cues.load_materials():
        assert float(material.mean()) == pytest.approx(cues.GROUND, abs=0.02)
        assert float(material.std()) == pytest.approx(cues.CONTRAST, abs=0.03)
        assert min(material.shape) >= cues.CANVAS


# -------------------------------------------------------------------------------------------- verdicts


def look(accuracy: float, without: float, exchanged: float | None = None, n: int = 100) -> Evidence:
    values = {"accuracy": accuracy, "background_only_accuracy": without, "suspect_swap_accuracy": exchanged}
    measured = {
        name: Measurement(value, n, 0, 0, 0, (max(value - 0.1, 0.0), min(value + 0.1, 1.0)))
        for name, value in values.items()
        if value is not None
    }
    return Evidence(0, 0, Reliance(measured, 0.1), {"energy": 1 - without})


def test_roc_area_counts_pairs(verdicts: ModuleType) -> None:
    assert verdicts.roc_area([3.0, 1.0], [2.0, 1.0]) == (1 + 1 + 0 + 0.5) / 4
    assert verdicts.roc_area([verdicts.SILENT], [verdicts.SILENT]) == 0.5
    assert math.isnan(verdicts.roc_area([], [1.0]))


def test_the_threshold_has_no_false_alarm_where_it_was_chosen(verdicts: ModuleType) -> None:
    assert verdicts.choose_threshold([0.1, 0.6, 0.9], [0.2, 0.0]) == pytest.approx(0.4)
    assert verdicts.choose_threshold([0.1], [0.2]) == math.inf
    assert verdicts.choose_threshold([0.3], [verdicts.SILENT]) == 0.3


def test_two_looks_in_a_row_have_to_agree(verdicts: ModuleType) -> None:
    values = [0.9, 0.1, 0.8, 0.7]
    assert verdicts.in_a_row(values) == [verdicts.SILENT, 0.1, 0.1, 0.7]
    assert verdicts.first_look(values, 0.5) == 4
    assert verdicts.first_look(values, 0.8) is None


def test_what_the_alarm_compares_is_where_it_speaks(verdicts: ModuleType) -> None:
    history = [look(0.12, 0.9), look(0.9, 0.9), look(0.9, 0.5), look(0.9, 0.4, 0.2), look(0.9, 0.1, 0.2)]
    assert verdicts.surviving(history) == pytest.approx([verdicts.SILENT, 1.0, 0.5, 0.375, 0.0])
    assert verdicts.dying(history)[3:] == pytest.approx([0.875, 0.875])
    for threshold, spoke in ((0.45, 3), (0.3, 3), (0.6, 5), (0.9, None)):
        assert verdicts.alarm_speaks(history, Thresholds(survives=threshold, dies=threshold)) == spoke
        assert verdicts.first_look(verdicts.surviving(history), threshold) in (spoke, None)
    on_its_own_samples = look(0.9, 0.9, 0.3)  # of which fewer are right as they are
    before = on_its_own_samples.reliance.measurements["accuracy"]._replace(value=0.5, interval=(0.45, 0.55))
    on_its_own_samples.reliance.measurements["suspect_swap_accuracy_before"] = before
    assert verdicts.dying([on_its_own_samples]) == pytest.approx([0.5])
    unsuspected = [verdicts.without_suspect(each) for each in history]
    assert verdicts.alarm_speaks(unsuspected, Thresholds(survives=0.6)) is None


def test_fewer_samples_are_as_even_over_the_classes_as_may_be(modules: dict[str, ModuleType]) -> None:
    balanced_rows = modules["comparisons"].balanced_rows
    assert balanced_rows([0, 0, 0, 1, 1, 2], 4) == [0, 1, 3, 5]
    assert balanced_rows([0, 1], 2) == [0, 1]


# ------------------------------------------------------------------------------------------- trainings


def test_the_plan_is_the_issues(runs: ModuleType, cues: ModuleType) -> None:
    plan = runs.plan_runs(range(3), [3, 4])
    assert len(plan) == len(set(plan))
    telling = [run for run in plan if run.plan.strength > 0 and run.plan.cue in cues.CUES]
    assert len(telling) == 3 * len(cues.CUES) * len(runs.STRENGTHS)
    assert sum(run.plan.strength == 0 for run in plan) == 5 * (len(cues.CUES) + 1)
    assert len(plan) >= 50


@pytest.mark.filterwarnings("ignore:.*maps are blank:UserWarning")
def test_its_looks_are_not_drawn(runs: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr("lightning_gcam.pipeline.rendering.render_sheets", lambda *_, **__: drawn.append(1))
    monkeypatch.setattr(runs, "REMOVALS", [])
    monkeypatch.setattr(runs, "SCORES", ["energy"])
    line = runs.train(runs.Run(runs.Plan("none", 0.0), 0), runs.Settings(1, 64, 2))
    assert len(line["looks"]) == 1 and drawn == []


@pytest.fixture(scope="module")
def kept(runs: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A corner whose colour is the label, and the same corner in any colour; kept in a file."""
    path, settings = tmp_path_factory.mktemp("runs") / "runs.jsonl", runs.Settings(4, 640, 20)
    wanted = [runs.Run(runs.Plan("corner", strength), 0) for strength in (0.99, 0.0)]
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*maps are blank")
        patch.setattr(runs, "REMOVALS", [DEFAULT_REMOVAL])
        return wanted, settings, path, runs.run_all(wanted, settings, path, workers=0)


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on(runs: ModuleType, kept: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted, settings, path, lines = kept
    whole = path.read_text()
    monkeypatch.setattr(runs, "train", lambda run, settings: lines[wanted.index(run)] | {"seconds": 0.0})

    assert runs.run_all(wanted, settings, path, workers=0) == lines
    assert path.read_text() == whole
    path.write_text(whole[:-100])  # the power went off
    again = runs.run_all(wanted, settings, path, workers=0)
    assert [line["seconds"] > 0 for line in again] == [True, False]
    assert runs.run_all(wanted, settings, path, workers=0) == again
    assert not runs.read_runs(path, settings._replace(epochs=5))
    path.write_text(whole)


@pytest.mark.slow
def test_directions(verdicts: ModuleType, kept: Any) -> None:
    told, untold = (verdicts.Trained(json.loads(json.dumps(line))) for line in kept[3])
    (last, with_cue), (last_too, without) = ((run.looks[-1], run.evidence()[-1]) for run in (told, untold))

    assert last["validation"] > last["honest"] + 0.5
    assert last_too["validation"] == pytest.approx(last_too["honest"], abs=0.05)
    assert (told.truth, untold.truth) == ("relies", "does not")
    assert with_cue.reliance.scores["background_only_accuracy"] > 0.8
    assert without.reliance.scores["background_only_accuracy"] < 0.3
    assert with_cue.scores["energy"] < without.scores["energy"]
    assert with_cue.scores["suspect_lift"] > 1 > without.scores["suspect_lift"]
    assert verdicts.alarm_speaks(told.evidence(), Thresholds()) is not None
    assert verdicts.alarm_speaks(untold.evidence(), Thresholds()) is None


@pytest.mark.slow
def test_the_report_has_every_table(
    modules: dict[str, ModuleType], kept: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script, lines = modules["script"], kept[3]
    monkeypatch.setattr(modules["comparisons"], "REMOVALS", [DEFAULT_REMOVAL])

    text = script.report_trainings(lines, "a command")
    script.draw_histories([modules["verdicts"].Trained(line) for line in lines], tmp_path / "histories.png")

    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")
    ]
    named = {row[0]: row for row in reversed(rows)}
    assert named["**the alarm**"][1:3] == named["`background_only_accuracy`"][1:3] == ["1.000", "1.000"]
    assert named["**the alarm**"][4:6] == ["1 of 1", "0 of 1"]
    assert named["`hires_cam`"][1] == "1.000"
    assert [row[:4] for row in rows if row[0] == "corner"] == [
        ["corner", "0.99", "1", "1 / 0 / 0"],
        ["corner", "any kind", "1", "0 / 0 / 1"],
    ]
    assert text.count("- met: ") + text.count("- MISSED: ") == 4
    assert (tmp_path / "histories.png").stat().st_size > 10_000


# ---------------------------------------------------------------------------------------- three digits


def test_every_method_has_every_score(modules: dict[str, ModuleType]) -> None:
    digits, script = modules["digits"], modules["script"]
    torch.manual_seed(0)
    found = digits.measure_methods(digits.build("pooled").eval(), digits.LAYERS["last"], digits.targets_of(4))

    assert list(found) == [*available_methods()[:6], "centre", "uniform"]
    assert all(list(scores) == list(digits.BETTER) for name, scores in found.items() if name.endswith("cam"))
    # under a pooled head, at the last layer, these three are one map, and guidance is its square
    assert found["grad_cam"] == pytest.approx(found["hires_cam"], abs=1e-4, nan_ok=True)
    assert found["uniform"]["energy"] == pytest.approx(found["uniform"]["pixel_average_precision"], abs=0.01)
    assert found["uniform"]["average_drop"] == 0
    table = script.methods_by_scores(
        {"grad_cam": {**found["grad_cam"], "energy": 0.5}, "centre": found["centre"]}
    )
    assert "| energy (high) | **0.500** |" in table


def test_digits_to_explain_are_three_of_a_canvas(modules: dict[str, ModuleType]) -> None:
    targets = modules["digits"].targets_of(6)
    assert targets.images.shape == (6, 3, 64, 64)
    assert torch.equal(targets.images[0], targets.images[2])
    assert len(set(targets.classes[:3].tolist())) == 3
    assert int(targets.masks[:3].sum(dim=0).max()) == 1  # no digit covers another one
