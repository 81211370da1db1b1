"""The monitor attached to modules as they stand in other people's packages: it looks, and the training is theirs."""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch
import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.data import DataLoader

from lightning_gcam import SaliencyMonitor
from tests.support.toys import LIGHTNING_SAYS, decoded, toy_trainer
from tests.support.witness import Witness, differences

pytest.importorskip("skimage")

FOLDER = Path(__file__).parents[2] / "examples" / "attach"
NEEDS = {
    "timm_backbone": "timm",
    "hugging_face_vit": "transformers",
    "torchgeo_task": "torchgeo",
    "segmentation": "torchvision",
    "multi_label": "torchvision",
}
"""Each script, and the package it needs; where that is missing, its tests are skipped (`make strangers` has all)."""

KINDS = {
    "ecg": "torch",
    "video": "torch",
    "monai_volume": "monai",
    "detection": "torchvision",
    "yolo_like": "torchvision",
}
"""The same for scripts of signals, videos and volumes, and of detectors."""

SCRIPTS = NEEDS | KINDS | {"multi_task": "torch"}

# A network after a few steps has no evidence for some classes yet, and the monitor says so.
pytestmark = [*LIGHTNING_SAYS, pytest.mark.filterwarnings("ignore:.*maps are blank:UserWarning")]


@pytest.fixture(scope="module")
def scripts() -> Iterator[Any]:
    """Import a script as `python examples/attach/<name>.py` would find its neighbours."""
    before = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)  # gives `sys.path` back as it was, with what the scripts add taken away
        yield importlib.import_module
    for name in {*SCRIPTS, "ordinary", "textured_fields"} - before:
        sys.modules.pop(name, None)


class Run(NamedTuple):
    """What one run of a script left behind."""

    monitor: SaliencyMonitor
    printed: str
    output: Path


