"""What the scripts of this folder share: their options, a quiet Trainer, and what they print at the end."""

import argparse
import logging
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from lightning_gcam import SaliencyMonitor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `textured_fields`, one folder up


def parse(
    about: str | None, name: str, arguments: Sequence[str] | None, epochs: int = 3
) -> argparse.Namespace:
    """Read the command line of one script, and see to it that only the monitor's own words are heard."""
    parser = argparse.ArgumentParser(
        description=(about or "").splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--epochs", type=int, default=epochs, help="epochs of the training; one look after each")
    add("--train-size", type=int, default=384, help="training images; a quarter as many for validation")
    add("--output", type=Path, default=Path("runs/attach") / name, help="folder for everything written")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)  # enough for networks this small, and the same numbers on every machine
    hide_hints()
    return options


def hide_hints() -> None:
    """Hide what Lightning says about devices, workers and its services; what the monitor says stays."""
    for words in (".*does not have many workers", ".*LeafSpec"):
        warnings.filterwarnings("ignore", message=words)
    for package in ("pytorch_lightning", "lightning.pytorch"):
        logging.getLogger(f"{package}.utilities.rank_zero").addFilter(is_no_hint)


def is_no_hint(line: logging.LogRecord) -> bool:
    """Whether a line of Lightning's log is more than a hint."""
    return not line.getMessage().startswith(
        ("GPU available", "TPU available", "💡 Tip", "`Trainer.fit` stopped")
    )


def trainer_options(options: argparse.Namespace) -> dict[str, Any]:
    """The Trainer's arguments that have nothing to do with saliency; its logger is TensorBoard's, the default."""
    return {
        "accelerator": "cpu",
        "max_epochs": options.epochs,
        "default_root_dir": options.output,
        "log_every_n_steps": 1,
        "enable_checkpointing": False,
        "enable_model_summary": False,
        "enable_progress_bar": sys.stderr.isatty(),
    }


def say_what_was_seen(monitor: SaliencyMonitor, output: Path) -> None:
    """Print the scores of every look, and save the newest picture under a name that stays the same."""
    for row in monitor.history:
        scores = [f"{name} {value:.2f}" for name, value in row.items() if name not in ("step", "epoch")]
        print(f"epoch {row['epoch']}: {', '.join(scores)}")
    record = monitor.last_record
    if record is None:
        return
    Image.fromarray(record.overlay).save(output / "overlay.png")
    print(f"The last look, at layer {record.attribution.target_layer}:\n  {output / 'overlay.png'}")
    command = f"tensorboard --logdir {output} --samples_per_plugin images=0"
    print(f"Every look, with a slider, in the tab Images:\n  {command}")
