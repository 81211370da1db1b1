"""The dry run: the target layers found, and one sample analyzed, before training time is spent."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from lightning_gcam.cam.heads import HeadPlan
from lightning_gcam.cam.layers import TargetLayer, find_target_layer, resolve_target_layers
from lightning_gcam.cam.targets import check_labels
from lightning_gcam.data import SaliencyBatch
from lightning_gcam.pipeline.attribution import attribute
from lightning_gcam.pipeline.config import CHECKING, LookConfig
from lightning_gcam.pipeline.heads import Layers
from lightning_gcam.pipeline.labels import forward_for, labels_of, plan_heads, samples_of_head
from lightning_gcam.pipeline.run import analyze
from lightning_gcam.shortcuts import changed_images
from lightning_gcam.shortcuts.exchange import check_sides, try_properties
from lightning_gcam.utils.errors import InputError
from lightning_gcam.utils.lightning_compat import rank_zero_info


def dry_run(
    model: nn.Module, batch: SaliencyBatch, config: LookConfig, *, whole: SaliencyBatch | None = None
) -> Layers:
    """Find the heads and their target layers, and analyze a batch of one sample, before training time is spent.

    Args:
        model: any `nn.Module`.
        batch: the sample (see `one_labelled`), on the model's device.
        config: what the looks will compute.
        whole: the batch that the sample is a part of: its labels show whether they name classes or measure something.

    Returns:
        For each head the layers that are named in `config`, or the one that was found.

    Raises:
        InputError: naming the argument, what came, and what to do. What fails for another reason behind the maps is
            left to the first look.
    """
    whole = whole if whole is not None else batch
    config = config.with_forward(forward_for(model, batch, config.forward))
    plans = config.plans or plan_heads(model, batch, config.head, config.forward, whole=whole)
    if len(plans) > 1 and not config.plans:
        rank_zero_info(f"{len(plans)} heads are looked at: {', '.join(map(str, plans))}. `head=` chooses.")
    found: Layers = {}
    for plan in plans or [HeadPlan()]:
        parts = [samples_of_head(each, plan) for each in (batch, whole)]
        layers = _dry_run(model, config.at_head(plan), *parts)
        found[replace(plan, layers=tuple(layer.name for layer in layers))] = layers
    return found


def _dry_run(
    model: nn.Module, config: LookConfig, batch: SaliencyBatch, whole: SaliencyBatch
) -> list[TargetLayer]:
    """The target layers of one head, at which one sample was analyzed."""
    layers = _find_layers(model, batch, config)
    forward = forward_for(model, batch, config.forward)  # of a detector that the search has shown to be one
    config = replace(config, target_layer=[layer.name for layer in layers], forward=forward)
    options = {**config.attribute_options, "methods": "grad_cam"}
    with torch.inference_mode(False):
        tried = attribute(model, batch.images, masks=batch.object_masks, **options)
        has_classes = config.explains_classes and tried.explains == "classes"
        if whole.labels is not None and whole.labels.ndim == 1 and has_classes:
            check_labels(whole.labels, tried.logits.shape[1])
        if config.explains_labels:
            config = replace(config, targets=labels_of(batch, whole))
        record = analyze(model, batch, _of_one_sample(config), on_failure=_raise_input_error)
        maps, *_ = record.attribution.maps.values()
        try:
            if config.checks is not None:
                check_sides(config.exchange_names, len(batch.image_size))
            changed_images(batch, maps, config.check_names, config.removal)
            try_properties(config.exchange_names, batch.images)
        except Exception as error:
            _raise_input_error(CHECKING, error)
    return layers


def _of_one_sample(config: LookConfig) -> LookConfig:
    """What of `config` a dry run computes; the same forwards for every sample, as sharded models need."""
    resolved = config.resolved_scores
    scores = {name: each for name, each in resolved.metrics.items() if "random" not in resolved.needs[name]}
    return replace(config, scores=scores, checks=(), with_baselines=False)


def _raise_input_error(_: str, error: Exception) -> None:
    if isinstance(error, InputError):
        raise error


def _find_layers(model: nn.Module, batch: SaliencyBatch, config: LookConfig) -> list[TargetLayer]:
    """The layers that `config` names, or the one that is found."""
    if config.target_layer is None:
        how = {"forward": config.forward, "reshape_transform": config.reshape_transform}
        return [find_target_layer(model, batch.images, **how)]
    named = resolve_target_layers(model, config.target_layer)
    return [TargetLayer(name, layer) for name, layer in named.items()]
