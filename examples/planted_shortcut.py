"""Two models, the same validation accuracy, utterly different saliency.

Handwritten digits lie at random places on a canvas with a coloured patch in one corner. In the first training the
colour tells the label, in validation too, so the accuracy cannot show what the model reads. In the second training the
same patch is there, but its colour is drawn at random. A `SaliencyMonitor` watches each, and a `ShortcutAlarm` reads
it: neither is told of the patch.

    python examples/planted_shortcut.py
"""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from demo_output import LOGGERS, accuracy, hide_hints, how_to_open, logger_of, said, save_overlays
from digits_on_canvas import (
    NUM_CLASSES,
    Canvases,
    corner_mask,
    paint_corner,
    place_on_canvas,
    random_hues,
    split_scans,
)
from pytorch_lightning import Callback, LightningModule, Trainer, seed_everything
from pytorch_lightning.loggers import WandbLogger
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from lightning_gcam import SaliencyMonitor, ShortcutAlarm
from lightning_gcam.metrics import EnergyPointingGame

# ---------------------------------------------------------------- the model: it knows nothing of saliency


class DigitClassifier(LightningModule):
    """Five convolutions, the strongest response of each channel, one linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *convolution(3, 24, stride=2),
            *convolution(24, 48, stride=2),
            *convolution(48, 64),
            *convolution(64, 64),
            *convolution(64, 96, kernel_size=1),
        )
        self.head = nn.Linear(96, NUM_CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """From images `(N, 3, H, W)` to logits `(N, 10)`."""
        return self.head(self.features(images).amax(dim=(2, 3)))

    def training_step(self, batch: Sequence[Tensor], batch_idx: int) -> Tensor:
        images, labels, *_ = batch
        return cross_entropy(self(images), labels)

    def validation_step(self, batch: Sequence[Tensor], batch_idx: int) -> None:
        images, labels, *_ = batch
        self.log("val_acc", accuracy(self(images), labels), prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


def convolution(
    channels_in: int, channels_out: int, kernel_size: int = 3, stride: int = 1
) -> list[nn.Module]:
    """Convolution, batch normalization, ReLU."""
    convolve = nn.Conv2d(channels_in, channels_out, kernel_size, stride, padding=kernel_size // 2, bias=False)
    return [convolve, nn.BatchNorm2d(channels_out), nn.ReLU()]


# --------------------------------------------------------------------------------------------- the data


class Experiment(NamedTuple):
    """The data of one training, and its validation digits once more with the corner's colour shuffled."""

    name: str
    train: Canvases
    validation: Canvases
    shuffled: Canvases


def plan_experiments(train_size: int, seed: int) -> list[Experiment]:
    """The same canvases twice: with a corner whose hue is the class, and with one whose hue is random."""
    train_scans, validation_scans = split_scans(seed)
    train = place_on_canvas(train_scans, train_size, seed)
    validation = place_on_canvas(validation_scans, len(validation_scans.labels), seed + 1)
    with_cue = [paint_corner(canvases, canvases.labels) for canvases in (train, validation)]
    without_cue = [
        paint_corner(train, random_hues(len(train.labels), seed + 2)),
        paint_corner(validation, random_hues(len(validation.labels), seed + 3)),
    ]
    shuffled = paint_corner(validation, random_hues(len(validation.labels), seed + 4))
    return [Experiment("with_cue", *with_cue, shuffled), Experiment("without_cue", *without_cue, shuffled)]


def batches(canvases: Canvases, shuffle: bool = False) -> DataLoader:
    """Batches `(images, labels, masks)`."""
    return DataLoader(TensorDataset(*canvases), batch_size=64, shuffle=shuffle)


# ----------------------------------------------------- what only the one who planted the cue can measure


class Look(NamedTuple):
    """What was measured at one look, or what chance would give."""

    validation: float
    shuffled: float
    digit: float
    corner: float


class CueProbe(Callback):
    """Beside each look of the monitor: accuracy with the cue shuffled, and the saliency in the corner."""

    def __init__(self, monitor: SaliencyMonitor, alarm: ShortcutAlarm, shuffled: Canvases) -> None:
        self.monitor = monitor
        self.alarm = alarm
        self.shuffled = shuffled
        self.looks: list[Look] = []

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The monitor has just looked; the model is in eval mode, and no gradients are kept."""
        self.looks.append(
            Look(
                validation=float(trainer.callback_metrics["val_acc"]),
                shuffled=float(accuracy(pl_module(self.shuffled.images), self.shuffled.labels)),
                digit=self.monitor.history[-1].get("energy", math.nan),  # nan: every map was blank
                corner=self.energy_in_corner(),
            )
        )

    def energy_in_corner(self) -> float:
        """Which share of the saliency lay in the coloured patch, at the monitor's last look."""
        maps = self.monitor.last_record.attribution.maps["guidance_cam"]
        return float(EnergyPointingGame()(maps, corner_mask().expand_as(maps)))

    @property
    def chance(self) -> Look:
        """What guessing gives, and what saliency spread evenly over the canvas gives."""
        guess = 1 / NUM_CLASSES
        return Look(
            guess,
            guess,
            self.monitor.history[-1].get("energy_chance", math.nan),
            float(corner_mask().float().mean()),
        )


