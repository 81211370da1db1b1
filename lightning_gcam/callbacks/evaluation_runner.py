"""The evaluation of a dataset batch by batch, whose finished batches are kept on disk and not computed again."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchmetrics import Metric

from lightning_gcam.callbacks.distributed import from_rank_zero, own_map_fn, through_wrapper
from lightning_gcam.callbacks.error_policy import FailurePolicy
from lightning_gcam.callbacks.positions import Numbers, StreamPositions, checksum, digests_of
from lightning_gcam.callbacks.reading_notes import warn_of_unclear
from lightning_gcam.callbacks.sample_collector import integer_images_explained
from lightning_gcam.callbacks.trainer_state import as_inputs, precision
from lightning_gcam.cam.calling import WrappedForward
from lightning_gcam.cam.heads import HeadPlan
from lightning_gcam.data import Adapter, SaliencyBatch, as_saliency_batch
from lightning_gcam.data.fixed_samples import FixedBatch, one_labelled
from lightning_gcam.data.masks import warn_of_full_masks
from lightning_gcam.evaluation import Columns, SampleStore, StoredBatch
from lightning_gcam.loggers.disk import claim_directory, release_directory
from lightning_gcam.metrics.measurement import ScoreResults
from lightning_gcam.metrics.registry import BASELINES
from lightning_gcam.pipeline.config import PERTURBING, LookConfig, OnFailure
from lightning_gcam.pipeline.dry_run import dry_run
from lightning_gcam.pipeline.labels import labels_of, samples_of_head, with_inputs_taken
from lightning_gcam.pipeline.run import analyze
from lightning_gcam.utils.chunking import ForwardCount, without_progress_bars
from lightning_gcam.utils.errors import InputError
from lightning_gcam.utils.files import safe_name
from lightning_gcam.utils.lightning_compat import LightningModule, Trainer, rank_zero_info


def settings_of(
    config: LookConfig, module: nn.Module, target_layer: Any, adapter: Callable[..., Any] | None
) -> dict[str, Any]:
    """The settings and the weights' checksum of an evaluation, in JSON's types.

    Args:
        config: what is computed.
        module: the model.
        target_layer: as it was given.
        adapter: as it was given.
    """
    targets = config.targets
    return {
        "methods": {name: _described(method) for name, method in config.method_table.items()},
        "scores": {name: _traits(metric) for name, metric in config.resolved_scores.metrics.items()},
        "target_layer": target_layer,
        "fuse": config.fuse,
        "targets": _described(targets) if callable(targets) else targets,
        "multi_label": config.multi_label,
        "forward": _described(config.forward),
        "reshape_transform": _described(config.reshape_transform),
        "adapter": _described(adapter),
        "weights": checksum(module.state_dict()),
        **({"head": config.head} if config.head is not None else {}),
    }


def fingerprint(settings: dict[str, Any]) -> str:
    """A short hash of the settings.

    Example:
        >>> fingerprint({"fuse": None, "targets": 3}) == fingerprint({"targets": 3, "fuse": None})
        True
    """
    text = json.dumps(settings, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


def _traits(metric: Metric) -> list[Any]:
    """A metric's class, and the arguments that it keeps."""
    plain = (int, float, str, bool, tuple, type(None))
    kept = {name: each for name, each in vars(metric).items() if isinstance(each, plain) and name[0] != "_"}
    return [type(metric).__qualname__, {name: kept[name] for name in sorted(kept)}]


def _described(function: Any) -> Any:
    """A callable described by its name and its code, so that another one under the same name differs."""
    if function is None or not callable(function):
        return function
    parts: list[Any] = []
    while (inner := getattr(function, "func", None) or getattr(function, "function", None)) is not None:
        parts.append([str(getattr(function, "args", "")), str(getattr(function, "keywords", ""))])
        function = inner  # of a functools.partial, or of what wraps a method
    name = getattr(function, "__qualname__", type(function).__qualname__)
    parts.append(f"{getattr(function, '__module__', '')}.{name}")
    code = getattr(function, "__code__", None)
    if code is not None:
        constants = [repr(each) for each in code.co_consts if not hasattr(each, "co_code")]
        text = repr([code.co_code, code.co_names, constants])
        parts.append(hashlib.blake2b(text.encode(), digest_size=6).hexdigest())
    return parts


