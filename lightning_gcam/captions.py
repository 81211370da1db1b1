"""The words of a look: what each sample is and was taken for, whether that is right, and what the maps explain."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lightning_gcam.batch import SaliencyBatch
from lightning_gcam.cam.targets import Explains, are_measurements, predict

if TYPE_CHECKING:
    from lightning_gcam.attribution import Attribution

ClassNames = Sequence[str] | None
"""A name for each class; its number where there is none."""


def subject_of(batch: SaliencyBatch, attribution: Attribution, class_names: ClassNames = None) -> Explains:
    """What the model's output is, as far as can be known: scores of "classes", a regression's "output", or neither.

    Whose score is a callable's ("score") has an output of any kind, an embedding, say: no class is read into it, unless
    `class_names` or multi-hot labels give every number of the output its class.

    Args:
        batch: the samples, for their labels.
        attribution: their logits, and what was explained.
        class_names: for captions.

    Example:
        >>> from lightning_gcam import Attribution
        >>> attribution = Attribution({}, torch.zeros(2, 1), None, "layer", {}, False)
        >>> subject_of(SaliencyBatch(torch.zeros(2, 3, 4, 4), torch.tensor([3.2, 1.0])), attribution)
        'output'
    """
    labels, k = batch.labels, attribution.logits.shape[1]
    if attribution.explains == "output" or (k == 1 and labels is not None and are_measurements(labels)):
        return "output"
    is_marked = labels is not None and labels.ndim == 2 and labels.shape[1] == k
    is_named = class_names is not None and len(class_names) == max(k, 2)
    return "score" if attribution.explains == "score" and not (is_marked or is_named) else "classes"


def marks_of(batch: SaliencyBatch, num_logits: int) -> Tensor | None:
    """The marks `(N, K)` bool of several classes a sample; None for any other labels.

    One mark in every row is one class of many, one-hot: nothing says that there could have been two.

    Args:
        batch: the samples, for their labels.
        num_logits: K.

    Example:
        >>> images = torch.zeros(2, 3, 4, 4)
        >>> marks_of(SaliencyBatch(images, torch.tensor([[1, 1], [0, 1]])), 2)
        tensor([[ True,  True],
                [False,  True]])
        >>> marks_of(SaliencyBatch(images, torch.tensor([[1, 0], [0, 1]])), 2) is None
        True
    """
    labels = batch.labels
    if labels is None or labels.ndim != 2 or num_logits == 1 or labels.shape[1] != num_logits:
        return None
    marks = labels > 0
    return None if bool((marks.sum(dim=1) == 1).all()) else marks


def probabilities(batch: SaliencyBatch, logits: Tensor) -> Tensor:
    """The predicted class's probability, `(N,)`: softmax, or sigmoid for one logit and for marks of several classes."""
    logits, predictions = logits.float(), predict(logits)
    if logits.shape[1] == 1:
        return torch.where(predictions > 0, logits[:, 0].sigmoid(), 1 - logits[:, 0].sigmoid())
    shares = logits.sigmoid() if marks_of(batch, logits.shape[1]) is not None else logits.softmax(dim=1)
    return shares.gather(1, predictions[:, None]).squeeze(1)


def correct(
    batch: SaliencyBatch, attribution: Attribution, class_names: ClassNames = None
) -> list[bool | None]:
    """Whether each prediction is right (where several classes can be marked: all that are, and no other).

    None: there is no label; the output is not of classes; or it is a dense one that was read at the positions where the
    network itself sees the class.
    """
    labels = batch.labels
    if labels is None or subject_of(batch, attribution, class_names) != "classes":
        return [None] * len(batch)
    predictions = predict(attribution.logits).tolist()
    judged = attribution.in_mask.tolist() if attribution.in_mask is not None else [True] * len(batch)
    marks = marks_of(batch, attribution.logits.shape[1])
    if marks is not None:
        right = ((attribution.logits > 0) == marks).all(dim=1).tolist()
    elif labels.ndim == 2:
        right = [bool(row[guess]) for row, guess in zip(labels, predictions, strict=True)]
    else:
        right = [label == guess for label, guess in zip(labels.tolist(), predictions, strict=True)]
        judged = [each and label >= 0 for each, label in zip(judged, labels.tolist(), strict=True)]
    return [each if known else None for each, known in zip(right, judged, strict=True)]


