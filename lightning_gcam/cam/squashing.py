"""Recognising probabilities in the place of logits, and computing the logits in front of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.graph import Node

Squash = Literal["sigmoid", "softmax", "log_sigmoid", "log_softmax"]
"""The function that a model's forward applies to its logits."""

_NODES: dict[str, Squash] = {
    "Sigmoid": "sigmoid",
    "Softmax": "softmax",
    "LogSigmoid": "log_sigmoid",
    "LogSoftmax": "log_softmax",
}
_SHAPES = (
    *("View", "UnsafeView", "ReshapeAlias", "Squeeze", "Unsqueeze", "Transpose", "Permute", "T"),
    *("Clone", "Alias", "ToCopy"),
)
"""Operations that return the same numbers in another shape."""
_PARTS = ("Select", "Slice")
_CLAMPS = ("Clamp", "ClampMin", "ClampMax")
_LINEAR = ("Addmm", "Mm", "Addbmm", "Bmm", "Baddbmm", "Convolution", "NativeBatchNorm", "CudnnBatchNorm")
"""Operations whose results are logits, whatever their values."""
_TOLERANCE = 1e-2
"""By how much a sum of probabilities may miss 1: half precision rounds each of them."""


def squash_of(outputs: Tensor) -> tuple[Squash | None, list[Node]]:
    """The function that was applied to the logits, and the nodes through which the gradient passes unchanged.

    It is found in the autograd graph: the last operation that does not only reshape is a sigmoid, a softmax or their
    logarithm. A softmax is also recognised by its values, as the graph does not always show it (a mean of several
    softmaxes, `stack([1 - p, p])`): in [0, 1] with rows that sum to 1, or at most 0 with exponentials that do, unless
    they come straight from a linear layer. Values in [0, 1] alone are no proof of a sigmoid: logits can lie there, too.

    Args:
        outputs: `(N, K)`, or `(N, K, h, w)`.

    Returns:
        The kind, None for logits; and the nodes, none where the gradient is taken through the squashing.

    Example:
        >>> z = torch.randn(2, 3, requires_grad=True)
        >>> squash_of(z.softmax(dim=1))[0], squash_of(z.sigmoid()[:, :1])[0], squash_of(z * 2)[0]
        ('softmax', 'sigmoid', None)
    """
    passed: list[Node] = []
    names: list[str] = []
    last = ""
    for node in _chain(outputs):
        last = _kind(node)
        if last in _NODES:
            break
        names.append(last)
        if last in _CLAMPS:
            passed.append(node)
    squash = _NODES.get(last)
    if squash in ("sigmoid", "log_sigmoid"):
        return squash, [*passed, node]
    by_value = _by_value(outputs)
    if squash is not None and by_value == squash:
        return squash, [*passed, node]
    if squash == "softmax" and outputs.shape[1] == 1 and not set(names).isdisjoint(_PARTS):
        return "sigmoid", []  # one class's share of several
    is_bare = not last and bool(
        (outputs == outputs.round()).all()
    )  # zeros and ones of which nothing is known
    return (None if last in _LINEAR or is_bare else by_value), []


def unsquashed(outputs: Tensor, squash: Squash | None, nodes: list[Node]) -> Tensor:
    """The logits in front of a squashing; those of a softmax up to a constant of each sample.

    Their gradient is that of the logits, however saturated the probabilities are, where the graph has the node of the
    squashing; elsewhere it is taken through it. A gradient of the outputs themselves stays what it is.

    Args:
        outputs: as in `squash_of`.
        squash: as `squash_of` found it.
        nodes: as `squash_of` found them.

    Returns:
        The same shape, float32 or wider; `outputs` themselves where they are logits.

    Example:
        >>> z = torch.tensor([[60.0]], requires_grad=True)
        >>> p = z.sigmoid()  # exactly 1
        >>> torch.autograd.grad(unsquashed(p, *squash_of(p)).sum(), z)[0].item()
        1.0
    """
    if squash is None:
        return outputs
    if not nodes:
        return _inverse(outputs, squash)
    from_logits: list[bool] = []
    for node in nodes:
        node.register_hook(lambda *gradients: _pass_gradient(*gradients) if from_logits else None)
    logits: Tensor = _StraightThrough.apply(outputs, squash, from_logits)
    return logits


def squashed(logits: Tensor, squash: Squash | None) -> Tensor:
    """The outputs of the model, from its logits.

    Example:
        >>> squashed(torch.zeros(1, 2), "softmax").tolist(), squashed(torch.zeros(1, 2), None).tolist()
        ([[0.5, 0.5]], [[0.0, 0.0]])
    """
    match squash:
        case "sigmoid":
            return logits.sigmoid()
        case "softmax":
            return logits.softmax(dim=1)
        case "log_sigmoid":
            return torch.nn.functional.logsigmoid(logits)
        case "log_softmax":
            return logits.log_softmax(dim=1)
    return logits


