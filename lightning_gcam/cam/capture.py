"""Activations of one or several layers, and the score's gradients there, by one forward and one gradient.

The forward runs without a graph down to the first layer and with one from there, so a look costs little more than a
plain forward, in time and in memory. Gradients are taken with `torch.autograd.grad`, to the captured activations only:
no parameter's `.grad` is read or written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from lightning_gcam.cam.calling import call_model, covered_size, forward_at, quantized_message
from lightning_gcam.cam.invocation import Forward
from lightning_gcam.cam.layout_evidence import layout_of
from lightning_gcam.cam.layouts import Reshape, Run, main_tensor, with_main_tensor
from lightning_gcam.cam.outputs import Head, has_graph, read_head
from lightning_gcam.cam.regions import score_of_head
from lightning_gcam.cam.suitability import call_of_the_images
from lightning_gcam.cam.targets import Targets, TargetScore
from lightning_gcam.utils.dimensions import Size, letters_of
from lightning_gcam.utils.errors import InputError, user_function_errors
from lightning_gcam.utils.isolation import eager_without_graph


@dataclass(frozen=True)
class LayerCall:
    """One call of a layer in a forward, and the reshape of its output to a grid.

    Args:
        layer: the module.
        call: which of its calls counts, from 0.
        reshape: from its output to `(N, C, *grid)`.
        is_inferred: whether the reshape was inferred from the output's shape, and holds for images of this size only.
    """

    layer: nn.Module
    call: int
    reshape: Reshape
    is_inferred: bool = False


@dataclass(frozen=True)
class Captured:
    """The activations and gradients of one layer, and the score they belong to.

    Args:
        activations: `(N, C, *grid)` float32.
        gradients: of the score with respect to the activations, `(N, C, *grid)` float32.
        score: what was explained, without its graph.
        layer_call: the call of the layer that they are of.
        covered: the size of what the grid lies over, where the model pads the images; None where that is the images.
    """

    activations: Tensor
    gradients: Tensor
    score: TargetScore
    layer_call: LayerCall
    covered: Size | None = None

    @property
    def logits(self) -> Tensor:
        """`(N, K)`; those of a dense head averaged over each sample's region."""
        return self.score.logits

    @property
    def targets(self) -> Tensor | None:
        """The classes that were explained; None where the score does not measure classes."""
        return self.score.targets


ScoreFunction = Callable[[Head], TargetScore]
"""From the model's output to the score that is explained."""


def capture(
    model: nn.Module,
    images: Tensor,
    layer: nn.Module,
    targets: Targets = None,
    *,
    forward: Forward | None = None,
    reshape: Reshape | None = None,
    masks: Tensor | None = None,
    score_fn: ScoreFunction | None = None,
    call: int | None = None,
) -> Captured:
    """Run the model once and take the gradient of the targets' score at `layer`.

    Args:
        model: the model, in eval mode (see `lightning_gcam.utils.isolation.untouched`).
        images: `(N, C, *S)`, on the model's device.
        layer: a submodule that the forward calls; where it is called more than once, the last call that the score
            depends on and that is computed from the images counts (see `lightning_gcam.cam.suitability`).
        targets: as in `score_of_head`.
        forward: `(model, images) -> output`; the model is called with the images where it is left out.
        reshape: from the layer's output to `(N, C, *grid)`; inferred from the shapes where it is left out.
        masks: `(N, *S)` bool, the regions over which dense logits are summed.
        score_fn: from the model's output to the score, in the place of `targets` and `masks`.
        call: which of the layer's calls counts, where that is known.

    Raises:
        InputError: the layer is not called, gives no grid, or does not influence the score.
    """
    return capture_layers(
        model,
        images,
        [layer],
        targets,
        forward=forward,
        reshape=reshape,
        masks=masks,
        score_fn=score_fn,
        call=call,
    )[0]


