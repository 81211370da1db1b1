"""From what a model returns to the score that is explained: the logits, the target class, one number a sample."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_gcam._errors import InputError

Targets = int | str | Sequence[int] | Tensor | Callable[[Tensor], Tensor] | None
"""A class for all samples, a class each `(N,)`, classes each `(N, K)`, "predicted" (or None), or `logits -> (N,)`."""


@dataclass(frozen=True)
class Score:
    """The number a sample whose gradient is taken, and the classes it speaks of (None for a callable)."""

    values: Tensor
    targets: Tensor | None


def find_logits(output: Any, batch_size: int) -> Tensor:
    """The logits `(N, K)` in a model's output.

    Args:
        output: a tensor, an object with `.logits`, a mapping with `logits` or `out`, or a tuple that holds one.
        batch_size: N.

    Raises:
        InputError: where no tensor of N rows is found; the message says what came and shows `forward=`.

    Example:
        >>> find_logits((torch.zeros(2, 10), "aux"), batch_size=2).shape
        torch.Size([2, 10])
    """
    if (
        batch_size == 1 and isinstance(output, Tensor) and output.ndim < 2
    ):  # `.squeeze()` took the only sample too
        output = output.reshape(1, -1)
    found: Tensor | None = next((each for each in _candidates(output) if _is_logits(each, batch_size)), None)
    if found is None:
        raise InputError(
            f"The model's output holds no logits ({batch_size}, K): got {_describe(output)}. Pass `forward=`, a "
            "function from the model and the images to the logits, for example:\n"
            '    forward=lambda model, images: model(images)["scores"]'
        )
    return found.unsqueeze(1) if found.ndim == 1 else found


def _candidates(output: Any) -> list[Any]:
    """The likely places of the logits, the likeliest first."""
    if isinstance(output, Tensor):
        return [output]
    named = [getattr(output, "logits", None)]
    if isinstance(output, Mapping):
        return [*named, output.get("logits"), output.get("out"), *output.values()]
    if isinstance(output, (tuple, list)):
        return [*named, *output]
    return named


def _is_logits(value: Any, batch_size: int) -> bool:
    return (
        isinstance(value, Tensor)
        and value.is_floating_point()
        and value.ndim in (1, 2)
        and len(value) == batch_size
    )


def _describe(output: Any) -> str:
    if isinstance(output, Tensor):
        return f"a tensor {tuple(output.shape)} {str(output.dtype).removeprefix('torch.')}"
    if isinstance(output, Mapping):
        return f"{type(output).__name__} with keys {list(output)}"
    if isinstance(output, (tuple, list)):
        return f"{type(output).__name__} of {[_describe(each) for each in output[:4]]}"
    return type(output).__name__


def predict(logits: Tensor) -> Tensor:
    """The predicted class of each sample `(N,)`: the largest logit; for a single logit, whether it is positive.

    Example:
        >>> predict(torch.tensor([[0.1, 0.9]])).tolist(), predict(torch.tensor([[-2.0]])).tolist()
        ([1], [0])
    """
    return (logits[:, 0] > 0).long() if logits.shape[1] == 1 else logits.argmax(dim=1)


def score_of(logits: Tensor, targets: Targets) -> Score:
    """The score of the target class of each sample, before any softmax.

    Args:
        logits: `(N, K)`. For a single logit (K = 1) class 1 is scored by the logit and class 0 by its negative.
        targets: None or "predicted": each sample's predicted class; an int: one class for all; `(N,)` classes, of which
            a negative one stands for the predicted class (a sample without a label); `(N, K)` multi-hot: the sum of the
            marked logits; or a callable `logits -> (N,)`.

    Raises:
        InputError: a class outside the logits, a wrong number of targets, an unknown word, or a callable that does
            not give `(N,)`.

    Example:
        >>> score_of(torch.tensor([[1.0, 5.0], [2.0, 7.0]]), 0).values
        tensor([1., 2.])
    """
    if callable(targets):
        return Score(_checked(targets(logits), len(logits)), None)
    classes = _classes(targets, logits)
    if classes.ndim == 2:
        return Score((logits * classes).sum(dim=1), classes)
    check_classes(classes, logits.shape[1])
    if logits.shape[1] == 1:
        return Score(torch.where(classes > 0, logits[:, 0], -logits[:, 0]), classes)
    return Score(logits.gather(1, classes[:, None]).squeeze(1), classes)


def _classes(targets: Targets, logits: Tensor) -> Tensor:
    n, k = logits.shape
    if targets is None or (isinstance(targets, str) and targets == "predicted"):
        return predict(logits.detach())
    if isinstance(targets, str):
        raise InputError(
            f'`targets` "{targets}" is not known. Use "predicted", classes, or a callable on the logits.'
        )
    try:
        classes = torch.as_tensor(targets, device=logits.device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"`targets` must be numbers; got {targets!r}.") from error
    if classes.is_inference():  # a batch of `trainer.validate`: autograd would refuse to keep it
        classes = classes.clone()
    if classes.ndim == 0:
        return classes.long().expand(n)
    if k == 1 and classes.ndim == 2:  # the labels of a binary cross-entropy, not one mark of many
        classes = classes.squeeze(1)
    if tuple(classes.shape) not in ((n,), (n, k)):
        raise InputError(
            f"`targets` must be ({n},) classes or ({n}, {k}) multi-hot; got {tuple(classes.shape)}."
        )
    if classes.ndim == 2:
        return classes.to(logits.dtype)
    return torch.where(classes < 0, predict(logits.detach()), classes.long())


def check_classes(classes: Tensor, num_logits: int, argument: str = "targets") -> None:
    """Refuse a class that the logits do not have.

    Args:
        classes: `(N,)` integer.
        num_logits: K; a single logit stands for two classes.
        argument: the name to use in the error.

    Raises:
        InputError: naming the class and the range.
    """
    count = max(num_logits, 2)
    outside = classes[(classes < 0) | (classes >= count)]
    if len(outside):
        raise InputError(
            f"`{argument}` holds class {int(outside[0])}, but the logits have {num_logits} "
            f"(classes 0 to {count - 1}). Give classes in that range, or `forward=` if these are not the logits."
        )


def _checked(values: Any, n: int) -> Tensor:
    if not isinstance(values, Tensor) or tuple(values.shape) != (n,):
        came = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise InputError(f"`targets` as a callable must give one score a sample, ({n},); got {came}.")
    return values
