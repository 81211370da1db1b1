"""Regions of the samples and their donors: object, background, suspect, salient; samples of another class.

Masks and maps are `(N, *S)`, with the one to three sides `S` of the images.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from lightning_gcam.cam.targets import are_multi_hot
from lightning_gcam.data import SaliencyBatch
from lightning_gcam.data.saliency_batch import boxes_to_masks
from lightning_gcam.shortcuts.removal import boxes_of
from lightning_gcam.utils.dimensions import for_each, pixels_of, pool_of
from lightning_gcam.utils.transfer import to_host

MARGIN = 1 / 8
"""How much wider than the object the region around it is, on each side, as a share of the object's longer side."""

ROOM = 1 / 4
"""The share of the image that an object leaves at least, as it is removed, for the checks to count its sample."""

_RIM = 1 / 64


def region_around(masks: Tensor) -> Tensor:
    """The region in which an object is removed: a square (or a cube) around its box, a margin wider on every side.

    A hole of the object's outline would still tell what it was, and the sides of a narrow box that it was narrow; a
    square tells its size and place only. It is moved into the image where it would reach beyond. Where it would take
    more than three quarters of the image, the box with its margin stands instead.

    Args:
        masks: `(N, *S)` bool, the objects.

    Returns:
        `(N, *S)` bool; empty where the mask is.

    Example:
        >>> mask = torch.zeros(1, 6, 12, dtype=torch.bool)
        >>> mask[0, 2:4, 5] = True  # two high, one wide: a square of four with its margin
        >>> boxes_of(region_around(mask)).tolist()
        [[3, 1, 7, 5]]
    """
    size, sides = masks.shape[1:], masks.ndim - 1
    starts, ends = boxes_of(masks).split(sides, dim=1)
    longer = (ends - starts).amax(dim=1, keepdim=True)
    margin = (longer * MARGIN).ceil().long()
    lengths = torch.tensor(size[::-1], device=masks.device)
    square = boxes_to_masks(torch.cat(_centred(starts, ends, longer + 2 * margin, lengths), dim=1), size)
    box = boxes_to_masks(torch.cat([starts - margin, ends + margin], dim=1), size)
    fits = square.flatten(1).sum(dim=1) <= (1 - ROOM) * size.numel()
    return torch.where(for_each(fits, masks), square, box) & for_each(masks.flatten(1).any(dim=1), masks)


