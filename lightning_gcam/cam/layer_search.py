"""The spatial layers of a model that influence its output, found by one forward and one gradient."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node, get_gradient_edge

from lightning_gcam.cam.layout_evidence import (
    FOUND,
    SURE,
    ObservedShape,
    measure_layouts,
    remember_layout,
)
from lightning_gcam.cam.layouts import (
    Layout,
    Reshape,
    Run,
    fits,
    is_even,
    leaves_of,
)
from lightning_gcam.cam.output_recorder import LayerOutput, recorded
from lightning_gcam.cam.outputs import find_logits, find_raw_logits, maps_of_all_heads
from lightning_gcam.cam.squashing import nodes_behind
from lightning_gcam.cam.suitability import are_the_output, leads_to, unsuitable, up_to_the_bottleneck
from lightning_gcam.cam.whole import whole_output
from lightning_gcam.utils.dimensions import Size, size_of
from lightning_gcam.utils.errors import InputError

ALONG_SIGNALS = 0.5
"""The least locality of a layer along a signal; by chance a dimension of ten has 0.3, and a layer of tokens about 1."""


Call = tuple[LayerOutput, Layout, Tensor | None]
"""A call's output, its layout and its gradient, None where the score does not depend on it."""


@dataclass(frozen=True)
class SpatialLayer:
    """A submodule whose output is a grid over the image.

    Args:
        name: in `model.named_modules()`.
        module: the submodule.
        layout: of its output.
        is_live: whether its positions influence the output of the model.
        is_even: whether the gradient is the same at all positions of a channel (and not zero).
    """

    name: str
    module: nn.Module
    layout: Layout
    is_live: bool
    is_even: bool


@dataclass(frozen=True)
class ProbeResult:
    """The spatial layers in the order in which they finish, and facts about the model's output.

    Args:
        layers: none where the output depends on none.
        is_finite: whether the logits are; where they are not, gradients may be missing.
        passed_over: the names of those that are live and left out, see `lightning_gcam.cam.suitability`.
        is_dense: whether the logits are of every position, and the layers only those before the network goes up again.
        before_all: whether the layers are only those that all feature maps of a detector are computed from.
    """

    layers: list[SpatialLayer]
    is_finite: bool = True
    passed_over: tuple[str, ...] = ()
    is_dense: bool = False
    before_all: bool = False


def probe_layers(
    model: nn.Module,
    images: Tensor,
    run: Run,
    reshape: Reshape | None = None,
    backbone: nn.Module | None = None,
) -> ProbeResult:
    """Find the submodules whose output is a grid over the image, by one forward and one gradient.

    Args:
        model: in eval mode (see `lightning_gcam.utils.isolation.untouched`).
        images: `(N, C, *S)`; a copy that may be written on. One is enough.
        run: calls the model with images.
        reshape: from a layer's output to `(N, C, *grid)`; inferred from the shapes where it is left out.
        backbone: of a detector: only layers are taken that all the feature maps that it returns are computed from. A
            detection is made from one of them, and another one from another.
    """
    start = _start_of_graph(model, images, run) if images.ndim == 5 else 0
    found = _probe(model, images.clone() if start else images, run, reshape, start, backbone)
    is_found = start == 0 or any(each.is_live for each in found.layers)
    return found if is_found else _probe(model, images, run, reshape, 0, backbone)


def _start_of_graph(model: nn.Module, images: Tensor, run: Run) -> int:
    """The first output to be in a volume's graph: those from there on hold no more numbers than the largest of all.

    A graph holds every output and its gradient, a plain forward no more than a few. Of logits at every position it
    starts at the image, for the bottleneck is far in front of the end.
    """
    with torch.no_grad(), recorded(model, images, None, start=None) as recorder:
        try:
            output = find_raw_logits(run(images.clone()), len(images), images.ndim - 2)
        except InputError:  # only a graph shows which are the logits
            return 0
    if output.ndim > 2 or not images.is_floating_point():
        return 0
    left, start = max(recorder.sizes, default=0), len(recorder.sizes)
    while start and recorder.sizes[start - 1] <= left:
        start -= 1
        left -= recorder.sizes[start]
    return start


