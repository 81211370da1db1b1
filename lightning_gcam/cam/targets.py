"""The score that is explained, one number per sample: the logit of the target class, or the output itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from lightning_gcam.cam.squashing import Squash
from lightning_gcam.utils.errors import InputError

Explains = Literal["classes", "output", "score", "norm", "error", "peaks", "similarity"]
"""What a score measures: classes; the single output of a regression; whatever a callable computes from the output; or
of a whole output the norm of an embedding, of coordinates or of measurements, the error of a reconstruction, the sum of
the peaks of heat maps, the similarity of an image to the text beside it."""


@dataclass(frozen=True)
class Labels:
    """A batch's labels, and whether they are measurements (of a regression) and not classes.

    A part of a batch does not show it: of the measurements 0.5, 1.0 and 2.0 the second alone might be a class.

    Args:
        values: `(N,)`, or `(N, K)` multi-hot.
        measure: see `are_measurements`.
        of_batch: whether they came with the samples, and not as `targets=`: then they name classes of the output only
            if it has any.
    """

    values: Tensor
    measure: bool
    of_batch: bool = False

    @staticmethod
    def of(values: Tensor) -> Labels:
        """The labels of a whole batch."""
        return Labels(values, are_measurements(values))

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows: slice) -> Labels:
        return replace(self, values=self.values[rows])


Targets = int | str | Sequence[int] | Tensor | Labels | Callable[[Tensor], Tensor] | None
"""A class for all samples, a class each `(N,)`, classes each `(N, K)`, "predicted" (or None), "output", or
`outputs -> (N,)`."""


@dataclass(frozen=True)
class TargetScore:
    """The number per sample whose gradient is taken, and what it measures.

    Args:
        values: `(N,)`.
        targets: the classes `(N,)` or `(N, K)`; None where it does not measure classes.
        logits: `(N, K)`; those of a dense head averaged over each sample's region.
        explains: what the score measures.
        in_mask: `(N,)` bool: whether a dense head's logits were summed over the mask that was given; None for a head
            that is not dense.
        region: `(N, *grid)` bool: the positions over which a dense head's logits were summed; None for a head that is
            not dense, and for a callable.
        squash: what the model applies to its logits; its outputs are these where None.
        images: `(N, C, *S)`, what a reconstruction is compared with; None for anything else.
    """

    values: Tensor
    targets: Tensor | None
    logits: Tensor
    explains: Explains = "classes"
    in_mask: Tensor | None = None
    region: Tensor | None = None
    squash: Squash | None = None
    images: Tensor | None = None

    @property
    def is_of_something(self) -> Tensor:
        """`(N,)` bool: False where the network gives the class no position at all, so that nothing is explained."""
        if self.region is None:
            return torch.ones_like(self.values, dtype=torch.bool)
        return self.region.flatten(1).any(dim=1)

    def detached(self) -> TargetScore:
        """The same score without its graph."""
        return replace(self, values=self.values.detach(), logits=self.logits.detach())


def predict(logits: Tensor) -> Tensor:
    """The predicted class of each sample `(N,)`: the largest logit; for a single logit, whether it is positive.

    Args:
        logits: `(N, K)`, or `(N, K, h, w)` for a class at each position `(N, h, w)`.

    Example:
        >>> predict(torch.tensor([[0.1, 0.9]])).tolist(), predict(torch.tensor([[-2.0]])).tolist()
        ([1], [0])
    """
    return (logits[:, 0] > 0).long() if logits.shape[1] == 1 else logits.argmax(dim=1)


def probabilities_of_classes(logits: Tensor, multi_label: bool) -> Tensor:
    """The probability of each class, `(N, K)` float32, by a softmax over the classes or a sigmoid for each.

    Args:
        logits: `(N, K)`; a single one gives the probability of class 1.
        multi_label: whether a sample can be of several classes, so that each logit has a sigmoid of its own.

    Example:
        >>> logits = torch.tensor([[0.0, 0.0]])
        >>> probabilities_of_classes(logits, multi_label=False).tolist()
        [[0.5, 0.5]]
        >>> probabilities_of_classes(logits[:, :1], multi_label=False).tolist()
        [[0.5]]
    """
    is_sigmoid = multi_label or logits.shape[1] == 1
    return logits.float().sigmoid() if is_sigmoid else logits.float().softmax(dim=1)


def predict_multi_hot(logits: Tensor, multi_label: bool = True) -> Tensor:
    """The classes that are more likely than not, `(N, K)` bool; see `probabilities_of_classes`.

    Example:
        >>> predict_multi_hot(torch.tensor([[2.0, -1.0, 0.5]])).tolist()
        [[True, False, True]]
    """
    return logits > 0 if multi_label else probabilities_of_classes(logits, multi_label) > 0.5


def predictions_of(logits: Tensor, multi_label: bool, own_sigmoids: bool) -> Tensor:
    """The predicted class of each sample `(N,)`, or where it may be of several the predicted marks `(N, K)` bool."""
    return predict_multi_hot(logits, own_sigmoids) if multi_label else predict(logits)


def are_multi_hot(labels: Tensor) -> bool:
    """Whether labels are multi-hot: rows `(N, K)` of which some do not mark exactly one class.

    One mark in every row is one class of many, one-hot: nothing shows that there could have been two.

    Example:
        >>> labels = (torch.tensor([[1, 1], [0, 1]]), torch.eye(2), torch.tensor([1, 0]))
        >>> [are_multi_hot(each) for each in labels]
        [True, False, False]
    """
    return labels.ndim == 2 and labels.shape[1] > 1 and not bool(((labels > 0).sum(dim=1) == 1).all())


def are_measurements(labels: Tensor) -> bool:
    """Whether labels are measurements: numbers of which some are neither whole nor one of the two classes.

    With several outputs whole numbers are classes all the same; with a single one, labels up to 1 are its two classes
    and negative ones mean "none".

    Args:
        labels: `(N,)` or `(N, 1)`; anything else are no measurements.

    Example:
        >>> are_measurements(torch.tensor([3.2, 1.0])), are_measurements(torch.tensor([0.0, 1.0]))
        (True, False)
    """
    is_column = labels.ndim == 1 or (labels.ndim == 2 and labels.shape[1] == 1)
    if not is_column or not labels.is_floating_point():
        return False
    return bool(((labels != labels.round()) | (labels > 1)).any())


def score_of(logits: Tensor, targets: Targets) -> TargetScore:
    """The score of the target class of each sample, before any softmax.

    Args:
        logits: `(N, K)`. For a single logit (K = 1) class 1 is scored by the logit and class 0 by its negative.
        targets: None or "predicted": each sample's predicted class; an int: one class for all; `(N,)` classes, of which
            a negative one stands for the predicted class (a sample without a label); `(N, K)` multi-hot: the sum of the
            marked logits, in a row without a mark the predicted class's; "output", or `(N,)` measurements for a single
            output: the output itself, whatever its sign; or a callable `logits -> (N,)`.

    Raises:
        InputError: a class outside the logits, a wrong number of targets, an unknown word, or a callable that does
            not give `(N,)`.

    Example:
        >>> score_of(torch.tensor([[1.0, 5.0], [2.0, 7.0]]), 0).values
        tensor([1., 2.])
        >>> score_of(torch.tensor([[3.1], [-0.5]]), torch.tensor([3.2, -0.4])).values
        tensor([ 3.1000, -0.5000])
    """
    if callable(targets):
        return TargetScore(checked_score(targets(logits), len(logits)), None, logits, "score")
    targets = as_labels(targets, logits.device)
    if explains_output(targets, logits.shape[1]):
        return TargetScore(logits[:, 0], None, logits, "output")
    return score_of_classes(logits, classes_of(targets, predict(logits.detach()), logits.shape[1]))


def score_of_classes(logits: Tensor, classes: Tensor) -> TargetScore:
    """The logit of each sample's class `(N,)`, or the sum of its marked ones `(N, K)`."""
    if classes.ndim == 2:
        classes = classes.to(logits.dtype)
        return TargetScore((logits * classes).sum(dim=1), classes, logits)
    check_classes(classes, logits.shape[1])
    if logits.shape[1] == 1:
        return TargetScore(torch.where(classes > 0, logits[:, 0], -logits[:, 0]), classes, logits)
    return TargetScore(logits.gather(1, classes[:, None]).squeeze(1), classes, logits)


