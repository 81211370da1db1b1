"""One look inside of a Trainer: what it computes, its dry run, and the look itself, the same in all processes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import nn

from lightning_gcam.callbacks.distributed import same_everywhere, share_out, through_wrapper, together
from lightning_gcam.callbacks.error_policy import ASKING, CHECKING, THE_LOOK, FailurePolicy
from lightning_gcam.callbacks.trainer_state import as_input, precision
from lightning_gcam.cam.calling import Forward
from lightning_gcam.cam.layers import (
    Fuse,
    TargetLayer,
    TargetLayers,
    find_target_layer,
    resolve_target_layers,
)
from lightning_gcam.cam.layouts import Reshape
from lightning_gcam.cam.registry import AnyMethod
from lightning_gcam.cam.targets import Targets, check_labels
from lightning_gcam.data import SaliencyBatch
from lightning_gcam.data.fixed_samples import FixedBatch
from lightning_gcam.metrics import resolve_scores
from lightning_gcam.pipeline.attribution import Attribution, attribute
from lightning_gcam.pipeline.captions import instead_of_classes
from lightning_gcam.pipeline.causal_checks import NO_CHECKS, CausalChecks, with_checks
from lightning_gcam.pipeline.chunks import attribute_in_chunks, labels_of
from lightning_gcam.pipeline.history import Memory
from lightning_gcam.pipeline.model_outputs import Answers, Inquiry, answer_images, ask, ask_random_model
from lightning_gcam.pipeline.record import SaliencyRecord, Stamp
from lightning_gcam.pipeline.rendering import Earlier
from lightning_gcam.pipeline.scoring import Scores, ScoreSheet, compares_looks, score_maps
from lightning_gcam.shortcuts import Reliance
from lightning_gcam.utils.errors import InputError
from lightning_gcam.utils.lightning_compat import LightningModule, Trainer


@dataclass(frozen=True)
class Recipe:
    """What every look computes, and whether its picture shows earlier looks; the fields are as `SaliencyMonitor`'s."""

    methods: dict[str, AnyMethod]
    targets: Targets
    scores: Scores
    forward: Forward | None
    reshape_transform: Reshape | None
    fuse: Fuse | None = None
    checks: CausalChecks = NO_CHECKS
    draws_earlier: bool = False
    multi_label: bool = False

    @property
    def explains_classes(self) -> bool:
        """Whether the labels have to be classes of the logits, as far as the targets tell."""
        return not callable(self.targets) and self.targets != "output"

    @cached_property
    def inquiry(self) -> Inquiry:
        """What the scores want to know of the model."""
        return Inquiry.of(resolve_scores(self.scores))

    @cached_property
    def compares_looks(self) -> bool:
        """Whether a score, or the picture, compares a look with an earlier one."""
        return self.draws_earlier or compares_looks(self.scores)

    def targets_of(self, batch: SaliencyBatch, whole: SaliencyBatch) -> Targets:
        """The targets of a batch that is a part of `whole`."""
        asks_for_labels = isinstance(self.targets, str) and self.targets == "label"
        return labels_of(batch, whole) if asks_for_labels else self.targets

    def options(self, trainer: Trainer) -> dict[str, Any]:
        """What of it `attribute` takes."""
        return {
            "methods": self.methods,
            "forward": through_wrapper(trainer, self.forward),
            "reshape_transform": self.reshape_transform,
            "fuse": self.fuse,
        }


def prepare(
    trainer: Trainer,
    module: LightningModule,
    samples: SaliencyBatch,
    target_layer: TargetLayers | None,
    recipe: Recipe,
) -> list[TargetLayer]:
    """Find the layer (or the named ones) and try one sample all the way.

    Raises:
        InputError: naming the argument, what came, and what to do.
    """
    with torch.inference_mode(False), precision(trainer):
        first = samples.select([_first_labelled(samples)]).to(module.device)
        first = replace(first, images=as_input(trainer, first.images))
        options = recipe.options(trainer)
        layers = _find_layers(module, first, target_layer, options)
        options["target_layer"] = [layer.name for layer in layers]
        tried = attribute(
            module, first.images, masks=first.object_masks, **{**options, "methods": "grad_cam"}
        )
        has_classes = recipe.explains_classes and tried.explains == "classes"
        if samples.labels is not None and samples.labels.ndim == 1 and has_classes:
            check_labels(samples.labels, tried.logits.shape[1])
        targets = recipe.targets_of(first, samples)
        attribution, _ = attribute_in_chunks(module, first, targets, **options)
        answers = Answers()
        with _input_errors_only():
            answers = ask(module, first, attribution, recipe.inquiry, targets=targets, **options)
        score_maps(attribution, first, recipe.scores, _raise_input_errors, answers=answers)
        with _input_errors_only():
            recipe.checks.images(first, attribution)
        return layers


