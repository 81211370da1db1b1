"""Which layers, and which of their calls, are suitable to explain.

Unsuitable are layers behind a decoder's bottleneck, recurrent ones, and the output itself. A layer may be called
several times in one forward: a tower of a siamese network runs on a pair, and a backbone on every frame. The last
call that the score depends on may belong to another image than the one that the map is drawn on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node, get_gradient_edge

from lightning_gcam.cam.layouts import Run, main_tensor
from lightning_gcam.cam.outputs import corner
from lightning_gcam.cam.squashing import leads_to_all, nodes_behind
from lightning_gcam.utils.dimensions import Size, resize, size_of
from lightning_gcam.utils.isolation import same_random_streams
from lightning_gcam.utils.lightning_compat import rank_zero_info

Layer = TypeVar("Layer")

COARSEST = 32
"""The width in pixels of a cell of an encoder's last grid; coarser grids are the pools of a pyramid (1, 2, 3, 6)."""


def reaches_beyond_corner(gradient: Tensor, size: Size) -> bool:
    """Whether the corner's score depends on positions that linear resizing alone would not reach.

    Args:
        gradient: of the `corner` of the logits with respect to a layer, as a grid `(N, C, *grid)`.
        size: of the logits, such as rows and columns.

    Example:
        >>> gradient = torch.zeros(1, 1, 8, 8)
        >>> gradient[:, :, :3, :3] = 1
        >>> reaches_beyond_corner(gradient, (64, 64)), reaches_beyond_corner(gradient.roll(1, dims=2), (64, 64))
        (False, True)
    """
    grid = torch.zeros(1, 1, *gradient.shape[2:], device=gradient.device, requires_grad=True)
    with torch.enable_grad():
        (reached,) = torch.autograd.grad(corner(resize(grid, size)).sum(), grid)
    return bool(((gradient != 0) & (reached == 0)).any())


