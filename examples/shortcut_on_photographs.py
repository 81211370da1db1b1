"""A pretrained network on photographs, trained twice: a badge in their corner gives the class away, or it does not.

Six agencies delivered the photographs, each with its own badge in the corner. In the first training every class came
from one agency, in validation too, so the accuracy cannot show what the network reads. In the second one the badges are
drawn at random. Two `SaliencyMonitor`s look at each training: one has images and labels only, the other the boxes of
the objects too. A `ShortcutAlarm` reads both; neither is given a hint of the badge.

    python examples/shortcut_on_photographs.py
"""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from badged_photographs import (
    CLASS_NAMES,
    CLASSES,
    Scenes,
    badge_mask,
    draw_scenes,
    random_kinds,
    with_badges,
)
from demo_output import LOGGERS, accuracy, hide_hints, how_to_open, logger_of, save_overlays
from photographs import MEAN, STD, normalized, pretrained
from pytorch_lightning import Callback, LightningModule, Trainer, seed_everything
from pytorch_lightning.loggers import WandbLogger
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from lightning_gcam import SaliencyBatch, SaliencyMonitor, ShortcutAlarm
from lightning_gcam.metrics import EnergyPointingGame

# ---------------------------------------------------------------- the model: it knows nothing of saliency


class PhotographClassifier(LightningModule):
    """EfficientNet-Lite0 as ImageNet left it, with a new last layer; that and the last blocks learn."""

    def __init__(self) -> None:
        super().__init__()
        self.network = pretrained(len(CLASSES)).to(memory_format=torch.channels_last)  # faster on a processor
        for part in (self.network.conv_stem, self.network.bn1, *self.network.blocks[:5]):
            part.requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """From images `(N, 3, H, W)` to logits `(N, 6)`."""
        return self.network(images)

    def training_step(self, batch: Sequence[Tensor], batch_idx: int) -> Tensor:
        images, labels, *_ = batch
        return cross_entropy(self(images), labels)

    def validation_step(self, batch: Sequence[Tensor], batch_idx: int) -> None:
        images, labels, *_ = batch
        self.log("val_acc", accuracy(self(images), labels), prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        head = self.network.classifier.parameters()
        blocks = [*self.network.blocks[5:].parameters(), *self.network.conv_head.parameters()]
        return torch.optim.AdamW([{"params": head, "lr": 3e-3}, {"params": blocks, "lr": 3e-4}])


# --------------------------------------------------------------------------------------------- the data


class Experiment(NamedTuple):
    """The data of one training, and its validation scenes once more with the badges shuffled."""

    name: str
    train: Scenes
    validation: Scenes
    shuffled: Scenes


def plan_experiments(train_size: int, validation_size: int, seed: int) -> list[Experiment]:
    """The same scenes twice: with badges that are the class, and with badges drawn at random."""
    train = draw_scenes(train_size, "training", seed)
    validation = draw_scenes(validation_size, "validation", seed + 1)
    with_cue = [with_badges(scenes, scenes.labels) for scenes in (train, validation)]
    without_cue = [
        with_badges(train, random_kinds(train_size, seed + 2)),
        with_badges(validation, random_kinds(validation_size, seed + 3)),
    ]
    shuffled = with_badges(validation, random_kinds(validation_size, seed + 4))
    return [Experiment("with_cue", *with_cue, shuffled), Experiment("without_cue", *without_cue, shuffled)]


def batches(scenes: Scenes, shuffle: bool = False) -> DataLoader:
    """Batches `(images, labels, boxes)`."""
    dataset = TensorDataset(normalized(scenes.images), scenes.labels, scenes.boxes)
    return DataLoader(dataset, batch_size=32, shuffle=shuffle)


# ------------------------------------------------------------------------------------------ who looks at it


def images_and_labels(batch: Sequence[Tensor]) -> SaliencyBatch:
    """A batch as it would be without boxes."""
    images, labels, *_ = batch
    return SaliencyBatch(images, labels)


def monitors(num_samples: int) -> dict[str, SaliencyMonitor]:
    """A monitor that sees no boxes, and one that does, by the name they log under."""
    shared = {
        "num_samples": num_samples,
        "normalize": (MEAN, STD),
        "class_names": CLASS_NAMES,
        "max_overhead": None,
    }
    labels_only = SaliencyMonitor(adapter=images_and_labels, log_prefix="labels_only", **shared)
    checks = ["background_only_accuracy", "object_only_accuracy", "background"]  # what boxes add
    with_boxes = SaliencyMonitor(checks=checks, log_prefix="with_boxes", **shared)
    return {each.log_prefix: each for each in (labels_only, with_boxes)}


# ----------------------------------------------------- what only the one who planted the cue can measure


class Look(NamedTuple):
    """What was measured at one look, or what chance would give."""

    validation: float
    shuffled: float
    removed: float
    object: float
    badge: float


class CueProbe(Callback):
    """Beside each look of the monitors: accuracy with the badges shuffled, and the saliency on the badge."""

    def __init__(self, monitors: dict[str, SaliencyMonitor], alarm: ShortcutAlarm, shuffled: Scenes) -> None:
        self.monitors = monitors
        self.monitor = monitors["with_boxes"]
        self.alarm = alarm
        self.shuffled = shuffled
        self.looks: list[Look] = []

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The monitors have just looked; the model is in eval mode, and no gradients are kept."""
        images, labels, *_ = self.shuffled
        newest = self.monitor.history[-1]
        self.looks.append(
            Look(
                validation=float(trainer.callback_metrics["val_acc"]),
                shuffled=float(accuracy(pl_module(normalized(images)), labels)),
                removed=newest.get(
                    "background_only_accuracy", math.nan
                ),  # nan: accuracy was not above chance
                object=newest.get("energy", math.nan),  # nan: every map was blank
                badge=self.energy_on_badge(),
            )
        )

    def energy_on_badge(self) -> float:
        """Which share of the saliency lay on the badge, at the monitor's last look."""
        maps = self.monitor.last_record.attribution.maps["guidance_cam"]
        return float(EnergyPointingGame()(maps, badge_mask().expand_as(maps)))

    @property
    def chance(self) -> Look:
        """What guessing gives, and what saliency spread evenly over the image gives."""
        guess, newest = 1 / len(CLASSES), self.monitor.history[-1]
        removed = newest.get("object_chance", guess)
        energy = newest.get("energy_chance", math.nan)
        return Look(guess, guess, removed, energy, float(badge_mask().float().mean()))


# ----------------------------------------------------------------------------------------- the training


def train(experiment: Experiment, options: argparse.Namespace) -> CueProbe:
    """Train one model; both monitors look after every epoch, and the alarm reads them."""
    seed_everything(options.seed, verbose=False)
    watching, alarm = monitors(options.samples), ShortcutAlarm()
    probe = CueProbe(watching, alarm, experiment.shuffled)
    loggers = [logger_of(kind, options.output, experiment.name) for kind in options.logger]
    trainer = Trainer(
        accelerator="cpu",  # the same numbers everywhere
        deterministic=True,
        max_epochs=options.epochs,
        callbacks=[*watching.values(), alarm, probe],
        logger=[logger for logger in loggers if logger],
        default_root_dir=options.output / experiment.name,
        log_every_n_steps=5,
        num_sanity_val_steps=0,
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    trainer.fit(
        PhotographClassifier(), batches(experiment.train, shuffle=True), batches(experiment.validation)
    )
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            logger.experiment.finish()  # the next training is a run of its own
    return probe


# ------------------------------------------------------------------------------------------- the report

HEADER = """
                      validation    accuracy with    accuracy with    energy on    energy on
training      epoch     accuracy    badges shuffled  object removed   the object   the badge"""


def table(probes: dict[str, CueProbe]) -> str:
    """One row for each look of each training, and what chance would give."""
    lines = [HEADER]
    for name, probe in probes.items():
        lines.append("-" * 90)
        lines += [row(name, str(epoch), look) for epoch, look in enumerate(probe.looks, start=1)]
        lines.append(row("", "chance", probe.chance))
    return "\n".join(lines)


def row(name: str, epoch: str, look: Look) -> str:
    """One line of the table."""
    numbers = zip(look, (13, 19, 16, 13, 12), strict=True)
    return f"{name:<13}{epoch:>6}" + "".join(f"{number:>{width}.2f}" for number, width in numbers)


def said(name: str, alarm: ShortcutAlarm) -> str:
    """What the alarm said of each part of a training: the headlines of its alerts, and when."""
    lines = [name]
    for prefix, words in (("labels_only", "images and labels"), ("with_boxes", "with boxes")):
        alerts = [each for each in alarm.alerts if each["log_prefix"] == prefix]
        found = [f"{each['headline']} (epoch {each['epoch'] + 1})" for each in alerts]
        lines.append(f"  {words + ':':<19}{'; then '.join(found) or 'nothing.'}")
    return "\n".join(lines)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description="Fine-tune a pretrained network on photographs, with a planted shortcut and without.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--logger",
        choices=LOGGERS,
        nargs="+",
        default=["tensorboard", "report"],
        help="where the looks go, one or several",
    )
    add("--epochs", type=int, default=3, help="epochs of each training; one look after each")
    add("--train-size", type=int, default=480, help="training images of each training")
    add("--validation-size", type=int, default=120, help="validation images")
    add("--samples", type=int, default=24, help="validation images that every look is taken of")
    add("--output", type=Path, default=Path("runs/demo"), help="folder for everything written")
    add("--seed", type=int, default=0, help="fixes the scenes and the trainings")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> dict[str, CueProbe]:
    """Train both models, then show what was measured and where to look; return what was measured."""
    options = parse(arguments)
    hide_hints()
    options.output.mkdir(parents=True, exist_ok=True)
    probes = {}
    for experiment in plan_experiments(options.train_size, options.validation_size, options.seed):
        print(f"\nTraining {experiment.name}")
        probes[experiment.name] = train(experiment, options)
    print(table(probes))
    print("\nWhat the alarm said:", *(said(name, probe.alarm) for name, probe in probes.items()), sep="\n")
    print("\nThe last look of each training:", *save_overlays(probes, options.output), sep="\n  ")
    print(*(how_to_open(kind, options.output) for kind in options.logger), sep="\n")
    return probes


if __name__ == "__main__":
    main()
