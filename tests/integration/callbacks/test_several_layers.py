"""The monitor at several layers: names in tags and captions, fused maps, a resumed run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger

from lightning_gcam import SaliencyMonitor
from lightning_gcam.utils.errors import InputError
from tests.support.toys import LIGHTNING_SAYS, Toy, listening, toy_loader, toy_trainer

pytestmark = LIGHTNING_SAYS
LAYERS = ["network.2", "network.5"]


def fit(root: Path, monitor: SaliencyMonitor, **options: Any) -> list[str]:
    torch.manual_seed(0)
    with listening() as said:
        toy_trainer(root, monitor, **options).fit(Toy(), toy_loader(32), toy_loader())
    return said


@pytest.mark.parametrize("layers", [LAYERS, tuple(LAYERS)])
def test_each_layer_has_its_scores_under_its_name(tmp_path: Path, layers: Any) -> None:
    both = SaliencyMonitor(target_layer=layers, num_samples=4, scores=["energy"], checks=[], on_error="raise")
    said = fit(tmp_path, both)
    assert list(both.history[-1]) == [
        "step",
        "epoch",
        "energy",
        "energy_chance",
        "guidance_cam@network.5/energy",
        "guidance_cam@network.5/energy_chance",
        "centre/energy",
    ]
    for layer, name in zip(LAYERS, ("energy", "guidance_cam@network.5/energy"), strict=True):
        alone = SaliencyMonitor(target_layer=layer, num_samples=4, scores=["energy"], on_error="raise")
        fit(tmp_path, alone)
        assert [row[name] for row in both.history] == [row["energy"] for row in alone.history]
    (words,) = [each for each in said if each.startswith("SaliencyMonitor (")]
    assert re.search('layer +"network.2" and "network.5", guidance_cam for each sample\'s label\n', words)


@pytest.mark.parametrize(("fuse", "sign"), [("product", "×"), ("mean", "+")])
def test_fused_maps_have_the_methods_names(tmp_path: Path, fuse: Any, sign: str) -> None:
    monitor = SaliencyMonitor(target_layer=LAYERS, fuse=fuse, num_samples=4, on_error="raise")
    fit(tmp_path, monitor)
    assert monitor.last_record is not None
    assert list(monitor.last_record.attribution.maps) == ["guidance_cam"]
    assert monitor.last_record.attribution.target_layer == f"network.2 {sign} network.5"
    assert f"network.2 {sign} network.5" in monitor.last_record.title
    assert not any("@" in name for name in monitor.history[-1])


def test_the_scores_reach_the_loggers(tmp_path: Path) -> None:
    tensorboard, csv = TensorBoardLogger(tmp_path / "tb"), CSVLogger(tmp_path / "csv")
    monitor = SaliencyMonitor(target_layer=LAYERS, num_samples=4, scores="iou", on_error="raise")
    fit(tmp_path, monitor, logger=[tensorboard, csv])

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(tensorboard.log_dir)
    events.Reload()
    tags = events.Tags()
    assert {"saliency/iou", "saliency/guidance_cam@network.5/iou"} <= set(tags["scalars"])
    assert set(tags["images"]) == {"saliency/overlay", "saliency/exchanges"}
    metrics = (Path(csv.log_dir) / "metrics.csv").read_text()
    assert "saliency/guidance_cam@network.5/iou" in metrics


def test_a_resumed_run_goes_on_at_the_same_layers(tmp_path: Path) -> None:
    monitor = SaliencyMonitor(target_layer=LAYERS, num_samples=4, checks=[], on_error="raise")
    trainer = toy_trainer(tmp_path, monitor, max_epochs=1)
    trainer.fit(Toy(), toy_loader(32), toy_loader())
    path = tmp_path / "first.ckpt"
    trainer.save_checkpoint(path)
    (state,) = [
        each for key, each in torch.load(path, weights_only=True)["callbacks"].items() if "Saliency" in key
    ]
    assert state["target_layer"] == LAYERS

    after = SaliencyMonitor(num_samples=4, checks=[], on_error="raise")
    toy_trainer(tmp_path, after, max_epochs=2).fit(Toy(), toy_loader(32), toy_loader(), ckpt_path=path)
    assert len(after.history) == 2
    assert list(after.history[0]) == list(after.history[1])
    assert after.last_record is not None
    assert after.last_record.attribution.target_layer == "network.2, network.5"


def test_a_blank_map_is_told_with_its_own_layer(tmp_path: Path) -> None:
    def blank_at_the_second(activations: torch.Tensor, gradients: torch.Tensor) -> torch.Tensor:
        return activations.square().mean(dim=1) * (activations.shape[1] == 6)  # "network.2" has 6 channels

    monitor = SaliencyMonitor(methods=blank_at_the_second, target_layer=LAYERS, num_samples=4)
    with pytest.warns(
        UserWarning, match=r'4 of 4 blank_at_the_second maps are blank: nothing at "network.5"'
    ):
        fit(tmp_path, monitor)
    assert monitor.history[-1]["blank_rate"] == 0
    assert monitor.history[-1]["blank_at_the_second@network.5/blank_rate"] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target_layer": []}, "`target_layer` is empty"),
        (
            {"target_layer": [*LAYERS, "netwrk.5"]},
            '`target_layer` "netwrk.5" is not a module of Toy. Did you mean',
        ),
        ({"target_layer": ["network.2"] * 2}, '`target_layer` holds "network.2" twice'),
    ],
)
def test_what_is_no_layer_is_refused_before_training(tmp_path: Path, arguments: Any, message: str) -> None:
    monitor = SaliencyMonitor(**arguments)
    with pytest.raises(InputError, match=message):
        fit(tmp_path, monitor)
    assert monitor.history == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"fuse": "mean"}, r'`fuse="mean"` makes one map of several layers, but `target_layer` is None'),
        ({"fuse": "product", "target_layer": "network.2"}, "but `target_layer` is 'network.2'"),
        ({"fuse": "max", "target_layer": LAYERS}, '`fuse` "max" is not known'),
    ],
)
def test_what_cannot_be_fused_is_refused_at_the_door(arguments: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        SaliencyMonitor(**arguments)