@dataclass(frozen=True)
class CountedForward(WrappedForward):
    """A `forward` that counts the images that went through the model.

    Args:
        forward: the user's.
        total: the count, one for all that were made of this.
    """

    total: ForwardCount = field(default_factory=ForwardCount)

    def __call__(self, model: nn.Module, images: Tensor) -> Any:
        """The module's output."""
        self.total.images += len(images)
        return super().__call__(model, images)


@dataclass
class BatchEvaluator:
    """The numbers of one batch after another, computed by `analyze`.

    Args:
        trainer: that runs.
        module: the model.
        config: what is computed; its `forward` is called through `counted`.
        plan: of the head that is evaluated, with its layers.
        chunk_size: how many samples go through at once; it becomes smaller where memory runs out.
    """

    trainer: Trainer
    module: LightningModule
    config: LookConfig
    plan: HeadPlan
    chunk_size: int | None = None
    explains: str | None = None
    counted: CountedForward = field(init=False)

    def __post_init__(self) -> None:
        self.counted = CountedForward(self.config.forward)
        config = replace(self.config, forward=through_wrapper(self.trainer, self.counted))
        self.config = config.at_head(self.plan)

    def measure(
        self, batch: SaliencyBatch, on_failure: OnFailure | None = None
    ) -> tuple[Columns, int, float]:
        """Compute the numbers of a batch's samples, the images that went through the model, and the seconds.

        Args:
            batch: on the model's device.
            on_failure: called with the name and the error of a score that raises, which is then left out.

        Raises:
            InputError: where the maps of this batch explain something else than those before.
        """
        began, forwards, done = time.monotonic(), self.counted.total.images, 0
        found: list[Columns] = []
        while done < len(batch):
            size = self.chunk_size or len(batch)
            chunk = batch.select(range(done, min(done + size, len(batch))))
            found.append(self._measure(chunk, on_failure))
            done += len(chunk)
        return Columns.cat(found), self.counted.total.images - forwards, time.monotonic() - began

    def _measure(self, batch: SaliencyBatch, on_failure: OnFailure | None) -> Columns:
        with torch.inference_mode(False), without_progress_bars():
            batch = samples_of_head(as_inputs(self.trainer, batch, self.module.device), self.plan)
            targets = labels_of(batch) if self.config.explains_labels else self.config.targets
            # rows of marks: of all batches alike, also of one where each sample has a single mark
            multi_label = self.config.multi_label or (batch.labels is not None and batch.labels.ndim == 2)
            config = replace(self.config, targets=targets, multi_label=multi_label)
            record = analyze(self.module, batch, config, own_map_fn(self.trainer), on_failure=on_failure)
        self._check_same(record.attribution.explains)
        if record.chunk_size is not None and record.chunk_size < len(batch):
            self.chunk_size = record.chunk_size
        return Columns.of(self._without_meaningless(record.results), len(batch))

    def _check_same(self, explains: str) -> None:
        """Refuse a batch whose labels mean something else than those of another."""
        self.explains = self.explains or explains
        if explains != self.explains:
            raise InputError(
                f'`targets` "label" explains the {explains} in this batch, and the {self.explains} in one '
                'before: its float labels look like classes in one of them only. Say which, with `targets="output"` '
                "for a regression, or with whole numbers as labels."
            )

    def _without_meaningless(self, results: ScoreResults) -> ScoreResults:
        """The results without those scores of model-free maps that do not measure how they lie on the object."""
        added = set(BASELINES) - set(self.config.method_table) if self.config.with_baselines else set()
        kept = {
            key: each
            for key, each in results.samples.items()
            if key.map not in added or key.score in self._object_scores
        }
        return replace(results, samples=kept)

    @cached_property
    def _object_scores(self) -> set[str]:
        """The scores of how well a map lies on the object."""
        scores = self.config.resolved_scores
        return {
            name
            for name, metric in scores.metrics.items()
            if scores.needs[name] == {"mask"} and metric.higher_is_better is not None
        }


A_BATCH, READING = "Evaluating a batch", "Reading the test batch"
CHOOSING, NOT_OFFERED = "Choosing the samples of the checks", -1


@dataclass(frozen=True)
class EvaluationPlan:
    """What is evaluated; the fields are arguments of `SaliencyEvaluation`."""

    config: LookConfig
    adapter: Adapter | None
    class_names: Any
    chunk_size: int | None
    resume: bool
    directory: Path | None
    log_prefix: str
    check_samples: int

    def parts_in(self, root: Path, settings: dict[str, Any]) -> Path:
        """The directory under `root` for the finished batches of an evaluation with these settings."""
        return root / f"{safe_name(self.log_prefix.strip('/').replace('/', '-'))}-{fingerprint(settings)}"