def captions(batch: SaliencyBatch, attribution: Attribution, class_names: ClassNames = None) -> list[str]:
    """One line per sample: its name, what it is, and what the model makes of it.

    That is the predicted class and its probability ("true cat · predicted dog (0.91)"), all that are more likely than
    not where several can be marked ("predicted dog (0.91), cat (0.62)", or "predicted none"), the output of a
    regression ("true 3.20 · predicted 3.14"), or the score of a callable ("score 0.83").
    """
    subject = subject_of(batch, attribution, class_names)
    parts = [
        _names(batch),
        _true(batch, subject, class_names),
        _found(batch, attribution, subject, class_names),
    ]
    return [" · ".join(part for part in row if part) for row in zip(*parts, strict=True)]


def explained(batch: SaliencyBatch, attribution: Attribution, class_names: ClassNames = None) -> str:
    """What the maps explain, in a few words; for a dense head also where its logits were summed."""
    return _whose(batch, attribution, class_names) + _where(attribution)


def _whose(batch: SaliencyBatch, attribution: Attribution, class_names: ClassNames) -> str:
    targets, labels = attribution.targets, batch.labels
    if attribution.explains == "output":
        return "maps of the output"
    if targets is None:
        return "maps of a score of your own"
    if labels is not None and targets.shape == labels.shape and bool((targets == labels).all()):
        several = marks_of(batch, attribution.logits.shape[1]) is not None
        return "maps of the true classes" if several else "maps of the true class"
    if targets.ndim == 1 and torch.equal(targets, predict(attribution.logits)):
        return "maps of the predicted class"
    if targets.ndim == 1 and bool((targets == targets[0]).all()):
        return f"maps of class {_class_name(int(targets[0]), class_names)}"
    return "maps of given classes"


def _where(attribution: Attribution) -> str:
    """A callable sums a dense head's logits as it likes."""
    if attribution.in_mask is None or attribution.explains == "score":
        return ""
    elsewhere = "over the image" if attribution.explains == "output" else "where it is predicted"
    places = {True: "over the object", False: elsewhere}
    return " " + " or ".join(place for there, place in places.items() if (attribution.in_mask == there).any())


def _names(batch: SaliencyBatch) -> list[str]:
    return batch.names if batch.names is not None else [""] * len(batch)


def _true(batch: SaliencyBatch, subject: Explains, class_names: ClassNames) -> list[str]:
    labels = batch.labels
    if labels is None:
        return [""] * len(batch)
    if labels.ndim == 2:
        marks = [[_class_name(int(each), class_names) for each in row.nonzero()[:, 0]] for row in labels]
        return [f"true {_in_short(row)}" for row in marks]
    if subject == "output" or (labels.is_floating_point() and not torch.equal(labels, labels.round())):
        return [f"true {_number(label)}" if not math.isnan(label) else "" for label in labels.tolist()]
    return [f"true {_class_name(int(each), class_names)}" if each >= 0 else "" for each in labels.tolist()]


def _found(
    batch: SaliencyBatch, attribution: Attribution, subject: Explains, class_names: ClassNames
) -> list[str]:
    if subject == "output":
        return [f"predicted {_number(value)}" for value in attribution.logits[:, 0].tolist()]
    if subject == "score":
        values = attribution.values.tolist() if attribution.values is not None else []
        return [f"score {_number(value)}" for value in values] or [""] * len(batch)
    if marks_of(batch, attribution.logits.shape[1]) is not None:
        return [f"predicted {_in_short(_likely(row, class_names))}" for row in attribution.logits.float()]
    guesses = predict(attribution.logits).tolist(), probabilities(batch, attribution.logits).tolist()
    return [
        f"predicted {_class_name(guess, class_names)} ({share:.2f})"
        for guess, share in zip(*guesses, strict=True)
    ]


def _likely(logits: Tensor, class_names: ClassNames) -> list[str]:
    """The classes that are more likely than not, with their probability, the surest first."""
    order = logits.argsort(descending=True)
    surest = [int(each) for each in order if logits[each] > 0]
    return [f"{_class_name(each, class_names)} ({float(logits[each].sigmoid()):.2f})" for each in surest]


_MOST_NAMED = 3


def _in_short(names: list[str]) -> str:
    """The first few names, and how many more there are."""
    more = len(names) - _MOST_NAMED
    return (", ".join(names[:_MOST_NAMED]) or "none") + (f" and {more} more" if more > 0 else "")


def _class_name(index: int, class_names: ClassNames) -> str:
    return class_names[index] if class_names is not None and 0 <= index < len(class_names) else str(index)


def _number(value: float) -> str:
    """Two decimals, or two digits and an exponent where these would not show it."""
    return f"{value:.2f}" if value == 0 or 0.01 <= abs(value) < 1e5 else f"{value:.1e}"