def capture_layers(
    model: nn.Module,
    images: Tensor,
    layers: Sequence[nn.Module],
    targets: Targets = None,
    *,
    forward: Forward | None = None,
    reshape: Reshape | None = None,
    masks: Tensor | None = None,
    score_fn: ScoreFunction | None = None,
    call: int | None = None,
) -> list[Captured]:
    """As `capture`, at several layers in one forward and one gradient; the graph starts at the first one called."""
    score_fn = score_fn or (lambda head: score_of_head(head, targets, masks, images))
    with eager_without_graph():
        covered = covered_size(model, images, forward)
        at_layers, score = _activations_and_gradients(model, images, layers, score_fn, forward, call)
        score = score.detached()
        found = [
            _as_grid(each, layer, images, reshape, score, _rerun(model, images, forward))
            for each, layer in zip(at_layers, layers, strict=True)
        ]
        return [replace(each, covered=covered) for each in found]


def _rerun(model: nn.Module, images: Tensor, forward: Forward | None) -> Run:
    """A call of the model with as many images again, or with any number that are made of the first."""

    def run(others: Tensor) -> Any:
        rows = range(len(images)) if len(others) == len(images) else [0] * len(others)
        return call_model(model, others, forward_at(forward, [*rows]))

    return run


AtLayer = tuple[Tensor, Tensor, int]
"""A layer's output, the gradient of the score with respect to it, and the number of the call, from 0."""


def _activations_and_gradients(
    model: nn.Module,
    images: Tensor,
    layers: Sequence[nn.Module],
    score_fn: ScoreFunction,
    forward: Forward | None,
    call: int | None,
) -> tuple[list[AtLayer], TargetScore]:
    """The output of each layer with its gradient, and the score.

    The graph starts at the first layer. A model that runs a layer under its own `no_grad` turns the graph off again
    behind it; only then is the forward repeated with the graph on from the start.
    """
    has_score = False
    for from_the_start in (False, True):
        with torch.set_grad_enabled(from_the_start), _recorded(layers) as calls:
            output = call_model(model, images.clone(), forward)  # it may write on them: `images.sub_(mean)`
            _check_called(model, layers, calls)
            if not (from_the_start or has_graph(output)):
                continue
            with torch.enable_grad():
                score = score_fn(read_head(output, len(images), dims=images.ndim - 2))
        has_score = score.values.requires_grad
        influential = _influential(calls, score.values) if has_score else [[] for _ in layers]
        at_layers = [
            _call_to_explain(model, images, layer, each, _rerun(model, images, forward), call)
            for layer, each in zip(layers, influential, strict=True)
        ]
        found = [each for each in at_layers if each is not None]
        if len(found) == len(layers):
            return found, score
    raise InputError(
        quantized_message(model)
        or (
            _message_without_influence(model, layers, at_layers)
            if has_score
            else _message_without_graph(model, layers)
        )
    )


@contextmanager
def _recorded(layers: Sequence[nn.Module]) -> Iterator[list[list[Tensor]]]:
    """Collect the outputs of each layer, call by call, in a graph that starts at the first of them.

    The network goes on with a *clone*: an in-place operation behind the layer (`ReLU(inplace=True)`) would else
    overwrite the activations, or be refused because they are a leaf.
    """
    calls: list[list[Tensor]] = [[] for _ in layers]

    def keep(own: list[Tensor], output: Any) -> Any:
        tensor = main_tensor(output)
        if tensor is None or not tensor.is_floating_point():
            return None
        torch.set_grad_enabled(True)
        if not any(calls) or not tensor.requires_grad:
            tensor = tensor.detach().clone().requires_grad_()
        own.append(tensor)
        return with_main_tensor(output, tensor.clone())

    with ExitStack() as stack:
        for layer, own in zip(layers, calls, strict=True):
            hook = layer.register_forward_hook(lambda _, __, output, own=own: keep(own, output))
            stack.callback(hook.remove)
        yield calls


