"""A dataset evaluated batch by batch: what is done is kept and not done again."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchmetrics import Metric

from lightning_gcam.callbacks.arguments import whole_numbers_explained
from lightning_gcam.callbacks.distributed import same_everywhere
from lightning_gcam.callbacks.error_policy import FailurePolicy
from lightning_gcam.callbacks.look import Recipe, prepare
from lightning_gcam.callbacks.positions import Numbers, Places, checksum, digests_of
from lightning_gcam.callbacks.trainer_state import as_input, precision
from lightning_gcam.cam.calling import run
from lightning_gcam.cam.capture import Forward
from lightning_gcam.cam.layers import TargetLayers
from lightning_gcam.data import Adapter, SaliencyBatch, as_saliency_batch
from lightning_gcam.data.masks import warn_of_full_masks
from lightning_gcam.evaluation import Columns, Part, Parts
from lightning_gcam.loggers.disk import is_ours, release
from lightning_gcam.metrics import needs, resolve_scores
from lightning_gcam.metrics.registry import BASELINES
from lightning_gcam.pipeline.attribution import Attribution
from lightning_gcam.pipeline.chunks import attribute_in_chunks
from lightning_gcam.pipeline.model_outputs import Answers, ask, ask_random_model
from lightning_gcam.pipeline.scoring import ScoreSheet, score_maps
from lightning_gcam.utils.chunking import quietly
from lightning_gcam.utils.errors import InputError
from lightning_gcam.utils.files import safe_name
from lightning_gcam.utils.lightning_compat import LightningModule, Trainer, rank_zero_info


def settings_of(
    recipe: Recipe, module: nn.Module, target_layer: Any, adapter: Callable[..., Any] | None
) -> dict[str, Any]:
    """What an evaluation computes, and of which weights, in JSON's types.

    Args:
        recipe: what is computed.
        module: the model.
        target_layer: as it was given.
        adapter: as it was given.
    """
    targets = recipe.targets
    return {
        "methods": {name: _told(method) for name, method in recipe.methods.items()},
        "scores": {name: _traits(metric) for name, metric in resolve_scores(recipe.scores).items()},
        "target_layer": target_layer,
        "fuse": recipe.fuse,
        "targets": _told(targets) if callable(targets) else targets,
        "multi_label": recipe.multi_label,
        "forward": _told(recipe.forward),
        "reshape_transform": _told(recipe.reshape_transform),
        "adapter": _told(adapter),
        "weights": checksum(module.state_dict()),
    }


def fingerprint(settings: dict[str, Any]) -> str:
    """A short text, the same where the settings are.

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


def _told(function: Any) -> Any:
    """A callable by its name and its code: another one under the same name is another one."""
    if function is None or not callable(function):
        return function
    told: list[Any] = []
    while (inner := getattr(function, "func", None) or getattr(function, "function", None)) is not None:
        told.append([str(getattr(function, "args", "")), str(getattr(function, "keywords", ""))])
        function = inner  # of a functools.partial, or of what wraps a method
    name = getattr(function, "__qualname__", type(function).__qualname__)
    told.append(f"{getattr(function, '__module__', '')}.{name}")
    code = getattr(function, "__code__", None)
    if code is not None:
        constants = [repr(each) for each in code.co_consts if not hasattr(each, "co_code")]
        text = repr([code.co_code, code.co_names, constants])
        told.append(hashlib.blake2b(text.encode(), digest_size=6).hexdigest())
    return told


OnFailure = Callable[[str, Exception], None]


@dataclass
class CountedForward:
    """The user's way to call the model, or the usual one, and how many images went through it.

    Args:
        forward: the user's.
    """

    forward: Forward | None = None
    images: int = 0

    def __call__(self, module: nn.Module, images: Tensor) -> Any:
        """The module's output."""
        self.images += len(images)
        return run(module, images, self.forward)


