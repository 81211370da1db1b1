"""Layers that influence the output and are no good to look at: the output itself, and what is recurrent."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.autograd.graph import Node, get_gradient_edge


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
