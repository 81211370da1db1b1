"""Which calls of a layer were computed from the images, where it is called several times in one forward.

A tower of a siamese network runs on a pair, and a backbone on every frame: the last call that the score depends on may
belong to another image than the one that the map is drawn on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node, get_gradient_edge

from lightning_gcam.cam.calling import Forward, run
from lightning_gcam.cam.layouts import main_tensor
from lightning_gcam.utils.isolation import same_random_streams
from lightning_gcam.utils.lightning_compat import rank_zero_info


def call_of_the_images(
    model: nn.Module, images: Tensor, layer: nn.Module, calls: dict[int, Tensor], forward: Forward | None
) -> int:
    """The call whose activations belong to the images, of those that the score depends on.

    Where the last one is computed from all others (a block that runs again and again, an activation that several
    places share), it is the last. Else the layer's calls are traced back in one more forward of one image, and it is
    the last one that is computed from the images; of frames or a pair in the channels, the last that is computed from
    those channels that a picture shows.

    Args:
        model: in the mode it is to be looked at in.
        images: `(N, C, H, W)`.
        layer: a submodule.
        calls: by their number, from 0, what the layer returned, with the graph since the first of them.
        forward: `(model, images) -> output`; the model is called with the images where it is left out.
    """
    *others, last = sorted(calls)
    if _leads_to_all(calls[last], [calls[each] for each in others]):
        return last
    traced = _traced(model, images, layer, forward)
    shown = [each for each in sorted(calls) if traced.get(each, (False, False))[1]]
    from_images = [each for each in sorted(calls) if traced.get(each, (False, False))[0]]
    found = shown or from_images or sorted(calls)
    _say(model, layer, len(traced), found, from_images)
    return found[-1]


def _leads_to_all(output: Tensor, others: Sequence[Tensor]) -> bool:
    """Whether an output is computed from all the others."""
    goals = {get_gradient_edge(each).node for each in others}
    seen, stack = set[Node](), [get_gradient_edge(output).node]
    while stack and not goals <= seen:
        behind = {each for each, _ in stack.pop().next_functions if each is not None} - seen
        seen |= behind
        stack += behind
    return goals <= seen


# ------------------------------------------------------------------------------------------------------ evidence

Traced = dict[int, tuple[bool, bool]]
"""For each call by its number: whether it is computed from the images, and from what a picture shows of them."""


def _traced(model: nn.Module, images: Tensor, layer: nn.Module, forward: Forward | None) -> Traced:
    """By one image, or by all where the forward takes no other number of them."""
    parts = [images[:1], images] if len(images) > 1 else [images]
    for part in parts:
        try:
            found = _by_graph(model, part, layer, forward) if images.is_floating_point() else {}
            if not any(from_images for from_images, _ in found.values()):
                found = _by_change(model, part, layer, forward)
            return found
        except Exception:
            if part is parts[-1]:
                raise
    raise AssertionError("the last part returns or raises")


def _by_graph(model: nn.Module, images: Tensor, layer: nn.Module, forward: Forward | None) -> Traced:
    """As the gradients of the calls' outputs with respect to the images say."""
    leaf = images.detach().clone().requires_grad_()
    with torch.enable_grad(), _outputs_of(model, layer) as outputs:
        run(model, leaf.clone(), forward)
    found: Traced = {}
    for call, output in enumerate(outputs):
        gradient = _gradient(output, leaf)
        is_shown = gradient is not None and bool(_shown(gradient).any())
        found[call] = gradient is not None, is_shown
    return found


def _gradient(output: Tensor, leaf: Tensor) -> Tensor | None:
    if not output.requires_grad:
        return None
    uneven = torch.linspace(1.0, 2.0, output.numel(), device=output.device, dtype=output.dtype)
    (gradient,) = torch.autograd.grad(
        output, leaf, uneven.view(output.shape), retain_graph=True, allow_unused=True
    )
    return gradient


def _by_change(model: nn.Module, images: Tensor, layer: nn.Module, forward: Forward | None) -> Traced:
    """As the calls' outputs move when the images do: whole numbers have no gradient, and a forward may detach.

    What is random is drawn alike each time.
    """
    changed = images.amin() + images.amax() - images.flip(-1)
    in_picture = images.clone()
    _shown(in_picture).copy_(_shown(changed))
    before, after, partly = (
        _run_again(model, each, layer, forward) for each in (images, changed, in_picture)
    )
    return {
        call: (_differs(each, after, call), _differs(each, partly, call)) for call, each in enumerate(before)
    }


def _run_again(model: nn.Module, images: Tensor, layer: nn.Module, forward: Forward | None) -> list[Tensor]:
    with torch.no_grad(), same_random_streams(), _outputs_of(model, layer, grad=False) as outputs:
        run(model, images.clone(), forward)
    return [each.detach().clone() for each in outputs]


def _differs(output: Tensor, others: list[Tensor], call: int) -> bool:
    return call >= len(others) or not torch.equal(output, others[call])


def _shown(images: Tensor) -> Tensor:
    """What a picture shows of images: the first three channels, of two the first (as `lightning_gcam.visual` does)."""
    return images[:, :3] if images.shape[1] > 2 else images[:, :1]


@contextmanager
def _outputs_of(model: nn.Module, layer: nn.Module, grad: bool = True) -> Iterator[list[Tensor]]:
    """What the layer returns, call by call, as `capture` counts them.

    The graph is turned on before each module: the user's own `no_grad` around a frozen backbone would hide the images.
    """
    outputs: list[Tensor] = []

    def keep(_: nn.Module, __: Any, output: Any) -> None:
        tensor = main_tensor(output)
        if tensor is not None and tensor.is_floating_point():
            outputs.append(tensor.view_as(tensor) if grad else tensor.clone())

    def turn_graph_on(*_: Any) -> None:
        torch.set_grad_enabled(True)

    with ExitStack() as stack:
        for each in model.modules() if grad else ():
            stack.callback(each.register_forward_pre_hook(turn_graph_on).remove)
        stack.callback(layer.register_forward_hook(keep).remove)
        yield outputs


# --------------------------------------------------------------------------------------------------------- words

_SAID: WeakSet[nn.Module] = WeakSet()
"""The layers of which it was said which call is shown."""


def _say(model: nn.Module, layer: nn.Module, count: int, found: list[int], from_images: list[int]) -> None:
    if layer in _SAID:
        return
    _SAID.add(layer)
    name = next((name for name, module in model.named_modules() if module is layer), type(layer).__name__)
    said = (
        f'Layer "{name}" is called {count} times in one forward. The maps are those of call {found[-1] + 1}'
    )
    if len(from_images) == 1:
        rank_zero_info(f"{said}, the only one that is computed from the images.")
    elif len(found) == 1:
        rank_zero_info(f"{said}, which is computed from the channels that a picture shows.")
    else:
        rank_zero_info(
            f"{said}, the last of {len(found)} that are computed from what a picture shows (frames, views?). To see "
            "another one, pass a `forward=` in which only its input is taken from the images."
        )