def up_to_the_bottleneck(
    layers: Sequence[Layer],
    gradients: Sequence[Tensor],
    image_size: Size,
    logits_size: Size,
) -> list[Layer]:
    """The layers up to the last one of the coarsest grid that reaches beyond its own positions.

    Args:
        layers: in the order of execution, at least one.
        gradients: of the `corner` of the logits with respect to each of them, as grids `(N, C, *grid)`. Where none
            reaches beyond the corner, the last layer of the coarsest grid has to do.
        image_size: of the image, in pixels.
        logits_size: of the logits, such as rows and columns.

    Source: the bottleneck is the layer of Seg-Grad-CAM (Vinogradova et al., arXiv 2002.11434).
    """
    least = [side // COARSEST for side in image_size]
    cells = [each.shape[2:].numel() for each in gradients]
    deep = [
        count
        for count, each in zip(cells, gradients, strict=True)
        if all(side >= fewest for side, fewest in zip(size_of(each), least, strict=True))
    ]
    coarsest = [index for index, count in enumerate(cells) if count == min(deep or cells)]
    reaching = (index for index in reversed(coarsest) if reaches_beyond_corner(gradients[index], logits_size))
    return list(layers[: next(reaching, coarsest[-1]) + 1])


def unsuitable(layers: Sequence[nn.Module], outputs: Sequence[Tensor], maps: Sequence[Tensor]) -> list[bool]:
    """Whether each layer's output is a map that the model returns, or comes from a recurrent layer.

    At the output the map is the prediction. Behind an LSTM over the positions of a feature map each position holds what
    was read at those before it, and the last one, from which the class is computed, is at the lower right.

    Args:
        layers: the modules.
        outputs: what each of them returned, read as a grid, with a graph.
        maps: the logits at every position, of all heads; empty where the model gives one number a class.

    Example:
        >>> import torch
        >>> conv, head = nn.Conv2d(1, 2, 1), nn.Conv2d(2, 1, 1)
        >>> features = conv(torch.ones(1, 1, 4, 4)).relu()
        >>> logits = head(features)
        >>> unsuitable([conv, head], [features, logits], [logits.sigmoid()])
        [False, True]
    """
    nodes = [get_gradient_edge(each).node for each in outputs]
    returned = {node for each in maps for node in _passed_on(each)}
    recurrent = {node for node, layer in zip(nodes, layers, strict=True) if isinstance(layer, nn.RNNBase)}
    return [node in returned or _comes_from(node, recurrent) for node in nodes]


PASSES_ON = (
    *("Dropout", "DropPath", "Identity", "Pool", "Flatten", "Softmax"),
    *("FakeQuant", "Observer", "QuantStub"),  # of quantization-aware training
)
"""Words in the class names of layers that compute no features."""


def only_passes_on(module: nn.Module) -> bool:
    """Whether a layer computes no features of its own, such as a dropout or a pool."""
    has_parts = any(not only_passes_on(child) for child in module.children())
    return not has_parts and any(word in type(module).__name__ for word in PASSES_ON)


def leads_to(start: Node, goal: Node, seen: dict[Node, bool]) -> bool:
    """Whether the graph behind `start` holds `goal`; `seen` caches the results, and keeps the nodes alive."""
    seen[goal] = True
    stack = [start]
    while stack:
        node = stack[-1]
        behind = [each for each, _ in node.next_functions if each is not None]
        unknown = [each for each in behind if each not in seen]
        if node not in seen and unknown:
            stack += unknown
            continue
        stack.pop()
        if node not in seen:
            seen[node] = any(seen[each] for each in behind)
    return seen[start]


def _comes_from(node: Node, goals: set[Node]) -> bool:
    """Whether the graph behind a node holds any of the goals."""
    return bool(goals) and any(each in goals for each in nodes_behind(node))


_PASSES_ON = (
    *("Upsample", "View", "Unsafe", "Reshape", "Clone", "Alias", "ToCopy", "Squeeze", "Unsqueeze", "Slice"),
    *("Permute", "Transpose", "Sigmoid", "Softmax", "LogSoftmax", "LogSigmoid", "Clamp", "Constant"),
)
"""Beginnings of the names of operations that resize, cut or squash logits and compute no other ones."""


def _passed_on(tensor: Tensor, passes_on: tuple[str, ...] = _PASSES_ON) -> list[Node]:
    """The operations from an output back to the one that computed it."""
    if not tensor.requires_grad:
        return []
    found = [get_gradient_edge(tensor).node]
    while found[-1].name().startswith(passes_on):
        behind = [each for each, _ in found[-1].next_functions if each is not None]
        if len(behind) != 1:
            break
        found.append(behind[0])
    return found


_SCALES = ("Select", "Tanh", "MulBackward", "DivBackward", "AddBackward", "SubBackward")
"""The same of operations by which numbers are scaled."""


def are_the_output(outputs: Sequence[Tensor], logits: Tensor, *, in_any_shape: bool) -> list[bool]:
    """Whether each layer's output holds the model's own numbers, one a class or coordinate, and no features.

    Args:
        outputs: what each layer returned, with a graph.
        logits: `(N, K)`; maps `(N, K, *grid)` are those of `unsuitable`, and none is here.
        in_any_shape: whether any shape of them counts, as of coordinates `(N, P, 2)`. Of others it is that of the
            logits with sides of one, such as `(N, K, 1)`: an embedding may be all features of a convolution in a row.

    Example:
        >>> scores = nn.Linear(4, 1)(torch.ones(1, 9, 4))
        >>> are_the_output([scores, scores.view(1, 3, 3)], scores[..., 0], in_any_shape=False)
        [True, False]
    """
    own = set(_passed_on(logits, (*_PASSES_ON, *_SCALES))) if logits.ndim == 2 else set()
    shape = [side for side in logits.shape if side > 1]
    return [
        (in_any_shape or [side for side in each.shape if side > 1] == shape)
        and get_gradient_edge(each).node in own
        for each in outputs
    ]


# ------------------------------------------------------------ calls


def call_of_the_images(
    model: nn.Module, images: Tensor, layer: nn.Module, calls: dict[int, Tensor], run: Run
) -> int:
    """The call of a layer whose activations belong to the images, of those that the score depends on.

    Where the last one is computed from all others (a block that runs again and again, an activation that several
    places share), it is the last. Else the layer's calls are traced back in one more forward of one image, and it is
    the last one that is computed from the images; of frames or a pair in the channels, the last that is computed from
    the channels that a picture shows.

    Args:
        model: in eval mode.
        images: `(N, C, *S)`.
        layer: a submodule.
        calls: by their number, from 0, what the layer returned, with the graph since the first of them.
        run: calls the model with images.
    """
    *others, last = sorted(calls)
    earlier = {get_gradient_edge(calls[each]).node for each in others}
    if leads_to_all(get_gradient_edge(calls[last]).node, earlier):
        return last
    traced = _traced(model, images, layer, run)
    shown = [each for each in sorted(calls) if traced.get(each, (False, False))[1]]
    from_images = [each for each in sorted(calls) if traced.get(each, (False, False))[0]]
    found = shown or from_images or sorted(calls)
    _log_choice(model, layer, len(traced), found, from_images)
    return found[-1]


# ------------------------------------------------------------------------------------------------------ evidence

Traced = dict[int, tuple[bool, bool]]
"""For each call by its number: whether it is computed from the images, and from what a picture shows of them."""


def _traced(model: nn.Module, images: Tensor, layer: nn.Module, run: Run) -> Traced:
    """Trace the calls of a layer with one image, or with all where the forward takes no other number of them."""
    parts = [images[:1], images] if len(images) > 1 else [images]
    for part in parts:
        try:
            found = _by_graph(model, part, layer, run) if images.is_floating_point() else {}
            if not any(from_images for from_images, _ in found.values()):
                found = _by_change(model, part, layer, run)
            return found
        except Exception:
            if part is parts[-1]:
                raise
    raise AssertionError("the last part returns or raises")


def _by_graph(model: nn.Module, images: Tensor, layer: nn.Module, run: Run) -> Traced:
    """Trace the calls of a layer by the gradients of their outputs with respect to the images."""
    leaf = images.detach().clone().requires_grad_()
    with torch.enable_grad(), _outputs_of(model, layer) as outputs:
        run(leaf.clone())
    found: Traced = {}
    for call, output in enumerate(outputs):
        gradient = _gradient(output, leaf)
        is_shown = gradient is not None and bool(_displayed(gradient).any())
        found[call] = gradient is not None, is_shown
    return found


def _gradient(output: Tensor, leaf: Tensor) -> Tensor | None:
    """The gradient of a weighted sum of an output with respect to the images; None where there is none."""
    if not output.requires_grad:
        return None
    uneven = torch.linspace(1.0, 2.0, output.numel(), device=output.device, dtype=output.dtype)
    (gradient,) = torch.autograd.grad(
        output, leaf, uneven.view(output.shape), retain_graph=True, allow_unused=True
    )
    return gradient


def _by_change(model: nn.Module, images: Tensor, layer: nn.Module, run: Run) -> Traced:
    """Trace the calls of a layer by how their outputs change with the images.

    It is for images of whole numbers, which have no gradient, and for a forward that detaches. Random numbers are the
    same each time.
    """
    changed = images.amin() + images.amax() - images.flip(-1)
    in_picture = images.clone()
    _displayed(in_picture).copy_(_displayed(changed))
    before, after, partly = (_run_again(model, each, layer, run) for each in (images, changed, in_picture))
    return {
        call: (_differs(each, after, call), _differs(each, partly, call)) for call, each in enumerate(before)
    }


def _run_again(model: nn.Module, images: Tensor, layer: nn.Module, run: Run) -> list[Tensor]:
    """The outputs of a layer's calls in one more forward without a graph."""
    with torch.no_grad(), same_random_streams(), _outputs_of(model, layer, grad=False) as outputs:
        run(images.clone())
    return [each.detach().clone() for each in outputs]


def _differs(output: Tensor, others: list[Tensor], call: int) -> bool:
    """Whether a call's output differs from that of another forward."""
    return call >= len(others) or not torch.equal(output, others[call])


def _displayed(images: Tensor) -> Tensor:
    """The channels of images that pictures show: the first three, of two the first (as in `lightning_gcam.visual`)."""
    return images[:, :3] if images.shape[1] > 2 else images[:, :1]


@contextmanager
def _outputs_of(model: nn.Module, layer: nn.Module, grad: bool = True) -> Iterator[list[Tensor]]:
    """Collect the outputs of a layer, call by call, in the order of `capture`.

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


# --------------------------------------------------------------------------------------------------------- log

_LOGGED: WeakSet[nn.Module] = WeakSet()
"""The layers for which the choice of a call was logged."""


def _log_choice(
    model: nn.Module, layer: nn.Module, count: int, found: list[int], from_images: list[int]
) -> None:
    """Log once for each layer which of its calls the maps are of."""
    if layer in _LOGGED:
        return
    _LOGGED.add(layer)
    name = next((name for name, module in model.named_modules() if module is layer), type(layer).__name__)
    message = (
        f'Layer "{name}" is called {count} times in one forward. The maps are those of call {found[-1] + 1}'
    )
    if len(from_images) == 1:
        rank_zero_info(f"{message}, the only one that is computed from the images.")
    elif len(found) == 1:
        rank_zero_info(f"{message}, which is computed from the channels that a picture shows.")
    else:
        rank_zero_info(
            f"{message}, the last of {len(found)} that are computed from what a picture shows (frames, views?). To see "
            "another one, pass a `forward=` in which only its input is taken from the images."
        )