def _check_called(model: nn.Module, layers: Sequence[nn.Module], calls: list[list[Tensor]]) -> None:
    """Refuse a layer that did not run, or returned no floating-point tensor."""
    for layer, own in zip(layers, calls, strict=True):
        if not own:
            raise InputError(
                quantized_message(model)
                or f"`target_layer` {_kind_and_name(model, layer)} was not called by the forward of "
                f"{type(model).__name__}, or gave no tensor of floating point. "
                f"Name one that runs, or leave it out to have one found. {_LISTED}"
            )


def _influential(calls: list[list[Tensor]], score: Tensor) -> list[list[AtLayer]]:
    """The calls of each layer that the score depends on, with their gradients."""
    live = [[(output, call) for call, output in enumerate(own) if output.requires_grad] for own in calls]
    gradients = iter(_gradients(score, [output for own in live for output, _ in own]))
    triples = [[(output, next(gradients), call) for output, call in own] for own in live]
    return [
        [(output, gradient, call) for output, gradient, call in own if gradient is not None]
        for own in triples
    ]


def _call_to_explain(
    model: nn.Module,
    images: Tensor,
    layer: nn.Module,
    at_layer: list[AtLayer],
    rerun: Run,
    call: int | None,
) -> AtLayer | None:
    """The call that the map is made from; None where there is none."""
    if len(at_layer) < 2:
        return at_layer[0] if at_layer else None
    if (known := next((each for each in at_layer if each[2] == call), None)) is not None:
        return known
    found = call_of_the_images(model, images, layer, {call: output for output, _, call in at_layer}, rerun)
    return next(each for each in at_layer if each[2] == found)


def _gradients(score: Tensor, outputs: list[Tensor]) -> tuple[Tensor | None, ...]:
    """The gradient of each sample's score with respect to its own activations; samples do not mix in eval mode."""
    return torch.autograd.grad(score, outputs, torch.ones_like(score), allow_unused=True)


def _message_without_influence(
    model: nn.Module, layers: Sequence[nn.Module], at_layers: Sequence[AtLayer | None]
) -> str:
    """The message for a layer that runs, and that the score does not depend on."""
    which = next(layer for layer, found in zip(layers, at_layers, strict=True) if found is None)
    return (
        f"The score does not depend on `target_layer` {_kind_and_name(model, which)}: it runs, but the logits of "
        f"{type(model).__name__} are not computed from it. Name a layer that leads to the logits, or leave it out to "
        f"have one found. {_LISTED}"
    )


def _message_without_graph(model: nn.Module, layers: Sequence[nn.Module]) -> str:
    """The message for layers from which no graph leads to the score."""
    named = " and ".join(_kind_and_name(model, layer) for layer in layers)
    return (
        f"The score does not depend on `target_layer` {named} through differentiable operations. Does the forward of "
        f"{type(model).__name__} run under `inference_mode`, or detach its features? Name a later layer, or leave it "
        f"out to have one found. {_LISTED}"
    )


_LISTED = "(`find_target_layer(model, images).describe()` lists those that would do.)"


def _kind_and_name(model: nn.Module, layer: nn.Module) -> str:
    """A layer's class and its name in the model, for messages."""
    name = next((name for name, module in model.named_modules() if module is layer), "")
    return f'{type(layer).__name__} "{name}"'


def _as_grid(
    at_layer: AtLayer,
    layer: nn.Module,
    images: Tensor,
    reshape: Reshape | None,
    score: TargetScore,
    rerun: Run,
) -> Captured:
    """Reshape a layer's activations and gradients to `(N, C, *grid)` float32."""
    activations, gradients, call = at_layer
    view = reshape or _find_reshape(layer, call, activations.detach(), images, rerun)
    with user_function_errors("reshape_transform", activations) if reshape is not None else nullcontext():
        grid = view(activations.detach())
    if grid.ndim != images.ndim:
        letters = letters_of(images.ndim - 2)
        raise InputError(f"`reshape_transform` must give {letters}; got {tuple(grid.shape)}.")
    return Captured(
        grid.float(), view(gradients).float(), score, LayerCall(layer, call, view, reshape is None)
    )


