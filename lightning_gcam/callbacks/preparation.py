"""Before the first look: find the layer, and try one sample all the way, so that what cannot work is seen at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from lightning_gcam._errors import InputError
from lightning_gcam._lightning import LightningModule, Trainer
from lightning_gcam.asking import Answers, ask
from lightning_gcam.attribution import attribute
from lightning_gcam.batch import SaliencyBatch
from lightning_gcam.callbacks.recipe import Recipe
from lightning_gcam.callbacks.trainer_facts import as_input, precision
from lightning_gcam.cam.layers import TargetLayer, find_target_layer
from lightning_gcam.cam.several import TargetLayers, resolve_target_layers
from lightning_gcam.cam.targets import check_labels
from lightning_gcam.chunks import attribute_in_chunks
from lightning_gcam.scoring import score_maps


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
