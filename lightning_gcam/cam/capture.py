"""One forward and one gradient: the activations of a layer, and the gradient of the score with respect to them.

The forward runs without a graph down to the layer and with one from there, so a look costs little more than a plain
forward, in time and in memory. Gradients are taken with `torch.autograd.grad`, to the captured activations only:
no parameter's `.grad` is read or written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lightning_gcam._errors import InputError
from lightning_gcam.cam.reshape import Reshape, find_layout, main_tensor, with_main_tensor
from lightning_gcam.cam.targets import Targets, find_logits, score_of

Forward = Callable[[nn.Module, Tensor], Any]
"""`(model, images) -> output`, for a model that is not simply called with the images."""


@dataclass(frozen=True)
class Captured:
    """What one pass gave: `activations` and `gradients` `(N, C, h, w)` float32, `logits` `(N, K)`, `targets`."""

    activations: Tensor
    gradients: Tensor
    logits: Tensor
    targets: Tensor | None


def capture(
    model: nn.Module,
    images: Tensor,
    layer: nn.Module,
    targets: Targets = None,
    *,
    forward: Forward | None = None,
    reshape: Reshape | None = None,
) -> Captured:
    """Run the model once and take the gradient of the targets' score at `layer`.

    Args:
        model: the model, in the mode it is to be looked at in (see `lightning_gcam.isolation.untouched`).
        images: `(N, C, H, W)`, on the model's device.
        layer: a submodule that the forward calls; where it is called more than once, the last call that the score
            depends on counts.
        targets: as in `score_of`.
        forward: `(model, images) -> output`; the model is called with the images where it is left out.
        reshape: from the layer's output to `(N, C, h, w)`; read off the shapes where it is left out.

    Raises:
        InputError: the layer is not called, gives no grid, or does not influence the score.
    """
    with plain_eager():
        outputs, logits, score = _forward(model, images, layer, targets, forward)
        calls = [output for output in outputs if output.requires_grad]
        gradients = _gradients(score.values, calls)
        activations, gradient = _last_influential(calls, gradients)
        view = reshape or _read(activations, images)
        grid = view(activations.detach())
        if grid.ndim != 4:
            raise InputError(f"`reshape_transform` must give (N, C, h, w); got {tuple(grid.shape)}.")
        return Captured(grid.float(), view(gradient).float(), logits.detach(), score.targets)


@contextmanager
def plain_eager() -> Iterator[None]:
    """Outside of inference mode and of compiled code, without a graph: the ground every look stands on.

    Hooks added to a compiled module would not be called, and tensors made in inference mode have no gradient.
    """
    with torch.compiler.set_stance("force_eager"), torch.inference_mode(False), torch.no_grad():
        yield


def run(model: nn.Module, images: Tensor, forward: Forward | None) -> Any:
    """The model's output for the images, through `forward` where there is one."""
    try:
        return forward(model, images) if forward is not None else model(images)
    except NotImplementedError as error:
        if "forward" not in str(error):  # an operation that this device does not know
            raise
        raise InputError(
            f"{type(model).__name__} has no `forward` of its own. Pass `forward=`, a function from the module and the "
            "images to the logits, for example:\n    forward=lambda module, images: module.model(images)"
        ) from error


def _forward(
    model: nn.Module, images: Tensor, layer: nn.Module, targets: Targets, forward: Forward | None
) -> Any:
    """The layer's outputs, the logits and the score.

    The graph starts at the layer. A model that runs the layer under its own `no_grad` turns the graph off again
    behind it; only then is the forward repeated with the graph on from the start.
    """
    for from_the_start in (False, True):
        with torch.set_grad_enabled(from_the_start), _recorded(layer) as outputs:
            output = run(model, images.clone(), forward)  # it may write on them: `images.sub_(mean)`
            logits = find_logits(output, len(images))
            with torch.enable_grad():
                score = score_of(logits, targets)
        if not outputs:
            raise InputError(
                f"`target_layer` {type(layer).__name__} was not called by the forward, or gave no tensor. "
                "Name one that is, and does."
            )
        if score.values.requires_grad:
            return outputs, logits, score
    raise InputError(
        "The score does not depend on `target_layer` through differentiable operations. Does the forward run under "
        "`inference_mode`, or detach its features? Name a later layer."
    )


@contextmanager
def _recorded(layer: nn.Module) -> Iterator[list[Tensor]]:
    """Hand over what `layer` returns, as the start of a graph.

    The network goes on with a *clone*: an in-place operation behind the layer (`ReLU(inplace=True)`) would else
    overwrite the activations, or be refused because they are a leaf.
    """
    outputs: list[Tensor] = []

    def hook(module: nn.Module, args: Any, output: Any) -> Any:
        tensor = main_tensor(output)
        if tensor is None or not tensor.is_floating_point():
            return None
        torch.set_grad_enabled(True)
        if not outputs or not tensor.requires_grad:
            tensor = tensor.detach().clone().requires_grad_()
        outputs.append(tensor)
        return with_main_tensor(output, tensor.clone())

    handle = layer.register_forward_hook(hook)
    try:
        yield outputs
    finally:
        handle.remove()


def _gradients(score: Tensor, outputs: list[Tensor]) -> tuple[Tensor | None, ...]:
    """The gradient of each sample's score with respect to its own activations; samples do not mix in eval mode."""
    return torch.autograd.grad(score, outputs, torch.ones_like(score), allow_unused=True)


def _last_influential(outputs: list[Tensor], gradients: tuple[Tensor | None, ...]) -> tuple[Tensor, Tensor]:
    pairs = zip(reversed(outputs), reversed(gradients), strict=True)
    found = next(((output, gradient) for output, gradient in pairs if gradient is not None), None)
    if found is None:
        raise InputError(
            "The score does not depend on `target_layer`. Name a layer that leads to the logits."
        )
    return found


def _read(activations: Tensor, images: Tensor) -> Reshape:
    layout = find_layout(activations, (images.shape[-2], images.shape[-1]), len(images))
    if layout is None:
        raise InputError(
            f"`target_layer` gives {tuple(activations.shape)} for images {tuple(images.shape)}: not a grid over the "
            "image. Name a layer that has one, or pass `reshape_transform=`, a function from this output to "
            "(N, C, h, w)."
        )
    return layout.reshape
