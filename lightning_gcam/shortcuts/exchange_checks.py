"""Exchange checks: the predictions for images with a borrowed property, counted as kept or as following the donor."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from lightning_gcam.cam.targets import are_multi_hot, predictions_of
from lightning_gcam.data import SaliencyBatch
from lightning_gcam.metrics import Measurement
from lightning_gcam.shortcuts.checks import MakeImages
from lightning_gcam.shortcuts.exchange import available_properties, exchange_property
from lightning_gcam.shortcuts.regions import classes_of_labels, have_class
from lightning_gcam.shortcuts.results import mean_share_interval, right_shares

NUM_DONORS = 2
"""How many donors of another class, and of its own class, each sample has."""


@dataclass(frozen=True)
class Donors:
    """The samples that each sample borrows from, the same at every look.

    Args:
        others: `(N, NUM_DONORS)` int64, rows of another class (with several classes a sample: another set of them).
        mates: `(N, NUM_DONORS)` int64, further rows of its own class. -1 where there is none, as in `others`.
    """

    others: Tensor
    mates: Tensor

    @staticmethod
    def of(labels: Tensor, known: Tensor) -> Donors:
        """Choose the donors in turn, so that each sample lends about as often as every other.

        Args:
            labels: `(N,)` classes or `(N, K)` marks.
            known: `(N,)` bool, the samples with a class.

        Example:
            >>> donors = Donors.of(torch.tensor([0, 0, 1, 1, -1]), torch.tensor([True] * 4 + [False]))
            >>> donors.others.tolist()
            [[2, 3], [2, 3], [0, 1], [0, 1], [-1, -1]]
            >>> donors.mates.tolist()
            [[1, 1], [0, 0], [3, 3], [2, 2], [-1, -1]]
        """
        classes = labels.unique(dim=0, return_inverse=True)[1]
        others = torch.full((len(classes), NUM_DONORS), -1, device=classes.device)
        mates, rows = others.clone(), known.nonzero()[:, 0]
        for turn, row in enumerate(rows.tolist()):
            is_mate = classes[rows] == classes[row]
            _take(others, row, rows[~is_mate], turn)
            _take(mates, row, rows[is_mate & (rows != row)], turn)
        return Donors(others, mates)


def _take(donors: Tensor, row: int, candidates: Tensor, turn: int) -> None:
    if len(candidates):
        places = (turn * NUM_DONORS + torch.arange(NUM_DONORS, device=donors.device)) % len(candidates)
        donors[row] = candidates[places]


@dataclass(frozen=True)
class Exchanges:
    """The exchange checks of a batch: the changed images that they need, and what the logits for these measure.

    Args:
        images: `(N, C, H, W)`, the samples.
        names: of the properties that are exchanged.
        labels: `(N,)` classes or `(N, K)` marks.
        known: `(N,)` bool, the samples with a class.
        donors: of each sample.

    Example:
        >>> batch = SaliencyBatch(torch.rand(2, 1, 4, 4), torch.tensor([0, 1]))
        >>> exchanges = Exchanges.of(batch, ["border", "color"])  # a grey image has no colour
        >>> list(exchanges.versions())
        ['border_swap_0', 'border_swap_1']
        >>> follows = dict.fromkeys(exchanges.versions(), torch.eye(2).flip(0))
        >>> {name: each.value for name, each in exchanges.measure(torch.eye(2), follows).items()}
        {'border_swap_accuracy': 0.0, 'border_follow_rate': 1.0, 'border_follow_chance': 0.0}
    """

    images: Tensor
    names: tuple[str, ...]
    labels: Tensor
    known: Tensor
    donors: Donors

    @staticmethod
    def of(batch: SaliencyBatch, names: Sequence[str]) -> Exchanges | None:
        """The exchanges of some properties; None where there are none.

        Args:
            batch: the samples.
            names: of the properties; those that images of so few channels do not have are left out.

        Returns:
            None where no property is left, the labels are no classes, or all samples are of one class.
        """
        there = tuple(name for name in names if name in available_properties(batch.images.shape[1]))
        labels = classes_of_labels(batch) if there else None
        if labels is None:
            return None
        known = have_class(labels)
        donors = Donors.of(labels, known)
        return Exchanges(batch.images, there, labels, known, donors) if (donors.others >= 0).any() else None

    def versions(self) -> dict[str, MakeImages]:
        """By the name of each changed version, a function that makes its images of some samples."""
        sides = {"swap": self.donors.others, "same_class": self.donors.mates}
        return {
            _version(name, side, number): partial(self.borrowed, name, rows[:, number])
            for name in self.names
            for side, rows in sides.items()
            if (rows >= 0).any()
            for number in range(NUM_DONORS)
        }

    def borrowed(self, name: str, donors: Tensor, rows: Tensor) -> Tensor:
        """Some images with a property of their donors; an image without a donor stays as it is."""
        taken = donors[rows]
        changed = exchange_property(name, self.images[rows], self.images[taken.clamp(min=0)])
        return torch.where((taken >= 0)[:, None, None, None], changed, self.images[rows])

    def measure(
        self, logits: Tensor, changed_logits: Mapping[str, Tensor], own_sigmoids: bool = True
    ) -> dict[str, Measurement]:
        """Count the predictions that stay with the image, and those that follow the donor.

        For each property there are

        - `<name>_swap_accuracy`: the share of predictions that are the image's own class,
        - `<name>_follow_rate`: the share of predictions that are the donor's class,
        - `<name>_follow_chance`: the share of untouched images that are taken for the donor's class already,
        - `<name>_same_class_accuracy`: as the first, with donors of the image's own class: how strange the change is
          by itself. Left out where no class has two samples.

        With two classes a prediction that is not kept follows, whatever the reason: the same-class control tells them
        apart. Where a sample may be of several classes, the labels in which it differs from its donor are counted.
        Samples whose logits are not finite are left out.

        Args:
            logits: `(N, K)`, of the samples as they are.
            changed_logits: `(N, K)` logits by the name of the version; a property that lacks one is left out.
            own_sigmoids: whether each logit has a sigmoid of its own, where a sample may be of several classes.

        Returns:
            Each value with n, what was left out, and an interval.
        """
        measured: dict[str, Measurement] = {}
        for name in self.names:
            swapped = self._predictions(changed_logits, name, "swap", own_sigmoids)
            if swapped is not None:
                before = [self._prediction(logits, own_sigmoids)] * NUM_DONORS
                measured[f"{name}_swap_accuracy"] = self._swapped(swapped, of_donor=False)
                measured[f"{name}_follow_rate"] = self._swapped(swapped, of_donor=True)
                measured[f"{name}_follow_chance"] = self._swapped(before, of_donor=True)
            same = self._predictions(changed_logits, name, "same_class", own_sigmoids)
            if same is not None:
                shares = [
                    torch.where(finite, right_shares(each, self.labels), torch.nan) for each, finite in same
                ]
                measured[f"{name}_same_class_accuracy"] = self._measurement(shares, self.donors.mates)
        return measured

    def _predictions(
        self, changed_logits: Mapping[str, Tensor], name: str, side: str, own_sigmoids: bool
    ) -> list[tuple[Tensor, Tensor]] | None:
        """The predictions with each donor of one side; None where a version is missing."""
        found = [changed_logits.get(_version(name, side, number)) for number in range(NUM_DONORS)]
        there = [self._prediction(each, own_sigmoids) for each in found if each is not None]
        return there if len(there) == NUM_DONORS else None

    def _prediction(self, logits: Tensor, own_sigmoids: bool) -> tuple[Tensor, Tensor]:
        """The predicted class `(N,)`, or marks `(N, K)`, and whether each sample's logits are finite `(N,)`."""
        guesses = predictions_of(logits, are_multi_hot(self.labels), own_sigmoids)
        return guesses.to(self.labels.device), logits.isfinite().all(dim=1).to(self.labels.device)

    def _swapped(self, predictions: Sequence[tuple[Tensor, Tensor]], of_donor: bool) -> Measurement:
        """The share of predictions that are the donor's class, or the image's own.

        Where a sample may be of several classes, only the labels in which it differs from its donor are counted.
        """
        shares = []
        for (guesses, finite), donors in zip(predictions, self.donors.others.unbind(dim=1), strict=True):
            theirs = self.labels[donors.clamp(min=0)]
            labels = theirs if of_donor else self.labels
            if guesses.ndim == 2:
                differs = (self.labels != theirs).double()
                share = ((guesses == labels) * differs).sum(dim=1) / differs.sum(dim=1)
            else:
                share = right_shares(guesses, labels)
            shares.append(torch.where(finite, share, torch.nan))
        return self._measurement(shares, self.donors.others)

    def _measurement(self, shares: Sequence[Tensor], donors: Tensor) -> Measurement:
        """The mean over the samples with donors and finite logits, of each sample's mean over its donors."""
        by_donor = torch.stack(list(shares), dim=1)
        counted = self.known & (donors >= 0).all(dim=1) & by_donor.isfinite().all(dim=1)
        each = by_donor[counted].mean(dim=1)
        value = float(each.mean()) if len(each) else math.nan
        interval = mean_share_interval(each, NUM_DONORS)
        return Measurement(value, len(each), 0, 0, int((~counted).sum()), interval)


def _version(name: str, side: str, number: int) -> str:
    """The name of the images with a property of their donor `number`, of another class ("swap") or of the same."""
    return f"{name}_{side}_{number}"
