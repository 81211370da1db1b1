"""One look inside a Trainer: the maps by all processes together, and their scores, the same in all of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from lightning_gcam._errors import InputError
from lightning_gcam._lightning import LightningModule, Trainer
from lightning_gcam.asking import Answers, Inquiry, answer_images, ask
from lightning_gcam.attribution import Attribution, attribute
from lightning_gcam.batch import SaliencyBatch
from lightning_gcam.callbacks.failures import ASKING, CHECKING, THE_LOOK, FailurePolicy
from lightning_gcam.callbacks.processes import same_everywhere, share_out, through_wrapper
from lightning_gcam.callbacks.trainer_facts import as_input, precision
from lightning_gcam.cam.capture import Forward
from lightning_gcam.cam.layers import TargetLayer, find_target_layer
from lightning_gcam.cam.methods import Method
from lightning_gcam.cam.reshape import Reshape
from lightning_gcam.cam.several import Fuse, TargetLayers, resolve_target_layers
from lightning_gcam.cam.targets import Targets, check_labels
from lightning_gcam.causal_checks import NO_CHECKS, CausalChecks, with_checks
from lightning_gcam.chunks import attribute_in_chunks, labels_of
from lightning_gcam.fixed_batch import FixedBatch
from lightning_gcam.memory import Memory
from lightning_gcam.metrics import resolve_scores
from lightning_gcam.record import SaliencyRecord, Stamp
from lightning_gcam.reliance import Reliance
from lightning_gcam.scoring import Scores, compares_looks, score_maps


@dataclass(frozen=True)
class Recipe:
    """What every look computes; the fields are arguments of `SaliencyMonitor`."""

    methods: dict[str, Method]
    targets: Targets
    scores: Scores
    forward: Forward | None
    reshape_transform: Reshape | None
    fuse: Fuse | None = None
    checks: CausalChecks = NO_CHECKS

    @property
    def explains_classes(self) -> bool:
        """Whether the labels have to be classes of the logits, as far as the targets tell."""
        return not callable(self.targets) and self.targets != "output"

    def targets_of(self, batch: SaliencyBatch, whole: SaliencyBatch) -> Targets:
        """The targets of a batch that is a part of `whole`."""
        asks_for_labels = isinstance(self.targets, str) and self.targets == "label"
        return labels_of(batch, whole) if asks_for_labels else self.targets

    def options(self, trainer: Trainer) -> dict[str, Any]:
        """What of it `attribute` takes."""
        return {
            "methods": list(self.methods.values()),
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
    """Find the layer (or the named ones) and try one sample all the way: what cannot work is seen at once.

    Raises:
        InputError: naming the argument, what came, and what to do.
    """
    with torch.inference_mode(False), precision(trainer):
        first = samples.select([_first_labelled(samples)]).to(module.device)
        first = replace(first, images=as_input(trainer, first.images))
        options = recipe.options(trainer)
        layers = _find_layers(module, first, target_layer, options)
        options["target_layer"] = [layer.name for layer in layers]
        logits = attribute(module, first.images, **options).logits
        if samples.labels is not None and samples.labels.ndim == 1 and recipe.explains_classes:
            check_labels(samples.labels, logits.shape[1])
        targets = recipe.targets_of(first, samples)
        attribution, _ = attribute_in_chunks(module, first, targets, **options)
        inquiry, answers = Inquiry.of(resolve_scores(recipe.scores)), Answers()
        try:
            answers = ask(module, first, attribution, inquiry, targets=targets, **options)
        except Exception as error:
            _raise_input_errors("", error)
        score_maps(attribution, first, recipe.scores, _raise_input_errors, answers=answers)
        try:
            recipe.checks.images(first, attribution)
        except Exception as error:
            _raise_input_errors("", error)
        return layers


def _first_labelled(samples: SaliencyBatch) -> int:
    """Negative labels mean "none"; such samples are passed over, here too."""
    if samples.labels is None or samples.labels.ndim != 1:
        return 0
    return int((samples.labels >= 0).int().argmax())


def _raise_input_errors(_: str, error: Exception) -> None:
    """A score that fails for another reason is no cause to look at nothing; the first look tells of it."""
    if isinstance(error, InputError):
        raise error


def _find_layers(
    module: nn.Module, samples: SaliencyBatch, target_layer: TargetLayers | None, options: dict[str, Any]
) -> list[TargetLayer]:
    if target_layer is None:
        forward, reshape = options["forward"], options["reshape_transform"]
        return [find_target_layer(module, samples.images, forward=forward, reshape_transform=reshape)]
    return [TargetLayer(name, layer) for name, layer in resolve_target_layers(module, target_layer).items()]


def take_look(
    trainer: Trainer,
    module: LightningModule,
    fixed: FixedBatch,
    layers: list[str],
    recipe: Recipe,
    stamp: Stamp,
    failures: FailurePolicy,
    memory: Memory,
) -> SaliencyRecord | None:
    """The fixed samples' maps and scores now; None in every process where it failed in one.

    The exchange between processes stands outside of every guard, so that all of them reach it whatever happens.
    """
    with torch.inference_mode(False):
        options = {**recipe.options(trainer), "target_layer": layers}

        def samples() -> SaliencyBatch:
            fixed.to(module.device)
            return replace(fixed.samples, images=as_input(trainer, fixed.samples.images))

        def attribute_rows(rows: list[int]) -> Attribution:
            batch = samples()
            with precision(trainer):
                share, chunk = (
                    batch.select(rows),
                    fixed.largest_batch,
                )  # never more than the dataloader delivers
                attribution, fixed.largest_batch = attribute_in_chunks(
                    module, share, recipe.targets_of(share, batch), chunk_size=chunk, **options
                )
                return attribution

        attribution = share_out(trainer, module, fixed.samples, attribute_rows)
        if isinstance(attribution, Exception):
            failures.report(THE_LOOK, attribution)
            return None

        batch, attribution = samples(), attribution.to(module.device)
        answers = _ask(trainer, module, batch, attribution, recipe, memory, options, fixed.largest_batch)
        if isinstance(answers, Exception):
            failures.report(ASKING, answers)
            answers = Answers()

        def leave_out(score: str, error: Exception) -> None:
            failures.report(f'The score "{score}"', error)

        sheet = score_maps(attribution, batch, recipe.scores, leave_out, answers=answers, memory=memory)
        if compares_looks(recipe.scores):
            memory.keep(attribution)
        reliance = None
        if recipe.checks.apply_to(batch, attribution, stamp.class_names):
            reliance = _rely(trainer, module, fixed, batch, attribution, recipe, failures)
        scores = with_checks(same_everywhere(trainer, sheet.values), reliance)
        return SaliencyRecord(batch, attribution, scores, stamp, sheet, reliance)


def _rely(
    trainer: Trainer,
    module: LightningModule,
    fixed: FixedBatch,
    batch: SaliencyBatch,
    attribution: Attribution,
    recipe: Recipe,
    failures: FailurePolicy,
) -> Reliance | None:
    """What the model relies on, the same in every process; the accuracy alone where the checks failed in one.

    Every process makes all changed images, which belong to the batch as a whole, and answers for its share of them.
    """

    def answer_rows(rows: list[int]) -> Answers:
        changed = recipe.checks.images(batch, attribution)
        with precision(trainer):
            answers, fixed.largest_batch = answer_images(
                module,
                batch.select(rows),
                {name: images[rows] for name, images in changed.items()},
                chunk_size=fixed.largest_batch,
                forward=through_wrapper(trainer, recipe.forward),
            )
            return answers

    answers = share_out(trainer, module, batch, answer_rows)
    if isinstance(answers, Exception):
        failures.report(CHECKING, answers)
        answers = Answers()
    measured: dict[str, Any] | None = None
    try:
        measured = recipe.checks.measure(batch, attribution, answers.values).to_plain()
    except Exception as error:
        failures.report(CHECKING, error)
    agreed = same_everywhere(trainer, measured or {})
    return Reliance.from_plain(agreed) if agreed else None


def _ask(
    trainer: Trainer,
    module: LightningModule,
    batch: SaliencyBatch,
    attribution: Attribution,
    recipe: Recipe,
    memory: Memory,
    options: dict[str, Any],
    chunk_size: int | None,
) -> Answers | Exception:
    """What the scores want to know of the model; the maps of random weights are asked for once a run."""
    inquiry = Inquiry.of(resolve_scores(recipe.scores))
    if memory.knows_random_maps(attribution):
        inquiry = inquiry.without_random_maps()

    def ask_rows(rows: list[int]) -> Answers:
        with precision(trainer):
            share = batch.select(rows), attribution.select(rows)
            return ask(module, *share, inquiry, targets=recipe.targets, chunk_size=chunk_size, **options)

    answers = share_out(trainer, module, batch, ask_rows) if inquiry else Answers()
    return answers if isinstance(answers, Exception) else memory.keep_random_maps(answers, attribution)