def _find_reshape(layer: nn.Module, call: int, activations: Tensor, images: Tensor, rerun: Run) -> Reshape:
    layout = layout_of(layer, call, activations, images, rerun)
    if layout is None:
        why = (
            "more than one dimension may count the images, and a forward of another number of images did not tell which"
            if activations.shape.count(len(images)) > 1
            else "not a grid over the image"
        )
        raise InputError(
            f"`target_layer` gives {tuple(activations.shape)} for images {tuple(images.shape)}: {why}. "
            "Name a layer that has one, or pass `reshape_transform=`, a function from this output to "
            f"{letters_of(images.ndim - 2)}.{_folded_batch_message(activations, images)}"
        )
    return layout.reshape


def _folded_batch_message(activations: Tensor, images: Tensor) -> str:
    """The advice on `reshape_transform` for frames or pairs folded into the batch; empty where they cannot be."""
    rows, rest = divmod(len(activations), len(images))
    if activations.ndim != 4 or rows < 2 or rest:
        return ""
    along = "transpose(1, 2)" if images.ndim == 5 else "flatten(1, 2)"
    return (
        f" There are {rows} rows for each image. Where these are frames, folded into the batch sample by sample, one "
        f"map of all is:\n    reshape_transform=lambda output: output.unflatten(0, (-1, {rows})).{along}\n"
        "Where the images stand first in a `torch.cat([images, others])`, theirs is:\n"
        f"    reshape_transform=lambda output: output.unflatten(0, ({rows}, -1))[0]"
    )


@contextmanager
def activations_replaced(layer_call: LayerCall, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Replace the activations of one call of a layer inside; tokens before the patches stay as they are.

    Args:
        layer_call: the layer, which of its calls, and the reshape of its output.
        change: from the activations `(B, C, *grid)` float32 to others of the same shape.

    Raises:
        InputError: where the layer's output cannot be put together again from `(B, C, *grid)`.

    Example:
        >>> from torch import nn
        >>> model = nn.Sequential(nn.ReLU(), nn.Flatten())
        >>> call = LayerCall(model[0], 0, lambda output: output)
        >>> with activations_replaced(call, lambda activations: activations + 1):
        ...     model(torch.tensor([[[[-1.0, 2.0]]]]))
        tensor([[1., 3.]])
    """
    calls = 0

    def replace(_: Any, __: Any, output: Any) -> Any:
        nonlocal calls
        tensor = main_tensor(output)
        if tensor is None or not tensor.is_floating_point():
            return None
        calls += 1
        if calls != layer_call.call + 1:
            return None
        return with_main_tensor(output, _with_grid(tensor, layer_call.reshape, change))

    hook = layer_call.layer.register_forward_hook(replace)
    try:
        yield
    finally:
        hook.remove()


def _with_grid(output: Tensor, reshape: Reshape, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Change the cells of the grid in a layer's output; the reshape of a numbered tensor shows where they are."""
    flat, grid = output.reshape(-1), reshape(output)
    positions = reshape(torch.arange(output.numel(), device=output.device).view(output.shape)).reshape(-1)
    if positions.is_floating_point() or not _same(flat[positions], grid.reshape(-1)):
        raise InputError(
            "`methods` that replace the layer's activations (ablation_cam) need a `reshape_transform` that only picks "
            "and reorders the numbers of the layer's output, so that they can be put back; yours computes new ones. "
            "Leave these methods out, or name a `target_layer` whose output is a grid."
        )
    changed = flat.clone()
    changed[positions] = change(grid.float()).to(output.dtype).reshape(-1)
    return changed.view(output.shape)


def _same(left: Tensor, right: Tensor) -> bool:
    """Whether two tensors are equal, where a NaN equals itself."""
    return left.shape == right.shape and bool(((left == right) | left.isnan()).all())
