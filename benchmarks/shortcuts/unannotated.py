"""The trainings of `no_annotation.py`: batches are `(images, labels)`, and the monitor gets no mask and no region.

Each training is one line of JSON with the class that every changed image was taken for, at every look: any rule and any
threshold can be tried without a training again. A recorder, which has the masks of the same samples, makes the checks
that need them beside it.
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from planted_shortcut import accuracy
from pytorch_lightning import Callback, LightningModule, Trainer, seed_everything
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.common.cues import CUES, FURTHER, ON_THE_OBJECT, Plan, Scenes
from benchmarks.shortcuts.comparisons import balanced_rows
from benchmarks.shortcuts.runs import STRENGTHS, Classifier, Run, Settings, Undrawn, ask, draw_scenes, fit
from lightning_gcam import SaliencyBatch, SaliencyMonitor
from lightning_gcam.shortcuts import Exchanges
from lightning_gcam.shortcuts.regions import salient_place
from lightning_gcam.shortcuts.removal import DEFAULT_REMOVAL

ALL_CUES = (*CUES, ON_THE_OBJECT, *FURTHER)
PROPERTIES = (
    "color",
    "spectrum",
    "texture",
    "border",
    "salient_region",
    "histogram",
)  # the last one by name only
REMOVING = ("background_only_accuracy",)  # of the checks beside the exchanges, the one that the alarm judges
TAKE_MASKS = (
    "background",
    "suspect",
    "salient_region",
)  # the last one spares the objects where it knows them


def plan_unannotated(seeds: Sequence[int], further: Sequence[int] = ()) -> list[Run]:
    """Each cue at each strength; no cue, and each without a relation to the label.

    One strength after another: a run that is stopped has all cues and all seeds.

    Args:
        seeds: of all of these.
        further: of those in which nothing tells the label.
    """
    silent = [Plan("none", 0.0), *(Plan(cue, 0.0) for cue in ALL_CUES)]
    telling = {strength: [Plan(cue, strength) for cue in ALL_CUES] for strength in STRENGTHS}
    passes = [telling[0.95] + silent, telling[0.99], telling[0.9]]
    runs = [Run(plan, seed) for each in passes for seed in seeds for plan in each]
    return runs + [Run(plan, seed) for seed in further for plan in silent]


class Labelled(Classifier):
    """The classifier on batches `(images, labels)`."""

    def __init__(self) -> None:
        super().__init__()
        self.to(memory_format=torch.channels_last)  # a quarter less time on a processor

    def training_step(self, batch: Sequence[Tensor], batch_idx: int) -> Tensor:
        return super().training_step({"image": batch[0], "label": batch[1]}, batch_idx)

    def validation_step(self, batch: Sequence[Tensor], batch_idx: int) -> None:
        super().validation_step({"image": batch[0], "label": batch[1]}, batch_idx)


def pairs(scenes: Scenes, shuffle: bool = False) -> DataLoader:
    """Images and labels, and nothing else."""
    return DataLoader(TensorDataset(scenes.images, scenes.labels), batch_size=64, shuffle=shuffle)


class ExchangeRecorder(Callback):
    """Behind each look: the honest accuracy, the class of every exchanged image, and the checks that need masks."""

    def __init__(self, monitor: SaliencyMonitor, annotated: SaliencyBatch, honest: Scenes) -> None:
        self.monitor = monitor
        self.annotated = annotated
        self.honest = honest
        self.looks: list[dict[str, Any]] = []
        self.exchanges: Exchanges | None = None

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The model is in eval mode here, and no gradients are kept."""
        record = self.monitor.last_record
        assert record is not None and record.batch.masks is None
        maps, with_masks = next(iter(record.attribution.maps.values())), replace(record, batch=self.annotated)
        self.exchanges = Exchanges.of(record.batch, PROPERTIES, maps)
        assert self.exchanges is not None
        rows = torch.arange(len(record.batch))
        exchanged = {name: pl_module(make(rows)) for name, make in self.exchanges.versions().items()}
        self.looks.append(
            {
                "step": record.step,
                "epoch": record.epoch,
                "validation": float(trainer.callback_metrics["val_acc"]),
                "honest": float(accuracy(pl_module(self.honest.images), self.honest.labels)),
                "predicted": record.predictions.tolist(),
                "exchanged": {name: logits.argmax(dim=1).tolist() for name, logits in exchanged.items()},
                "salient_place": salient_place(maps).flatten().nonzero()[:, 0].tolist(),
                "with_masks": ask(pl_module, with_masks, DEFAULT_REMOVAL, TAKE_MASKS, REMOVING)["reliance"],
            }
        )


def train_unannotated(run: Run, settings: Settings) -> dict[str, Any]:
    """Train once, with a look after every epoch; the line of this training."""
    began = time.perf_counter()
    scenes, validation, honest = draw_scenes(run, settings)
    rows = balanced_rows(validation.labels.tolist(), settings.samples)  # as the monitor would choose
    images, labels, masks, suspect = (each[rows] for each in validation)
    seed_everything(run.seed, verbose=False)
    monitor = Undrawn(batch=(images, labels), scores=[], checks=[], on_error="raise")
    annotated = SaliencyBatch(images, labels, masks, suspect=suspect if suspect.any() else None)
    recorder = ExchangeRecorder(monitor, annotated, honest)
    fit(Labelled(), [monitor, recorder], pairs(scenes, shuffle=True), pairs(validation), settings.epochs)
    assert recorder.exchanges is not None
    donors, *others = recorder.exchanges.donors.values()
    assert all(
        torch.equal(each.others, donors.others) for each in others
    )  # without a mask all are of all samples
    return {
        **run.plan._asdict(),
        "seed": run.seed,
        "settings": settings._asdict(),
        "labels": labels.tolist(),
        "donors": {"others": donors.others.tolist(), "mates": donors.mates.tolist()},
        "looks": recorder.looks,
        "seconds": time.perf_counter() - began,
    }