@dataclass
class EvaluationRun:
    """One evaluation in progress.

    Args:
        trainer: that runs.
        module: the model.
        plan: what is evaluated.
        failures: the policy for what fails.
        places: which sample of the dataset each one is.
        parts: what is done.
        settings: what decides whether another evaluation is the same.
        loader: the dataloader.
        done: the digest of each sample that is done, by its position.
        positions: of the samples that this process was handed and that are done, batch by batch.
        unlabelled: how many had no label.
        failed: how many could not be done.
        first_digest: of the first sample, where every process should be handed the same ones.
        choice: of the samples that the causal checks are made on, out of those that are done; None without checks.
    """

    trainer: Trainer
    module: LightningModule
    plan: EvaluationPlan
    failures: FailurePolicy
    places: StreamPositions
    parts: SampleStore
    settings: dict[str, Any]
    loader: Any = None
    done: dict[int, int] = field(default_factory=dict)
    positions: list[Numbers] = field(default_factory=list)
    unlabelled: int = 0
    failed: int = 0
    first_digest: int | None = None
    evaluator: BatchEvaluator | None = None
    choice: FixedBatch | None = None

    @staticmethod
    def begin(
        trainer: Trainer, module: LightningModule, plan: EvaluationPlan, failures: FailurePolicy, loader: Any
    ) -> EvaluationRun:
        """Begin, or continue an interrupted evaluation of the same settings; in all processes alike.

        Raises:
            InputError: where another program evaluates into the same directory at this moment.
        """
        _claim(trainer, plan.directory)
        settings = from_rank_zero(
            trainer, settings_of(plan.config, module, plan.config.target_layer, plan.adapter)
        )
        root = plan.directory or Path(trainer.default_root_dir) / "lightning_gcam"
        directory = plan.parts_in(root, settings)
        if not plan.resume and trainer.local_rank == 0:
            SampleStore(directory).remove()
        trainer.strategy.barrier()
        parts = SampleStore(
            directory, trainer.global_rank
        )  # knows the layer of what is there now, in every process
        done = parts.digests()
        if done:
            rank_zero_info(
                f"SaliencyEvaluation: {len(done)} samples are done already; it goes on from {parts.directory}."
            )
        places = StreamPositions.of(trainer, loader)
        run = EvaluationRun(trainer, module, plan, failures, places, parts, settings, loader, done)
        run.choice = FixedBatch(plan.check_samples) if plan.config.check_names else None
        return run

    def receive(self, batch: Any) -> None:
        """Take the next batch of this process; whatever fails, its samples keep their positions and are counted."""
        is_first, samples = self.places.delivered == 0, None
        with self.failures.guard(READING, before_training=is_first):
            unclear = partial(warn_of_unclear, self.failures, self.plan.config.head is not None)
            samples = as_saliency_batch(batch, self.plan.adapter, self.plan.class_names, unclear)
            samples = with_inputs_taken(samples, self.module, self.plan.config.forward)
            if is_first and self.places.all_to_each:
                self.first_digest = int(digests_of(samples.select([0]))[0])
        n = len(samples) if samples is not None else self.places.size_of(batch, self.loader)
        positions = self.places.take(n)
        if samples is None:
            self.failed += int(self.places.counts(positions).sum())
            return
        rows = self._usable(samples, positions)
        if rows and self._take(samples, rows, positions[rows], batch):
            self._offer(samples, rows, positions)
        else:
            self.failed += len(rows)

    def end(self) -> None:
        """Release the directory for other programs."""
        if self.plan.directory is not None:
            release_directory(self.plan.directory)

    def report_interruption(self) -> None:
        """Log what is kept after an interrupt, and how to go on."""
        done = sum(map(len, self.positions))
        rank_zero_info(
            f"SaliencyEvaluation was interrupted with {done} samples done in this process. They are kept in "
            f"{self.parts.directory}: run the same again, and it goes on there."
        )

    def _usable(self, samples: SaliencyBatch, positions: Numbers) -> list[int]:
        """The rows that are counted in this process and have a label, if any has one."""
        counts, labels = self.places.counts(positions), samples.labels
        if labels is not None and labels.ndim == 1 and not labels.is_floating_point():
            labelled = (labels >= 0).cpu().numpy()
            self.unlabelled += int((counts & ~labelled).sum())
            counts = counts & labelled
        return [int(row) for row in np.flatnonzero(counts)]

    def _offer(self, samples: SaliencyBatch, rows: list[int], positions: Numbers) -> None:
        """Offer the rows that are done for the checks: a run that goes on sees them all again, and chooses the same."""
        if self.choice is not None:
            offered = np.full_like(positions, NOT_OFFERED)
            offered[rows] = positions[rows]
            with self.failures.guard(CHOOSING):
                self.choice.offer(samples, offered.tolist())

    def _take(self, whole: SaliencyBatch, rows: list[int], positions: Numbers, batch: Any) -> bool:
        """Evaluate these rows of a batch, unless an earlier run did; whether they are done."""
        if self.failures.has_given_up:
            return self._is_known(whole, rows, positions)
        succeeded = False
        with self.failures.guard(A_BATCH, before_training=self.evaluator is None):
            samples = whole.select(rows)
            digests = digests_of(samples)
            if self._are_done(positions, digests):
                return True
            evaluator = self.evaluator = self.evaluator or self._prepared(samples, batch)
            found = evaluator.measure(samples, self._leave_out)
            self.parts.save(StoredBatch(positions, digests, *found))
            self.positions.append(positions)
            succeeded = True
        self.failures.count(succeeded=succeeded, work=A_BATCH)
        return succeeded

    def _is_known(self, whole: SaliencyBatch, rows: list[int], positions: Numbers) -> bool:
        """Whether an earlier run has done these rows, where nothing is tried any more after too many failures."""
        with self.failures.guard(A_BATCH):
            return self._are_done(positions, digests_of(whole.select(rows)))
        return False

    def _are_done(self, positions: Numbers, digests: Numbers) -> bool:
        """Whether an earlier run has done these very samples; then they are counted."""
        known: bool = [self.done.get(position) for position in positions.tolist()] == digests.tolist()
        if known:
            self.positions.append(positions)
        return known

    def _prepared(self, samples: SaliencyBatch, batch: Any) -> BatchEvaluator:
        """Find the layer, or take that of the interrupted run, and analyze one sample as a dry run."""
        warn_of_full_masks(samples.object_masks)
        plan, known = self.plan, self.parts.read_common()
        forward = through_wrapper(self.trainer, plan.config.forward)
        plans = [HeadPlan.from_plain(known["plan"])] if "plan" in known else []
        layers = known.get("layers", plan.config.target_layer)
        config = replace(plan.config, target_layer=layers, plans=plans, forward=forward)
        with integer_images_explained(batch), torch.inference_mode(False), precision(self.trainer):
            one = as_inputs(self.trainer, one_labelled(samples), self.module.device)
            found = dry_run(self.module, one, config, whole=samples)
        head = _one_head([*found])
        self.parts.write_common({**self.settings, "layers": list(head.layers), "plan": head.to_plain()})
        return BatchEvaluator(
            self.trainer, self.module, replace(plan.config, checks=()), head, plan.chunk_size
        )

    def _leave_out(self, what: str, error: Exception) -> None:
        """Warn of a score that fails; where the model itself fails, the batch does, and is tried again later."""
        if what == PERTURBING:
            raise error
        self.failures.report(what, error)


def _one_head(plans: list[HeadPlan]) -> HeadPlan:
    """The first head that has labels, of several; which one it is, is logged."""
    chosen = next((plan for plan in plans if plan.labels is not None), plans[0])
    others = [f'"{plan.name}"' for plan in plans if plan != chosen]
    if others:
        rank_zero_info(
            f'SaliencyEvaluation evaluates one head, "{chosen.name}". `head=` chooses another: {", ".join(others)}.'
        )
    return chosen


def _claim(trainer: Trainer, directory: Path | None) -> None:
    """Claim the directory; rank zero decides for all processes, since the others would wait for one that raises."""
    is_free = True
    if directory is not None and trainer.is_global_zero:
        with suppress(OSError):  # what cannot be written there is said where it is written
            is_free = claim_directory(directory)
    if not from_rank_zero(trainer, {"is_free": is_free})["is_free"]:
        raise InputError(
            f'`directory` "{directory}" is written to by another evaluation. Wait for it, or give another one.'
        )
