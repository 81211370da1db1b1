"""Exchange checks: the predictions for images with a borrowed property, counted as kept or as following the donor."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import cast

import torch
from torch import Tensor

from lightning_gcam.cam.targets import are_multi_hot, predictions_of
from lightning_gcam.data import SaliencyBatch
from lightning_gcam.metrics import Measurement
from lightning_gcam.shortcuts.checks import BEFORE, MakeImages, removed_objects
from lightning_gcam.shortcuts.exchange import (
    CHANCE,
    KEPT,
    RATE,
    SAME_CLASS,
    SAME_CLASS_RATE,
    available_properties,
    exchange_property,
    property_of,
)
from lightning_gcam.shortcuts.regions import (
    NUM_DONORS,
    NUM_MATES,
    AnnotatedRegions,
    Donors,
    regions_of_batch,
    salient_place,
)
from lightning_gcam.shortcuts.removal import DEFAULT_REMOVAL, Removal, RemovedObjects, exchange_regions
from lightning_gcam.shortcuts.shares import mean_share_interval, right_shares
from lightning_gcam.utils.transfer import to_device

_SIDES = {"swap": NUM_DONORS, "same_class": NUM_MATES}
_BY_SALIENCY = "salient_region"
_PLACES = (_BY_SALIENCY, "suspect")


@dataclass(frozen=True)
class Exchanges:
    """The exchange checks of a batch: the changed images that they need, and what the logits for these measure.

    Images are changed where they are; all that is counted is on the host.

    Args:
        images: `(N, C, *S)`, the samples, on any device.
        annotated: the samples' classes and regions.
        donors: of each sample, by property: not every sample has a mask, or a suspect region.
        places: the regions `(N, *S)` bool of "salient_region" and "suspect", on the host.
        removal: how an object is removed.

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
    annotated: AnnotatedRegions
    donors: Mapping[str, Donors]
    places: Mapping[str, Tensor] = field(default_factory=dict)
    removal: Removal = DEFAULT_REMOVAL

    @staticmethod
    def of(
        batch: SaliencyBatch,
        names: Sequence[str],
        maps: Tensor | None = None,
        removal: Removal = DEFAULT_REMOVAL,
        annotated: AnnotatedRegions | None = None,
        known: Mapping[str, Donors] | None = None,
    ) -> Exchanges | None:
        """The exchanges of some properties; None where there are none.

        What only images are needed for is exchanged by `exchange_property`. Besides,

        - "salient_region" exchanges the place where the saliency of all samples concentrates (`salient_place`);
        - "suspect" exchanges the samples' suspect regions. Of both, what lies on an object stays as it is, and no part
          of the donor's object is copied, as far as masks tell;
        - "background" puts the object on the donor's background, from which the donor's own object is removed;
        - "object" puts the donor's object into the image: the same changed images, with the roles exchanged.

        Args:
            batch: the samples.
            names: of the properties; those that the images or their annotation do not have are left out.
            maps: `(N, *S)` saliency; without it no "salient_region".
            removal: how an object is removed; see `lightning_gcam.shortcuts.remove_regions`.
            annotated: the batch's regions, where they are known already.
            known: the donors of these properties without `maps`, where they are: no look changes them.

        Returns:
            None where no property is left, the labels are no classes, or all samples are of one class.
        """
        annotated = annotated or (regions_of_batch(batch) if names else None)
        if annotated is None:
            return None
        places = {"suspect": annotated.suspect} if annotated.suspect is not None else {}
        found = Exchanges(batch.images, annotated, known or {}, places, removal)
        if known is None:
            found = found._with_donors([name for name in names if name != _BY_SALIENCY])
        if _BY_SALIENCY in names and maps is not None and (place := salient_place(maps.cpu())).any():
            everywhere = place.expand(len(batch), *place.shape)
            found = replace(found, places={**places, _BY_SALIENCY: everywhere})._with_donors([_BY_SALIENCY])
        return found if found.donors else None

    def _with_donors(self, names: Sequence[str]) -> Exchanges:
        """The same with donors for further properties, of those that there are some for.

        They are chosen once for each set of samples that may borrow and lend: most properties are those of all samples.
        """
        donors = dict(self.donors)
        chosen = {tuple((each.others[:, 0] >= 0).tolist()): each for each in donors.values()}
        for name in available_properties(self.images.shape[1], self.images.ndim - 2):
            if name in names and (usable := self._usable(name)) is not None:
                key = tuple(usable.tolist())
                chosen[key] = chosen.get(key) or Donors.of(self.annotated.labels, usable)
                if (chosen[key].others >= 0).any():
                    donors[name] = chosen[key]
        return replace(self, donors={name: donors[name] for name in available_properties() if name in donors})

    def lacking(self, names: Sequence[str]) -> list[str]:
        """Of some properties, those that take nothing but images, and that these do not have: the colour of grey ones.

        Args:
            names: of the properties.
        """
        return [name for name in names if property_of(name).exchange is not None and name not in self.donors]

    @property
    def names(self) -> tuple[str, ...]:
        """The properties that are exchanged, in the order of `available_properties`."""
        return tuple(self.donors)

    def versions(self, bare: RemovedObjects | None = None) -> dict[str, MakeImages]:
        """By the name of each changed version, a function that makes its images of some samples.

        Args:
            bare: the samples without their objects, where others use them too.
        """
        bare = bare if bare is not None else self._bare
        return {
            _version(name, side, number): partial(self.borrowed, _images_of(name), rows[:, number], bare=bare)
            for name in self.names
            for side, rows in (("swap", self.donors[name].others), ("same_class", self.donors[name].mates))
            if (rows >= 0).any()
            for number in range(rows.shape[1])
        }

    def borrowed(self, name: str, donors: Tensor, rows: Tensor, bare: RemovedObjects | None = None) -> Tensor:
        """Some images with a property of their donors; an image without a donor stays as it is.

        Args:
            name: of the property.
            donors: `(N,)` int64 on the host, the row of each sample's donor; -1 for none.
            rows: `(n,)` int64 on the host, the samples that are changed.
            bare: as in `versions`.

        Returns:
            `(n, C, *S)`, of the dtype and on the device of the images.
        """
        device, lent = self.images.device, donors[rows] >= 0
        own = to_device(rows, device)
        if not lent.any():
            return self.images[own]
        bare = bare if bare is not None else self._bare
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            if lent.all():
                return self._changed(name, rows, donors[rows], bare)
            made, at = self.images[own], to_device(lent.nonzero()[:, 0], device)
            return made.index_copy(0, at, self._changed(name, rows[lent], donors[rows][lent], bare))

    def measure(
        self, logits: Tensor, changed_logits: Mapping[str, Tensor], own_sigmoids: bool = True
    ) -> dict[str, Measurement]:
        """Count the predictions that stay with the image, and those that follow the donor.

        For each property there are

        - `<name>_swap_accuracy`: the share of predictions that are the image's own class,
        - `<name>_follow_rate`: the share of predictions that are the donor's class,
        - `<name>_follow_chance`: the share of untouched images that are taken for the donor's class already,
        - `<name>_same_class_accuracy`: as the first, with a donor of the image's own class: how strange the change is
          by itself,
        - `<name>_same_class_follow_rate`: the share of these that are taken for the class of the donors of another
          class: how often the change alone leads there.

        The last two are left out where no class has two samples, and for "object", whose are the background's. With two
        classes a prediction that is not kept follows, whatever the reason: the last one tells the two apart. Where a
        sample may be of several classes, the labels in which it differs from its donor are counted. Samples whose
        logits are not finite are left out.
        `background` and `suspect` also have `<name>_swap_accuracy_before`, where they count other samples than an
        accuracy does: the accuracy on these as they are.

        Args:
            logits: `(N, K)`, of the samples as they are.
            changed_logits: `(N, K)` logits by the name of the version; a property that lacks one is left out.
            own_sigmoids: whether each logit has a sigmoid of its own, where a sample may be of several classes.

        Returns:
            Each value with n, what was left out, and an interval.
        """
        measured: dict[str, Measurement] = {}
        clean = self._prediction(logits, own_sigmoids)
        for name in self.names:
            swapped, same = (self._predictions(changed_logits, name, side, own_sigmoids) for side in _SIDES)
            if swapped is not None:
                measured.update(self._of_other_class(name, clean, swapped))
            if same is not None and name != "object":  # else they stand beside the background already
                measured.update(self._of_same_class(name, same[0]))
        return measured

    @property
    def _bare(self) -> RemovedObjects | None:
        return removed_objects(self.images, self.annotated, self.removal)

    def _usable(self, name: str) -> Tensor | None:
        """The samples that have a property, `(N,)` bool; None where the batch has nothing of the kind."""
        annotated = self.annotated
        if name in ("background", "object"):
            return annotated.known & annotated.masked if annotated.masks is not None else None
        if name in _PLACES:
            if name not in self.places:
                return None
            return annotated.known & self._to(name, torch.arange(len(self.images), device="cpu")).flatten(
                1
            ).any(dim=1)
        have_it = property_of(name).have_it
        if have_it is None or self.images.shape[1] < property_of(name).fewest_channels:
            return annotated.known
        return annotated.known & have_it(self.images).cpu()

    def _changed(self, name: str, rows: Tensor, donors: Tensor, bare: RemovedObjects | None) -> Tensor:
        """Some images with a property of these donors, each of which has one."""
        if name == "object":
            name, rows, donors = "background", donors, rows
        own, lending = (to_device(each, self.images.device) for each in (rows, donors))
        if name == "background":
            objects = to_device(cast(Tensor, self.annotated.objects)[rows], self.images.device)
            return torch.where(objects[:, None], self.images[own], cast(RemovedObjects, bare).images[lending])
        if name in _PLACES:
            return self._with_place(name, rows, donors, bare)
        return exchange_property(name, self.images[own], self.images[lending])

    def _with_place(self, name: str, rows: Tensor, donors: Tensor, bare: RemovedObjects | None) -> Tensor:
        """The images with the donors' region; no object comes along with it, nor what lies there beside it is lost."""
        device, regions = self.images.device, self.places[name]
        own, lending, to = (to_device(each, device) for each in (rows, donors, self._to(name, rows)))
        lent = self.images[lending]
        if bare is not None:
            lent = torch.where(to_device(self._to(name, donors), device)[:, None], lent, bare.images[lending])
        every = torch.ones_like(own, dtype=torch.bool)
        return exchange_regions(self.images[own], lent, every, regions[rows], regions[donors], to)

    def _to(self, name: str, rows: Tensor) -> Tensor:
        """The part of some samples' region that is changed: objects stay as they are."""
        objects, regions = self.annotated.objects, self.places[name][rows]
        return regions & ~objects[rows] if objects is not None else regions

    def _of_other_class(
        self, name: str, clean: _Prediction, swapped: Sequence[_Prediction]
    ) -> dict[str, Measurement]:
        """What the versions with donors of another class measure."""
        kept, followed = (self._swapped(name, swapped, of_donor) for of_donor in (False, True))
        if name == "object":  # the images of "background", seen from the background's side
            kept, followed, chance = followed, kept, self._chance_of_objects(clean)
        else:
            chance = self._swapped(name, [clean] * NUM_DONORS, of_donor=True, parts=1)
        measured = {
            f"{name}{KEPT}": kept,
            f"{name}{RATE}": followed,
            f"{name}{CHANCE}": chance,
        }
        usable = self.donors[name].others[:, 0] >= 0
        if name in ("background", "suspect") and not torch.equal(usable, self.annotated.known):
            right = _nan_unless_finite(clean, right_shares(clean.classes, self.annotated.labels))
            measured[f"{name}{KEPT}{BEFORE}"] = self._measurement(name, [right], self.donors[name].others)
        return measured

    def _of_same_class(self, name: str, same: _Prediction) -> dict[str, Measurement]:
        """What the version with a donor of the same class measures."""
        donors = self.donors[name]
        right = _nan_unless_finite(same, right_shares(same.classes, self.annotated.labels))
        both = torch.cat([donors.mates, donors.others], dim=1)
        return {
            f"{name}{SAME_CLASS}": self._measurement(name, [right], donors.mates),
            f"{name}{SAME_CLASS_RATE}": self._measurement(
                name, self._shares(name, [same] * NUM_DONORS, of_donor=True), both, parts=1
            ),
        }

    def _predictions(
        self, changed_logits: Mapping[str, Tensor], name: str, side: str, own_sigmoids: bool
    ) -> list[_Prediction] | None:
        """The predictions with each donor of one side; None where a version is missing."""
        found = [changed_logits.get(_version(name, side, number)) for number in range(_SIDES[side])]
        there = [self._prediction(each, own_sigmoids) for each in found if each is not None]
        return there if len(there) == len(found) else None

    def _prediction(self, logits: Tensor, own_sigmoids: bool) -> _Prediction:
        labels = self.annotated.labels
        logits = logits.cpu()
        return _Prediction(
            predictions_of(logits, are_multi_hot(labels), own_sigmoids), logits.isfinite().all(dim=1)
        )

    def _swapped(
        self, name: str, predictions: Sequence[_Prediction], of_donor: bool, parts: int = NUM_DONORS
    ) -> Measurement:
        """The share of predictions that are the donor's class, or the image's own."""
        return self._measurement(
            name, self._shares(name, predictions, of_donor), self.donors[name].others, parts
        )

    def _shares(self, name: str, predictions: Sequence[_Prediction], of_donor: bool) -> list[Tensor]:
        """For each donor, the share `(N,)` of a sample's predictions that are the donor's, or its own.

        Where a sample may be of several classes, only the labels in which it differs from its donor are counted.
        """
        labels, shares = self.annotated.labels, []
        for prediction, donors in zip(predictions, self.donors[name].others.unbind(dim=1), strict=True):
            theirs = labels[donors.clamp(min=0)]
            shares.append(_share_of(prediction, theirs if of_donor else labels, labels, theirs))
        return shares

    def _chance_of_objects(self, clean: _Prediction) -> Measurement:
        """The share of untouched images that are taken for the class of the object that is put into them."""
        labels, donors, shares = self.annotated.labels, self.donors["object"].others, []
        for rows in donors.clamp(min=0).unbind(dim=1):
            lent = _Prediction(clean.classes[rows], clean.finite[rows])
            shares.append(_share_of(lent, labels, labels, labels[rows]))
        return self._measurement("object", shares, donors, NUM_DONORS)

    def _measurement(
        self, name: str, shares: Sequence[Tensor], donors: Tensor, parts: int = 1
    ) -> Measurement:
        """The mean over the samples with donors and finite logits, of each sample's mean over its donors.

        Its interval counts a sample `parts` times at most, once for each of its predictions; and only once where all
        samples are alike, which does not show that a sample's predictions differ.
        """
        by_donor, known = torch.stack(list(shares), dim=1), self.annotated.known
        counted = known & (donors >= 0).all(dim=1) & by_donor.isfinite().all(dim=1)
        each = by_donor[counted].mean(dim=1)
        value = float(each.mean()) if len(each) else math.nan
        no_mask = known & ~self.annotated.masked & ~counted & (_images_of(name) == "background")
        no_room = no_mask & self.annotated.crowded
        interval = mean_share_interval(each, parts if each.unique().numel() > 1 else 1)
        no_masks, undefined, no_rooms = (
            int(each.sum()) for each in (no_mask & ~no_room, ~counted & ~no_mask, no_room)
        )
        return Measurement(value, len(each), 0, no_masks, undefined, interval, no_rooms)


@dataclass(frozen=True)
class _Prediction:
    """What the samples are taken for.

    Args:
        classes: `(N,)` classes, or `(N, K)` marks.
        finite: `(N,)` bool, whether the logits are finite.
    """

    classes: Tensor
    finite: Tensor


def _share_of(prediction: _Prediction, wanted: Tensor, own: Tensor, theirs: Tensor) -> Tensor:
    """The share `(N,)` of predictions that are as wanted, of the labels that differ; NaN where logits are not."""
    if prediction.classes.ndim == 2:
        differs = (own != theirs).double()
        share = ((prediction.classes == wanted) * differs).sum(dim=1) / differs.sum(dim=1)
    else:
        share = right_shares(prediction.classes, wanted)
    return _nan_unless_finite(prediction, share)


def _nan_unless_finite(prediction: _Prediction, shares: Tensor) -> Tensor:
    return torch.where(prediction.finite, shares, torch.nan)


def _version(name: str, side: str, number: int) -> str:
    """The name of the images with a property of their donor `number`, of another class ("swap") or of the same."""
    return f"{_images_of(name)}_{side}_{number}"


def _images_of(name: str) -> str:
    """The property on whose changed images a property is measured."""
    return "background" if name == "object" else name
