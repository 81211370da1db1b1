"""The results of the causal checks: accuracy with n, interval and chance."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from typing import Any

import torch
from torch import Tensor

from lightning_gcam.cam.targets import are_multi_hot, predictions_of
from lightning_gcam.data import SaliencyBatch
from lightning_gcam.metrics import Measurement
from lightning_gcam.shortcuts.checks import CHECKS
from lightning_gcam.shortcuts.regions import AnnotatedRegions, regions_of_batch
from lightning_gcam.utils.errors import InputError

_Z = 1.959964
"""Of a normal distribution, 95% lie within so many standard deviations."""

Interval = tuple[float, float]


def wilson_interval(successes: float, n: float) -> Interval | None:
    """The interval of 95% of a share: unlike the plain one it is right for few samples, and for none or all of them.

    Args:
        successes: how many of the samples.
        n: the samples; without any there is no interval.

    Example:
        >>> [round(end, 3) for end in wilson_interval(16, 16)], [round(end, 3) for end in wilson_interval(8, 16)]
        ([0.806, 1.0], [0.28, 0.72])

    Source: Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22(158), 1927.
    """
    if n == 0:
        return None
    share, scale = successes / n, 1 + _Z**2 / n
    centre = (share + _Z**2 / (2 * n)) / scale
    reach = _Z / scale * sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2))
    return max(centre - reach, 0.0), min(centre + reach, 1.0)


def mean_share_interval(shares: Tensor, parts: int) -> Interval | None:
    """The interval of 95% of a mean of shares, each of the same number of parts that are right or wrong together.

    It is Wilson's with as many trials as the spread between the samples is worth: between one a sample, where its parts
    go together, and all parts, where they do not.

    Args:
        shares: `(n,)` of each sample's parts, those that are right.
        parts: how many each sample has.

    Example:
        >>> import torch
        >>> [round(end, 3) for end in mean_share_interval(torch.tensor([1.0, 0.0, 1.0, 0.0]), 2)]
        [0.15, 0.85]

    Source: Korn and Graubard, "Confidence intervals for proportions with small expected number of positive counts
    estimated from survey data", Survey Methodology 24(2), 1998: the effective number of trials.
    """
    n = len(shares)
    if n == 0:
        return None
    shares = shares.double()
    mean, spread = float(shares.mean()), float(shares.var(correction=1)) if n > 1 else 0.0
    trials = mean * (1 - mean) * n / spread if spread > 0 else n * parts if n > 1 else n
    trials = min(max(trials, n), n * parts)
    return wilson_interval(mean * trials, trials)


def difference_interval(first: int, second: int, n: int) -> Interval | None:
    """The interval of 95% of the difference of two shares of the same samples, made of the intervals of both.

    It takes the two as if they were of different samples, and is too wide, if anything, where they go together.

    Args:
        first: how many of the samples; their share is what the other's is taken from.
        second: how many of the samples.
        n: the samples; without any there is no interval.

    Example:
        >>> [round(end, 3) for end in difference_interval(0, 0, 16)]
        [-0.194, 0.194]

    Source: Newcombe, "Improved confidence intervals for the difference between binomial proportions based on paired
    data", Statistics in Medicine 17(22), 1998, method 10 with a correlation of 0.
    """
    one, other = wilson_interval(first, n), wilson_interval(second, n)
    if one is None or other is None:
        return None
    p, q = first / n, second / n
    below = sqrt((p - one[0]) ** 2 + (other[1] - q) ** 2)
    above = sqrt((one[1] - p) ** 2 + (q - other[0]) ** 2)
    return max(p - q - below, -1.0), min(p - q + above, 1.0)


def chance_level(labels: Tensor, num_logits: int) -> float:
    """The accuracy of a guess on these samples: one class out of K, or always the commonest one, whichever is more.

    Args:
        labels: `(n,)` classes, or `(n, K)` with one mark a row, of the samples that count.
        num_logits: K; a single logit stands for two classes.

    Example:
        >>> import torch
        >>> chance_level(torch.tensor([0, 1, 1, 2]), 10), chance_level(torch.tensor([0, 1]), 1)
        (0.5, 0.5)
    """
    guess = 1 / max(num_logits, 2)
    if not len(labels):
        return guess
    if labels.ndim == 2:
        return float((labels > 0).double().mean(dim=0).max())
    return max(guess, float(labels.bincount().max()) / len(labels))


def chance_of_marks(marks: Tensor) -> tuple[float, float]:
    """The accuracy of a guess where a sample may be of several classes: of the labels, and of whole samples.

    The first guesses for each label what most samples have, the second for all samples the commonest row.

    Args:
        marks: `(n, K)` bool, of the samples that count.

    Example:
        >>> import torch
        >>> chance_of_marks(torch.tensor([[True, False], [True, True], [False, False], [True, False]]))
        (0.75, 0.5)
    """
    if not len(marks):
        return 0.5, 0.5 ** marks.shape[1]
    share = marks.double().mean(dim=0)
    _, counts = marks.unique(dim=0, return_counts=True)
    return float(share.maximum(1 - share).mean()), float(counts.max()) / len(marks)


@dataclass(frozen=True)
class Reliance:
    """Accuracy on the samples as they are and on changed versions of them, with n, samples left out, and interval.

    Args:
        measurements: "accuracy" first, then each check that could be made.
        chance: the accuracy of a guess on these samples.
        exact_chance: the "exact_match" of a guess; None where a sample is of one class.

    Example:
        >>> accuracy = Measurement(0.75, 4, 0, 0, 0, (0.3, 0.95))
        >>> Reliance({"accuracy": accuracy}, 0.5).scores
        {'accuracy': 0.75, 'accuracy_chance': 0.5}
    """

    measurements: dict[str, Measurement]
    chance: float
    exact_chance: float | None = None

    @property
    def is_above_chance(self) -> bool:
        """Whether accuracy is clearly above chance: the lower end of its interval is."""
        accuracy = self.measurements.get("accuracy")
        return accuracy is not None and accuracy.interval is not None and accuracy.interval[0] > self.chance

    @property
    def scores(self) -> dict[str, float]:
        """Every value that exists, and the accuracy of a guess, as plain numbers by name."""
        accuracy = {name: each.value for name, each in self.measurements.items() if math.isfinite(each.value)}
        exact = {"exact_match_chance": self.exact_chance} if self.exact_chance is not None else {}
        return {**accuracy, "accuracy_chance": self.chance, **exact} if accuracy else {}

    def to_plain(self) -> dict[str, Any]:
        """Numbers, strings, lists and dicts only, for JSON and for checkpoints."""
        plain = {name: _plain(each) for name, each in self.measurements.items()}
        return {"measurements": plain, "chance": self.chance, "exact_chance": self.exact_chance}

    @staticmethod
    def from_plain(plain: Mapping[str, Any]) -> Reliance:
        """Read what `to_plain` wrote."""
        measurements = {name: _of_plain(each) for name, each in plain["measurements"].items()}
        return Reliance(measurements, float(plain["chance"]), plain.get("exact_chance"))


def _plain(measurement: Measurement) -> dict[str, Any]:
    plain = measurement._asdict()
    plain["value"] = measurement.value if math.isfinite(measurement.value) else None
    plain["interval"] = list(measurement.interval) if measurement.interval is not None else None
    return plain


def _of_plain(plain: Mapping[str, Any]) -> Measurement:
    interval = plain["interval"]
    value = math.nan if plain["value"] is None else float(plain["value"])
    return Measurement(
        **{**plain, "value": value, "interval": tuple(interval) if interval is not None else None}
    )


def measure_reliance(
    batch: SaliencyBatch,
    logits: Tensor,
    changed_logits: Mapping[str, Tensor],
    maps: Tensor | None = None,
    own_sigmoids: bool = True,
    annotated: AnnotatedRegions | None = None,
) -> Reliance:
    """Compare the predictions for changed images with the labels, or with each other.

    An accuracy is the share of samples whose predicted class is their label. Where a sample may be of several classes,
    one is predicted that is more likely than not; an accuracy is then the share of all labels, marked or not, that are
    predicted right (the mean over the labels), and `exact_match` that of the samples all of whose labels are, as in the
    picture. `salient_flips` is the share whose prediction changes with the most salient region outside of the object
    replaced, less that with a random one of the same shape, in [-1, 1]; 0 where saliency marks nothing special. All
    count the samples with a class and, where there are any, with an object that has something beside it.

    Args:
        batch: the samples.
        logits: `(N, K)`, of the samples as they are.
        changed_logits: `(N, K)` logits by the name of the version; see `changed_images`.
        maps: the saliency that `changed_images` was given, to leave out samples whose map is blank.
        own_sigmoids: whether each logit has a sigmoid of its own, where a sample may be of several classes.
        annotated: the batch's regions (`lightning_gcam.shortcuts.regions.regions_of_batch`), where they are known
            already.

    Returns:
        A `Reliance`; without a measurement where the labels are no classes.

    Raises:
        InputError: logits of another shape.

    Example:
        >>> batch = SaliencyBatch(torch.zeros(2, 1, 4, 4), torch.tensor([0, 1]))
        >>> measure_reliance(batch, torch.tensor([[2.0, 1.0], [0.0, 1.0]]), {}).scores
        {'accuracy': 1.0, 'accuracy_chance': 0.5}
    """
    _check_logits(logits, changed_logits, len(batch))
    annotated = annotated or regions_of_batch(batch)
    if annotated is None:
        return Reliance({}, chance_level(logits[:0], logits.shape[1]))
    blank = torch.zeros_like(annotated.known)
    if maps is not None:
        maps = maps.to(annotated.known.device).nan_to_num(0.0)
        salient = (maps > 0) & ~annotated.around if annotated.around is not None else maps > 0
        blank = ~salient.flatten(1).any(dim=1)  # nothing salient outside: there is nothing to replace
    multi_label = are_multi_hot(annotated.labels)
    guesses, finite = dict[str, Tensor](), dict[str, Tensor]()
    for name, each in {"": logits, **changed_logits}.items():
        guesses[name] = predictions_of(each, multi_label, own_sigmoids).to(annotated.labels.device)
        finite[name] = each.isfinite().all(dim=1)
    table = _Versions(annotated, guesses, finite, blank, multi_label)
    measurements = {"accuracy": table.accuracy("", table.counted)}
    if multi_label:
        measurements["exact_match"] = table.exact_match(table.counted)
    for name in CHECKS:
        if table.has_logits_for(name):
            measurements[name] = table.check(name)
    counted = annotated.labels[table.counted]
    if multi_label:
        return Reliance(measurements, *chance_of_marks(counted))
    return Reliance(measurements, chance_level(counted, logits.shape[1]))


def right_shares(guesses: Tensor, labels: Tensor) -> Tensor:
    """The share of each sample's predictions that are right, `(N,)` float64: 0 or 1 where it is of one class.

    Args:
        guesses: `(N,)` classes or `(N, K)` marks.
        labels: `(N,)` classes or `(N, K)` marks.

    Example:
        >>> right_shares(torch.tensor([0, 2]), torch.tensor([0, 1])).tolist()
        [1.0, 0.0]
        >>> marks = torch.tensor([[True, False], [True, True]])
        >>> right_shares(torch.tensor([0, 0]), marks).tolist(), right_shares(marks.flip(0), marks).tolist()
        ([1.0, 1.0], [0.5, 0.5])
    """
    if guesses.ndim == 2:
        return (guesses == labels).double().mean(dim=1)
    right = labels.gather(1, guesses[:, None])[:, 0] if labels.ndim == 2 else labels == guesses
    return right.double()


BEFORE = "_before"
"""What the accuracy on the unchanged images of a check's own samples is called, where they are not all."""


