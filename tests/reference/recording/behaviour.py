"""Each part of the behaviour as a flat dict: arrays, numbers and words by name."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger, WandbLogger
from torch.utils.data import DataLoader

from lightning_gcam import SaliencyEvaluation, SaliencyMonitor, ShortcutAlarm, attribute
from lightning_gcam.cam import available_methods
from lightning_gcam.metrics import available_scores
from tests.reference.recording.networks import NETWORKS, network, samples
from tests.support.toys import Toy, toy_trainer

Values = dict[str, Any]

SHOWN = ["guidance_cam", "hires_cam"]
COSTLY = {"random_model_ssim", "coherency", "adcc"}


def maps_of(name: str, methods: list[str] | None = None) -> Values:
    """Every method's maps and peaks, the found layer and the logits; a method that refuses, by its error."""
    data, found = samples(4), {}
    for method in methods or available_methods():
        torch.manual_seed(5)  # some methods draw noise
        try:
            attribution = attribute(network(name), data["images"], data["labels"], methods=method)
        except Exception as error:
            found[f"maps/{name}/{method}"] = f"{type(error).__name__}: {error}"
            continue
        found[f"maps/{name}/{method}"] = attribution.maps[method].numpy()
        found[f"peaks/{name}/{method}"] = attribution.peaks[method].numpy()
        found[f"layer/{name}"] = attribution.target_layer
        found[f"logits/{name}"] = attribution.logits.numpy()
    return found


class Watched(Toy):
    """A network of the recording as a LightningModule; dense logits are averaged for its loss."""

    def loss(self, batch: Any) -> torch.Tensor:
        logits = self.network(batch["image"])
        logits = logits.mean((2, 3)) if logits.ndim == 4 else logits
        return torch.nn.functional.cross_entropy(logits, batch["label"])


def module_of(name: str) -> Watched:
    """The module, the same at every call."""
    return Watched(network(name), learning_rate=0.02)


def loader(n: int = 12, seed: int = 3, batch_size: int = 4) -> DataLoader[Any]:
    """Batches as dicts, with groups."""
    data = samples(n, seed)
    rows = [
        {
            "image": data["images"][row],
            "label": data["labels"][row],
            "mask": data["masks"][row],
            "group": data["groups"][row],
        }
        for row in range(n)
    ]
    return DataLoader(rows, batch_size=batch_size)  # type: ignore[arg-type]


def monitor_of(**options: Any) -> SaliencyMonitor:
    """A monitor with every score that two methods can have, at eight samples."""
    scores = [score for score in available_scores() if score not in COSTLY]
    everything: dict[str, Any] = {
        "methods": SHOWN,
        "scores": scores,
        "final_scores": ["adcc"],
        "num_samples": 8,
    }
    return SaliencyMonitor(**{**everything, "on_error": "raise", **options})


def fit_of(name: str, root: Path, logger: str = "tensorboard") -> Values:
    """A fit of two epochs: history, measurements, final scores, alerts; and what the logger holds afterwards."""
    torch.manual_seed(11)
    monitor, alarm, made = monitor_of(), ShortcutAlarm(), LOGGERS[logger](root)
    trainer = toy_trainer(root, monitor, alarm, max_epochs=3, logger=made, log_every_n_steps=1)
    trainer.fit(module_of(name), loader(), loader(seed=4))
    found = {f"fit/{name}/{key}": value for key, value in _history(monitor).items()}
    found[f"fit/{name}/alerts"] = [alert["step"] for alert in alarm.alerts]
    assert monitor.last_record is not None
    for row in monitor.last_record.table:
        key = f"fit/{name}/measured/{row['score']}/{row['samples']}"
        found[key] = [value for column, value in row.items() if column not in ("score", "samples")]
    return {**found, **{f"fit/{name}/{logger}/{key}": value for key, value in READERS[logger](root).items()}}


def _history(monitor: SaliencyMonitor) -> Values:
    return {
        f"history/{index}/{key}": value
        for index, row in enumerate(monitor.history)
        for key, value in row.items()
    }


