"""One forward and one gradient: the activations of one or several layers, and the score's gradients at them.

The forward runs without a graph down to the first layer and with one from there, so a look costs little more than a
plain forward, in time and in memory. Gradients are taken with `torch.autograd.grad`, to the captured activations only:
no parameter's `.grad` is read or written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lightning_gcam.cam.calling import Forward, quantized_explained, run
from lightning_gcam.cam.layout_evidence import Run, layout_of
from lightning_gcam.cam.layouts import Reshape, main_tensor, with_main_tensor
from lightning_gcam.cam.outputs import Head, has_graph, read_head
from lightning_gcam.cam.regions import score_of_head
from lightning_gcam.cam.suitability import call_of_the_images
from lightning_gcam.cam.targets import Score, Targets
from lightning_gcam.utils.errors import InputError, of_the_users
from lightning_gcam.utils.isolation import plain_eager


@dataclass(frozen=True)
class Place:
    """Where in a forward activations are taken, and how they are read.

    Args:
        layer: the module.
        call: which of its calls counts, from 0.
        reshape: from its output to `(N, C, h, w)`.
        read_off: whether the reshape was read off the output's shape, and holds for images of this size only.
    """

    layer: nn.Module
    call: int
    reshape: Reshape
    read_off: bool = False


@dataclass(frozen=True)
class Captured:
    """What one pass gave at one layer.

    Args:
        activations: `(N, C, h, w)` float32.
        gradients: of the score with respect to the activations, `(N, C, h, w)` float32.
        score: what was explained, without its graph.
        place: where they were taken.
    """

    activations: Tensor
    gradients: Tensor
    score: Score
    place: Place

    @property
    def logits(self) -> Tensor:
        """`(N, K)`; those of a dense head averaged over each sample's region."""
        return self.score.logits

    @property
    def targets(self) -> Tensor | None:
        """The classes that were explained; None where the score does not speak of classes."""
        return self.score.targets


Read = Callable[[Head], Score]
"""From what a model gives to the score that is explained."""


def capture(
    model: nn.Module,
    images: Tensor,
    layer: nn.Module,
    targets: Targets = None,
    *,
    forward: Forward | None = None,
    reshape: Reshape | None = None,
    masks: Tensor | None = None,
    read: Read | None = None,
    call: int | None = None,
) -> Captured:
    """Run the model once and take the gradient of the targets' score at `layer`.

    Args:
        model: the model, in the mode it is to be looked at in (see `lightning_gcam.utils.isolation.untouched`).
        images: `(N, C, H, W)`, on the model's device.
        layer: a submodule that the forward calls; where it is called more than once, the last call that the score
            depends on and that is computed from the images counts (see `lightning_gcam.cam.suitability`).
        targets: as in `score_of_head`.
        forward: `(model, images) -> output`; the model is called with the images where it is left out.
        reshape: from the layer's output to `(N, C, h, w)`; read off the shapes where it is left out.
        masks: `(N, H, W)` bool, the regions over which dense logits are summed.
        read: from what the model gives to the score, in the place of `targets` and `masks`.
        call: which of the layer's calls counts, where that is known.

    Raises:
        InputError: the layer is not called, gives no grid, or does not influence the score.
    """
    return capture_layers(
        model, images, [layer], targets, forward=forward, reshape=reshape, masks=masks, read=read, call=call
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
    read: Read | None = None,
    call: int | None = None,
) -> list[Captured]:
    """As `capture` at several layers, in one forward and one gradient; the graph starts at the first that is called."""
    read = read or (lambda head: score_of_head(head, targets, masks, images))
    with plain_eager():
        at_layers, score = _activations_and_gradients(model, images, layers, read, forward, call)
        score = score.detached()
        return [
            _as_captured(each, layer, images, reshape, score, lambda images: run(model, images, forward))
            for each, layer in zip(at_layers, layers, strict=True)
        ]


AtLayer = tuple[Tensor, Tensor, int]
"""What a layer returned, the gradient of the score with respect to it, and which of its calls that was."""


