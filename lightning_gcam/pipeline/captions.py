"""The captions of a look: each sample's true and predicted class, whether that is right, and what the maps explain."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from lightning_gcam.cam.squashing import Squash
from lightning_gcam.cam.targets import (
    Explains,
    are_measurements,
    are_multi_hot,
    predict,
    predict_multi_hot,
    probabilities_of_classes,
)
from lightning_gcam.cam.whole import WHOLE
from lightning_gcam.data import SaliencyBatch

ClassNames = Sequence[str] | None
"""A name for each class; its number where there is none."""


class MapSource(NamedTuple):
    """The method and the layer that a map was computed with; fused layers are joined as in `target_layer`."""

    method: str
    layer: str


class Explanation(Protocol):
    """The fields of an `Attribution` that captions and pictures need; see there for what each holds."""

    @property
    def maps(self) -> Mapping[str, Tensor]:
        """The saliency `(N, *S)` of each map, by name."""

    @property
    def peaks(self) -> Mapping[str, Tensor]:
        """Each map's maximum `(N,)` before scaling, by name."""

    @property
    def logits(self) -> Tensor:
        """`(N, K)`, before any sigmoid or softmax."""

    @property
    def outputs(self) -> Tensor:
        """`(N, K)`, as the model's forward gives them."""

    @property
    def targets(self) -> Tensor | None:
        """The explained classes `(N,)` or marks `(N, K)`; None where no class is explained."""

    @property
    def target_layer(self) -> str:
        """The layer's name, or several in one line."""

    @property
    def explains(self) -> Explains:
        """What the maps explain."""

    @property
    def values(self) -> Tensor | None:
        """The explained number of each sample, `(N,)`."""

    @property
    def in_mask(self) -> Tensor | None:
        """For a dense head, whether each sample's logits were summed over its mask, `(N,)` bool."""

    @property
    def squash(self) -> Squash | None:
        """What the forward ends with beyond its logits."""

    @property
    def predicted_boxes(self) -> Tensor | None:
        """Of a detector the boxes `(N, M, 4)` that are predicted for each sample; NaN behind the last."""

    def source_of(self, name: str) -> MapSource:
        """The method and the layer of the map `name`."""


