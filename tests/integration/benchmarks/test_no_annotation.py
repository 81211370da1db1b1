"""The benchmark without annotation, small: two trainings on images and labels that differ in one thing only."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from lightning_gcam.shortcuts import Thresholds

pytestmark = pytest.mark.filterwarnings("ignore:.*maps are blank:UserWarning")


@pytest.fixture(scope="module")
def modules() -> Any:
    from benchmarks.common import cues
    from benchmarks.shortcuts import follows, follows_tables, no_annotation, runs, unannotated

    return {
        "cues": cues,
        "runs": runs,
        "unannotated": unannotated,
        "follows": follows,
        "tables": follows_tables,
        "script": no_annotation,
    }


@pytest.fixture(scope="module")
def kept(modules: dict[str, ModuleType], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A frame whose colour is the label, and the same frame in any colour; kept in a file."""
    runs, path = modules["runs"], tmp_path_factory.mktemp("runs") / "no_annotation.jsonl"
    wanted = [runs.Run(runs.Plan("frame", strength), 0) for strength in (0.99, 0.0)]
    settings = runs.Settings(epochs=6, train_size=640, samples=20)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "train", None)  # not the trainings of the other benchmark
        runs.run_all(wanted, settings, path, 0, modules["unannotated"].train_unannotated)
        lines = runs.run_all(wanted, settings, path, 0)  # from the file
    return json.loads(json.dumps(lines))


def test_the_plan_is_the_issues(modules: dict[str, ModuleType]) -> None:
    plan = modules["unannotated"].plan_unannotated(range(3), range(3, 4))
    assert len(plan) == len(set(plan)) >= 100
    assert sum(run.plan.strength == 0 and run.seed > 0 for run in plan) >= 30
    cues = modules["cues"]
    assert len(cues.FURTHER) >= 4
    follows = modules["follows"]
    assert {*follows.RIGHT, *follows.OUT_OF_REACH} == set(modules["unannotated"].ALL_CUES)
    assert set(follows.DEFAULTS) < set(modules["unannotated"].PROPERTIES)


@pytest.mark.slow
def test_a_line_holds_what_any_rule_needs(modules: dict[str, ModuleType], kept: Any) -> None:
    follows = modules["follows"]
    for line in kept:
        assert [look["epoch"] for look in line["looks"]] == list(range(6))
        assert len(line["labels"]) == len(line["donors"]["others"]) == len(line["donors"]["mates"]) == 20
        labels = line["labels"]
        for row, (others, mates) in enumerate(zip(*line["donors"].values(), strict=True)):
            assert all(labels[each] != labels[row] for each in others)
            assert all(labels[each] == labels[row] and each != row for each in mates)
        for look in line["looks"]:
            assert {len(classes) for classes in look["exchanged"].values()} == {20}
            assert {name.split("_sw")[0].split("_same")[0] for name in look["exchanged"]} == set(
                modules["unannotated"].PROPERTIES
            )
            assert "background_only_accuracy" in look["with_masks"]["measurements"]
            assert "suspect_swap_accuracy" in look["with_masks"]["measurements"]
    border = follows.Watched(kept[0]).follows()[-1].reliance.measurements["border_follow_rate"]
    by_hand = [
        kept[0]["looks"][-1]["exchanged"][f"border_swap_{number}"][row] == kept[0]["labels"][donor]
        for row, donors in enumerate(kept[0]["donors"]["others"])
        for number, donor in enumerate(donors)
    ]
    assert border.value == pytest.approx(sum(by_hand) / 40)
    fewer = follows.Watched(kept[0]).follows(10)[-1].reliance
    assert fewer.measurements["accuracy"].n == fewer.measurements["border_follow_rate"].n == 10


@pytest.mark.slow
def test_directions(modules: dict[str, ModuleType], kept: Any) -> None:
    follows = modules["follows"]
    told, untold = map(follows.Watched, kept)
    assert (told.truth, untold.truth) == ("relies", "does not")
    assert (told.reached, untold.reached) == (True, False)
    spoken = follows.alarm(told.follows(), Thresholds())
    assert spoken.named in told.right
    assert follows.alarm(untold.follows(), Thresholds()) is None
    assert follows.following(told.follows()) > 0.5 > 0.2 > follows.following(untold.follows())
    assert follows.alarm(told.masked, Thresholds()) is not None
    assert follows.alarm(untold.masked, Thresholds()) is None

    best = follows.pick(told)
    assert best.validation == max(look["validation"] for look in told.looks)
    judged = follows.unfollowed(told.follows(), Thresholds())
    assert spoken.look - 1 not in judged
    assert {4, 5} <= set(follows.unfollowed(untold.follows(), Thresholds()))


@pytest.mark.slow
def test_the_report_has_every_table(
    modules: dict[str, ModuleType], kept: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = modules["script"].report(kept)

    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")
    ]
    told, untold = (row for row in rows if row[0] == "frame" and len(row) == 9 and "/" in row[2])
    assert told[1] == "0.99" and untold[1] == "any kind"
    assert told[6].startswith("**") and not untold[6].startswith("**")
    assert text.count("- met: ") + text.count("- MISSED: ") == 5
    monitors = modules["tables"].MONITORS
    assert [row[1] for row in rows if row[0] in monitors] == ["1 of 1"] * len(monitors)
