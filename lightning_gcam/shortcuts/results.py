"""The results of the causal checks: accuracy with n, interval and chance."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_gcam.cam.targets import are_multi_hot, predictions_of
from lightning_gcam.data import SaliencyBatch
from lightning_gcam.metrics import Measurement
from lightning_gcam.shortcuts.checks import BEFORE, CHECKS, takes_masks
from lightning_gcam.shortcuts.exchange import KEPT
from lightning_gcam.shortcuts.regions import AnnotatedRegions, regions_of_batch
from lightning_gcam.shortcuts.shares import (
    chance_level,
    chance_of_marks,
    difference_interval,
    mean_share_interval,
    right_shares,
    wilson_interval,
)
from lightning_gcam.utils.errors import InputError


@dataclass(frozen=True)
class Reliance:
    """Accuracy on the samples as they are and on changed versions of them, with n, samples left out, and interval.

    Args:
        measurements: "accuracy" first, then each check that could be made.
        chance: the accuracy of a guess on these samples.
        exact_chance: the "exact_match" of a guess; None where a sample is of one class.
        num_classes: of which a sample is one; None where it may be of several, or where that is not known.
        object_chance: the accuracy of a guess on the samples with an object, where these are not all; else None.

    Example:
        >>> accuracy = Measurement(0.75, 4, 0, 0, 0, (0.3, 0.95))
        >>> Reliance({"accuracy": accuracy}, 0.5).scores
        {'accuracy': 0.75, 'accuracy_chance': 0.5}
    """

    measurements: dict[str, Measurement]
    chance: float
    exact_chance: float | None = None
    num_classes: int | None = None
    object_chance: float | None = None

    def chance_of(self, name: str) -> float:
        """The accuracy of a guess on the samples that a check counts.

        Args:
            name: of the check, or of its accuracy.

        Example:
            >>> reliance = Reliance({}, 0.5, object_chance=0.75)
            >>> reliance.chance_of("background_only_accuracy"), reliance.chance_of("border_swap_accuracy")
            (0.75, 0.5)
        """
        of_object = self.object_chance is not None and takes_masks(name.removesuffix(KEPT))
        return self.object_chance if of_object else self.chance  # type: ignore[return-value]

    @property
    def is_above_chance(self) -> bool:
        """Whether accuracy is clearly above chance: the lower end of its interval is."""
        accuracy = self.measurements.get("accuracy")
        return accuracy is not None and accuracy.interval is not None and accuracy.interval[0] > self.chance

    @property
    def scores(self) -> dict[str, float]:
        """Every value that exists, and the accuracy of a guess, as plain numbers by name."""
        accuracy = {name: each.value for name, each in self.measurements.items() if math.isfinite(each.value)}
        others = {"exact_match_chance": self.exact_chance, "object_accuracy_chance": self.object_chance}
        there = {name: each for name, each in others.items() if each is not None}
        return {**accuracy, "accuracy_chance": self.chance, **there} if accuracy else {}

    def beside(self, scores: Mapping[str, float]) -> dict[str, float]:
        """Scores, and the checks beside them; a score of the user's that has a check's name stays.

        Example:
            >>> accuracy = Measurement(0.75, 4, 0, 0, 0, (0.3, 0.95))
            >>> Reliance({"accuracy": accuracy}, 0.5).beside({"energy": 0.4, "accuracy": 0.9})
            {'energy': 0.4, 'accuracy': 0.9, 'accuracy_chance': 0.5}
        """
        return {**scores, **{name: value for name, value in self.scores.items() if name not in scores}}

    def to_plain(self) -> dict[str, Any]:
        """Numbers, strings, lists and dicts only, for JSON and for checkpoints."""
        plain = {name: _plain(each) for name, each in self.measurements.items()}
        others = {"exact_chance": self.exact_chance, "num_classes": self.num_classes}
        return {
            "measurements": plain,
            "chance": self.chance,
            **others,
            "object_chance": self.object_chance,
        }

    @staticmethod
    def from_plain(plain: Mapping[str, Any]) -> Reliance:
        """Read what `to_plain` wrote."""
        measurements = {name: _of_plain(each) for name, each in plain["measurements"].items()}
        others = (plain.get(each) for each in ("exact_chance", "num_classes", "object_chance"))
        return Reliance(measurements, float(plain["chance"]), *others)


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
    replaced, less that with a random one of the same shape, in [-1, 1]; 0 where saliency marks nothing special.

    `accuracy` and `exact_match` count the samples with a class; the checks those of them with an object that leaves, as
    it is removed, at least a quarter of the image: less is too little to know anything by. Where these are not all,
    `<check>_before` is the accuracy on just these as they are, and `object_accuracy_chance` that of a guess: healthy
    cases with an empty mask count where no object is needed. `background_share` is the share of the image that is left,
    the mean over all samples with an object.

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
        maps = maps.cpu().nan_to_num(0.0)
        salient = (maps > 0) & ~annotated.around if annotated.around is not None else maps > 0
        blank = ~salient.flatten(1).any(dim=1)  # nothing salient outside: there is nothing to replace
    multi_label = are_multi_hot(annotated.labels)
    guesses, finite = dict[str, Tensor](), dict[str, Tensor]()
    for name, each in {"": logits, **changed_logits}.items():
        each = each.cpu()
        guesses[name] = predictions_of(each, multi_label, own_sigmoids)
        finite[name] = each.isfinite().all(dim=1)
    table = _Versions(annotated, guesses, finite, blank, multi_label)
    measurements = {"accuracy": table.accuracy("", annotated.known)}
    if multi_label:
        measurements["exact_match"] = table.exact_match(annotated.known)
    some_lack_objects = not torch.equal(annotated.with_object, annotated.known)
    for name in CHECKS:
        if table.has_logits_for(name):
            measurements[name] = table.check(name)
            if some_lack_objects and name != "salient_flips":
                measurements[name + BEFORE] = table.accuracy("", annotated.with_object)
    if "background_only_accuracy" in measurements:
        measurements["background_share"] = _room_of(annotated)
    elif (annotated.known & annotated.crowded).any() and not (annotated.known & annotated.masked).any():
        measurements["background_only_accuracy"] = _without_room(annotated)
    num_classes = None if multi_label else max(logits.shape[1], 2)  # a single logit stands for two

    def chances(counted: Tensor) -> tuple[float, float | None]:
        labels = annotated.labels[counted]
        return (chance_level(labels, num_classes), None) if num_classes else chance_of_marks(labels)

    object_chance = chances(annotated.with_object)[0] if some_lack_objects else None
    return Reliance(measurements, *chances(annotated.known), num_classes, object_chance)


def _room_of(annotated: AnnotatedRegions) -> Measurement:
    """The share of the image that is left without the object, the mean over the samples with a class and an object."""
    with_room = annotated.known & annotated.room.isfinite()
    rooms, n = annotated.room[with_room], int(with_room.sum())
    no_mask = int((annotated.known & ~with_room).sum())
    return Measurement(float(rooms.mean()) if n else math.nan, n, 0, no_mask, 0, None)


def _without_room(annotated: AnnotatedRegions) -> Measurement:
    """The accuracy without the object where no object leaves enough of the image: of no sample."""
    no_room, known = (int(each.sum()) for each in (annotated.known & annotated.crowded, annotated.known))
    return Measurement(math.nan, 0, 0, known - no_room, len(annotated.known) - known, None, no_room)


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

    def has_logits_for(self, check: str) -> bool:
        return all(version in self.guesses for version in CHECKS[check])

    def rows(self, name: str) -> Tensor:
        """The samples that have what a check takes: `(N,)` bool."""
        there = self.annotated.with_object
        return there & (self.annotated.donors >= 0) if name == "salient_flips" else there

    def check(self, name: str) -> Measurement:
        """One check, on the samples that have what it takes."""
        if name == "salient_flips":
            return self._flips(self.rows(name), *CHECKS[name])
        return self.accuracy(CHECKS[name][0], self.rows(name))

    def accuracy(self, version: str, rows: Tensor) -> Measurement:
        """The share of samples whose predicted class is right, or the mean share of their labels."""
        counted = rows & self.finite[version]
        labels = self.annotated.labels
        shares = right_shares(self.guesses[version], labels)[counted]
        if self.multi_label:
            interval = mean_share_interval(shares, labels.shape[1])
        else:
            interval = wilson_interval(float(shares.sum()), len(shares))
        return self._measurement(float(shares.mean()) if len(shares) else math.nan, rows, counted, interval)

    def exact_match(self, rows: Tensor) -> Measurement:
        """The share of samples all of whose labels are predicted right."""
        counted = rows & self.finite[""]
        right = (self.guesses[""] == self.annotated.labels).all(dim=1)
        hits, n = int((right & counted).sum()), int(counted.sum())
        return self._measurement(hits / n if n else math.nan, rows, counted, wilson_interval(hits, n))

    def _flips(self, rows: Tensor, salient: str, random: str) -> Measurement:
        """The share of predictions that change with the salient region, less that with a random one."""
        counted = rows & ~self.blank
        for version in ("", salient, random):
            counted = counted & self.finite[version]
        before, *after = (self.guesses[each].reshape(len(counted), -1) for each in ("", salient, random))
        with_salient, with_random = (int(((each != before).any(dim=1) & counted).sum()) for each in after)
        n = int(counted.sum())
        value = (with_salient - with_random) / n if n else math.nan
        interval = difference_interval(with_salient, with_random, n)
        return self._measurement(value, rows, counted, interval, self.blank)

    def _measurement(
        self,
        value: float,
        rows: Tensor,
        counted: Tensor,
        interval: tuple[float, float] | None,
        blank: Tensor | None = None,
    ) -> Measurement:
        """The value, and why the other samples are left out: those beside `rows`, which the check takes, too."""
        no_mask = torch.zeros_like(counted)
        if self.annotated.masks is not None:
            no_mask = ~rows & self.annotated.known & ~self.annotated.masked
        blank = ~counted & ~no_mask & blank if blank is not None else torch.zeros_like(counted)
        undefined = ~counted & ~no_mask & ~blank
        no_room = no_mask & self.annotated.crowded
        reasons = (counted, blank, no_mask & ~no_room, undefined, no_room)
        n, blanks, no_masks, undefineds, no_rooms = (int(each.sum()) for each in reasons)
        return Measurement(value, n, blanks, no_masks, undefineds, interval, no_rooms)


def _check_logits(logits: Tensor, changed_logits: Mapping[str, Tensor], n: int) -> None:
    if logits.ndim != 2 or len(logits) != n:
        raise InputError(f"`logits` must be ({n}, K), one row a sample; got {tuple(logits.shape)}.")
    for name, each in changed_logits.items():
        if each.shape != logits.shape:
            raise InputError(
                f'`changed_logits` "{name}" must be as the logits, {tuple(logits.shape)}; got {tuple(each.shape)}.'
            )
