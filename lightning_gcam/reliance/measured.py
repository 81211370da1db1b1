"""`Reliance`: what the answers to the changed images say of what the model relies on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_gcam._errors import InputError
from lightning_gcam.batch import SaliencyBatch
from lightning_gcam.cam.targets import are_marks, predict, predict_marks
from lightning_gcam.metrics import Measurement
from lightning_gcam.reliance.ground import Ground, ground_of
from lightning_gcam.reliance.intervals import (
    chance_level,
    chance_of_marks,
    difference_interval,
    mean_share_interval,
    wilson_interval,
)
from lightning_gcam.reliance.questions import CHECKS


@dataclass(frozen=True)
class Reliance:
    """Accuracy on the samples as they are and on changed versions of them, each with n, what was left out and how sure.

    Args:
        measurements: "accuracy" first, then each check that could be made.
        chance: what guessing reaches on these samples.
        exact_chance: what guessing reaches of "exact_match"; None where a sample is of one class.

    Example:
        >>> accuracy = Measurement(0.75, 4, 0, 0, 0, (0.3, 0.95))
        >>> Reliance({"accuracy": accuracy}, 0.5).scores
        {'accuracy': 0.75, 'accuracy_chance': 0.5}
    """

    measurements: dict[str, Measurement]
    chance: float
    exact_chance: float | None = None

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
        """What `to_plain` gave, back again."""
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
    answers: Mapping[str, Tensor],
    maps: Tensor | None = None,
    own_sigmoids: bool = True,
) -> Reliance:
    """Compare the answers to changed images with the labels, or with each other.

    Where a check can only speak of some of the samples, the accuracy of just these as they are stands beside it, as
    `<check>_before`.

    An accuracy is the share of samples whose predicted class is their label. Where a sample may be of several classes,
    one is predicted that is more likely than not; an accuracy is then the share of all labels, marked or not, that are
    predicted right (the mean over the labels), and `exact_match` that of the samples all of whose labels are, as in the
    picture. `salient_flips` is the share whose prediction changes with the most salient region outside of the object
    replaced, less that with a random one of the same shape, in [-1, 1], 0 where saliency tells nothing. All speak of
    the samples with a class and, where there are any, with an object that has something beside it.

    Args:
        batch: the samples.
        logits: `(N, K)`, the model's answers to them as they are.
        answers: `(N, K)` logits by the name of the version; see `changed_images`.
        maps: the saliency that `changed_images` was given, to leave out samples whose map is blank.
        own_sigmoids: whether each logit has a sigmoid of its own, where a sample may be of several classes.

    Returns:
        A `Reliance`; without a measurement where the labels are no classes.

    Raises:
        InputError: answers of another shape.

    Example:
        >>> batch = SaliencyBatch(torch.zeros(2, 1, 4, 4), torch.tensor([0, 1]))
        >>> measure_reliance(batch, torch.tensor([[2.0, 1.0], [0.0, 1.0]]), {}).scores
        {'accuracy': 1.0, 'accuracy_chance': 0.5}
    """
    _check_answers(logits, answers, len(batch))
    ground = ground_of(batch)
    if ground is None:
        return Reliance({}, chance_level(logits[:0], logits.shape[1]))
    blank = torch.zeros_like(ground.known)
    if maps is not None:
        maps = maps.to(ground.known.device).nan_to_num(0.0)
        salient = (maps > 0) & ~ground.around if ground.around is not None else maps > 0
        blank = ~salient.flatten(1).any(dim=1)  # nothing salient outside is no answer either
    table = _Table(ground, logits, answers, blank, are_marks(ground.labels), own_sigmoids)
    measurements = {"accuracy": table.accuracy(logits, table.counted)}
    if table.several:
        measurements["exact_match"] = table.exact_match(table.counted)
    for name in CHECKS:
        if table.has_answers_for(name):
            measurements[name] = table.check(name)
            if name.endswith("accuracy") and not torch.equal(table.rows(name), table.counted):
                measurements[f"{name}{BEFORE}"] = table.accuracy(logits, table.rows(name))
    counted = ground.labels[table.counted]
    if table.several:
        return Reliance(measurements, *chance_of_marks(counted))
    return Reliance(measurements, chance_level(counted, logits.shape[1]))


BEFORE = "_before"
"""What the accuracy of a check's own samples is called, where they are not all."""