def _centred(starts: Tensor, ends: Tensor, side: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """A stretch as long as `side` around the middle of another, moved to where it is in the image."""
    start = torch.div(starts + ends - side, 2, rounding_mode="floor")
    start = torch.minimum(start, lengths - side).clamp(min=0)
    return start, start + side


def with_rim(masks: Tensor) -> Tensor:
    """The objects `(N, *S)`, a rim of one 64th of the image's shorter side wider: what is kept of an object."""
    radius = max(round(min(masks.shape[1:]) * _RIM), 1)
    for axis in reversed(range(1, masks.ndim)):
        masks = _widened(masks.transpose(axis, -1), radius).transpose(axis, -1)
    return masks


def _widened(masks: Tensor, radius: int) -> Tensor:
    """Each region wider by `radius` pixels at both ends of the last side.

    The reach doubles with each step, so that the cost hardly grows with the radius: a maximum over a square window
    would cost the fourth power of an image's side.
    """
    wide, reach = pad(masks, (radius, radius)), 1
    while reach <= 2 * radius:
        step = min(reach, 2 * radius + 1 - reach)
        wide = wide[..., step:] | wide[..., :-step]
        reach += step
    return wide


def donors_of(classes: Tensor, usable: Tensor) -> Tensor:
    """Choose a donor of another class for each sample, always the same one.

    In the order of their classes, each takes the one that is as many places on as the largest class has samples: so
    every sample is taken once, and none by its own class. Where one class holds more than half of them, those that are
    left over take the samples of other classes in turn.

    Args:
        classes: `(N,)` whole numbers.
        usable: `(N,)` bool, the samples that may exchange.

    Returns:
        `(N,)` int64; -1 for samples that may not, and for all where there is a single class.

    Example:
        >>> donors_of(torch.tensor([0, 0, 1, 1, 2]), torch.tensor([True, True, True, True, False])).tolist()
        [2, 3, 0, 1, -1]
    """
    donors = torch.full((len(classes),), -1, device=classes.device)
    rows = usable.nonzero()[:, 0]
    _, inverse, counts = classes[rows].unique(return_inverse=True, return_counts=True)
    if len(counts) < 2:
        return donors
    ordered = rows[inverse.argsort(stable=True)]
    donors[ordered] = ordered.roll(-int(counts.max()))
    left_over = rows[classes[donors[rows]] == classes[rows]].tolist()
    for turn, row in enumerate(left_over):
        others = rows[classes[rows] != classes[row]]
        donors[row] = others[turn % len(others)]
    return donors


NUM_DONORS, NUM_MATES = 2, 1
"""How many donors of another class each sample has, and how many of its own class."""


@dataclass(frozen=True)
class Donors:
    """The samples that each sample borrows from, the same at every look.

    Args:
        others: `(N, NUM_DONORS)` int64, rows of another class (with several classes a sample: another set of them).
        mates: `(N, NUM_MATES)` int64, further rows of its own class. -1 where there is none, as in `others`.
    """

    others: Tensor
    mates: Tensor

    @staticmethod
    def of(labels: Tensor, usable: Tensor) -> Donors:
        """Choose the donors in turn, so that each sample lends about as often as every other.

        Args:
            labels: `(N,)` classes or `(N, K)` marks.
            usable: `(N,)` bool, the samples that may borrow and lend.

        Example:
            >>> donors = Donors.of(torch.tensor([0, 0, 1, 1, -1]), torch.tensor([True] * 4 + [False]))
            >>> donors.others.tolist()
            [[2, 3], [2, 3], [0, 1], [0, 1], [-1, -1]]
            >>> donors.mates.tolist()
            [[1], [0], [3], [2], [-1]]
        """
        classes = labels.cpu().unique(dim=0, return_inverse=True)[
            1
        ]  # no device is waited for, sample by sample
        rows = usable.cpu().nonzero()[:, 0]
        others = torch.full((len(classes), NUM_DONORS), -1, device="cpu")
        mates = torch.full((len(classes), NUM_MATES), -1, device="cpu")
        for turn, row in enumerate(rows.tolist()):
            is_mate = classes[rows] == classes[row]
            _take(others, row, rows[~is_mate], turn)
            _take(mates, row, rows[is_mate & (rows != row)], turn)
        return Donors(others.to(labels.device), mates.to(labels.device))


def _take(donors: Tensor, row: int, candidates: Tensor, turn: int) -> None:
    if len(candidates):
        count = donors.shape[1]
        donors[row] = candidates[(turn * count + torch.arange(count, device="cpu")) % len(candidates)]


@dataclass(frozen=True)
class AnnotatedRegions:
    """The annotation of a batch as the checks use it, on the host: classes, regions and donors.

    Args:
        labels: `(N,)` int64 classes, or `(N, K)` bool marks.
        known: `(N,)` bool, the samples with a class; all of them where they may have several, and so none.
        masks: `(N, *S)` bool, the objects; None where the batch has neither masks nor boxes.
        objects: the masks with a thin rim.
        around: the regions in which the objects are removed.
        masked: `(N,)` bool, the samples with an object and at least `ROOM` beside it.
        suspect: `(N, *S)` bool, or None.
        donors: `(N,)`, the row from which each sample borrows what lies where it is salient; -1 for none.
        room: `(N,)` float64, the share of the image that is left without the object; NaN where there is none.
        crowded: `(N,)` bool, the samples whose object leaves less than `ROOM`.
    """

    labels: Tensor
    known: Tensor
    masks: Tensor | None
    objects: Tensor | None
    around: Tensor | None
    masked: Tensor
    suspect: Tensor | None
    donors: Tensor
    room: Tensor
    crowded: Tensor

    @property
    def with_object(self) -> Tensor:
        """The samples that the checks of the object count, `(N,)` bool: with a class, and an object where any has."""
        both = self.known & self.masked
        return both if both.any() else self.known


def regions_of_batch(batch: SaliencyBatch) -> AnnotatedRegions | None:
    """Read the annotation of a batch, to the host; None where its labels are no classes, or missing.

    Example:
        >>> batch = SaliencyBatch(torch.zeros(3, 1, 8, 8), torch.tensor([0, 1, -1]))
        >>> regions_of_batch(batch).known.tolist(), regions_of_batch(SaliencyBatch(torch.zeros(3, 1, 8, 8)))
        ([True, True, False], None)
    """
    annotation = [batch.labels, batch.object_masks, batch.suspect]
    copies = iter(to_host([each for each in annotation if each is not None]))
    labels, masks, suspect = (next(copies) if each is not None else None for each in annotation)
    labels = as_classes(labels)
    if labels is None:
        return None
    known = have_class(labels)
    suspect = suspect.expand(len(batch), *batch.image_size) if suspect is not None else None
    around = region_around(masks) if masks is not None else None
    objects = with_rim(masks) if masks is not None else None
    room = torch.full(known.shape, torch.nan, dtype=torch.float64)
    if masks is not None and around is not None:
        left = (~around).flatten(1).double().mean(dim=1)
        room = torch.where(masks.flatten(1).any(dim=1), left, torch.nan)
    masked = room >= ROOM
    donors = donors_of(labels.unique(dim=0, return_inverse=True)[1], known & masked)
    return AnnotatedRegions(labels, known, masks, objects, around, masked, suspect, donors, room, room < ROOM)


def have_class(labels: Tensor) -> Tensor:
    """Whether each sample has a class, `(N,)` bool; all of them where they may have several classes, and so none.

    Args:
        labels: as `classes_of_labels` gives them.

    Example:
        >>> have_class(torch.tensor([2, -1])).tolist(), have_class(torch.eye(2)[:, :1] > 0).tolist()
        ([True, False], [True, False])
    """
    if labels.ndim == 1:
        return labels >= 0
    return torch.ones_like(labels[:, 0]) if are_multi_hot(labels) else labels.any(dim=1)


def classes_of_labels(batch: SaliencyBatch) -> Tensor | None:
    """The labels as `(N,)` int64 classes or `(N, K)` bool marks; None where they measure, are soft, or are missing."""
    return as_classes(batch.labels)


def as_classes(labels: Tensor | None) -> Tensor | None:
    """Labels as `(N,)` int64 classes or `(N, K)` bool marks; None where they measure, are soft, or are missing."""
    if labels is None:
        return None
    if labels.ndim == 2:
        return labels > 0 if bool(((labels == 0) | (labels == 1)).all()) else None
    if labels.is_floating_point() and not torch.equal(labels, labels.round()):
        return None
    return labels.long()


_MOST_SALIENT = 1 / 4
"""How much of what lies outside of the object's surroundings is replaced at most."""


def most_salient(maps: Tensor, masks: Tensor, around: Tensor) -> Tensor:
    """The most salient pixels outside the region around the object, as many as the object has.

    Args:
        maps: `(N, *S)` saliency, at least 0.
        masks: `(N, *S)` bool, the objects.
        around: `(N, *S)` bool, the regions around them.

    Returns:
        `(N, *S)` bool: at most a quarter of what lies outside, and only pixels that are salient at all; so it is
        empty where all saliency lies around the object.

    Example:
        >>> maps = torch.tensor([[[5.0, 0.0, 1.0, 3.0, 2.0, 0.0, 0.0, 0.0, 0.0]]])
        >>> mask = torch.tensor([[[True] + [False] * 8]])
        >>> most_salient(maps, mask, mask).int().tolist()
        [[[0, 0, 0, 1, 0, 0, 0, 0, 0]]]
    """
    outside = ~around
    maps = torch.where(outside, maps, -1.0).flatten(1)
    most = (outside.flatten(1).sum(dim=1) * _MOST_SALIENT).long()
    area = torch.minimum(masks.flatten(1).sum(dim=1), most)
    order = maps.argsort(dim=1, descending=True, stable=True)
    among_the_first = torch.arange(maps.shape[1], device=maps.device) < area[:, None]
    first = torch.zeros_like(among_the_first).scatter(1, order, among_the_first)
    return (first & (maps > 0)).reshape(around.shape)


_PLACE = 1 / 16
"""The area of the salient place, as a share of the image's."""


def salient_place(maps: Tensor) -> Tensor:
    """The place, the same for all samples, where their saliency concentrates outside of the image's middle.

    The middle half of each side is left out: most datasets have their objects there, and an object that is exchanged
    takes the class along for a good reason. (A place there can be given as the samples' suspect region.)

    Args:
        maps: `(N, *S)` saliency, at least 0; NaN counts as none.

    Returns:
        `S` bool, a 16th of the image at most; empty where no sample has saliency outside of the middle.

    Example:
        >>> maps = torch.zeros(2, 8, 8)
        >>> maps[:, 0, 5:] = torch.tensor([3.0, 2.0, 1.0])
        >>> maps[:, 4, 4] = 9.0
        >>> salient_place(maps).nonzero().tolist()
        [[0, 5], [0, 6], [0, 7]]
    """
    maps = maps.nan_to_num(0.0, 0.0, 0.0).double()
    total = maps.sum(dim=pixels_of(maps), keepdim=True)
    mean = (maps / total.clamp(min=torch.finfo(maps.dtype).tiny)).mean(dim=0)
    mean[tuple(slice(side // 4, side - side // 4) for side in mean.shape)] = 0
    area = max(int(mean.numel() * _PLACE), 1)
    place = torch.zeros_like(mean, dtype=torch.bool).flatten()
    place[mean.flatten().argsort(descending=True, stable=True)[:area]] = True
    return place.view_as(mean) & (mean > 0)


def moved_at_random(regions: Tensor, around: Tensor, seed: int = 0) -> Tensor:
    """Each region moved, over the image's edges, to a random place that overlaps neither the object nor itself.

    Of all places where at most half of it meets itself, the ones are taken at which it meets the region around the
    object least, and of these the ones at which it meets itself least; of them, one by chance. How much it would meet
    at every place at once is a correlation.

    Args:
        regions: `(N, *S)` bool.
        around: `(N, *S)` bool, the regions around the objects. What would still meet them is left out.
        seed: of the chance; no other random stream moves.

    Returns:
        `(N, *S)` bool.

    Example:
        >>> region = torch.tensor([[[False, True, True, False, False, False]]])
        >>> around = torch.tensor([[[True, False, False, False, False, False]]])
        >>> moved_at_random(region, around).int().tolist() in ([[[0, 0, 0, 1, 1, 0]]], [[[0, 0, 0, 0, 1, 1]]])
        True
    """
    generator = torch.Generator().manual_seed(seed)
    moved = [_moved(*each, generator) for each in zip(regions.cpu(), around.cpu(), strict=True)]
    return torch.stack(moved).to(regions.device) & ~around


_CELLS = 64
"""The places are those of a grid of so many cells a side, at most: finer ones differ by less than can be seen."""


def _moved(region: Tensor, around: Tensor, generator: torch.Generator) -> Tensor:
    """Move one region `S` to another place; one, since a correlation takes many times a region's memory."""
    cell = tuple(max(-(-side // _CELLS), 1) for side in region.shape)
    cells, around_cells = (_covered_cells(each, cell) for each in (region, around))
    size = cells.shape
    conjugate = torch.fft.rfftn(cells.double()).conj()
    met = [
        torch.fft.irfftn(conjugate * torch.fft.rfftn(each.double()), s=size) for each in (around_cells, cells)
    ]
    with_object, with_itself = (each.round().long() for each in met)
    is_itself = 2 * with_itself > cells.sum()
    cost = ((with_object + size.numel() * is_itself) * size.numel() + with_itself).flatten()
    best = cost == cost.amin()
    moved = torch.unravel_index(best.double().multinomial(1, generator=generator)[0], size)
    shifts = [int(each) * length for each, length in zip(moved, cell, strict=True)]
    return region.roll(shifts, dims=tuple(range(region.ndim)))


def _covered_cells(region: Tensor, cell: tuple[int, ...]) -> Tensor:
    """The cells of `cell` pixels that a region `S` covers a part of."""
    if max(cell) == 1:
        return region
    return pool_of("max", region.ndim)(region[None].float(), cell, ceil_mode=True)[0] > 0
