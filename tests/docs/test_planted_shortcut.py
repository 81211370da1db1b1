"""The planted shortcut: the data hold what the example says of them, and a tiny run shows what it promises."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("sklearn")

EXAMPLES = Path(__file__).parents[2] / "examples"
# A network after two steps has no evidence for some classes yet, and the monitor says so.
pytestmark = pytest.mark.filterwarnings("ignore:.*maps are blank:UserWarning")

SCRIPTS = ("digits_on_canvas", "planted_shortcut")


@pytest.fixture(scope="module")
def scripts() -> Iterator[dict[str, ModuleType]]:
    """The example's modules, imported as `python examples/planted_shortcut.py` would find them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXAMPLES)
        yield {name: importlib.import_module(name) for name in SCRIPTS}
    for name in SCRIPTS:
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def data(scripts: dict[str, ModuleType]) -> ModuleType:
    return scripts["digits_on_canvas"]


@pytest.fixture(scope="module")
def example(scripts: dict[str, ModuleType]) -> ModuleType:
    return scripts["planted_shortcut"]


# ------------------------------------------------------------------------------------------------ the data


def test_no_scan_is_in_both_splits_and_none_is_lost(data):
    training, validation = data.split_scans(seed=3)
    both = torch.cat([training.pixels, validation.pixels]).flatten(1)
    assert len(both) == 1797
    assert len(both.unique(dim=0)) == 1797  # no two scans are alike, so none is in both
    assert len(training.labels.unique()) == len(validation.labels.unique()) == 10


def test_the_mask_covers_exactly_the_ink(data, monkeypatch):
    _, scans = data.split_scans(seed=0)
    drawn = data.place_on_canvas(scans, 40, seed=1)
    monkeypatch.setattr(data, "enlarge", lambda pixels: torch.zeros(len(pixels), data.DIGIT, data.DIGIT))
    ground = data.place_on_canvas(scans, 40, seed=1)
    assert not ground.masks.any()
    assert torch.equal((drawn.images != ground.images).any(dim=1), drawn.masks)


def test_the_mask_holds_the_whole_enlarged_digit(data):
    _, scans = data.split_scans(seed=0)
    drawn = data.place_on_canvas(scans, 40, seed=1)
    ink = (data.enlarge(scans.pixels[:40]) > 0).flatten(1).sum(dim=1)
    assert torch.equal(drawn.masks.flatten(1).sum(dim=1), ink)
    assert (ink > 30).all() and (ink < data.DIGIT**2).all()


def test_the_digit_never_touches_the_corner_and_lies_anywhere_else(data):
    scans, _ = data.split_scans(seed=0)
    masks = data.place_on_canvas(scans, 1437, seed=1).masks
    assert not (masks & data.corner_mask()).any()
    reached = masks.any(dim=0)
    assert reached[14:-6, 14:-6].all()


def test_the_cue_changes_the_corner_and_nothing_else(data):
    scans, _ = data.split_scans(seed=0)
    plain = data.place_on_canvas(scans, 20, seed=1)
    painted = data.paint_corner(plain, plain.labels)
    changed = (plain.images != painted.images).any(dim=1)
    assert torch.equal(changed, data.corner_mask().expand_as(changed))
    assert torch.equal(plain.masks, painted.masks) and torch.equal(plain.labels, painted.labels)


def hues_of(data, canvases):
    """Read the hue back from the pixels; it fills the whole patch."""
    corner = canvases.images[:, :, : data.CORNER, : data.CORNER].flatten(2)
    assert (corner == corner[:, :, :1]).all()
    return (corner[:, None, :, 0] - data.palette()).abs().sum(dim=2).argmin(dim=1)


def test_the_hue_is_the_label_with_the_cue_and_independent_without(data, example):
    with_cue, without_cue = example.plan_experiments(2000, seed=0)
    assert len(data.palette().unique(dim=0)) == 10
    for canvases in (with_cue.train, with_cue.validation):
        assert torch.equal(hues_of(data, canvases), canvases.labels)
    for canvases in (without_cue.train, without_cue.validation, with_cue.shuffled):
        hues, labels = hues_of(data, canvases), canvases.labels
        chance = (0.1 * 0.9 / len(labels)) ** 0.5
        assert abs((hues == labels).float().mean() - 0.1) < 4 * chance
        assert abs(np.corrcoef(hues, labels)[0, 1]) < 4 / len(labels) ** 0.5
        assert len(hues.unique()) == 10


def test_both_trainings_see_the_same_digits_at_the_same_places(example):
    with_cue, without_cue = example.plan_experiments(50, seed=0)
    for one, other in ((with_cue.train, without_cue.train), (with_cue.validation, with_cue.shuffled)):
        assert torch.equal(one.masks, other.masks) and torch.equal(one.labels, other.labels)
    assert not torch.equal(without_cue.validation.images, without_cue.shuffled.images)


def test_the_seed_decides_everything(example):
    def flat(seed):
        parts = [part for each in example.plan_experiments(30, seed) for part in each[1:]]
        return torch.cat([tensor.flatten().float() for part in parts for tensor in part])

    assert torch.equal(flat(5), flat(5))
    assert not torch.equal(flat(5), flat(6))


# ----------------------------------------------------------------------------------------- the whole script


