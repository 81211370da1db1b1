"""The trainings of `shortcuts.py`: a small network on digits with a cue, and all that one look after another measured.

Each training is one line of JSON, rich enough that no table and no threshold needs a training again.
"""

import json
import logging
import multiprocessing
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
from digits_on_canvas import split_scans
from planted_shortcut import accuracy, convolution
from pytorch_lightning import Callback, LightningModule, Trainer, seed_everything
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader
from tqdm import tqdm

from benchmarks.common.cues import (
    CUES,
    NUM_CLASSES,
    ON_THE_OBJECT,
    Plan,
    Scenes,
    draw,
)  # first: it puts the examples on the path
from lightning_gcam import SaliencyMonitor
from lightning_gcam.callbacks.publisher import Publisher
from lightning_gcam.cam import available_methods
from lightning_gcam.metrics import default_scores
from lightning_gcam.pipeline.record import SaliencyRecord
from lightning_gcam.shortcuts import Checks, Exchanges, Removal, changed_images, measure_reliance

STRENGTHS = (0.99, 0.95, 0.9)
REMOVALS: tuple[Removal, ...] = ("blur", "mean", "neighbours")
ANNOTATED = ("background", "suspect")  # the properties that need a mask or a region
BEYOND = [
    "suspect_lift",
    "best_iou",
    "pixel_average_precision",
    "gini",
    "entropy",
    "positional_concentration",
]
SCORES = list(dict.fromkeys([*default_scores(), *BEYOND]))


class Settings(NamedTuple):
    """What all trainings share."""

    epochs: int = 12
    train_size: int = 1437
    samples: int = 64


class Run(NamedTuple):
    """One training: what is planted, and the seed of its split, its scenes and its network."""

    plan: Plan
    seed: int


def plan_runs(seeds: Sequence[int], further: Sequence[int] = ()) -> list[Run]:
    """Each cue at each strength, and one on the object; no cue, and each without a relation to the label.

    Args:
        seeds: of all of these, seed after seed.
        further: of those in which nothing tells the label.
    """
    telling = [Plan(cue, strength) for strength in STRENGTHS for cue in CUES] + [Plan(ON_THE_OBJECT, 0.95)]
    silent = [Plan("none", 0.0), *(Plan(cue, 0.0) for cue in CUES)]
    runs = [Run(plan, seed) for seed in seeds for plan in telling + silent]
    return runs + [Run(plan, seed) for seed in further for plan in silent]


# ---------------------------------------------------------------------------------------- the training


class Classifier(LightningModule):
    """Five convolutions, the strongest response of each channel, one linear layer."""

    def __init__(self) -> None:
        super().__init__()
        widths = [3, 16, 32, 32, 48, 64]
        layers = [
            convolution(*pair, stride=2 if depth < 2 else 1) for depth, pair in enumerate(pairwise(widths))
        ]
        self.features = nn.Sequential(*(nn.Sequential(*layer) for layer in layers))
        self.head = nn.Linear(widths[-1], NUM_CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images).amax(dim=(2, 3)))

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        return cross_entropy(self(batch["image"]), batch["label"])

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self.log("val_acc", accuracy(self(batch["image"]), batch["label"]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=2e-3)


def batches(scenes: Scenes, shuffle: bool = False) -> DataLoader:
    """Batches as a dataset with annotation would give them; no suspect region where the cue has no place."""
    columns = {"image": scenes.images, "label": scenes.labels, "mask": scenes.masks}
    if scenes.suspect.any():
        columns["suspect"] = scenes.suspect
    rows = [{name: column[row] for name, column in columns.items()} for row in range(len(scenes.labels))]
    return DataLoader(rows, batch_size=64, shuffle=shuffle)


class Undrawn(SaliencyMonitor):
    """The monitor without its pictures: hundreds of them that nobody would look at."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Where looks would be shown, nothing is."""
        super().setup(trainer, pl_module, stage)
        self._display = Nowhere(self._failures)


class Nowhere(Publisher):
    """Show nothing."""

    def show(self, *look: Any) -> None:
        """Neither drawn nor written."""


class Recorder(Callback):
    """Behind each look of the monitor: the honest accuracy, and the causal checks with every removal."""

    def __init__(self, monitor: SaliencyMonitor, honest: Scenes) -> None:
        self.monitor = monitor
        self.honest = honest
        self.looks: list[dict[str, Any]] = []

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The model is in eval mode here, and no gradients are kept."""
        record = self.monitor.last_record
        assert record is not None
        self.looks.append(
            {
                "step": record.step,
                "epoch": record.epoch,
                "validation": float(trainer.callback_metrics["val_acc"]),
                "honest": float(accuracy(pl_module(self.honest.images), self.honest.labels)),
                "scores": record.scores,
                "predicted": record.predictions.tolist(),
                "removals": {str(removal): ask(pl_module, record, removal) for removal in REMOVALS},
            }
        )


def ask(
    module: nn.Module,
    record: SaliencyRecord,
    removal: Removal,
    exchanged: Sequence[str] = ANNOTATED,
    checks: Checks = None,
) -> dict[str, Any]:
    """The checks with one removal, and the class that each changed image was taken for."""
    maps = next(iter(record.attribution.maps.values()))
    changed = changed_images(record.batch, maps, checks, removal)
    exchanges = Exchanges.of(record.batch, exchanged, maps, removal)
    if exchanges is not None:
        rows = torch.arange(len(record.batch))
        changed |= {name: make(rows) for name, make in exchanges.versions().items()}
    answers = {name: module(images) for name, images in changed.items()}
    logits = record.attribution.logits
    reliance = measure_reliance(record.batch, logits, answers, maps)
    if exchanges is not None:
        measured = exchanges.measure(logits, answers)
        reliance = replace(reliance, measurements={**reliance.measurements, **measured})
    predicted = {name: logits.argmax(dim=1).tolist() for name, logits in answers.items()}
    return {"reliance": reliance.to_plain(), "predicted": predicted}


def draw_scenes(run: Run, settings: Settings) -> tuple[Scenes, Scenes, Scenes]:
    """The scenes to train on, those to validate on, and the latter with a cue that tells nothing."""
    train_scans, validation_scans = split_scans(run.seed)
    size, seed = len(validation_scans.labels), 3 * run.seed + 2
    return (
        draw(train_scans, settings.train_size, run.plan, seed=3 * run.seed + 1),
        draw(validation_scans, size, run.plan, seed, validation=True),
        draw(validation_scans, size, run.plan._replace(strength=0.0), seed, validation=True),
    )


def fit(
    module: LightningModule,
    callbacks: Sequence[Callback],
    training: DataLoader,
    validation: DataLoader,
    epochs: int,
) -> None:
    """Train on the CPU with these callbacks and nothing else: no logger, no checkpoint, no progress bar."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            accelerator="cpu",
            deterministic=True,
            max_epochs=epochs,
            callbacks=list(callbacks),
            logger=False,
            default_root_dir=folder,
            num_sanity_val_steps=0,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=False,
        )
        trainer.fit(module, training, validation)


