"""Exchange checks: the predictions for images with a borrowed property, counted as kept or as following the donor."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_gcam.cam.targets import are_multi_hot, predict, predict_multi_hot
from lightning_gcam.data import SaliencyBatch
from lightning_gcam.metrics import Measurement
from lightning_gcam.shortcuts.exchange import available_properties, exchange_property
from lightning_gcam.shortcuts.regions import classes_of_labels
from lightning_gcam.shortcuts.results import mean_share_interval

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


def donors_of_batch(batch: SaliencyBatch) -> tuple[Tensor, Tensor, Donors] | None:
    """The labels, which of them are known, and the donors of a batch; None where its labels are no classes."""
    labels = classes_of_labels(batch)
    if labels is None:
        return None
    if labels.ndim == 2:
        known = torch.ones_like(labels[:, 0]) if are_multi_hot(labels) else labels.any(dim=1)
    else:
        known = labels >= 0
    return labels, known, Donors.of(labels, known)


def swap_version(name: str, donor: int) -> str:
    """The name of the images that borrow the property `name` of their donor number `donor` of another class."""
    return f"{name}_swap_{donor}"


def same_class_version(name: str, donor: int) -> str:
    """The name of the images that borrow the property `name` of their donor number `donor` of the same class."""
    return f"{name}_same_class_{donor}"


def exchange_versions(batch: SaliencyBatch, names: Sequence[str]) -> dict[str, tuple[str, Tensor]]:
    """The versions of a batch that the exchange checks of some properties need.

    Args:
        batch: the samples.
        names: of the properties; those that images of so few channels do not have are left out.

    Returns:
        By the version's name, the property, and the row of each sample's donor `(N,)` int64, -1 for none. Empty where
        the labels are no classes, or all of one class.
    """
    found = donors_of_batch(batch)
    if found is None or not bool((found[2].others >= 0).any()):
        return {}
    donors = found[2]
    versions: dict[str, tuple[str, Tensor]] = {}
    for name in names:
        if name in available_properties(batch.images.shape[1]):
            for number in range(NUM_DONORS):
                versions[swap_version(name, number)] = name, donors.others[:, number]
                versions[same_class_version(name, number)] = name, donors.mates[:, number]
    return versions


def borrowed(images: Tensor, name: str, donors: Tensor, rows: Tensor) -> Tensor:
    """Some images with a property of their donors; an image without a donor stays as it is.

    Args:
        images: `(N, C, H, W)`.
        name: of the property.
        donors: `(N,)`, the row of each sample's donor, -1 for none.
        rows: `(n,)`, the samples to change.

    Returns:
        `(n, C, H, W)`.
    """
    taken = donors[rows]
    changed = exchange_property(name, images[rows], images[taken.clamp(min=0)])
    return torch.where((taken >= 0)[:, None, None, None], changed, images[rows])


def measure_exchanges(
    batch: SaliencyBatch,
    logits: Tensor,
    changed: Mapping[str, Tensor],
    names: Sequence[str],
    own_sigmoids: bool = True,
) -> dict[str, Measurement]:
    """Count the predictions that stay with the image, and those that follow the donor.

    For each property there are

    - `<name>_swap_accuracy`: the share of predictions that are the image's own class,
    - `<name>_follow_rate`: the share of predictions that are the donor's class,
    - `<name>_follow_chance`: the share of untouched images that are taken for the donor's class already,
    - `<name>_same_class_accuracy`: as the first, with donors of the image's own class: how strange the change is by
      itself. Left out where no class has two samples.

    With two classes a prediction that is not kept follows, whatever the reason: the same-class control tells them
    apart. Where a sample may be of several classes, the labels in which it differs from its donor are counted.

    Args:
        batch: the samples.
        logits: `(N, K)`, of the samples as they are.
        changed: `(N, K)` logits by the name of the version; see `exchange_versions`.
        names: of the properties.
        own_sigmoids: whether each logit has a sigmoid of its own, where a sample may be of several classes.

    Returns:
        Each value with n, what was left out, and an interval.

    Example:
        >>> batch = SaliencyBatch(torch.rand(2, 1, 4, 4), torch.tensor([0, 1]))
        >>> own, other = torch.eye(2), torch.eye(2).flip(0)
        >>> follows = {f"border_swap_{number}": other for number in range(2)}
        >>> found = measure_exchanges(batch, own, follows, ["border"])
        >>> {name: each.value for name, each in found.items()}
        {'border_swap_accuracy': 0.0, 'border_follow_rate': 1.0, 'border_follow_chance': 0.0}
    """
    found = donors_of_batch(batch)
    if found is None:
        return {}
    labels, known, donors = found
    guesses = _Guesses(labels, known, are_multi_hot(labels), own_sigmoids)
    measured: dict[str, Measurement] = {}
    for name in names:
        swapped = [changed.get(swap_version(name, number)) for number in range(NUM_DONORS)]
        if all(each is not None for each in swapped):
            kept, followed = guesses.against(swapped, donors.others)
            _, already = guesses.against([logits] * NUM_DONORS, donors.others)
            measured[f"{name}_swap_accuracy"] = kept
            measured[f"{name}_follow_rate"] = followed
            measured[f"{name}_follow_chance"] = already
        same = [changed.get(same_class_version(name, number)) for number in range(NUM_DONORS)]
        if all(each is not None for each in same) and bool((donors.mates >= 0).any()):
            measured[f"{name}_same_class_accuracy"] = guesses.accuracy(same, donors.mates)
    return measured


@dataclass(frozen=True)
class _Guesses:
    """The labels of the samples, and how predictions are compared with them."""

    labels: Tensor
    known: Tensor
    several: bool
    own_sigmoids: bool

    def against(self, logits: Sequence[Tensor | None], donors: Tensor) -> tuple[Measurement, Measurement]:
        """The predictions that are the image's own class, and those that are the donor's."""
        pairs = [self._shares(each, donors[:, number]) for number, each in enumerate(logits)]
        kept, followed = (torch.stack(each, dim=1) for each in zip(*pairs, strict=True))
        return self._measurement(kept), self._measurement(followed)

    def accuracy(self, logits: Sequence[Tensor | None], donors: Tensor) -> Measurement:
        """The predictions that are the image's own class, with donors of the same class."""
        shares = [
            torch.where(donors[:, number] >= 0, self._right(self._predict(each), self.labels), torch.nan)
            for number, each in enumerate(logits)
        ]
        return self._measurement(torch.stack(shares, dim=1))

    def _shares(self, logits: Tensor | None, donors: Tensor) -> tuple[Tensor, Tensor]:
        """For each sample the share that is kept, and that which follows; NaN where there is no donor."""
        guesses, lent = self._predict(logits), self.labels[donors.clamp(min=0)]
        if self.several:
            differs = (self.labels != lent).double()
            kept = ((guesses == self.labels) * differs).sum(dim=1) / differs.sum(dim=1)
            followed = 1 - kept
        else:
            kept, followed = self._right(guesses, self.labels), self._right(guesses, lent)
        has_donor = donors >= 0
        return torch.where(has_donor, kept, torch.nan), torch.where(has_donor, followed, torch.nan)

    def _right(self, guesses: Tensor, labels: Tensor) -> Tensor:
        """The share of each sample's predictions that are these labels, `(N,)` float64; NaN where not finite."""
        if self.several:
            return (guesses == labels).double().mean(dim=1)
        if labels.ndim == 2:
            return labels.gather(1, guesses.clamp(min=0)[:, None])[:, 0].double()
        return (guesses == labels).double()

    def _predict(self, logits: Tensor | None) -> Tensor:
        assert logits is not None
        found = predict_multi_hot(logits, self.own_sigmoids) if self.several else predict(logits)
        return found.to(self.labels.device)

    def _measurement(self, shares: Tensor) -> Measurement:
        """The mean over the samples that have donors, of each sample's mean over its donors."""
        counted = self.known & shares.isfinite().all(dim=1)
        each = shares[counted].mean(dim=1)
        value = float(each.mean()) if len(each) else math.nan
        return Measurement(
            value, len(each), 0, 0, int((~counted).sum()), mean_share_interval(each, NUM_DONORS)
        )