def as_labels(targets: Any, device: torch.device) -> Labels | int | str | None:
    """Convert targets to a word, a class, or `Labels` on `device`.

    Raises:
        InputError: where they are neither a word nor numbers.
    """
    if targets is None or isinstance(targets, str):
        return targets
    measure = targets.measure if isinstance(targets, Labels) else None
    try:
        values = torch.as_tensor(targets.values if isinstance(targets, Labels) else targets, device=device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f'`targets` must be classes, as numbers from 0 in the order of the logits, or "predicted", "output", or a '
            f"callable on the logits; got {type(targets).__name__} {_shortened_repr(targets)}. Give each "
            "class by its number."
        ) from error
    if values.ndim == 0:
        return int(values)
    if values.is_inference():  # a batch of `trainer.validate`: autograd would refuse to keep it
        values = values.clone()
    of_batch = isinstance(targets, Labels) and targets.of_batch
    return Labels(values, are_measurements(values) if measure is None else measure, of_batch)


def explains_output(targets: Labels | int | str | None, num_logits: int) -> bool:
    """Whether the output itself is explained: by `targets="output"`, or because labels are measurements of one output.

    Raises:
        InputError: where `targets="output"`, and the model gives several numbers.
    """
    if targets == "output" and num_logits != 1:
        raise InputError(
            f'`targets="output"` explains the output of a model that gives one number, but this one gives '
            f"{num_logits}. Choose one with a callable, for example:\n    targets=lambda outputs: outputs[:, 0]"
        )
    return targets == "output" or (isinstance(targets, Labels) and targets.measure and num_logits == 1)