def train(run: Run, settings: Settings) -> dict[str, Any]:
    """Train once, with a look after every epoch; the line of this training."""
    began = time.perf_counter()
    scenes, validation, honest = draw_scenes(run, settings)
    seed_everything(run.seed, verbose=False)
    monitor = Undrawn(
        methods=available_methods()[:6],
        scores=SCORES,
        checks=[],  # the recorder asks with every removal
        num_samples=settings.samples,
        on_error="raise",
    )
    recorder = Recorder(monitor, honest)
    fit(
        Classifier(), [monitor, recorder], batches(scenes, shuffle=True), batches(validation), settings.epochs
    )
    return {
        **run.plan._asdict(),
        "seed": run.seed,
        "settings": settings._asdict(),
        "labels": monitor.last_record.batch.labels.tolist(),
        "looks": recorder.looks,
        "seconds": time.perf_counter() - began,
    }


# ------------------------------------------------------------------------------------- many of them


Train = Callable[[Any, Any], dict[str, Any]]
"""From a run and the settings to the line of this training."""


def run_of(line: Mapping[str, Any]) -> Run:
    """The run of a line."""
    return Run(Plan(line["cue"], line["strength"]), line["seed"])


def run_all(
    runs: Sequence[Any],
    settings: Any,
    path: Path,
    workers: int,
    train_one: Train | None = None,
    read: Callable[[Mapping[str, Any]], Any] = run_of,
) -> list[dict[str, Any]]:
    """Train what the file does not hold yet, in processes of their own; every training that ends is kept at once.

    `train_one` is a function of a module; `train` where it is left out. `read` gives the run of a line.
    """
    done = read_runs(path, settings, read)
    missing = [run for run in runs if run not in done]
    path.parent.mkdir(parents=True, exist_ok=True)
    with tqdm(total=len(runs), initial=len(runs) - len(missing), desc="trainings", unit="run") as progress:
        for run, line in train_each(missing, settings, workers, train_one or train):
            done[run] = line
            with path.open("a", encoding="utf-8") as file:
                file.write(f"\n{json.dumps(line)}\n")  # a line that was cut off ends here
            progress.set_postfix_str(f"{run.plan.cue} {run.plan.strength} seed {run.seed}")
            progress.update()
    return [done[run] for run in runs]


def read_runs(
    path: Path, settings: Any, read: Callable[[Mapping[str, Any]], Any] = run_of
) -> dict[Any, dict[str, Any]]:
    """The trainings that a file holds; those of other settings do not count, nor does a line that was cut off."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    found = [line for line in map(parse_line, lines) if line and line["settings"] == settings._asdict()]
    return {read(line): line for line in found}


def parse_line(text: str) -> dict[str, Any] | None:
    try:
        return dict(json.loads(text))
    except ValueError:
        return None


def train_each(
    runs: Sequence[Any], settings: Any, workers: int, train_one: Train
) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Each training with its line, as they end; here, one after another, where there are no workers."""
    if not workers:
        yield from ((run, train_one(run, settings)) for run in runs)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=be_quiet) as pool:
        futures = {pool.submit(train_one, run, settings): run for run in runs}
        for future in as_completed(futures):
            yield futures[future], future.result()


def be_quiet() -> None:
    """One thread a process, and nothing between the progress bar's lines."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for name in ("pytorch_lightning", "lightning_gcam"):
        logging.getLogger(name).setLevel(logging.ERROR)