def _activations_and_gradients(
    model: nn.Module,
    images: Tensor,
    layers: Sequence[nn.Module],
    read: Read,
    forward: Forward | None,
    call: int | None,
) -> tuple[list[AtLayer], Score]:
    """For each layer its activations and their gradients, and the score.

    The graph starts at the first layer. A model that runs a layer under its own `no_grad` turns the graph off again
    behind it; only then is the forward repeated with the graph on from the start.
    """
    has_score = False
    for from_the_start in (False, True):
        with torch.set_grad_enabled(from_the_start), _recorded(layers) as calls:
            output = run(model, images.clone(), forward)  # it may write on them: `images.sub_(mean)`
            _check_called(model, layers, calls)
            if not (from_the_start or has_graph(output)):
                continue
            with torch.enable_grad():
                score = read(read_head(output, len(images)))
        has_score = score.values.requires_grad
        influential = _influential(calls, score.values) if has_score else [[] for _ in layers]
        at_layers = [
            _of_the_images(model, images, layer, each, lambda images: run(model, images, forward), call)
            for layer, each in zip(layers, influential, strict=True)
        ]
        found = [each for each in at_layers if each is not None]
        if len(found) == len(layers):
            return found, score
    raise InputError(
        quantized_explained(model)
        or (_without_influence(model, layers, at_layers) if has_score else _without_graph(model, layers))
    )


@contextmanager
def _recorded(layers: Sequence[nn.Module]) -> Iterator[list[list[Tensor]]]:
    """Hand over what each layer returns, call by call, as a part of a graph that starts at the first of them.

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
    for layer, own in zip(layers, calls, strict=True):
        if not own:
            raise InputError(
                quantized_explained(model)
                or f"`target_layer` {_in_words(model, layer)} was not called by the forward of {type(model).__name__}, "
                f"or gave no tensor of floating point. Name one that runs, or leave it out to have one found. {_LISTED}"
            )


def _influential(calls: list[list[Tensor]], score: Tensor) -> list[list[AtLayer]]:
    """For each layer those of its calls that the score depends on."""
    live = [[(output, call) for call, output in enumerate(own) if output.requires_grad] for own in calls]
    gradients = iter(_gradients(score, [output for own in live for output, _ in own]))
    triples = [[(output, next(gradients), call) for output, call in own] for own in live]
    return [
        [(output, gradient, call) for output, gradient, call in own if gradient is not None]
        for own in triples
    ]


def _of_the_images(
    model: nn.Module,
    images: Tensor,
    layer: nn.Module,
    at_layer: list[AtLayer],
    again: Run,
    call: int | None,
) -> AtLayer | None:
    """The call that the map is made of; None where there is none."""
    if len(at_layer) < 2:
        return at_layer[0] if at_layer else None
    if (known := next((each for each in at_layer if each[2] == call), None)) is not None:
        return known
    found = call_of_the_images(model, images, layer, {call: output for output, _, call in at_layer}, again)
    return next(each for each in at_layer if each[2] == found)


def _gradients(score: Tensor, outputs: list[Tensor]) -> tuple[Tensor | None, ...]:
    """The gradient of each sample's score with respect to its own activations; samples do not mix in eval mode."""
    return torch.autograd.grad(score, outputs, torch.ones_like(score), allow_unused=True)


def _without_influence(
    model: nn.Module, layers: Sequence[nn.Module], at_layers: Sequence[AtLayer | None]
) -> str:
    which = next(layer for layer, found in zip(layers, at_layers, strict=True) if found is None)
    return (
        f"The score does not depend on `target_layer` {_in_words(model, which)}: it runs, but the logits of "
        f"{type(model).__name__} are not computed from it. Name a layer that leads to the logits, or leave it out to "
        f"have one found. {_LISTED}"
    )


def _without_graph(model: nn.Module, layers: Sequence[nn.Module]) -> str:
    named = " and ".join(_in_words(model, layer) for layer in layers)
    return (
        f"The score does not depend on `target_layer` {named} through differentiable operations. Does the forward of "
        f"{type(model).__name__} run under `inference_mode`, or detach its features? Name a later layer, or leave it "
        f"out to have one found. {_LISTED}"
    )


_LISTED = "(`find_target_layer(model, images).describe()` lists those that would do.)"


