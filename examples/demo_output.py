"""What both demos share: their loggers, fewer hints of Lightning's, and the words at the end."""

import logging
import os
import textwrap
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image
from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger
from pytorch_lightning.utilities import disable_possible_user_warnings
from torch import Tensor

from lightning_gcam import ShortcutAlarm
from lightning_gcam.loggers import ReportLogger

LOGGERS = ["tensorboard", "wandb", "report", "files"]


def accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    """Share of the samples whose highest logit is their label's."""
    return (logits.argmax(dim=1) == labels).float().mean()


def logger_of(kind: str, output: Path, name: str) -> Logger | bool:
    """The logger of one training; without one the monitor writes plain files."""
    if kind == "tensorboard":
        return TensorBoardLogger(output, name=name, default_hp_metric=False)
    if kind == "wandb":
        os.environ.setdefault("WANDB_QUIET", "true")  # the table at the end says it all
        return WandbLogger(name, output, project=output.name, offline="WANDB_MODE" not in os.environ)
    if kind == "report":
        return ReportLogger(output / name)
    return False


HINTS = ("GPU available", "TPU available", "💡 Tip", "`Trainer.fit` stopped")


def is_no_hint(line: logging.LogRecord) -> bool:
    """Whether a line of Lightning's log is more than a hint."""
    return not line.getMessage().startswith(HINTS)


def hide_hints() -> None:
    """Hide what Lightning says about devices, workers and its services; what the monitor says stays."""
    disable_possible_user_warnings()
    warnings.filterwarnings(
        "ignore", message=".*LeafSpec", category=FutureWarning
    )  # Lightning's, about torch
    logging.getLogger("pytorch_lightning.utilities.rank_zero").addFilter(is_no_hint)


def said(name: str, alarm: ShortcutAlarm) -> str:
    """What the alarm said of one training, if anything."""
    words = "\n".join(alert["message"] for alert in alarm.alerts) or "nothing."
    lines = f"{name}: the alarm said: {words}".splitlines()
    return "\n  ".join(textwrap.fill(line, 110, subsequent_indent="    ") for line in lines)


def save_overlays(probes: Mapping[str, Any], output: Path) -> list[Path]:
    """Copy the last overlay of each training to a name that stays the same."""
    paths = [output / f"overlay_{name}.png" for name in probes]
    for path, probe in zip(paths, probes.values(), strict=True):
        Image.fromarray(probe.monitor.last_record.overlay).save(path)
    return paths


def how_to_open(kind: str, output: Path) -> str:
    """Where every look was written, and the command that shows it."""
    if kind == "tensorboard":
        command = f"tensorboard --logdir {output} --samples_per_plugin images=0"
        return f"Every look, with a slider, in the tab Images:\n  {command}"
    if kind == "wandb":
        return (
            f"Every look, in W&B's offline runs, which this sends:\n  wandb sync {output}/wandb/offline-run-*"
        )
    if kind == "report":
        pages = [str(output / name / "report.html") for name in ("with_cue", "without_cue")]
        return "\n  ".join(["Every look, on a page that your browser opens by a double click:", *pages])
    return (
        f"Every look, as PNG files beside a scores.csv, under:\n  {output}/with_cue\n  {output}/without_cue"
    )