@pytest.fixture(scope="module", params=NEEDS)
def run(scripts: Any, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One short run of each script, as the command line does it."""
    pytest.importorskip(NEEDS[request.param])
    output, printed = tmp_path_factory.mktemp(request.param), []
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng():
        patch.setattr("builtins.print", lambda *words: printed.append(" ".join(map(str, words))))
        options = ["--epochs", "2", "--train-size", "224", "--output", str(output)]
        monitor = scripts(request.param).main(options)
    return Run(monitor, "\n".join(printed), output)


def test_it_looks_after_every_epoch_and_scores_what_it_sees(run: Run) -> None:
    assert [row["epoch"] for row in run.monitor.history] == [0, 1]
    assert run.monitor.history[0]["step"] < run.monitor.history[1]["step"]
    last = run.monitor.history[-1]
    assert 0.1 < last["energy_chance"] < 0.3  # of the area one to three fields of 24 x 24 cover
    assert (
        last["object_lift"] > 1.3
    )  # and the saliency lies on them: colours this plain are learnt in a few steps


def test_the_maps_are_over_the_image_and_not_blank(run: Run) -> None:
    record = run.monitor.last_record
    maps = record.attribution.maps["guidance_cam"]
    assert len(record.batch) == 16 and maps.shape == (16, *record.batch.image_size)
    drawn = maps[record.attribution.peaks["guidance_cam"] > 0]
    assert len(drawn) >= 8
    assert (drawn.flatten(1).std(dim=1) > 0.02).all()


def test_the_event_file_holds_every_look_under_one_tag(run: Run) -> None:
    log = EventAccumulator(str(run.output / "lightning_logs" / "version_0"), size_guidance={"images": 0})
    log.Reload()
    steps = [row["step"] for row in run.monitor.history]
    pictures = log.Images("saliency/overlay")
    assert [picture.step for picture in pictures] == steps
    assert [scalar.step for scalar in log.Scalars("saliency/energy")] == steps
    assert [scalar.value for scalar in log.Scalars("saliency/energy")] == pytest.approx(
        [row["energy"] for row in run.monitor.history]
    )
    newest = decoded(pictures[-1].encoded_image_string)
    shown = run.monitor.last_record.overlay
    assert np.array_equal(shown, decoded(run.output / "overlay.png"))
    assert newest.shape == shown.shape
    assert (
        np.abs(newest.astype(int) - shown.astype(int)).mean() < 3
    )  # TensorBoard keeps a JPEG; of textures here
    assert not np.array_equal(newest, decoded(pictures[0].encoded_image_string))


def test_it_prints_what_was_looked_at(run: Run) -> None:
    assert "epoch 1: energy " in run.printed
    assert run.monitor.last_record.attribution.target_layer in run.printed
    assert str(run.output / "overlay.png") in run.printed


def test_a_unet_of_segmentation_models_pytorch_in_torchgeos_task(scripts: Any, tmp_path: Path) -> None:
    """Batches are dicts of `image` and `mask`, and the logits `(N, K, H, W)` come as they are."""
    trainers = pytest.importorskip("torchgeo.trainers")
    pytest.importorskip("segmentation_models_pytorch")
    scenes = scripts("textured_fields").draw_scenes(64, seed=0)
    rows = [
        {"image": image, "mask": region} for image, region in zip(scenes.images, scenes.regions, strict=True)
    ]
    monitor = SaliencyMonitor(num_samples=6, on_error="raise")
    trainer = toy_trainer(tmp_path, monitor, package=lightning.pytorch)
    task = trainers.SemanticSegmentationTask("unet", "mobilenet_v2", num_classes=4, lr=5e-3)
    trainer.fit(task, DataLoader(rows, 8, shuffle=True), DataLoader(rows, 8))
    record = monitor.last_record
    assert len(monitor.history) == 2
    assert record.batch.labels.tolist() == [
        1,
        1,
        2,
        2,
        3,
        3,
    ]  # read off the masks: ground is no class to look for
    assert record.attribution.maps["guidance_cam"].shape == (6, 64, 64)
    assert record.attribution.peaks["guidance_cam"].isfinite().all()


# ------------------------------------------------------------------------------- signals, videos and volumes


@pytest.mark.parametrize(
    ("name", "kind", "size"),
    [
        ("ecg", "signal", (187,)),
        ("video", "video", (8, 24, 24)),
        ("monai_volume", "volume", (32, 32, 32)),
        ("detection", "image", (48, 64)),
        ("yolo_like", "image", (48, 64)),
    ],
)
def test_other_kinds_are_looked_at_alike(
    scripts: Any, name: str, kind: str, size: tuple[int, ...], tmp_path: Path
) -> None:
    pytest.importorskip(KINDS[name])
    options = ["--epochs", "3", "--train-size", "128", "--output", str(tmp_path)]
    with torch.random.fork_rng():
        monitor = scripts(name).main(options)
    record, last = monitor.last_record, monitor.history[-1]
    assert record.batch.kind == kind
    assert next(iter(record.attribution.maps.values())).shape == (16, *size)
    assert last["energy"] > 1.3 * last["energy_chance"]
    first = {"background_only_accuracy", "border_follow_rate", "blank_rate"}
    assert first <= monitor.history[0].keys() and "pointing_game" in last
    log = EventAccumulator(str(tmp_path / "lightning_logs" / "version_0"), size_guidance={"images": 0})
    pictures = log.Reload().Images("saliency/overlay")
    assert [picture.step for picture in pictures] == [row["step"] for row in monitor.history]
    assert np.array_equal(record.overlay, decoded(tmp_path / "overlay.png"))


# ------------------------------------------------------------------------------------------------ several heads


def test_each_head_is_looked_at_by_itself(scripts: Any, tmp_path: Path) -> None:
    options = ["--epochs", "3", "--train-size", "224", "--output", str(tmp_path)]
    with torch.random.fork_rng():
        monitor = scripts("multi_task").main(options)
    record, last = monitor.last_record, monitor.history[-1]
    assert list(record.heads) == ["material", "brightness"]
    assert record.heads["brightness"].attribution.explains == "output"
    assert last["material/object_lift"] > 1.3
    assert {"material/accuracy", "brightness/energy"} <= last.keys()
    log = EventAccumulator(str(tmp_path / "lightning_logs" / "version_0"), size_guidance={"images": 0})
    log.Reload()
    for head in record.heads:
        pictures = log.Images(f"saliency/{head}/overlay")
        assert [picture.step for picture in pictures] == [row["step"] for row in monitor.history]
        scalars = log.Scalars(f"saliency/{head}/energy")
        assert [each.value for each in scalars] == pytest.approx(
            [row[f"{head}/energy"] for row in monitor.history]
        )


# ------------------------------------------------------------------------------- nothing of theirs is changed


class LightningWitness(Witness, lightning.pytorch.Callback):
    """The witness for either package's Trainer."""


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_training_is_the_same_bit_for_bit(scripts: Any, name: str, tmp_path: Path) -> None:
    pytest.importorskip(SCRIPTS[name])
    script, seen = scripts(name), []
    options = script.parse("About.", name, ["--epochs", "2", "--train-size", "48", "--output", str(tmp_path)])
    forward = getattr(script, "class_scores", None)
    monitor = SaliencyMonitor(num_samples=4, every_n_train_steps=1, on_error="raise", forward=forward)
    for callbacks in ([], [monitor]):
        witness = LightningWitness()
        script.train([*callbacks, witness], options)
        seen.append(witness)
    assert len(monitor.history) >= 4
    assert len(seen[0].lines) > 20
    assert differences(*seen) == []


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_attach_is_one_line(name: str) -> None:
    """Their part is everything but `main`, and it knows nothing of saliency; ours needs no help to find anything."""
    tree = ast.parse((FOLDER / f"{name}.py").read_text(encoding="utf-8"))
    assert f"examples/attach/{name}.py" in (ast.get_docstring(tree) or "")
    ours = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "main")
    theirs = [
        node for node in tree.body if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and node is not ours
    ]
    words = {node.id for part in theirs for node in ast.walk(part) if isinstance(node, ast.Name)}
    assert not [word for word in words if "saliency" in word.lower()]
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    (attached,) = [call for call in calls if getattr(call.func, "id", "") == "SaliencyMonitor"]
    for_display = {"class_names", "normalize"}
    own_head = {"forward", "target_layer", "methods"} if name == "yolo_like" else set()
    assert {argument.arg for argument in attached.keywords} <= for_display | own_head


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.stem)
def test_a_script_is_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 88