@contextmanager
def _input_errors_only() -> Iterator[None]:
    """What fails for another reason is no cause to look at nothing; the first look tells of it."""
    try:
        yield
    except Exception as error:
        _raise_input_errors("", error)


def _raise_input_errors(_: str, error: Exception) -> None:
    if isinstance(error, InputError):
        raise error


def _first_labelled(samples: SaliencyBatch) -> int:
    """Negative labels mean "none"; such samples are passed over, here too."""
    if samples.labels is None or samples.labels.ndim != 1:
        return 0
    return int((samples.labels >= 0).int().argmax())


def _find_layers(
    module: nn.Module, samples: SaliencyBatch, target_layer: TargetLayers | None, options: dict[str, Any]
) -> list[TargetLayer]:
    if target_layer is None:
        forward, reshape = options["forward"], options["reshape_transform"]
        return [find_target_layer(module, samples.images, forward=forward, reshape_transform=reshape)]
    return [TargetLayer(name, layer) for name, layer in resolve_target_layers(module, target_layer).items()]


@dataclass(frozen=True)
class Look:
    """What a look is taken with.

    The exchanges between processes stand outside of every guard, and what stands between two of them is done
    `together`: a failure of one process is that of all, so that all reach each exchange, whatever happens.

    Args:
        trainer: that runs.
        module: the model.
        fixed: the samples.
        layers: the names of the target layers.
        recipe: what is computed.
        memory: the earlier looks.
        failures: told what fails.
    """

    trainer: Trainer
    module: LightningModule
    fixed: FixedBatch
    layers: list[str]
    recipe: Recipe
    memory: Memory
    failures: FailurePolicy

    def take(self, stamp: Stamp) -> SaliencyRecord | None:
        """The samples' maps, scores and checks now; None in every process where one of them failed."""
        with torch.inference_mode(False):
            maps = share_out(self.trainer, self.module, len(self.fixed.samples), self._attribute)
            if isinstance(maps, Exception):
                self.failures.report(THE_LOOK, maps)
                return None
            begun = together(self.trainer, lambda: self._begun(maps, stamp))
            if isinstance(begun, Exception):
                self.failures.report(THE_LOOK, begun)
                return None
            batch, attribution, instead, is_checked = begun
            if instead is not None:
                return replace(self, recipe=replace(self.recipe, targets=instead)).take(stamp)
            answers = self._ask(batch, attribution)
            scored = together(self.trainer, lambda: self._scored(batch, attribution, answers, stamp))
            if isinstance(scored, Exception):
                self.failures.report(THE_LOOK, scored)
                return None
            sheet, earlier = scored
            measured = self._rely(batch, attribution) if is_checked else {}
            values, measured = same_everywhere(self.trainer, (sheet.values, measured))
            record = together(
                self.trainer,
                lambda: _recorded(batch, attribution, stamp, sheet, values, measured, earlier),
            )
            if isinstance(record, Exception):
                self.failures.report(THE_LOOK, record)
                return None
            return record

    def _samples(self) -> SaliencyBatch:
        """The samples where the model is, as it takes them now."""
        self.fixed.to(self.module.device)
        return replace(self.fixed.samples, images=as_input(self.trainer, self.fixed.samples.images))

    @property
    def _options(self) -> dict[str, Any]:
        """What `attribute` takes."""
        return {**self.recipe.options(self.trainer), "target_layer": self.layers}

    # -------------------------------------------------------------------------- what each process does for its share

    def _attribute(self, rows: list[int]) -> Attribution:
        batch = self._samples()
        share = batch.select(rows)
        with precision(self.trainer):
            attribution, self.fixed.largest_batch = attribute_in_chunks(
                self.module,
                share,
                self.recipe.targets_of(share, batch),
                chunk_size=self.fixed.largest_batch,  # never more than the dataloader delivers
                **self._options,
            )
            return attribution

    def _begun(self, maps: Attribution, stamp: Stamp) -> tuple[SaliencyBatch, Attribution, Targets, bool]:
        """The samples and their maps where the model is; what to explain instead, and whether to check.

        What is to be explained instead of the labels' classes, by an output that is of no classes, is None elsewhere.
        """
        batch, attribution = self._samples(), maps.to(self.module.device)
        instead = instead_of_classes(batch, attribution, stamp.class_names, self.fixed.largest_label)
        is_checked = self.recipe.checks.apply_to(batch, attribution, stamp.class_names)
        return batch, attribution, instead if self.recipe.targets == "label" else None, is_checked

    def _scored(
        self, batch: SaliencyBatch, attribution: Attribution, answers: Answers, stamp: Stamp
    ) -> tuple[ScoreSheet, Earlier]:
        """The scores, and what the picture shows of the looks before; then this one is the last."""
        sheet = self._score(batch, attribution, answers.to(self.module.device))
        earlier = self.memory.for_picture
        if self.recipe.compares_looks:
            self.memory.keep(attribution, stamp.step)
        return sheet, earlier

    def _ask(self, batch: SaliencyBatch, attribution: Attribution) -> Answers:
        """What the scores want to know of the model; nothing, where asking failed in one process."""
        targets, chunk_size = self.recipe.targets, self.fixed.largest_batch
        how: dict[str, Any] = {"targets": targets, "chunk_size": chunk_size, **self._options}

        def ask_rows(rows: list[int]) -> Answers:
            share = batch.select(rows), attribution.select(rows)
            with precision(self.trainer):
                return ask(self.module, *share, self.recipe.inquiry, **how)

        def ask_random_rows(rows: list[int]) -> Answers:
            share = batch.select(rows), attribution.select(rows)
            with precision(self.trainer):
                return ask_random_model(self.module, *share, **how)

        asked = Answers()
        if self.recipe.inquiry.questions:
            asked = self._agreed(ASKING, share_out(self.trainer, self.module, len(batch), ask_rows))
        if not self.recipe.inquiry.random_maps:
            return asked
        random = self.memory.random_maps(attribution)
        if random is None:
            shares = share_out(self.trainer, self.module, len(batch), ask_random_rows)
            random = self._agreed(ASKING, shares)
            self.memory.keep_random_maps(random, attribution)
        return Answers.merged([asked, random])

    def _rely(self, batch: SaliencyBatch, attribution: Attribution) -> dict[str, Any]:
        """What the model relies on, as plain data; nothing where a check failed in one process.

        Every process makes the changed images of its share; regions and partners belong to the batch as a whole.
        """
        checks = self.recipe.checks

        def answer_rows(rows: list[int]) -> Answers:
            with precision(self.trainer):
                answers, self.fixed.largest_batch = answer_images(
                    self.module,
                    batch,
                    checks.changes(batch, attribution),
                    rows=rows,
                    chunk_size=self.fixed.largest_batch,
                    forward=self._options["forward"],
                    squash=attribution.squash,
                )
                return answers

        answers = self._agreed(CHECKING, share_out(self.trainer, self.module, len(batch), answer_rows))
        measured = together(
            self.trainer,
            lambda: checks.measure(batch, attribution, answers.to(self.module.device).values).to_plain(),
        )
        if isinstance(measured, Exception):
            self.failures.report(CHECKING, measured)
            return {}
        return measured

    def _score(self, batch: SaliencyBatch, attribution: Attribution, answers: Answers) -> ScoreSheet:
        def leave_out(score: str, error: Exception) -> None:
            self.failures.report(f'The score "{score}"', error)

        scores, memory = self.recipe.scores, self.memory
        return score_maps(attribution, batch, scores, leave_out, answers=answers, memory=memory)

    def _agreed(self, work: str, answers: Answers | Exception) -> Answers:
        """The answers; none, where they failed in one process, which is told."""
        if isinstance(answers, Exception):
            self.failures.report(work, answers)
            return Answers()
        return answers


def _recorded(
    batch: SaliencyBatch,
    attribution: Attribution,
    stamp: Stamp,
    sheet: ScoreSheet,
    values: dict[str, float],
    measured: dict[str, Any],
    earlier: Earlier,
) -> SaliencyRecord:
    """All that a look found, with the scores that rank zero has."""
    reliance = Reliance.from_plain(measured) if measured else None
    return SaliencyRecord(batch, attribution, with_checks(values, reliance), stamp, sheet, reliance, earlier)
