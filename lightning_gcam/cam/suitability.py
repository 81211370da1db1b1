"""Which layers are no good to look at: behind a decoder's bottleneck, recurrent, or the output itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node, get_gradient_edge

Layer = TypeVar("Layer")

COARSEST = 32
"""Pixels that a cell of an encoder's last grid is wide; what is coarser are the pools of a pyramid (1, 2, 3, 6)."""


def corner(logits: Tensor) -> Tensor:
    """The mean logits `(N, K)` of a corner of `(N, K, h, w)`: a quarter of each side, rounded down."""
    rows, columns = (max(side // 4, 1) for side in logits.shape[2:])
    return logits[:, :, :rows, :columns].mean(dim=(2, 3))


def reaches_beyond_corner(gradient: Tensor, size: tuple[int, int]) -> bool:
    """Whether the corner's score depends on positions that bilinear resizing alone would not reach.

    Args:
        gradient: of the `corner` of the logits with respect to a layer, as a grid `(N, C, h, w)`.
        size: rows and columns of the logits.

    Example:
        >>> gradient = torch.zeros(1, 1, 8, 8)
        >>> gradient[:, :, :3, :3] = 1
        >>> reaches_beyond_corner(gradient, (64, 64)), reaches_beyond_corner(gradient.roll(1, dims=2), (64, 64))
        (False, True)
    """
    grid = torch.zeros(1, 1, *gradient.shape[2:], device=gradient.device, requires_grad=True)
    with torch.enable_grad():
        resized = nn.functional.interpolate(grid, size, mode="bilinear")
        (reached,) = torch.autograd.grad(corner(resized).sum(), grid)
    return bool(((gradient != 0) & (reached == 0)).any())


def up_to_the_bottleneck(
    layers: Sequence[Layer],
    gradients: Sequence[Tensor],
    image_size: tuple[int, int],
    logits_size: tuple[int, int],
) -> list[Layer]:
    """The layers up to the last one of the coarsest grid that reaches beyond its own positions.

    Args:
        layers: in the order of execution, at least one.
        gradients: of the `corner` of the logits with respect to each of them, as grids `(N, C, h, w)`. Where none
            reaches beyond the corner, the last layer of the coarsest grid has to do.
        image_size: height and width of the image, in pixels.
        logits_size: rows and columns of the logits.

    Source: the bottleneck is where Seg-Grad-CAM looks (Vinogradova et al., arXiv 2002.11434).
    """
    least = [side // COARSEST for side in image_size]
    cells = [each.shape[2] * each.shape[3] for each in gradients]
    deep = [
        count
        for count, each in zip(cells, gradients, strict=True)
        if each.shape[2] >= least[0] and each.shape[3] >= least[1]
    ]
    coarsest = [index for index, count in enumerate(cells) if count == min(deep or cells)]
    reaching = (index for index in reversed(coarsest) if reaches_beyond_corner(gradients[index], logits_size))
    return list(layers[: next(reaching, coarsest[-1]) + 1])


def unsuitable(layers: Sequence[nn.Module], outputs: Sequence[Tensor], maps: Sequence[Tensor]) -> list[bool]:
    """Whether each layer's output is a map that the model returns, or comes from a recurrent layer.

    At the output the map is the prediction. Behind an LSTM over the positions of a feature map each position holds what
    was read at those before it, and the last one, from which the class is told, stands at the lower right.

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


_PASSES_ON = (
    *("Upsample", "View", "Unsafe", "Reshape", "Clone", "Alias", "ToCopy", "Squeeze", "Unsqueeze", "Slice"),
    *("Permute", "Transpose", "Sigmoid", "Softmax", "LogSoftmax", "LogSigmoid", "Clamp", "Constant"),
)
"""How the names of operations begin that resize, cut or squash the logits and compute no other ones."""


def _passed_on(tensor: Tensor) -> list[Node]:
    """The operations from a map back to the one that computed it."""
    if not tensor.requires_grad:
        return []
    found = [get_gradient_edge(tensor).node]
    while found[-1].name().startswith(_PASSES_ON):
        behind = [each for each, _ in found[-1].next_functions if each is not None]
        if len(behind) != 1:
            break
        found.append(behind[0])
    return found


def _comes_from(node: Node, goals: set[Node]) -> bool:
    if not goals:
        return False
    seen, stack = {node}, [node]
    while stack and not seen & goals:
        behind = {each for each, _ in stack.pop().next_functions if each is not None} - seen
        seen |= behind
        stack += behind
    return bool(seen & goals)