def _in_words(model: nn.Module, layer: nn.Module) -> str:
    """The layer's kind and name."""
    name = next((name for name, module in model.named_modules() if module is layer), "")
    return f'{type(layer).__name__} "{name}"'


def _as_captured(
    at_layer: AtLayer, layer: nn.Module, images: Tensor, reshape: Reshape | None, score: Score, again: Run
) -> Captured:
    """Activations and gradients as `(N, C, h, w)` float32."""
    activations, gradients, call = at_layer
    view = reshape or _read(layer, call, activations.detach(), images, again)
    with of_the_users("reshape_transform", activations):
        grid = view(activations.detach())
    if grid.ndim != 4:
        raise InputError(f"`reshape_transform` must give (N, C, h, w); got {tuple(grid.shape)}.")
    return Captured(grid.float(), view(gradients).float(), score, Place(layer, call, view, reshape is None))


def _read(layer: nn.Module, call: int, activations: Tensor, images: Tensor, again: Run) -> Reshape:
    layout = layout_of(layer, call, activations, images, again)
    if layout is None:
        why = (
            "more than one dimension may count the images, and a forward of another number of images did not tell which"
            if activations.shape.count(len(images)) > 1
            else "not a grid over the image"
        )
        raise InputError(
            f"`target_layer` gives {tuple(activations.shape)} for images {tuple(images.shape)}: {why}. "
            "Name a layer that has one, or pass `reshape_transform=`, a function from this output to "
            f"(N, C, h, w).{_folded_in_words(activations, images)}"
        )
    return layout.reshape


def _folded_in_words(activations: Tensor, images: Tensor) -> str:
    """The `reshape_transform` of frames, or of a pair, that stand in the batch; empty where it cannot be that."""
    rows, rest = divmod(len(activations), len(images))
    if activations.ndim != 4 or rows < 2 or rest:
        return ""
    return (
        f" There are {rows} rows for each image. Where these are frames, folded into the batch sample by sample, one "
        f"map of all is:\n    reshape_transform=lambda output: output.unflatten(0, (-1, {rows})).flatten(1, 2)\n"
        "Where the images stand first in a `torch.cat([images, others])`, theirs is:\n"
        f"    reshape_transform=lambda output: output.unflatten(0, ({rows}, -1))[0]"
    )


@contextmanager
def replaced(place: Place, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Inside, the network goes on with changed activations at `place`; tokens before the patches stay as they are.

    Args:
        place: the layer, which of its calls, and how its output is read.
        change: from the activations `(B, C, h, w)` float32 to others of the same shape.

    Raises:
        InputError: where the layer's output cannot be put together again from `(B, C, h, w)`.

    Example:
        >>> from torch import nn
        >>> model = nn.Sequential(nn.ReLU(), nn.Flatten())
        >>> with replaced(Place(model[0], 0, lambda output: output), lambda activations: activations + 1):
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
        if calls != place.call + 1:
            return None
        return with_main_tensor(output, _with_grid(tensor, place.reshape, change))

    hook = place.layer.register_forward_hook(replace)
    try:
        yield
    finally:
        hook.remove()


def _with_grid(output: Tensor, reshape: Reshape, change: Callable[[Tensor], Tensor]) -> Tensor:
    """The output with the cells of its grid changed, found by where the reshape takes each number from."""
    flat, grid = output.reshape(-1), reshape(output)
    places = reshape(torch.arange(output.numel(), device=output.device).view(output.shape)).reshape(-1)
    if places.is_floating_point() or not _same(flat[places], grid.reshape(-1)):
        raise InputError(
            "`methods` that replace the layer's activations (ablation_cam) need a `reshape_transform` that only picks "
            "and reorders the numbers of the layer's output, so that they can be put back; yours computes new ones. "
            "Leave these methods out, or name a `target_layer` whose output is a grid."
        )
    changed = flat.clone()
    changed[places] = change(grid.float()).to(output.dtype).reshape(-1)
    return changed.view(output.shape)


def _same(left: Tensor, right: Tensor) -> bool:
    """Equality in which a NaN equals itself."""
    return left.shape == right.shape and bool(((left == right) | left.isnan()).all())