@dataclass(frozen=True)
class _Table:
    """The answers beside what of the samples they speak for."""

    ground: Ground
    logits: Tensor
    answers: Mapping[str, Tensor]
    blank: Tensor
    several: bool
    own_sigmoids: bool

    @property
    def counted(self) -> Tensor:
        """The samples that everything speaks of, where possible: `(N,)` bool."""
        known, masked = self.ground.known, self.ground.masked
        return known & masked if (known & masked).any() else known

    def has_answers_for(self, check: str) -> bool:
        return all(question in self.answers for question in CHECKS[check])

    def rows(self, name: str) -> Tensor:
        """The samples that have what a check takes: `(N,)` bool."""
        if name == "suspect_swap_accuracy":
            return self.counted & (self.ground.suspect_partners >= 0)
        if name in ("background_swap_accuracy", "salient_flips"):
            return self.counted & (self.ground.partners >= 0)
        return self.counted

    def check(self, name: str) -> Measurement:
        """One check, on the samples that have what it takes."""
        if name == "salient_flips":
            return self._flips(self.rows(name), *CHECKS[name])
        return self.accuracy(self.answers[CHECKS[name][0]], self.rows(name))

    def accuracy(self, answers: Tensor, counted: Tensor) -> Measurement:
        """The share of samples whose predicted class is right, or the mean share of their labels."""
        counted = counted & _finite(answers)
        labels, guesses = self.ground.labels, self._predict(answers)
        if self.several:
            shares = (guesses == labels).double().mean(dim=1)[counted]
            value = float(shares.mean()) if len(shares) else math.nan
            return self._measurement(value, counted, mean_share_interval(shares, labels.shape[1]))
        right = labels.gather(1, guesses[:, None])[:, 0] if labels.ndim == 2 else labels == guesses
        hits, n = int((right & counted).sum()), int(counted.sum())
        return self._measurement(hits / n if n else math.nan, counted, wilson_interval(hits, n))

    def exact_match(self, counted: Tensor) -> Measurement:
        """The share of samples all of whose labels are predicted right."""
        counted = counted & _finite(self.logits)
        right = (self._predict(self.logits) == self.ground.labels).all(dim=1)
        hits, n = int((right & counted).sum()), int(counted.sum())
        return self._measurement(hits / n if n else math.nan, counted, wilson_interval(hits, n))

    def _predict(self, answers: Tensor) -> Tensor:
        """The predicted class `(N,)`, or the predicted marks `(N, K)`."""
        found = predict_marks(answers, self.own_sigmoids) if self.several else predict(answers)
        return found.to(self.ground.labels.device)

    def _flips(self, counted: Tensor, salient: str, random: str) -> Measurement:
        """The share of predictions that change with the salient region, less that with a random one."""
        answers = [self.logits, self.answers[salient], self.answers[random]]
        for each in answers:
            counted = counted & ~self.blank & _finite(each)
        before, *after = (self._predict(each).reshape(len(each), -1) for each in answers)
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
        has_masks = self.ground.masks is not None
        no_mask = (
            ~counted & self.ground.known & ~self.ground.masked if has_masks else torch.zeros_like(counted)
        )
        blank = ~counted & ~no_mask & blank if blank is not None else torch.zeros_like(counted)
        undefined = ~counted & ~no_mask & ~blank
        n, *left_out = (int(each.sum()) for each in (counted, blank, no_mask, undefined))
        return Measurement(value, n, left_out[0], left_out[1], left_out[2], interval)


def _finite(logits: Tensor) -> Tensor:
    return logits.isfinite().all(dim=1)


def _check_answers(logits: Tensor, answers: Mapping[str, Tensor], n: int) -> None:
    if logits.ndim != 2 or len(logits) != n:
        raise InputError(f"`logits` must be ({n}, K), one row a sample; got {tuple(logits.shape)}.")
    for name, each in answers.items():
        if each.shape != logits.shape:
            raise InputError(
                f'`answers` "{name}" must be as the logits, {tuple(logits.shape)}; got {tuple(each.shape)}.'
            )
