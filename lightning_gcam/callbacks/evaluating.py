"""One batch of an evaluation: its maps, what the model answers to the scores, and each sample's numbers."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from lightning_gcam._errors import InputError
from lightning_gcam._lightning import LightningModule, Trainer
from lightning_gcam._quiet import quietly
from lightning_gcam.asking import Answers, ask, ask_random_model
from lightning_gcam.attribution import Attribution
from lightning_gcam.batch import SaliencyBatch
from lightning_gcam.callbacks.recipe import Recipe
from lightning_gcam.callbacks.trainer_facts import as_input, precision
from lightning_gcam.cam.calling import run
from lightning_gcam.cam.capture import Forward
from lightning_gcam.chunks import attribute_in_chunks
from lightning_gcam.evaluation import Columns
from lightning_gcam.metrics import needs, resolve_scores
from lightning_gcam.metrics.baselines import BASELINES
from lightning_gcam.scoring import ScoreSheet, score_maps

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