def subject_of(batch: SaliencyBatch, attribution: Explanation, class_names: ClassNames = None) -> Explains:
    """The kind of the model's output: scores of "classes", a regression's "output", or neither.

    What shows that it holds no classes (see `cam.regions.kind_by_form` and `instead_of_classes`) is neither, a "score".
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
    if attribution.explains in WHOLE:
        return "score"
    if attribution.explains == "output" and instead_of_classes(batch, attribution) == "output":
        return "score"
    if attribution.explains == "output" or (k == 1 and labels is not None and are_measurements(labels)):
        return "output"
    is_marked = labels is not None and labels.ndim == 2 and labels.shape[1] == k
    is_named = class_names is not None and len(class_names) == max(k, 2)
    return "score" if attribution.explains == "score" and not (is_marked or is_named) else "classes"


def instead_of_classes(
    batch: SaliencyBatch,
    attribution: Explanation,
    class_names: ClassNames = None,
    largest_label: int = -1,
) -> Literal["norm", "output"] | None:
    """What the maps should explain where the labels show that the output holds no classes; None where it may hold them.

    Form tells most (see `cam.regions.kind_by_form`); this is what only the samples together can tell, at one look:

    - "output": a single number that is positive for all samples, on average beyond 10, while the labels name both
      classes: an age in years beside a sex label. (A classifier would give each sample of class 0 a probability of
      1 with an error below 5e-5. Far below 0 is no sign: so a rare class looks early in a training.)
    - "norm": an embedding, a VAE's mean, at least four times as wide as the labels' range and 32 wide, of which the
      labels' own numbers are not among the larger third on average. An early network of 1,000 classes beside ten
      labels looks like that too, until its first steps have pushed up the classes that there are; so every look
      decides anew, and none for the next.

    Probabilities, dense logits, and `class_names` for each number hold classes, whatever their values.

    Args:
        batch: the samples, for their labels.
        attribution: their logits.
        class_names: for captions.
        largest_label: of all samples that were seen, where these are a choice of them: sixteen out of a validation set
            that is sorted by class may be of its first classes only.

    Example:
        >>> from lightning_gcam import Attribution
        >>> ages = Attribution({}, torch.tensor([[34.1], [52.7]]), None, "layer", {}, False)
        >>> instead_of_classes(SaliencyBatch(torch.zeros(2, 3, 4, 4), torch.tensor([0, 1])), ages)
        'output'
    """
    labels, logits = batch.labels, attribution.logits.float()
    k = logits.shape[1]
    is_named = class_names is not None and len(class_names) == max(k, 2)
    if (
        labels is None
        or labels.ndim != 1
        or is_named
        or attribution.squash
        or attribution.in_mask is not None
    ):
        return None
    known = labels >= 0
    labels, logits = labels[known], logits[known.to(logits.device)].to(labels.device)
    if not len(labels) or not bool((labels == labels.round()).all() and logits.isfinite().all()):
        return None
    if k == 1:
        is_binary = labels.unique().tolist() == [0, 1]
        return "output" if is_binary and bool((logits > 0).all()) and float(logits.mean()) > _FAR else None
    largest = max(int(labels.max()), largest_label)
    if k < max(_WIDE * (largest + 1), _FEWEST_WIDE):
        return None
    own = logits.gather(1, labels.long()[:, None])
    rank = ((logits < own).double() + (logits == own).double() / 2).mean()
    return "norm" if float(rank) < _UPPER_THIRD else None


_FAR, _WIDE, _FEWEST_WIDE, _UPPER_THIRD = 10.0, 4, 32, 2 / 3


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
    return labels > 0 if are_multi_hot(labels) else None


def has_own_sigmoids(batch: SaliencyBatch, attribution: Explanation, multi_label: bool = False) -> bool:
    """Whether each logit has a sigmoid of its own: by the model's own output, else by the labels.

    Args:
        batch: the samples, for their labels.
        attribution: their logits, and what the model does to them.
        multi_label: what is known beside the labels.
    """
    if attribution.squash is not None:
        return attribution.squash in ("sigmoid", "log_sigmoid")
    return multi_label or marks_of(batch, attribution.logits.shape[1]) is not None


def probabilities(batch: SaliencyBatch, attribution: Explanation) -> Tensor:
    """The predicted class's probability, `(N,)`: softmax, or sigmoid for one logit and for marks of several classes.

    Where the model gives probabilities, these.
    """
    shares, predictions = _shares(batch, attribution), predict(attribution.logits)
    if shares.shape[1] == 1:
        return torch.where(predictions > 0, shares[:, 0], 1 - shares[:, 0])
    return shares.gather(1, predictions[:, None]).squeeze(1)


def _shares(batch: SaliencyBatch, attribution: Explanation) -> Tensor:
    return probabilities_of_classes(attribution.logits, has_own_sigmoids(batch, attribution))


def class_probabilities(logits: Tensor, classes: Tensor, multi_label: bool | None = None) -> Tensor:
    """The probability of each sample's class: softmax, or sigmoid of a single logit and of marked classes.

    Args:
        logits: `(N, K)`.
        multi_label: whether a sample can be of several classes, so that each logit has a sigmoid of its own; read from
            the classes where it is left out.
        classes: `(N,)`, or `(N, K)` multi-hot: then the mean over the marked ones, NaN where none is.

    Example:
        >>> class_probabilities(torch.tensor([[0.0, 0.0]]), torch.tensor([1]))
        tensor([0.5000])
    """
    if logits.shape[1] == 1 and classes.ndim == 1:
        return torch.where(classes > 0, logits[:, 0], -logits[:, 0]).float().sigmoid()
    shares = probabilities_of_classes(logits, are_multi_hot(classes) if multi_label is None else multi_label)
    if classes.ndim == 2:
        marks = classes.to(shares)
        return (shares * marks).sum(dim=1) / marks.sum(dim=1)
    return shares.gather(1, classes[:, None]).squeeze(1)


def correct(
    batch: SaliencyBatch, attribution: Explanation, class_names: ClassNames = None
) -> list[bool | None]:
    """Whether each prediction is right (where several classes can be marked: all that are, and no other).

    None: there is no label; the output is not of classes; or it is a dense one that was read at the positions where the
    network itself sees the class.
    """
    labels = batch.labels
    if labels is None or subject_of(batch, attribution, class_names) != "classes":
        return [None] * len(batch)
    predictions = predict(attribution.logits).tolist()
    judged = attribution.in_mask.tolist() if attribution.in_mask is not None else [True] * len(predictions)
    marks = marks_of(batch, attribution.logits.shape[1])
    if marks is not None:
        likely = predict_multi_hot(attribution.logits, has_own_sigmoids(batch, attribution))
        right = (likely == marks.to(likely.device)).all(dim=1).tolist()
    elif labels.ndim == 2:
        right = [bool(row[guess]) for row, guess in zip(labels, predictions, strict=True)]
    else:
        right = [label == guess for label, guess in zip(labels.tolist(), predictions, strict=True)]
        judged = [each and label >= 0 for each, label in zip(judged, labels.tolist(), strict=True)]
    return [each if known else None for each, known in zip(right, judged, strict=True)]


def captions(batch: SaliencyBatch, attribution: Explanation, class_names: ClassNames = None) -> list[str]:
    """One line per sample: its name, its true class, and the model's prediction.

    That is the predicted class and its probability ("true cat · predicted dog (0.91)"), all that are more likely than
    not where several can be marked ("predicted dog (0.91), cat (0.62)", or "predicted none"), the output of a
    regression ("true 3.20 · predicted 3.14"), or the score of a callable or of what holds no classes ("score 0.83").
    """
    subject = subject_of(batch, attribution, class_names)
    parts = [_true_label(batch, subject, class_names), _prediction(batch, attribution, subject, class_names)]
    if batch.names is not None:
        parts.insert(0, batch.names)
    return [" · ".join(part for part in row if part) for row in zip(*parts, strict=True)]


def explained(batch: SaliencyBatch, attribution: Explanation, class_names: ClassNames = None) -> str:
    """What the maps explain, in a few words; for a dense head also where its logits were summed."""
    return _explained_classes(batch, attribution, class_names) + _region_words(attribution)


def _explained_classes(batch: SaliencyBatch, attribution: Explanation, class_names: ClassNames) -> str:
    targets, labels = attribution.targets, batch.labels
    if attribution.explains == "output":
        return "maps of the output"
    if attribution.explains in WHOLE:
        return f"maps of {WHOLE[attribution.explains]}"
    if targets is None:
        return "maps of a score of your own"
    if labels is not None and targets.shape == labels.shape and _are_of_labels(targets, labels):
        multi_label = marks_of(batch, attribution.logits.shape[1]) is not None
        return "maps of the true classes" if multi_label else "maps of the true class"
    if targets.ndim == 1 and torch.equal(targets, predict(attribution.logits)):
        return "maps of the predicted class"
    if targets.ndim == 1 and bool((targets == targets[0]).all()):
        return f"maps of class {_class_name(int(targets[0]), class_names)}"
    return "maps of given classes"


def _are_of_labels(targets: Tensor, labels: Tensor) -> bool:
    """Whether all samples with a label are explained by it; the others by what is predicted for them."""
    has_one = (labels > 0).any(dim=1) if labels.ndim == 2 else labels >= 0
    return bool(has_one.any()) and bool((targets == labels)[has_one].all())


def _region_words(attribution: Explanation) -> str:
    """Where a dense head's logits were summed, in words; empty for a callable, which sums as it likes."""
    if attribution.in_mask is None or attribution.explains == "score":
        return ""
    elsewhere = "over the image" if attribution.explains == "output" else "where it is predicted"
    places = {True: "over the object", False: elsewhere}
    return " " + " or ".join(place for there, place in places.items() if (attribution.in_mask == there).any())