@dataclass
class Evaluating:
    """Maps and scores, batch after batch, by the code of a look.

    Args:
        trainer: that runs.
        module: the model.
        layers: the names of the target layers.
        recipe: what is computed; its `forward` is called through `counted`.
        chunk_size: how many samples go through at once; it becomes smaller where memory runs out.
        baselines: whether maps that know nothing of the model are scored beside the others.
    """

    trainer: Trainer
    module: LightningModule
    layers: list[str]
    recipe: Recipe
    chunk_size: int | None = None
    baselines: bool = True
    explains: str | None = None
    counted: CountedForward = field(init=False)

    def __post_init__(self) -> None:
        self.counted = CountedForward(self.recipe.forward)
        self.recipe = replace(self.recipe, forward=self.counted)

    def measure(
        self, batch: SaliencyBatch, on_failure: OnFailure | None = None
    ) -> tuple[Columns, int, float]:
        """The numbers of a batch's samples, the images that went through the model, and the seconds.

        Args:
            batch: on the model's device.
            on_failure: told the name and the error of a score that raises, which is then left out.

        Raises:
            InputError: where the maps of this batch explain something else than those before.
        """
        began, forwards, done = time.monotonic(), self.counted.images, 0
        found: list[Columns] = []
        while done < len(batch):
            size = self.chunk_size or len(batch)
            piece = batch.select(range(done, min(done + size, len(batch))))
            found.append(self._measure(piece, on_failure))
            done += len(piece)
        return Columns.cat(found), self.counted.images - forwards, time.monotonic() - began

    def _measure(self, batch: SaliencyBatch, on_failure: OnFailure | None) -> Columns:
        with torch.inference_mode(False), precision(self.trainer), quietly():
            batch = replace(batch, images=as_input(self.trainer, batch.images))
            options = {**self.recipe.options(self.trainer), "target_layer": self.layers}
            targets = self.recipe.targets_of(batch, batch)
            attribution, size = attribute_in_chunks(self.module, batch, targets, **options)
            self._check_same(attribution)
            if size < len(batch):
                self.chunk_size = size
            how: dict[str, Any] = {"targets": targets, "chunk_size": size, **options}
            # in rows: of all batches alike, also of one where each has a single mark
            several = self.recipe.multi_label or (batch.labels is not None and batch.labels.ndim == 2)
            answers, inquiry = Answers(), self.recipe.inquiry
            if inquiry.questions:
                answers = ask(self.module, batch, attribution, inquiry, multi_label=several, **how)
            if inquiry.random_maps:
                answers = Answers.merged([answers, ask_random_model(self.module, batch, attribution, **how)])
        with torch.inference_mode(False):
            others = self._baselines(attribution, batch)
            every = _with_maps(attribution, others)
            how = {"answers": answers, "multi_label": several}
            sheet = score_maps(every, batch, self.recipe.scores, on_failure, **how)
            return Columns.of(self._without_idle(sheet, set(others)), list(every.maps), len(batch))

    def _check_same(self, attribution: Attribution) -> None:
        """What the labels of one batch mean must not differ from what those of another do."""
        self.explains = self.explains or attribution.explains
        if attribution.explains != self.explains:
            raise InputError(
                f'`targets` "label" explains the {attribution.explains} in this batch, and the {self.explains} in one '
                'before: its float labels look like classes in one of them only. Say which, with `targets="output"` '
                "for a regression, or with whole numbers as labels."
            )

    def _baselines(self, attribution: Attribution, batch: SaliencyBatch) -> dict[str, Tensor]:
        """Maps that know nothing of the model, on the same grid; none where there is no object to lie on."""
        masks = batch.object_masks
        if masks is None or not self.baselines:
            return {}
        return {
            name: make(batch.image_size, masks.device).expand(masks.shape)
            for name, make in BASELINES.items()
            if name not in attribution.maps
        }

    def _without_idle(self, sheet: ScoreSheet, others: set[str]) -> ScoreSheet:
        """Of the maps that know nothing, only what tells how well they lie on the object."""
        kept = {}
        for name, each in sheet.evidence.items():
            map_name, _, score = name.partition("/")
            if map_name not in others or score in self._judged:
                kept[name] = each
        return replace(sheet, evidence=kept)

    @cached_property
    def _judged(self) -> set[str]:
        """The scores that tell how well a map lies on the object."""
        metrics = resolve_scores(self.recipe.scores).items()
        return {
            name
            for name, metric in metrics
            if needs(metric) == {"mask"} and metric.higher_is_better is not None
        }


def _with_maps(attribution: Attribution, others: dict[str, Tensor]) -> Attribution:
    ones = torch.ones(len(attribution), device=attribution.logits.device)
    peaks = {**attribution.peaks, **dict.fromkeys(others, ones)}
    return replace(attribution, maps={**attribution.maps, **others}, peaks=peaks)


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
        first_digest: of the first sample, where every process should be handed the same ones.
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
    first_digest: int | None = None
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
            if is_first and self.places.all_to_each:
                self.first_digest = int(digests_of(samples.select([0]))[0])
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