@pytest.fixture
def run(example, tmp_path, capsys, monkeypatch):
    """Run the script as the command line does, on few images; return what it printed and where it wrote."""

    def run_once(logger, epochs=1):
        monkeypatch.chdir(tmp_path)
        options = {
            "--logger": logger,
            "--epochs": epochs,
            "--train-size": 128,
            "--output": "out",
            "--seed": 0,
        }
        threads = torch.get_num_threads()
        example.main([str(word) for option in options.items() for word in option])
        torch.set_num_threads(threads)
        return capsys.readouterr(), tmp_path / "out"

    return run_once


def rows(printed):
    """The table's lines with their numbers: `(training, epoch or "chance", four values)`."""
    words = [line.split() for line in printed.splitlines()]
    looks = [(line[0], line[1], *map(float, line[2:])) for line in words if line[:1] in (["with_cue"], ["without_cue"])
             and len(line) == 6]  # fmt: skip
    chance = [
        ("", line[0], *map(float, line[1:])) for line in words if line[:1] == ["chance"] and len(line) == 5
    ]
    return looks, chance


def test_plain_files(run):
    (printed, _), output = run("files", epochs=2)
    looks, chance = rows(printed)
    assert [line[:2] for line in looks] == [(n, e) for n in ("with_cue", "without_cue") for e in ("1", "2")]
    assert all(0 <= value <= 1 for line in looks + chance for value in line[2:])
    assert [line[2:4] for line in chance] == [(0.1, 0.1)] * 2
    assert chance[0][5] == pytest.approx(8 * 8 / 48**2, abs=0.005)
    for name in ("with_cue", "without_cue"):
        assert f"out/overlay_{name}.png" in printed and f"out/{name}" in printed
        overlay = np.asarray(Image.open(output / f"overlay_{name}.png"))
        assert overlay.ndim == 3 and overlay.std() > 0
        assert len(list((output / name).rglob("overlay-step=*.png"))) == 2
        (scores,) = (output / name).rglob("scores.csv")
        assert len(scores.read_text().splitlines()) == 3


def test_tensorboard(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (printed, _), output = run("tensorboard")
    assert "tensorboard --logdir out" in printed
    for name in ("with_cue", "without_cue"):
        assert (output / f"overlay_{name}.png").is_file()
        (events,) = (output / name).rglob("events.out.tfevents.*")
        log = EventAccumulator(str(events), size_guidance={"images": 0}).Reload()
        steps = [scalar.step for scalar in log.Scalars("val_acc")]
        assert len(steps) == 1
        assert [image.step for image in log.Images("saliency/overlay")] == steps
        assert [scalar.step for scalar in log.Scalars("saliency/energy")] == steps


def test_report(run):
    (printed, _), output = run("report")
    for name in ("with_cue", "without_cue"):
        assert f"out/{name}/report.html" in printed
        assert '"step":1,"epoch":0' in (output / name / "report.html").read_text().replace(" ", "")


def test_it_says_what_was_measured_and_no_more(run):
    (printed, messages), _ = run("files")
    assert printed.count("the alarm said: nothing.") == 2  # a single look is not enough
    for words in (
        "as they are",
        "the digit removed",
        "only the digit left",
        "another's background",
        "chance",
    ):
        (line,) = [line for line in printed.splitlines() if line.startswith(f"  {words}")]
        numbers = [
            float(number)
            for number in line.replace(words, "").replace("[", "").replace("]", "").replace(",", "").split()
        ]
        assert len(numbers) == (2 if words == "chance" else 6)
        assert all(0 <= number <= 1 for number in numbers)
    said = (printed + messages).lower()
    assert "with the cue's colour shuffled, accuracy is" in said
    for word in ("detected", "safe", "no shortcut", "num_workers", "gpu available", "litlogger"):
        assert word not in said


@pytest.mark.parametrize(
    ("shuffled", "corner", "relies"), [(0.1, 0.6, True), (0.97, 0.6, False), (0.1, 0.03, False)]
)
def test_reliance_needs_both_the_accuracy_and_the_saliency(example, shuffled, corner, relies):
    class Probe:
        looks = (example.Look(0.99, shuffled, 0.3, corner),)
        chance = example.Look(0.1, 0.1, 0.09, 0.03)

    assert ("consistent with reliance on the corner" in example.describe("some", Probe())) is relies


def test_what_the_alarm_said_is_shown(example):
    alarm = example.ShortcutAlarm()
    alarm.alerts.append({"message": "Measured on two looks in a row."})
    assert example.said("with_cue", alarm) == "with_cue: the alarm said: Measured on two looks in a row."


def test_the_module_knows_nothing_of_saliency(example):
    hooks = {name for name in vars(example.DigitClassifier) if not name.startswith("__")}
    assert hooks <= {"forward", "training_step", "validation_step", "configure_optimizers", "_abc_impl"}
    assert example.DigitClassifier()(torch.rand(2, 3, 48, 48)).shape == (2, 10)


def test_help_names_every_option(example, capsys):
    with pytest.raises(SystemExit, match="0"):
        example.main(["--help"])
    printed = capsys.readouterr().out
    assert all(f"--{option}" in printed for option in ("logger", "epochs", "train-size", "output", "seed"))
