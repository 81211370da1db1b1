"""One look inside a Trainer: the maps by all processes together, and their scores, the same in all of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from lightning_gcam._errors import InputError
from lightning_gcam._lightning import LightningModule, Trainer
from lightning_gcam.attribution import Attribution, attribute
from lightning_gcam.batch import SaliencyBatch
from lightning_gcam.callbacks.failures import FailurePolicy
from lightning_gcam.callbacks.processes import attribute_together, same_everywhere, through_wrapper
from lightning_gcam.callbacks.trainer_facts import as_input, precision
from lightning_gcam.cam.capture import Forward
from lightning_gcam.cam.layers import TargetLayer, find_target_layer, resolve_target_layer
from lightning_gcam.cam.methods import Method
from lightning_gcam.cam.reshape import Reshape
from lightning_gcam.cam.targets import Targets, check_classes
from lightning_gcam.fixed_batch import FixedBatch
from lightning_gcam.record import SaliencyRecord, Scores, Stamp, attribute_in_chunks, score_maps


@dataclass(frozen=True)
class Recipe:
    """What every look computes; the fields are arguments of `SaliencyMonitor`."""

    methods: dict[str, Method]
    targets: Targets
    scores: Scores
    forward: Forward | None
    reshape_transform: Reshape | None

    def options(self, trainer: Trainer) -> dict[str, Any]:
        """What of it `attribute` takes."""
        return {
            "methods": list(self.methods.values()),
            "forward": through_wrapper(trainer, self.forward),
            "reshape_transform": self.reshape_transform,
        }


def prepare(
    trainer: Trainer,
    module: LightningModule,
    samples: SaliencyBatch,
    target_layer: str | None,
    recipe: Recipe,
) -> TargetLayer:
    """Find the layer and try one sample all the way, so that what cannot work is seen before the first look.

    Raises:
        InputError: naming the argument, what came, and what to do.
    """
    with torch.inference_mode(False), precision(trainer):
        first = samples.select([_first_labelled(samples)]).to(module.device)
        first = replace(first, images=as_input(trainer, first.images))
        options = recipe.options(trainer)
        layer = _find_layer(module, first, target_layer, options)
        logits = attribute(module, first.images, target_layer=layer.name, **options).logits
        if samples.labels is not None and samples.labels.ndim == 1:
            check_classes(samples.labels[samples.labels >= 0], logits.shape[1], "labels")
        attribution, _ = attribute_in_chunks(
            module, first, recipe.targets, target_layer=layer.name, **options
        )
        score_maps(attribution, first, recipe.scores, _raise_input_errors)
        return layer


def _first_labelled(samples: SaliencyBatch) -> int:
    """Negative labels mean "none"; such samples are passed over, here too."""
    if samples.labels is None or samples.labels.ndim != 1:
        return 0
    return int((samples.labels >= 0).int().argmax())


def _raise_input_errors(_: str, error: Exception) -> None:
    """A score that fails for another reason is no cause to look at nothing; the first look tells of it."""
    if isinstance(error, InputError):
        raise error


def _find_layer(
    module: nn.Module, samples: SaliencyBatch, target_layer: str | None, options: dict[str, Any]
) -> TargetLayer:
    if target_layer is None:
        forward, reshape = options["forward"], options["reshape_transform"]
        return find_target_layer(module, samples.images, forward=forward, reshape_transform=reshape)
    name, layer = resolve_target_layer(module, target_layer)
    return TargetLayer(name, layer)


def take_look(
    trainer: Trainer,
    module: LightningModule,
    fixed: FixedBatch,
    layer: str,
    recipe: Recipe,
    stamp: Stamp,
    failures: FailurePolicy,
) -> SaliencyRecord | None:
    """The fixed samples' maps and scores now; None in every process where it failed in one.

    The exchange between processes stands outside of every guard, so that all of them reach it whatever happens.
    """
    with torch.inference_mode(False):
        fixed.to(module.device)
        batch = replace(fixed.samples, images=as_input(trainer, fixed.samples.images))

        def attribute_share(share: SaliencyBatch) -> Attribution:
            with precision(trainer):
                chunk = fixed.largest_batch  # never more samples at once than the dataloader delivers
                attribution, fixed.largest_batch = attribute_in_chunks(
                    module,
                    share,
                    recipe.targets,
                    chunk_size=chunk,
                    target_layer=layer,
                    **recipe.options(trainer),
                )
                return attribution

        attribution = attribute_together(trainer, module, batch, attribute_share)
        if isinstance(attribution, Exception):
            failures.report("The look", attribution)
            return None

        def leave_out(score: str, error: Exception) -> None:
            failures.report(f'The score "{score}"', error)

        scores = score_maps(attribution, batch, recipe.scores, leave_out)
        return SaliencyRecord(batch, attribution, same_everywhere(trainer, scores), stamp)