def classes_of(targets: Labels | int | str | None, predicted: Tensor, num_logits: int) -> Tensor:
    """The target classes `(N,)`, or the marked classes `(N, K)`.

    Args:
        targets: as `as_labels` gives them.
        predicted: the predicted classes `(N,)`, for None, "predicted", negative classes and rows without a mark.
        num_logits: K.

    Raises:
        InputError: an unknown word, a wrong number of classes, or what is no class.
    """
    n = len(predicted)
    if targets is None or (isinstance(targets, str) and targets == "predicted"):
        return predicted
    if isinstance(targets, str):
        raise InputError(
            f'`targets` "{targets}" is not known. Use "predicted", "output", classes, or a callable on the logits.'
        )
    if isinstance(targets, int):
        return torch.full_like(predicted, targets)
    classes = targets.values
    if num_logits == 1 and classes.ndim == 2:  # the labels of a binary cross-entropy, not one mark of many
        classes = classes.squeeze(1)
    if tuple(classes.shape) not in ((n,), (n, num_logits)):
        raise InputError(
            f"`targets` must be ({n},) classes or ({n}, {num_logits}) multi-hot; got {tuple(classes.shape)}. Give one "
            "class per sample, or a single number for all."
        )
    if classes.ndim == 2:
        none = ~(classes != 0).any(dim=1)
        return torch.where(none[:, None], _marks(predicted, classes), classes)
    check_no_fractions(classes, num_logits)
    return torch.where(classes < 0, predicted, classes.long())


def _marks(classes: Tensor, like: Tensor) -> Tensor:
    """One marked class a row, in the shape and dtype of `like`."""
    return torch.zeros_like(like).scatter_(1, classes[:, None], 1)


def check_labels(labels: Tensor, num_logits: int) -> None:
    """Refuse a batch's labels that do not fit the logits.

    Args:
        labels: `(N,)`; negative ones mean "none". Measurements fit a single output.
        num_logits: K.

    Raises:
        InputError: as `check_classes` and `check_no_fractions`.
    """
    if num_logits == 1 and are_measurements(labels):
        return
    check_no_fractions(labels, num_logits, "labels")
    check_classes(labels[labels >= 0], num_logits, "labels")


def check_no_fractions(classes: Tensor, num_logits: int, argument: str = "targets") -> None:
    """Refuse numbers with a fraction, which are no classes.

    Raises:
        InputError: naming the number.
    """
    broken = classes[classes != classes.round()] if classes.is_floating_point() else classes[:0]
    if len(broken):
        raise InputError(
            f"`{argument}` holds {float(broken[0]):.4g}, which is no class, and the model gives {num_logits} numbers "
            "per sample. Explain one of these with a callable, for example:\n    targets=lambda outputs: outputs[:, 0]"
        )


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
        from_one = bool((classes >= 1).all()) and int(classes.max()) == count
        largest = f"Classes count from 0, and the largest that came is {int(classes.max())}"
        shift = f": do yours count from 1? Then subtract 1, as in `{argument} - 1`. " if from_one else ". "
        regression = ', or `targets="output"` if the model predicts a number' if num_logits == 1 else ""
        raise InputError(
            f"`{argument}` holds class {int(outside[0])}, but the logits have {num_logits} "
            f"(classes 0 to {count - 1}). {largest}{shift}Give classes in that range{regression}, or `forward=` if "
            "these are not the logits."
        )


def _shortened_repr(value: Any) -> str:
    """The `repr` of a value, at most 80 characters long."""
    written = repr(value)
    return written if len(written) <= 80 else f"{written[:77]}..."


def checked_score(values: Any, n: int) -> Tensor:
    """Refuse what a callable returned as the score, unless it is one number per sample.

    Raises:
        InputError: naming what it returned.
    """
    if not isinstance(values, Tensor) or tuple(values.shape) != (n,):
        came = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise InputError(
            f"`targets` as a callable must give one score per sample, ({n},); got {came}. Keep the samples apart, for "
            "example:\n    targets=lambda outputs: outputs[:, 0]"
        )
    return values