def _probe(
    model: nn.Module,
    images: Tensor,
    run: Run,
    reshape: Reshape | None,
    start: int,
    backbone: nn.Module | None,
) -> ProbeResult:
    """As `probe_layers`, of the outputs from the number `start` on."""
    feature_maps: list[Tensor] = []
    with (
        torch.set_grad_enabled(not start),
        recorded(model, images, reshape, start) as recorder,
        ExitStack() as stack,
    ):
        if backbone is not None:
            keep = lambda _, __, found: feature_maps.extend(_maps_in(found))  # noqa: E731
            stack.callback(backbone.register_forward_hook(keep).remove)
        leaf = images.requires_grad_() if images.is_floating_point() and not start else images
        output, outputs = run(leaf.clone()), recorder.outputs
        torch.set_grad_enabled(True)
        logits = find_logits(output, len(images), images.ndim - 2)
        raw = find_raw_logits(output, len(images), images.ndim - 2)
        candidates = _features_among([each for each in outputs if each.tensor.requires_grad], output, raw)
        if feature_maps:
            candidates = _before_all(candidates, feature_maps)
        is_finite = bool(torch.isfinite(logits).all())
        if not candidates or not logits.requires_grad:
            return ProbeResult([], is_finite)
        score = (logits.float() * _uneven_weights(logits)).sum()
        gradients = torch.autograd.grad(score, [each.tensor for each in candidates], allow_unused=True)
    is_dense = raw.ndim > 2
    source = candidates[0].tensor if start else leaf
    from_image = _from_image(candidates, source)
    outputs_and_gradients = list(zip(from_image, gradients, strict=True))
    pairs, passed_over = _suitable(outputs_and_gradients, maps_of_all_heads(output, raw))
    calls = _with_layouts(_last_calls(pairs), images, run, is_dense=is_dense)
    calls = _without_queries(calls, candidates, from_image)
    layers = [_spatial_layer(*each) for each in calls]
    for each, layout, _ in calls if reshape is None else ():
        if (
            layout.is_sure and layout.frames == 1
        ) or layout.locality is not None:  # of frames not yet their order
            remember_layout(each.module, each.tensor.shape, size_of(images), layout)
    if is_dense:
        layers = _before_the_decoder(layers, [gradient for _, _, gradient in calls], images, raw)
    return ProbeResult(layers, is_finite, passed_over, is_dense, before_all=bool(feature_maps))


def _maps_in(output: Any) -> list[Tensor]:
    """The feature maps that a backbone returned."""
    return [each for each in leaves_of(output) if isinstance(each, Tensor) and each.requires_grad]


def _features_among(candidates: list[LayerOutput], output: Any, logits: Tensor) -> list[LayerOutput]:
    """The outputs that are not the model's own, `(N, K)` or coordinates."""
    is_whole = whole_output(output, len(logits)) is not None
    own = are_the_output([each.tensor for each in candidates], logits, in_any_shape=is_whole)
    return [each for each, is_own in zip(candidates, own, strict=True) if not is_own]


def _before_all(candidates: list[LayerOutput], feature_maps: list[Tensor]) -> list[LayerOutput]:
    """The outputs that all of some feature maps are computed from."""
    behind = [set(nodes_behind(get_gradient_edge(each).node)) for each in feature_maps]
    shared = set.intersection(*behind)
    return [each for each in candidates if get_gradient_edge(each.tensor).node in shared]


def _without_queries(
    calls: list[Call], candidates: Sequence[LayerOutput], from_image: Sequence[LayerOutput | None]
) -> list[Call]:
    """Drop tokens that are as many as some that are computed from parameters alone, and follow no half of the image.

    A decoder's queries are parameters until they read of the image. All are kept where nothing else influences the
    output; a table of positions is made of parameters, too, and of no queries.
    """
    queries = {
        each.tensor.shape[:-1]
        for each, own in zip(candidates, from_image, strict=True)
        if own is None and each.tensor.ndim == 3 and not isinstance(each.module, nn.Embedding)
    }
    kept = [
        (output, layout, gradient)
        for output, layout, gradient in calls
        if output.tensor.shape[:-1] not in queries or layout.locality is None or layout.locality >= SURE
    ]
    return kept if any(gradient is not None and gradient.any() for _, _, gradient in kept) else calls


def _with_layouts(
    calls: list[tuple[LayerOutput, Tensor | None]], images: Tensor, run: Run, *, is_dense: bool
) -> list[Call]:
    """The outputs that are grids, each with its layout: by the layer's kind, or measured in one more forward.

    Where a layer of a sure kind comes after all others, and no decoder is to be cut off, nothing is measured.
    """
    sure = (
        position
        for position, (output, gradient) in reversed(list(enumerate(calls)))
        if _is_sure(output) and gradient is not None and gradient.any()
    )
    first = next(sure, -1) + 1 if not is_dense else 0
    unsure: dict[nn.Module, dict[int, ObservedShape]] = {}
    for output, gradient in calls[first:]:
        if gradient is not None and not _is_sure(output):
            unsure.setdefault(output.module, {})[output.call] = ObservedShape(
                output.tensor.shape, len(images)
            )
    found = _try_to_measure(run, images, unsure) if unsure else {}
    read = []
    for output, gradient in calls:
        layout = found.get(output.module, {}).get(output.call, output.layout)
        if layout is not None and _is_plausible(output, layout, size_of(images)):
            read.append((output, layout, gradient))
    return read