def before_normalising(outputs: Tensor) -> Tensor | None:
    """The rows `(N, K)` whose normalization gave the outputs; None where the outputs are not normalized.

    Example:
        >>> z = torch.tensor([[3.0, 4.0]], requires_grad=True)
        >>> before_normalising(torch.nn.functional.normalize(z * 1)).tolist(), before_normalising(z * 1 + 1)
        ([[3.0, 4.0]], None)
    """
    last = next((node for node in _chain(outputs) if _kind(node) not in (*_SHAPES, *_PARTS, *_CLAMPS)), None)
    if last is None or _kind(last) not in ("Div", "Mul") or not _have_norm_one(outputs):
        return None
    if any(behind is None for behind, _ in last.next_functions):
        return None  # by a constant, a temperature say: the norm is 1 by chance
    before: Any = getattr(last, "_saved_self", None)
    return before if isinstance(before, Tensor) and before.shape == outputs.shape else outputs


def _have_norm_one(rows: Tensor) -> bool:
    """Whether every row has norm 1."""
    if rows.ndim != 2 or rows.shape[1] < 2:
        return False
    return bool(((rows.detach().float().norm(dim=1) - 1).abs() < _TOLERANCE / 2).all())


def _chain(outputs: Tensor) -> Iterator[Node]:
    """The operations behind the outputs, the last first, up to the first that does more than reshape them."""
    node = outputs.grad_fn
    while node is not None:
        yield node
        if _kind(node) not in (*_SHAPES, *_PARTS, *_CLAMPS):
            return
        node = node.next_functions[0][0]


def _kind(node: Node) -> str:
    """The name of a node's operation: "Softmax" for "SoftmaxBackward0"."""
    return node.name().partition("Backward")[0].strip("_")


def _by_value(outputs: Tensor) -> Squash | None:
    """The softmax, or its logarithm, that the outputs are by their values; None for neither."""
    values = outputs.detach().float()
    if values.shape[1] < 2 or not values.numel():
        return None
    are_shares = (values >= -1e-6).all() & (values <= 1 + 1e-6).all() & _sum_to_one(values)
    are_logarithms = (values <= 1e-6).all() & _sum_to_one(values.exp())
    by_softmax, by_log_softmax = torch.stack([are_shares, are_logarithms]).tolist()
    return "softmax" if by_softmax else "log_softmax" if by_log_softmax else None


def _sum_to_one(probabilities: Tensor) -> Tensor:
    """Whether every sample's probabilities sum to 1."""
    return ((probabilities.sum(dim=1) - 1).abs() < _TOLERANCE).all()


def _inverse(outputs: Tensor, squash: Squash) -> Tensor:
    """The logits by the inverse function, in float32 or wider."""
    values = outputs.to(torch.promote_types(outputs.dtype, torch.float32))
    smallest, below_one = torch.finfo(values.dtype).tiny, 1 - torch.finfo(values.dtype).eps / 2
    if squash == "log_softmax":
        return values
    if squash == "softmax":
        return values.clamp(min=smallest).log()
    if squash == "sigmoid":
        return values.clamp(min=smallest).log() - torch.log1p(-values.clamp(max=below_one))
    return values - (-torch.expm1(values).clamp(max=-smallest)).log()


def _pass_gradient(gradients: tuple[Tensor | None, ...], of_outputs: tuple[Tensor, ...]) -> Any:
    """Use the gradient of a node's output as that of its input."""
    first, *others = gradients
    return None if first is None else (of_outputs[0].to(first.dtype), *others)


class _StraightThrough(torch.autograd.Function):
    """The logits by value; their gradient is passed to the outputs unchanged, and `from_logits` records that."""

    @staticmethod
    def forward(ctx: Any, outputs: Tensor, squash: Squash, from_logits: list[bool]) -> Tensor:
        ctx.dtype, ctx.from_logits = outputs.dtype, from_logits
        return _inverse(outputs, squash).clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        ctx.from_logits.append(True)
        return gradients[0].to(ctx.dtype), None, None


def nodes_behind(node: Node) -> Iterator[Node]:
    """Walk through the autograd graph from a node back to the leaves; each node once, the first is `node` itself."""
    seen, stack = {node}, [node]
    while stack:
        yield (current := stack.pop())
        behind = {each for each, _ in current.next_functions if each is not None} - seen
        seen |= behind
        stack += behind


def leads_to_all(node: Node, goals: set[Node]) -> bool:
    """Whether the graph behind a node, the node included, holds all of some others."""
    left = set(goals)
    for each in nodes_behind(node) if left else ():
        left.discard(each)
        if not left:
            break
    return not left
