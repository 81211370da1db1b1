"""Probabilities in the place of logits: how they are recognised, and how the logits in front of them are had."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.graph import Node

Squash = Literal["sigmoid", "softmax", "log_sigmoid", "log_softmax"]
"""What a model's forward ends with, beyond its logits."""

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
"""Operations that give the same numbers in another form."""
_PARTS = ("Select", "Slice")
_CLAMPS = ("Clamp", "ClampMin", "ClampMax")
_LINEAR = ("Addmm", "Mm", "Addbmm", "Bmm", "Baddbmm", "Convolution", "NativeBatchNorm", "CudnnBatchNorm")
"""What gives logits, whatever their values are."""
_TOLERANCE = 1e-2
"""By how much a sum of probabilities may miss 1: half precision rounds each of them."""


def squash_of(outputs: Tensor) -> tuple[Squash | None, list[Node]]:
    """What the outputs have gone through behind the logits, and the nodes through which the gradient is to pass as is.

    It is read off the autograd graph: the last operation that is no change of form is a sigmoid, a softmax or their
    logarithm. A softmax is also told by its values, which the graph does not always show (a mean of several softmaxes,
    `stack([1 - p, p])`): in [0, 1] with rows that sum to 1, or at most 0 with exponentials that do, unless they come
    straight from a linear layer. Values in [0, 1] alone are no proof of a sigmoid: logits can lie there, too.

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
    """The logits in front of a squashing; those of a softmax up to a number that all classes of a sample share.

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
        node.register_hook(lambda *gradients: _pass(*gradients) if from_logits else None)
    logits: Tensor = _PassOn.apply(outputs, squash, from_logits)
    return logits


def squashed(logits: Tensor, squash: Squash | None) -> Tensor:
    """What the model gave, from its logits.

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
    """The rows `(N, K)` that were divided by their norm to give these; None where that is not what was done.

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
    if rows.ndim != 2 or rows.shape[1] < 2:
        return False
    return bool(((rows.detach().float().norm(dim=1) - 1).abs() < _TOLERANCE / 2).all())


def _chain(outputs: Tensor) -> Iterator[Node]:
    """The operations behind the outputs, the last first, up to the first that does more than change their form."""
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
    values = outputs.detach().float()
    if values.shape[1] < 2 or not values.numel():
        return None
    if bool((values >= -1e-6).all() and (values <= 1 + 1e-6).all()):
        return "softmax" if _sum_to_one(values) else None
    return "log_softmax" if bool((values <= 1e-6).all()) and _sum_to_one(values.exp()) else None


def _sum_to_one(shares: Tensor) -> bool:
    return bool(((shares.sum(dim=1) - 1).abs() < _TOLERANCE).all())


def _inverse(outputs: Tensor, squash: Squash) -> Tensor:
    values = outputs.to(torch.promote_types(outputs.dtype, torch.float32))
    smallest, below_one = torch.finfo(values.dtype).tiny, 1 - torch.finfo(values.dtype).eps / 2
    if squash == "log_softmax":
        return values
    if squash == "softmax":
        return values.clamp(min=smallest).log()
    if squash == "sigmoid":
        return values.clamp(min=smallest).log() - torch.log1p(-values.clamp(max=below_one))
    return values - (-torch.expm1(values).clamp(max=-smallest)).log()


def _pass(gradients: tuple[Tensor | None, ...], of_outputs: tuple[Tensor, ...]) -> Any:
    """The gradient of what a node gave as that of what it took."""
    first, *others = gradients
    return None if first is None else (of_outputs[0].to(first.dtype), *others)


class _PassOn(torch.autograd.Function):
    """The logits, by value; their gradient becomes that of the outputs, and `from_logits` says that it came so."""

    @staticmethod
    def forward(ctx: Any, outputs: Tensor, squash: Squash, from_logits: list[bool]) -> Tensor:
        ctx.dtype, ctx.from_logits = outputs.dtype, from_logits
        return _inverse(outputs, squash).clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        ctx.from_logits.append(True)
        return gradients[0].to(ctx.dtype), None, None