# ----------------------------------------------------------------------------------------- the training


def train(experiment: Experiment, options: argparse.Namespace) -> CueProbe:
    """Train one model; the monitor takes a look after every epoch, and the alarm reads it."""
    seed_everything(options.seed, verbose=False)
    monitor, alarm = SaliencyMonitor(), ShortcutAlarm()
    probe = CueProbe(monitor, alarm, experiment.shuffled)
    logger = logger_of(options.logger, options.output, experiment.name)
    trainer = Trainer(
        accelerator="cpu",  # small enough for it, and the same numbers everywhere
        deterministic=True,
        max_epochs=options.epochs,
        callbacks=[monitor, alarm, probe],
        logger=logger,
        default_root_dir=options.output / experiment.name,
        log_every_n_steps=10,
        num_sanity_val_steps=0,
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    trainer.fit(DigitClassifier(), batches(experiment.train, shuffle=True), batches(experiment.validation))
    if isinstance(logger, WandbLogger):
        logger.experiment.finish()  # the next training is a run of its own
    return probe


# ------------------------------------------------------------------------------------------- the report

HEADER = """
                       validation     accuracy with     energy in     energy in
training       epoch     accuracy      cue shuffled     the digit    the corner"""


def table(probes: dict[str, CueProbe]) -> str:
    """One row for each look of each training, and what chance would give."""
    lines = [HEADER]
    for name, probe in probes.items():
        lines.append("-" * 79)
        lines += [row(name, str(epoch), look) for epoch, look in enumerate(probe.looks, start=1)]
        lines.append(row("", "chance", probe.chance))
    return "\n".join(lines)


def row(name: str, epoch: str, look: Look) -> str:
    """One line of the table."""
    return f"{name:<13}{epoch:>7}{look.validation:>13.2f}{look.shuffled:>18.2f}{look.digit:>14.2f}{look.corner:>14.2f}"


def describe(name: str, probe: CueProbe) -> str:
    """What was measured at the last look, and no more than that."""
    look, chance = probe.looks[-1], probe.chance
    measured = (
        f"{name}: validation accuracy is {look.validation:.2f}; with the cue's colour shuffled, accuracy is "
        f"{look.shuffled:.2f} (chance {chance.shuffled:.2f}).\n"
        f"  Of the saliency, {look.digit:.2f} lies in the digit (chance {chance.digit:.2f}) and "
        f"{look.corner:.2f} in the corner (chance {chance.corner:.2f})"
    )
    relies = look.shuffled < look.validation / 2 and look.corner > 2 * chance.corner
    return measured + (":\n  consistent with reliance on the corner." if relies else ".")


CHECKS = {
    "accuracy": "as they are",
    "background_only_accuracy": "the digit removed",
    "object_only_accuracy": "only the digit left",
    "background_swap_accuracy": "another's background",
    "border_swap_accuracy": "another's border",
    "border_follow_rate": "  taken for that other's class",
    "color_swap_accuracy": "another's colours",
    "color_follow_rate": "  taken for that other's class",
}


def checks(probes: dict[str, CueProbe]) -> str:
    """Accuracy on the monitor's samples at the last look, as they are and changed, with an interval of 95%."""
    lines = [f"{'accuracy on the fixed samples':<31}{''.join(f'{name:>24}' for name in probes)}"]
    for check, words in CHECKS.items():
        found = [probe.monitor.last_record.reliance.measurements.get(check) for probe in probes.values()]
        shown = [
            f"{each.value:.2f} [{each.interval[0]:.2f}, {each.interval[1]:.2f}]"
            if each
            else "not yet above chance"
            for each in found
        ]
        lines.append(f"  {words:<29}{''.join(f'{each:>24}' for each in shown)}")
    chances = (f"{probe.monitor.last_record.reliance.chance:.2f}" for probe in probes.values())
    return "\n".join([*lines, f"  {'chance':<29}{''.join(f'{each:>24}' for each in chances)}"])


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description="Train two digit classifiers, one of them with a planted shortcut, and watch where they look.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--logger",
        choices=LOGGERS,
        default="tensorboard",
        help="where the looks go",
    )
    add("--epochs", type=int, default=6, help="epochs of each training; one look after each")
    add("--train-size", type=int, default=2800, help="training images of each training")
    add("--output", type=Path, default=Path("runs/planted_shortcut"), help="folder for everything written")
    add("--seed", type=int, default=0, help="fixes the split, the canvases and the trainings")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train both models, then show what was measured and where to look."""
    options = parse(arguments)
    hide_hints()
    torch.set_num_threads(1)  # enough for tensors this small, and the same numbers on every machine
    options.output.mkdir(parents=True, exist_ok=True)
    probes = {}
    for experiment in plan_experiments(options.train_size, options.seed):
        print(f"\nTraining {experiment.name}")
        probes[experiment.name] = train(experiment, options)
    print(table(probes), *(describe(*each) for each in probes.items()), checks(probes), sep="\n\n")
    print("", *(said(name, probe.alarm) for name, probe in probes.items()), sep="\n")
    print("\nThe last look of each training:", *save_overlays(probes, options.output), sep="\n  ")
    print(how_to_open(options.logger, options.output))


if __name__ == "__main__":
    main()
