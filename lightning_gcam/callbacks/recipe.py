"""What every look computes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from lightning_gcam._lightning import Trainer
from lightning_gcam.asking import Inquiry
from lightning_gcam.batch import SaliencyBatch
from lightning_gcam.callbacks.processes import through_wrapper
from lightning_gcam.cam.capture import Forward
from lightning_gcam.cam.registry import AnyMethod
from lightning_gcam.cam.reshape import Reshape
from lightning_gcam.cam.several import Fuse
from lightning_gcam.cam.targets import Targets
from lightning_gcam.causal_checks import NO_CHECKS, CausalChecks
from lightning_gcam.chunks import labels_of
from lightning_gcam.metrics import resolve_scores
from lightning_gcam.scoring import Scores, compares_looks


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
