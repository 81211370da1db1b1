"""The model's outputs for changed images: computed once a look, however many scores and checks need them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lightning_gcam.cam.calling import forward_at
from lightning_gcam.cam.forward import forward_with_weights, logits_in_eager_mode, random_weights
from lightning_gcam.cam.invocation import Forward
from lightning_gcam.cam.registry import resolve_methods
from lightning_gcam.cam.squashing import Squash
from lightning_gcam.cam.targets import Targets
from lightning_gcam.cam.whole import WHOLE
from lightning_gcam.data import SaliencyBatch
from lightning_gcam.metrics import Perturbation
from lightning_gcam.metrics.perturbation import PerturbedKey, PerturbedOutputs
from lightning_gcam.metrics.registry import OutputNeeds
from lightning_gcam.pipeline.attribution import Attribution, attribute_in_chunks
from lightning_gcam.pipeline.captions import class_probabilities, has_own_sigmoids
from lightning_gcam.shortcuts.checks import MakeImages
from lightning_gcam.utils.chunking import run_in_chunks
from lightning_gcam.utils.errors import InputError
from lightning_gcam.utils.isolation import eager_without_graph, untouched
from lightning_gcam.utils.transfer import to_device, to_host


def outputs_for_perturbed(
    model: nn.Module,
    batch: SaliencyBatch,
    attribution: Attribution,
    output_needs: OutputNeeds,
    *,
    targets: Targets = None,
    chunk_size: int | None = None,
    multi_label: bool = False,
    **options: Any,
) -> PerturbedOutputs:
    """Run the model on the perturbed images of every map.

    Args:
        model: any `nn.Module`; it is left exactly as it was.
        batch: the samples, on the model's device.
        attribution: their maps.
        output_needs: which perturbations are made, and what is computed of them.
        targets: what the maps explain where that is no class (a callable, or "output").
        chunk_size: how many images to run at once; as many as there are samples where it is left out.
        multi_label: whether each logit has a sigmoid of its own also where a sample is labelled with one class.
        options: `methods`, `target_layer`, `fuse`, `forward` and `reshape_transform` as in `attribute`.

    Raises:
        InputError: where probabilities are needed and the maps explain no class.
    """
    runs = _ModelRuns(model, batch, attribution, targets, chunk_size or len(batch), options, multi_label)
    outputs = PerturbedOutputs()
    for name, maps in attribution.maps.items():
        for number, perturbation in enumerate(output_needs.perturbations):
            key = PerturbedKey(name, number)
            if number in output_needs.with_probabilities:
                outputs.probabilities[key] = runs.probabilities(perturbation, maps)
            if number in output_needs.with_maps:
                outputs.maps[key] = runs.maps_of_perturbed(perturbation, name, maps)
    return outputs


def maps_of_random_weights(
    model: nn.Module,
    batch: SaliencyBatch,
    attribution: Attribution,
    *,
    targets: Targets = None,
    chunk_size: int | None = None,
    **options: Any,
) -> PerturbedOutputs:
    """Compute the maps of the same samples, for the same classes, by the same model with random weights.

    Args:
        model: any `nn.Module`; it is left exactly as it was.
        batch: the samples, on the model's device.
        attribution: their maps.
        targets: as in `outputs_for_perturbed`.
        chunk_size: as in `outputs_for_perturbed`.
        options: as in `outputs_for_perturbed`.

    Raises:
        InputError: where the model's parameters are sharded.
    """
    forward = forward_with_weights(random_weights(model), options.pop("forward", None))
    size, options = chunk_size or len(batch), {**options, "forward": forward}
    runs = _ModelRuns(model, batch, attribution, targets, size, options)
    return PerturbedOutputs(random_maps=runs.attribute(batch.images))


_PIXELS_AT_ONCE = 12 * 224 * 224
"""Of changed images three quarters as many are run at once as there are samples (beside them lie the samples without
their objects, and the maps), and of small images as many as this allows."""


def logits_for_versions(
    model: nn.Module,
    batch: SaliencyBatch,
    versions: Mapping[str, Tensor | MakeImages],
    *,
    rows: Sequence[int] | None = None,
    chunk_size: int | None = None,
    forward: Forward | None = None,
    squash: Squash | Literal["unknown"] | None = "unknown",
) -> tuple[PerturbedOutputs, int | None]:
    """Run the model on changed versions of a batch, in few forwards that need no more memory than one of the batch.

    Args:
        model: any `nn.Module`; it is left exactly as it was.
        batch: the samples, for the regions of a dense head.
        versions: images `(N, C, *S)` by the name of the version, or functions that make those of some samples (see
            `lightning_gcam.shortcuts.checks.image_changes`): then no more than a chunk of them exist at once.
        rows: the numbers of the samples that are run; all where it is left out.
        chunk_size: how many images to run at once, at the most.
        forward: as in `attribute`.
        squash: what the model does to its logits, as in `Attribution`; a softmax is seen without that.

    Returns:
        Logits `(rows, K)` by the same names, on the host, and `chunk_size`; less where memory did not suffice for it.
    """
    rows = range(len(batch)) if rows is None else rows
    if not versions:
        return PerturbedOutputs(), chunk_size
    names, at, masks = list(versions), torch.tensor(list(rows), device="cpu"), batch.object_masks
    most = max(-(-len(rows) * 3 // 4), _PIXELS_AT_ONCE // math.prod(batch.image_size))
    wanted = min(chunk_size or most, most)

    def work(chunk: slice) -> Tensor:
        parts = [
            (name, at[max(chunk.start - start, 0) : max(chunk.stop - start, 0)])
            for start, name in zip(range(0, len(names) * len(at), len(at)), names, strict=True)
        ]
        images = _joined([_changed_rows(versions[name], part) for name, part in parts if len(part)])
        samples = torch.cat([part for _, part in parts])
        regions = masks[to_device(samples, masks.device)] if masks is not None else None
        of_samples = forward_at(forward, samples)
        return logits_in_eager_mode(model, images, None, forward=of_samples, masks=regions, squash=squash)

    with untouched(model), eager_without_graph():
        logits, size = run_in_chunks(len(names) * len(at), work, wanted)
    (on_host,) = to_host([_joined(logits)])
    found = PerturbedOutputs(logits=dict(zip(names, on_host.split(len(at)), strict=True)))
    return found, size if size < wanted else chunk_size


def _changed_rows(version: Tensor | MakeImages, rows: Tensor) -> Tensor:
    """The changed images of some samples."""
    return version(rows) if callable(version) else version[rows.to(version.device)]


def _joined(parts: list[Tensor]) -> Tensor:
    """Several tensors as one; a single one is not copied."""
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _logits_in_chunks(
    model: nn.Module,
    images: Tensor,
    classes: Tensor | None,
    regions: Tensor | None,
    forward: Forward | None,
    chunk_size: int | None,
    squash: Squash | Literal["unknown"] | None,
) -> tuple[Tensor, int]:
    """The logits `(N, K)`, and how many images went through at once."""

    def work(chunk: slice) -> Tensor:
        targets = classes[chunk] if classes is not None else None
        masks = regions[chunk] if regions is not None else None
        of_chunk = forward_at(forward, chunk)
        return logits_in_eager_mode(
            model, images[chunk], targets, forward=of_chunk, masks=masks, squash=squash
        )

    parts, size = run_in_chunks(len(images), work, chunk_size)
    return torch.cat(parts), size


@dataclass(frozen=True)
class _ModelRuns:
    """One model, one batch, and how the model is run on changes of it."""

    model: nn.Module
    batch: SaliencyBatch
    attribution: Attribution
    targets: Targets
    chunk_size: int
    options: dict[str, Any]
    multi_label: bool = False

    def probabilities(self, perturbation: Perturbation, maps: Tensor) -> Tensor:
        """The explained class's probability for each image of a perturbation, `(N, steps + 1)`."""
        classes, masks = _explained(self.attribution), self.batch.object_masks
        found = torch.full((len(self.batch), perturbation.num_images), torch.nan, device=maps.device)
        with untouched(self.model), eager_without_graph():
            for index, images in perturbation.images(self.batch.images, maps, self.chunk_size):
                rows, steps = index.unbind(dim=1)
                regions = masks[rows] if masks is not None else None
                forward, squash = forward_at(self.options.get("forward"), rows), self.attribution.squash
                logits, _ = _logits_in_chunks(
                    self.model, images, classes[rows], regions, forward, None, squash
                )
                multi_label = has_own_sigmoids(self.batch, self.attribution, self.multi_label)
                found[rows, steps] = class_probabilities(logits, classes[rows], multi_label)
        return found

    def maps_of_perturbed(self, perturbation: Perturbation, name: str, maps: Tensor) -> Tensor:
        """The map of the same name of the perturbed images (of which only what is salient is left)."""
        images = torch.cat([each for _, each in perturbation.images(self.batch.images, maps, len(maps))])
        method = self.attribution.source_of(name).method
        table = resolve_methods(self.options["methods"])
        return self.attribute(images, methods={method: table[method]})[name]

    def attribute(self, images: Tensor, **other: Any) -> dict[str, Tensor]:
        """The maps of changed images, at the same layers, for the same classes."""
        explains = self.attribution.explains
        explained = explains if explains == "output" or explains in WHOLE else self.targets
        targets = self.attribution.targets if self.attribution.targets is not None else explained
        changed = SaliencyBatch(images, masks=self.batch.object_masks)
        options = {**self.options, **other, "chunk_size": self.chunk_size}
        return attribute_in_chunks(self.model, changed, targets, **options)[0].maps


def _explained(attribution: Attribution) -> Tensor:
    """The classes that the maps explain.

    Raises:
        InputError: where they explain something else.
    """
    if attribution.targets is None:
        raise InputError(
            "`scores` that ask for the probability of a class (average_drop, insertion and the like) need maps that "
            "explain classes, and these explain the output itself or a score of your own. Leave them out."
        )
    return attribution.targets
