"""One look inside a Trainer: maps, scores and causal checks by all processes together, the same in all of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from lightning_gcam._lightning import LightningModule, Trainer
from lightning_gcam.asking import Answers, answer_images, ask, ask_random_model
from lightning_gcam.attribution import Attribution
from lightning_gcam.batch import SaliencyBatch
from lightning_gcam.callbacks.failures import ASKING, CHECKING, THE_LOOK, FailurePolicy
from lightning_gcam.callbacks.processes import same_everywhere, share_out
from lightning_gcam.callbacks.recipe import Recipe
from lightning_gcam.callbacks.trainer_facts import as_input, precision
from lightning_gcam.causal_checks import with_checks
from lightning_gcam.chunks import attribute_in_chunks
from lightning_gcam.fixed_batch import FixedBatch
from lightning_gcam.memory import Memory
from lightning_gcam.record import SaliencyRecord, Stamp
from lightning_gcam.reliance import Reliance
from lightning_gcam.scoring import ScoreSheet, score_maps


@dataclass(frozen=True)
class Look:
    """What a look is taken with.

    The exchanges between processes stand outside of every guard, so that all of them reach each, whatever happens.

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
        """The samples' maps, scores and checks now; None in every process where the maps failed in one."""
        with torch.inference_mode(False):
            attribution = share_out(self.trainer, self.module, len(self.fixed.samples), self._attribute)
            if isinstance(attribution, Exception):
                self.failures.report(THE_LOOK, attribution)
                return None
            batch = self._samples()
            attribution = attribution.to(self.module.device)
            sheet = self._score(batch, attribution, self._ask(batch, attribution))
            earlier = self.memory.for_picture
            if self.recipe.compares_looks:
                self.memory.keep(attribution, stamp.step)
            reliance = self._rely(batch, attribution, stamp)
            scores = with_checks(same_everywhere(self.trainer, sheet.values), reliance)
            return SaliencyRecord(batch, attribution, scores, stamp, sheet, reliance, earlier)

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

    def _rely(self, batch: SaliencyBatch, attribution: Attribution, stamp: Stamp) -> Reliance | None:
        """What the model relies on; the accuracy alone where a check failed in one process.

        Every process makes the changed images of its share; regions and partners belong to the batch as a whole.
        """
        checks = self.recipe.checks
        if not checks.apply_to(batch, attribution, stamp.class_names):
            return None

        def answer_rows(rows: list[int]) -> Answers:
            with precision(self.trainer):
                answers, self.fixed.largest_batch = answer_images(
                    self.module,
                    batch,
                    checks.changes(batch, attribution),
                    rows=rows,
                    chunk_size=self.fixed.largest_batch,
                    forward=self._options["forward"],
                )
                return answers

        answers = self._agreed(CHECKING, share_out(self.trainer, self.module, len(batch), answer_rows))
        measured: dict[str, Any] = {}
        with self.failures.guard(CHECKING):
            measured = checks.measure(batch, attribution, answers.values).to_plain()
        measured = same_everywhere(self.trainer, measured)
        return Reliance.from_plain(measured) if measured else None

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
        return answers.to(self.module.device)
