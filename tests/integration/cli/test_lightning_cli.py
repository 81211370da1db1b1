"""LightningCLI: every argument from YAML and from the command line; and the example that shows it."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning
import torch
import yaml
from pytorch_lightning.cli import LightningCLI
from torch import Tensor

from lightning_gcam import SaliencyBatch, SaliencyMonitor, ShortcutAlarm
from lightning_gcam.metrics import PointingGame
from lightning_gcam.shortcuts import Thresholds
from tests.support.dimensions import Classifier, loader, volumes
from tests.support.processes import run_script
from tests.support.toys import Toy

pytestmark = pytest.mark.filterwarnings("ignore")


def first_logit(logits: Tensor) -> Tensor:
    return logits[:, 0]


def mean_activation(activations: Tensor, gradients: Tensor) -> Tensor:
    return activations.mean(dim=1)


def read(batch: Any) -> SaliencyBatch:
    return SaliencyBatch(batch["image"], batch["label"])


def call(module: Any, images: Tensor) -> Tensor:
    return module.network(images)


def grey(images: Tensor, regions: Tensor) -> Tensor:
    return torch.full_like(images, 0.5)


def as_it_is(output: Tensor) -> Tensor:
    return output


VALUES: dict[str, Any] = {
    "methods": ["guidance_cam", "tests.integration.cli.test_lightning_cli.mean_activation"],
    "target_layer": ["network.2", "network.5"],
    "fuse": "mean",
    "dataloader_idx": 1,
    "targets": "tests.integration.cli.test_lightning_cli.first_logit",
    "num_samples": 5,
    "selection": "first",
    "every_n_epochs": 2,
    "every_n_train_steps": 7,
    "scores": [
        "energy",
        {"class_path": "lightning_gcam.metrics.PointingGame", "init_args": {"tolerance": 2}},
    ],
    "final_scores": ["insertion"],
    "checks": ["background_only_accuracy", "salient_flips"],
    "max_overhead": 0.1,
    "removal": "tests.integration.cli.test_lightning_cli.grey",
    "adapter": "tests.integration.cli.test_lightning_cli.read",
    "forward": "tests.integration.cli.test_lightning_cli.call",
    "normalize": [[0.5], [0.25]],
    "reshape_transform": "tests.integration.cli.test_lightning_cli.as_it_is",
    "class_names": ["a", "b", "c", "d"],
    "log_prefix": "look",
    "sample_images": True,
    "scale": "run",
    "show_change": True,
    "head": ["age", "sex"],
    "verbose": True,
    "on_error": "raise",
}
"""A value for every argument but `batch`, which is data."""


def monitor_of(arguments: list[str]) -> SaliencyMonitor:
    """The monitor that LightningCLI builds."""
    quiet = ["--trainer.logger=false", "--trainer.accelerator=cpu"]
    cli = LightningCLI(Toy, args=[*quiet, *arguments], run=False, save_config_callback=None)
    found = [callback for callback in cli.trainer.callbacks if isinstance(callback, SaliencyMonitor)]
    assert len(found) == 1
    return found[0]


def assert_as_asked(monitor: SaliencyMonitor) -> None:
    config, schedule = monitor._config, monitor._schedule
    assert list(config.method_table) == ["guidance_cam", "mean_activation"]
    assert monitor.target_layer == ["network.2", "network.5"]
    assert config.fuse == "mean"
    assert config.targets is first_logit or config.targets.__name__ == "first_logit"  # type: ignore[union-attr]
    assert monitor._collection.fixed.num_samples == 5
    assert (schedule.every_n_epochs, schedule.every_n_train_steps) == (2, 7)
    metrics = config.resolved_scores.metrics
    assert list(metrics) == ["energy", "energy_chance", "pointing_game"]
    assert monitor._final_config is not None
    assert list(monitor._final_config.resolved_scores.metrics) == ["insertion"]
    assert isinstance(metrics["pointing_game"], PointingGame)
    assert metrics["pointing_game"].tolerance == 2
    assert config.check_names == ("background_only_accuracy", "salient_flips")
    assert getattr(config.removal, "__name__", "") == "grey"
    assert [getattr(each, "__name__", "") for each in (config.forward, config.reshape_transform)] == [
        "call",
        "as_it_is",
    ]
    assert getattr(monitor._collection.adapter, "__name__", "") == "read"
    assert [list(each) for each in monitor.normalize] == [[0.5], [0.25]]  # type: ignore[union-attr, arg-type]
    assert monitor.class_names == ["a", "b", "c", "d"]
    assert monitor.log_prefix == "look"
    assert monitor.sample_images is True
    assert (monitor.scale, monitor.show_change, monitor.verbose) == ("run", True, True)
    assert monitor._collection.dataloader_idx == 1
    assert monitor._failures.on_error == "raise"


def test_there_is_a_value_for_every_argument() -> None:
    assert {*VALUES, "batch"} == set(inspect.signature(SaliencyMonitor).parameters)


def test_every_argument_from_yaml(tmp_path: Path) -> None:
    callback = {"class_path": "lightning_gcam.SaliencyMonitor", "init_args": VALUES}
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({"trainer": {"callbacks": [callback]}}))
    assert_as_asked(monitor_of([f"--config={config}"]))


def test_every_argument_from_the_command_line() -> None:
    arguments = ["--trainer.callbacks+=lightning_gcam.SaliencyMonitor"]
    arguments += [f"--trainer.callbacks.{name}={_on_one_line(value)}" for name, value in VALUES.items()]
    assert_as_asked(monitor_of(arguments))


def test_the_alarm_from_yaml(tmp_path: Path) -> None:
    arguments = {"thresholds": {"survives": 0.8, "suspect_lift": 3.0}, "looks_in_a_row": 3, "stop": True}
    callbacks = [
        {"class_path": "lightning_gcam.SaliencyMonitor"},
        {"class_path": "lightning_gcam.ShortcutAlarm", "init_args": arguments},
    ]
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({"trainer": {"callbacks": callbacks}}))
    quiet = [f"--config={config}", "--trainer.logger=false", "--trainer.accelerator=cpu"]
    cli = LightningCLI(Toy, args=quiet, run=False, save_config_callback=None)
    (alarm,) = [callback for callback in cli.trainer.callbacks if isinstance(callback, ShortcutAlarm)]
    assert alarm.thresholds == Thresholds(survives=0.8, suspect_lift=3.0)
    assert (alarm.looks_in_a_row, alarm.stop) == (3, True)


def _on_one_line(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


@pytest.mark.parametrize("targets", ["predicted", "label", "output", 2])
def test_words_and_classes_are_not_taken_for_callables(targets: Any) -> None:
    arguments = [
        "--trainer.callbacks+=lightning_gcam.SaliencyMonitor",
        f"--trainer.callbacks.targets={targets}",
    ]
    assert monitor_of(arguments)._config.targets == targets


def test_one_layer_is_a_name_and_not_a_list_of_letters() -> None:
    arguments = ["--trainer.callbacks+=lightning_gcam.SaliencyMonitor"]
    monitor = monitor_of([*arguments, "--trainer.callbacks.target_layer=network.2"])
    assert monitor.target_layer == "network.2"
    assert monitor._config.fuse is None


def test_the_example_runs(tmp_path: Path) -> None:
    command = ["examples/cli/train.py", "fit", "--config", "examples/cli/config.yaml"]
    smaller = ["--trainer.max_epochs=1", f"--trainer.default_root_dir={tmp_path}", "--data.train_size=128"]
    done = run_script(*command, *smaller)
    assert done.returncode == 0, done.said[-3000:]
    checkpoint = next(tmp_path.rglob("*.ckpt"))
    states = torch.load(checkpoint, weights_only=True)["callbacks"]
    assert sum("SaliencyMonitor" in key for key in states) == 2
    assert pytorch_lightning.__version__


class VolumeData(pytorch_lightning.LightningDataModule):
    """Volumes of a user's own, to train on, to validate and to test."""

    def train_dataloader(self) -> Any:
        return loader(volumes(24), batch_size=8)

    val_dataloader = test_dataloader = train_dataloader


@pytest.mark.parametrize("command", ["fit", "test"])
def test_volumes_through_the_data_module_of_a_user(command: str, tmp_path: Path) -> None:
    callbacks: dict[str, Any] = {
        "fit": {"class_path": "lightning_gcam.SaliencyMonitor", "init_args": {"num_samples": 6}},
        "test": {"class_path": "lightning_gcam.SaliencyEvaluation", "init_args": {"check_samples": 6}},
    }
    trainer = {
        "callbacks": [callbacks[command]],
        "default_root_dir": str(tmp_path),
        "max_epochs": 1,
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
    }
    cli = LightningCLI(
        Classifier,
        VolumeData,
        args={"subcommand": command, command: {"model": {"sides": 3}, "trainer": trainer}},
        save_config_callback=None,
    )
    (callback,) = [
        each for each in cli.trainer.callbacks if type(each).__module__.startswith("lightning_gcam")
    ]
    if command == "fit":
        assert callback.last_record.batch.image_size == (12, 16, 16)
        assert "border_follow_rate" in callback.last_record.scores
    else:
        assert callback.result.scores["accuracy"] <= 1
        assert {"border_follow_rate", "background_only_accuracy"} <= callback.result.checks.keys()
