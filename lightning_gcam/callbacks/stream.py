"""The way of a dataset through an evaluation: batch after batch, what is done is kept and not done again."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lightning_gcam._errors import InputError
from lightning_gcam._lightning import LightningModule, Trainer, rank_zero_info
from lightning_gcam._names import safe_name
from lightning_gcam.batch import Adapter, SaliencyBatch, as_saliency_batch
from lightning_gcam.batch.dense import warn_of_full_masks
from lightning_gcam.callbacks.evaluating import Evaluating
from lightning_gcam.callbacks.failures import FailurePolicy
from lightning_gcam.callbacks.fingerprint import fingerprint, settings_of
from lightning_gcam.callbacks.places import Numbers, Places, digests_of
from lightning_gcam.callbacks.preparation import prepare
from lightning_gcam.callbacks.processes import same_everywhere
from lightning_gcam.callbacks.recipe import Recipe
from lightning_gcam.callbacks.whole_numbers import whole_numbers_explained
from lightning_gcam.cam.several import TargetLayers
from lightning_gcam.evaluation import Part, Parts
from lightning_gcam.loggers.claims import is_ours, release

A_BATCH, READING = "Evaluating a batch", "Reading the test batch"


@dataclass(frozen=True)
class Plan:
    """What is evaluated; the fields are arguments of `SaliencyEvaluation`."""

    recipe: Recipe
    target_layer: TargetLayers | None
    adapter: Adapter | None
    class_names: Any
    chunk_size: int | None
    baselines: bool
    resume: bool
    directory: Path | None
    log_prefix: str

    def parts_in(self, root: Path, settings: dict[str, Any]) -> Path:
        """Where what is done is kept under `root`, for an evaluation of these settings."""
        return root / f"{safe_name(self.log_prefix.strip('/').replace('/', '-'))}-{fingerprint(settings)}"


@dataclass
class Stream:
    """One evaluation on its way.

    Args:
        trainer: that runs.
        module: the model.
        plan: what is evaluated.
        failures: told what fails.
        places: which sample of the dataset each one is.
        parts: what is done.
        settings: what decides whether another evaluation is the same.
        loader: the dataloader.
        done: the digest of each sample that is done, by its position.
        positions: of the samples that this process was handed and that are done, batch by batch.
        unlabelled: how many had no label.
        failed: how many could not be done.
    """

    trainer: Trainer
    module: LightningModule
    plan: Plan
    failures: FailurePolicy
    places: Places
    parts: Parts
    settings: dict[str, Any]
    loader: Any = None
    done: dict[int, int] = field(default_factory=dict)
    positions: list[Numbers] = field(default_factory=list)
    unlabelled: int = 0
    failed: int = 0
    evaluating: Evaluating | None = None

    @staticmethod
    def begin(
        trainer: Trainer, module: LightningModule, plan: Plan, failures: FailurePolicy, loader: Any
    ) -> Stream:
        """Begin, or go on with what an interrupted evaluation of the same settings has done; in all processes alike.

        Raises:
            InputError: where another program evaluates into the same directory at this moment.
        """
        _claim(trainer, plan.directory)
        settings = same_everywhere(trainer, settings_of(plan.recipe, module, plan.target_layer, plan.adapter))
        root = plan.directory or Path(trainer.default_root_dir) / "lightning_gcam"
        directory = plan.parts_in(root, settings)
        if not plan.resume and trainer.local_rank == 0:
            Parts(directory).remove()
        trainer.strategy.barrier()
        parts = Parts(
            directory, trainer.global_rank
        )  # knows the layer of what is there now, in every process
        done = parts.done()
        if done:
            rank_zero_info(
                f"SaliencyEvaluation: {len(done)} samples are done already; it goes on from {parts.directory}."
            )
        places = Places.of(trainer, loader)
        return Stream(trainer, module, plan, failures, places, parts, settings, loader, done)

    def receive(self, batch: Any) -> None:
        """Take the next batch of this process; whatever fails, its samples keep their positions and are counted."""
        is_first, samples = self.places.delivered == 0, None
        with self.failures.guard(READING, before_training=is_first):
            samples = as_saliency_batch(batch, self.plan.adapter, self.plan.class_names)
        n = len(samples) if samples is not None else self.places.size_of(batch, self.loader)
        positions = self.places.take(n)
        if samples is None:
            self.failed += int(self.places.counts(positions).sum())
            return
        rows = self._usable(samples, positions)
        if rows:
            self.failed += 0 if self._take(samples, rows, positions[rows], batch) else len(rows)

    def end(self) -> None:
        """Leave the directory to other programs."""
        if self.plan.directory is not None:
            release(self.plan.directory)

    def say_where_it_stopped(self) -> None:
        """What is kept, and how it goes on."""
        done = sum(map(len, self.positions))
        rank_zero_info(
            f"SaliencyEvaluation was interrupted with {done} samples done in this process. They are kept in "
            f"{self.parts.directory}: run the same again, and it goes on there."
        )

    def _usable(self, samples: SaliencyBatch, positions: Numbers) -> list[int]:
        """The rows that are no second time of another and have a label, if any has."""
        counts, labels = self.places.counts(positions), samples.labels
        if labels is not None and labels.ndim == 1 and not labels.is_floating_point():
            labelled = (labels >= 0).cpu().numpy()
            self.unlabelled += int((counts & ~labelled).sum())
            counts = counts & labelled
        return [int(row) for row in np.flatnonzero(counts)]

    def _take(self, whole: SaliencyBatch, rows: list[int], positions: Numbers, batch: Any) -> bool:
        """Whether these rows of a batch are done, in an earlier run or now."""
        if self.failures.has_given_up:
            return self._knows(whole, rows, positions)
        succeeded = False
        with self.failures.guard(A_BATCH, before_training=self.evaluating is None):
            samples = whole.select(rows)
            digests = digests_of(samples)
            if self._are_done(positions, digests):
                return True
            evaluating = self.evaluating = self.evaluating or self._prepared(samples, batch)
            found = evaluating.measure(samples, self._leave_out)
            self.parts.save(Part(positions, digests, *found))
            self.positions.append(positions)
            succeeded = True
        self.failures.count(succeeded=succeeded, work=A_BATCH)
        return succeeded

    def _knows(self, whole: SaliencyBatch, rows: list[int], positions: Numbers) -> bool:
        """After too many failures nothing is tried any more; what an earlier run has done is still in the table."""
        with self.failures.guard(A_BATCH):
            return self._are_done(positions, digests_of(whole.select(rows)))
        return False

    def _are_done(self, positions: Numbers, digests: Numbers) -> bool:
        """Whether an earlier run has done these very samples; then they are in the table."""
        known: bool = [self.done.get(position) for position in positions.tolist()] == digests.tolist()
        if known:
            self.positions.append(positions)
        return known

    def _prepared(self, samples: SaliencyBatch, batch: Any) -> Evaluating:
        """Find the layer, or take the one that was found when it began; and try one sample all the way."""
        warn_of_full_masks(samples.object_masks)
        plan, known = self.plan, self.parts.remembered()
        layer = known.get("layers", plan.target_layer)
        with whole_numbers_explained(batch):
            found = prepare(self.trainer, self.module, samples, layer, plan.recipe)
        names = [each.name for each in found]
        self.parts.remember({**self.settings, "layers": names})
        return Evaluating(self.trainer, self.module, names, plan.recipe, plan.chunk_size, plan.baselines)

    def _leave_out(self, score: str, error: Exception) -> None:
        self.failures.report(f'The score "{score}"', error)


def _claim(trainer: Trainer, directory: Path | None) -> None:
    """Rank zero decides for all processes: where only one raised, the others would wait for it."""
    is_free = True
    if directory is not None and trainer.is_global_zero:
        with suppress(OSError):  # what cannot be written there is said where it is written
            is_free = is_ours(directory)
    if not same_everywhere(trainer, {"is_free": is_free})["is_free"]:
        raise InputError(
            f'`directory` "{directory}" is written to by another evaluation. Wait for it, or give another one.'
        )