def _is_plausible(output: LayerOutput, layout: Layout, image_size: Size) -> bool:
    """Whether an output may have a layout: channels first at another aspect than the image's needs evidence.

    A block may hold convolutions and give something else, such as a number for each head, token and channel; what a
    convolution, a pool or a norm gave in the same shape is a map of the image at any aspect. Along a signal every shape
    fits, so that any layout needs evidence: `(N, 1, K)` may be logits. Over a volume `(N, K, 1, 1, 1)` of a convolution
    would fit as slices of one cell.
    """
    if len(image_size) == 3 and output.is_declared and layout.channel != 1:
        return False
    if len(image_size) == 1:
        return layout.is_sure or output.is_declared or (layout.locality or 0.0) >= ALONG_SIGNALS
    is_of_aspect = layout.kind != "channels first" or fits(layout.grid, image_size, slack=2.0)
    return is_of_aspect or output.is_declared or (layout.locality or 0.0) >= FOUND


def _is_sure(output: LayerOutput) -> bool:
    """Whether the layer's kind alone determines the layout."""
    return output.layout is not None and output.layout.is_sure


def _try_to_measure(
    run: Run, images: Tensor, unsure: dict[nn.Module, dict[int, ObservedShape]]
) -> dict[nn.Module, dict[int, Layout | None]]:
    """Measure layouts; none where the model takes no other number of images."""
    try:
        return measure_layouts(run, images[:1].detach(), unsure, len(images))
    except Exception:  # of the user's forward, which takes one image only: the shapes have to do
        return {}


def _before_the_decoder(
    layers: list[SpatialLayer], gradients: Sequence[Tensor | None], images: Tensor, logits: Tensor
) -> list[SpatialLayer]:
    """The live layers up to the bottleneck of a network that gives logits at every position."""
    live = [
        (layer, layer.layout.reshape(gradient))
        for layer, gradient in zip(layers, gradients, strict=True)
        if layer.is_live and gradient is not None
    ]
    if not live:
        return layers
    sizes = size_of(images), size_of(logits)
    return up_to_the_bottleneck([layer for layer, _ in live], [each for _, each in live], *sizes)


def _uneven_weights(logits: Tensor) -> Tensor:
    """Weights that differ from class to class: a softmax or a normalisation cancels a sum with equal ones."""
    return torch.linspace(1.0, 2.0, logits.shape[1], device=logits.device)


def _from_image(outputs: list[LayerOutput], leaf: Tensor) -> list[LayerOutput | None]:
    """Keep the outputs that are computed from the image; a table of relative positions may have a grid's shape, too.

    Where none was (the features are detached on the way), all of them may have been.
    """
    if not leaf.requires_grad:
        return list(outputs)
    seen: dict[Node, bool] = {}
    goal = get_gradient_edge(leaf).node
    from_image = [
        each if leads_to(get_gradient_edge(each.tensor).node, goal, seen) else None for each in outputs
    ]
    return from_image if any(from_image) else list(outputs)


def _suitable(
    pairs: Sequence[tuple[LayerOutput | None, Tensor | None]], maps: Sequence[Tensor]
) -> tuple[Sequence[tuple[LayerOutput | None, Tensor | None]], tuple[str, ...]]:
    """Drop unsuitable layers, and return their names; keep all where the output depends on no suitable one."""
    there = [(output, gradient) for output, gradient in pairs if output is not None]
    bad = unsuitable([each.module for each, _ in there], [each.tensor for each, _ in there], maps)
    good = [pair for pair, is_bad in zip(there, bad, strict=True) if not is_bad]
    if all(gradient is None for _, gradient in good):
        return pairs, ()
    others = [
        each.name
        for (each, gradient), is_bad in zip(there, bad, strict=True)
        if is_bad and gradient is not None
    ]
    return good, tuple(dict.fromkeys(others))


# -------------------------------------------------------------------------------------------------- results


def _last_calls(
    pairs: Sequence[tuple[LayerOutput | None, Tensor | None]],
) -> list[tuple[LayerOutput, Tensor | None]]:
    """One call for each submodule, in order: the last that the score depends on, as in `capture`."""
    last: dict[str, int] = {}
    for position, (output, gradient) in enumerate(pairs):
        if output is not None and (gradient is not None or output.name not in last):
            last[output.name] = position
    kept = [pairs[position] for position in sorted(last.values())]
    return [(output, gradient) for output, gradient in kept if output is not None]


def _spatial_layer(output: LayerOutput, layout: Layout, gradient: Tensor | None) -> SpatialLayer:
    """A submodule's output with its layout as a `SpatialLayer`; its gradient decides whether it is live."""
    grid = layout.reshape(gradient) if gradient is not None else None
    is_live = (
        grid is not None and 0 < float(grid.abs().amax()) < math.inf
    )  # where one is NaN, so is the largest
    return SpatialLayer(
        output.name, output.module, layout, is_live, grid is not None and is_live and is_even(grid)
    )