@dataclass(frozen=True)
class _Versions:
    """The predictions for all versions, and the samples that each check counts.

    Args:
        annotated: the samples' labels and regions.
        guesses: by version, `""` for the samples as they are: the predicted class `(N,)`, or marks `(N, K)`.
        finite: by version, whether each sample's logits are finite: `(N,)` bool.
        blank: `(N,)` bool: nothing is salient outside of the object.
        multi_label: whether a sample may be of several classes.
    """

    annotated: AnnotatedRegions
    guesses: Mapping[str, Tensor]
    finite: Mapping[str, Tensor]
    blank: Tensor
    multi_label: bool

    @property
    def counted(self) -> Tensor:
        """The samples that an accuracy counts: `(N,)` bool."""
        return self.annotated.counted

    def has_logits_for(self, check: str) -> bool:
        return all(version in self.guesses for version in CHECKS[check])

    def rows(self, name: str) -> Tensor:
        """The samples that have what a check takes: `(N,)` bool."""
        return self.counted & (self.annotated.donors >= 0) if name == "salient_flips" else self.counted

    def check(self, name: str) -> Measurement:
        """One check, on the samples that have what it takes."""
        if name == "salient_flips":
            return self._flips(self.rows(name), *CHECKS[name])
        return self.accuracy(CHECKS[name][0], self.rows(name))

    def accuracy(self, version: str, counted: Tensor) -> Measurement:
        """The share of samples whose predicted class is right, or the mean share of their labels."""
        counted = counted & self.finite[version]
        labels = self.annotated.labels
        shares = right_shares(self.guesses[version], labels)[counted]
        if self.multi_label:
            interval = mean_share_interval(shares, labels.shape[1])
        else:
            interval = wilson_interval(float(shares.sum()), len(shares))
        return self._measurement(float(shares.mean()) if len(shares) else math.nan, counted, interval)

    def exact_match(self, counted: Tensor) -> Measurement:
        """The share of samples all of whose labels are predicted right."""
        counted = counted & self.finite[""]
        right = (self.guesses[""] == self.annotated.labels).all(dim=1)
        hits, n = int((right & counted).sum()), int(counted.sum())
        return self._measurement(hits / n if n else math.nan, counted, wilson_interval(hits, n))

    def _flips(self, counted: Tensor, salient: str, random: str) -> Measurement:
        """The share of predictions that change with the salient region, less that with a random one."""
        for version in ("", salient, random):
            counted = counted & ~self.blank & self.finite[version]
        before, *after = (self.guesses[each].reshape(len(counted), -1) for each in ("", salient, random))
        with_salient, with_random = (int(((each != before).any(dim=1) & counted).sum()) for each in after)
        n = int(counted.sum())
        value = (with_salient - with_random) / n if n else math.nan
        interval = difference_interval(with_salient, with_random, n)
        return self._measurement(value, counted, interval, self.blank)

    def _measurement(
        self,
        value: float,
        counted: Tensor,
        interval: tuple[float, float] | None,
        blank: Tensor | None = None,
    ) -> Measurement:
        """The value, and why the other samples are left out."""
        has_masks = self.annotated.masks is not None
        no_mask = (
            ~counted & self.annotated.known & ~self.annotated.masked
            if has_masks
            else torch.zeros_like(counted)
        )
        blank = ~counted & ~no_mask & blank if blank is not None else torch.zeros_like(counted)
        undefined = ~counted & ~no_mask & ~blank
        n, *left_out = (int(each.sum()) for each in (counted, blank, no_mask, undefined))
        return Measurement(value, n, left_out[0], left_out[1], left_out[2], interval)


def _check_logits(logits: Tensor, changed_logits: Mapping[str, Tensor], n: int) -> None:
    if logits.ndim != 2 or len(logits) != n:
        raise InputError(f"`logits` must be ({n}, K), one row a sample; got {tuple(logits.shape)}.")
    for name, each in changed_logits.items():
        if each.shape != logits.shape:
            raise InputError(
                f'`changed_logits` "{name}" must be as the logits, {tuple(logits.shape)}; got {tuple(each.shape)}.'
            )