def evaluation_of(name: str, root: Path) -> Values:
    """The rows of an evaluation's table."""
    scores = ["energy", "pointing_game", "max_box_accuracy", "average_drop", "insertion", "gini"]
    evaluation = SaliencyEvaluation(
        methods=SHOWN, scores=scores, resamples=50, directory=root, on_error="raise"
    )
    torch.manual_seed(11)
    toy_trainer(root, evaluation).test(module_of(name), loader(), verbose=False)
    with (root / "scores.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {
        f"evaluation/{name}/{row['method']}/{row['score']}/{column}": value
        for row in rows
        for column, value in row.items()
        if column not in ("method", "score", "seconds", "seconds_per_image")
    }


def checkpoint_of(name: str, root: Path) -> Path:
    """A checkpoint behind the first of several epochs."""
    torch.manual_seed(11)
    saver = ModelCheckpoint(root, filename="first", save_top_k=-1, enable_version_counter=False)
    monitor = monitor_of(num_samples=4)
    trainer = toy_trainer(root, monitor, saver, max_epochs=1, enable_checkpointing=True)
    trainer.fit(module_of(name), loader(), loader(seed=4))
    return root / "first.ckpt"


def resumed_of(name: str, root: Path, checkpoint: Path) -> Values:
    """The history of a run that goes on from a checkpoint for one epoch."""
    torch.manual_seed(12)
    monitor = monitor_of(num_samples=4)
    trainer = toy_trainer(root, monitor, max_epochs=2)
    trainer.fit(module_of(name), loader(), loader(seed=4), ckpt_path=checkpoint)
    return {f"resumed/{name}/{key}": value for key, value in _history(monitor).items()}


def everything(root: Path) -> Values:
    """All of the above."""
    found: Values = {}
    for index, name in enumerate(NETWORKS):
        own = root / name.replace(" ", "_")
        found.update(maps_of(name))
        found.update(fit_of(name, own / "fit", list(LOGGERS)[index % len(LOGGERS)]))
    found.update(evaluation_of("flat", root / "evaluation"))
    found.update(resumed_of("flat", root / "resumed", checkpoint_of("flat", root / "first")))
    return found


# ------------------------------------------------------------------------------------------- loggers, read back


def _wandb(root: Path) -> Any:
    os.environ["WANDB_SILENT"] = "true"
    root.mkdir(parents=True, exist_ok=True)
    return WandbLogger(project="recording", id="recording", save_dir=root, offline=True)


LOGGERS: dict[str, Callable[[Path], Any]] = {
    "tensorboard": lambda root: TensorBoardLogger(root, version=0),
    "wandb": _wandb,
    "csv": lambda root: CSVLogger(root, version=0),
    "files": lambda root: False,
}


def _read_tensorboard(root: Path) -> Values:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    sizes = {"images": 0, "scalars": 0, "tensors": 0}
    events = EventAccumulator(str(root / "lightning_logs" / "version_0"), size_guidance=sizes).Reload()
    tags = events.Tags()
    found: Values = {f"{tag}/steps": [each.step for each in events.Images(tag)] for tag in tags["images"]}
    for tag in tags["scalars"]:
        found[f"{tag}/steps"] = [each.step for each in events.Scalars(tag)]
        found[f"{tag}/values"] = [each.value for each in events.Scalars(tag)]
    found.update({f"{tag}/steps": [each.step for each in events.Tensors(tag)] for tag in tags["tensors"]})
    return found


def _read_wandb(root: Path) -> Values:
    import wandb

    from tests.support.wandb_reader import history

    wandb.finish()
    rows = history(root)
    left_out = {"_runtime", "_timestamp", "_step"}
    found: Values = {}
    for row in rows:
        for key, value in row.items():
            if key not in left_out:
                shown = value if isinstance(value, (int, float)) else type(value).__name__
                found.setdefault(key, []).append([row.get("trainer/global_step"), shown])
    return found


def _read_files(root: Path) -> Values:
    """The names of all files, and every number of the tables."""
    found: Values = {
        "files": sorted(
            str(path.relative_to(root))
            for path in root.rglob("*")
            if path.is_file() and path.suffix != ".json"
        )
    }
    for path in sorted(root.rglob("*.csv")):
        found[str(path.relative_to(root))] = path.read_text(encoding="utf-8").splitlines()
    return found


READERS: dict[str, Callable[[Path], Values]] = {
    "tensorboard": _read_tensorboard,
    "wandb": _read_wandb,
    "csv": _read_files,
    "files": _read_files,
}

VERSIONS = {
    "torch": torch.__version__,
    "pytorch_lightning": pytorch_lightning.__version__,
    "numpy": np.__version__,
}