# ------------------------------------------------------------------------------------------------ the pictures


def test_the_region_is_exactly_where_the_field_is(scripts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    data = scripts("textured_fields")
    drawn = data.draw_scenes(12, seed=1, several=True)
    monkeypatch.setattr(data, "load_photographs", lambda: torch.full((3, 3, 256, 256), 2.0))
    flat = data.draw_scenes(12, seed=1, several=True)
    assert torch.equal((flat.images == 2).all(dim=1), drawn.regions > 0)
    for region, present in zip(drawn.regions, drawn.present, strict=True):
        assert (region.unique()[1:] - 1).tolist() == present.nonzero()[:, 0].tolist()
        assert all(
            int((region == material + 1).sum()) == data.FIELD**2 for material in present.nonzero()[:, 0]
        )


def test_scenes_are_balanced_and_the_seed_decides_them(scripts: Any) -> None:
    data = scripts("textured_fields")
    scenes = data.draw_scenes(30, seed=4)
    assert scenes.labels.bincount().tolist() == [10, 10, 10]
    assert torch.equal(scenes.regions.flatten(1).amax(dim=1) - 1, scenes.labels)
    assert torch.equal(scenes.images, data.draw_scenes(30, seed=4).images)
    assert not torch.equal(scenes.images, data.draw_scenes(30, seed=5).images)
    assert scenes.images.min() >= 0 and scenes.images.max() <= 1


def test_training_and_validation_share_no_part_of_a_photograph(
    scripts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = scripts("textured_fields")
    rows = torch.arange(256.0).expand(3, 3, 256, 256).mT
    monkeypatch.setattr(data, "load_photographs", lambda: rows)
    trained, validated = (data.draw_scenes(40, seed=0, validation=each) for each in (False, True))
    inside = [scenes.images[:, 0][scenes.regions > 0] for scenes in (trained, validated)]
    assert inside[0].max() < inside[1].min()