def _true_label(batch: SaliencyBatch, subject: Explains, class_names: ClassNames) -> list[str]:
    labels = batch.labels
    if labels is None:
        return [""] * len(batch)
    if labels.ndim == 2:
        marks = [[_class_name(int(each), class_names) for each in row.nonzero()[:, 0]] for row in labels]
        return [f"true {_in_short(row)}" for row in marks]
    if subject == "output" or (labels.is_floating_point() and not torch.equal(labels, labels.round())):
        return [f"true {_number(label)}" if not math.isnan(label) else "" for label in labels.tolist()]
    return [f"true {_class_name(int(each), class_names)}" if each >= 0 else "" for each in labels.tolist()]


def _prediction(
    batch: SaliencyBatch, attribution: Explanation, subject: Explains, class_names: ClassNames
) -> list[str]:
    if subject == "output":
        return [f"predicted {_number(value)}" for value in attribution.outputs[:, 0].tolist()]
    if subject == "score":
        values = attribution.values.tolist() if attribution.values is not None else []
        return [f"score {_number(value)}" for value in values] or [""] * len(batch)
    if marks_of(batch, attribution.logits.shape[1]) is not None:
        return [f"predicted {_in_short(_likely(row, class_names))}" for row in _shares(batch, attribution)]
    shares, guesses = probabilities(batch, attribution).tolist(), predict(attribution.logits).tolist()
    nothing = (0, 0.5) if attribution.predicted_boxes is not None else None  # the background of a detector
    return [
        f"predicted {_class_name(guess, class_names)} ({share:.2f})"
        if (guess, share) != nothing
        else "nothing found"
        for guess, share in zip(guesses, shares, strict=True)
    ]


def _likely(shares: Tensor, class_names: ClassNames) -> list[str]:
    """The classes that are more likely than not, with their probability, the surest first."""
    order = shares.argsort(descending=True)
    surest = [int(each) for each in order if shares[each] > 0.5]
    return [f"{_class_name(each, class_names)} ({float(shares[each]):.2f})" for each in surest]


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
