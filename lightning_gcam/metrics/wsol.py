"""Boxes around the thresholded saliency against the object's boxes, as in weakly supervised localization (WSOL)."""

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightning_gcam.metrics.base import SampleMean
from lightning_gcam.metrics.overlap import even_thresholds
from lightning_gcam.metrics.samples import (
    CheckedBatch,
    PerSample,
    prepare,
    score_counted,
)
from lightning_gcam.utils.errors import InputError, check_whole


class Components(NamedTuple):
    """The connected components of a batch of regions."""

    samples: Tensor
    """``(R,)`` int64: whose region each is in."""
    boxes: Tensor
    """``(R, 2 * d)`` float32, the far edges past the last pixel: one pixel is a box of area 1."""
    areas: Tensor
    """``(R,)`` int64: how many pixels."""


_JOINED_AT_ONCE, _PIXELS_AT_ONCE = 2**16, 2**22
"""How many pixels are joined with their neighbours at once (26 in a volume), and how many the grids of all have."""


# Not `scipy.ndimage.label`, four times as fast on a CPU (0.6 s and 2.4 s for 16 maps of 224 x 224 at 100
# thresholds): SciPy is no dependency, and maps on another device would have to be copied for it.
class GrowingRegions:
    """Regions on N grids, at first empty, to which pixels are added; two that touch become one component.

    Neighbours are the eight around a pixel (two in a signal, 26 in a volume). Each pixel names another one of its
    component, and in the end the component's root; only pixels that are added are ever looked at, so that
    thresholding a map at any number of falling thresholds costs little more than at one.

    Args:
        shape: ``(N, *spatial)``.
        device: Where the pixels are.

    Example:
        >>> import torch
        >>> from lightning_gcam.metrics.wsol import GrowingRegions
        >>> regions = GrowingRegions((1, 2, 4), "cpu")
        >>> regions.add(torch.tensor([0, 1, 3])).boxes.tolist()
        [[0.0, 0.0, 2.0, 1.0], [3.0, 0.0, 4.0, 1.0]]
        >>> regions.add(torch.tensor([6])).boxes.tolist()
        [[0.0, 0.0, 4.0, 2.0]]
    """

    def __init__(self, shape: tuple[int, ...], device: torch.device | str) -> None:
        self.size = shape[1:]
        pixels = torch.arange(prod(shape), device=device)
        places = self._places(pixels)
        self.parents = pixels
        self.boxes = torch.stack([*places, *(place + 1 for place in places)], dim=1).float()
        self.areas = torch.ones_like(pixels)
        self.inside = torch.zeros_like(pixels, dtype=torch.bool)
        self.roots = pixels[:0]

    def add(self, pixels: Tensor) -> Components:
        """Add pixels, by their index into the flattened batch, and return the components that there are now.

        Args:
            pixels: ``(K,)`` int64, none of them added before.
        """
        for some in pixels.split(_JOINED_AT_ONCE):
            self._join(*self._touching(some))
        parts = torch.cat([self.roots, pixels])
        roots = self.root_of(parts)
        merged = roots != parts
        # What is no root any more gives its box and its pixels to its root, once.
        into, lost = roots[merged], parts[merged]
        ends = len(self.size)
        columns = into[:, None].expand(-1, ends)
        self.boxes[:, :ends].scatter_reduce_(0, columns, self.boxes[lost, :ends], "amin")
        self.boxes[:, ends:].scatter_reduce_(0, columns, self.boxes[lost, ends:], "amax")
        self.areas.scatter_add_(0, into, self.areas[lost])
        self.roots = parts[~merged].sort().values
        return Components(self.roots // prod(self.size), self.boxes[self.roots], self.areas[self.roots])

    def root_of(self, pixels: Tensor) -> Tensor:
        """Find the root of each pixel's component, and point the pixel to it from now on."""
        roots = self.parents[pixels]
        while not torch.equal(further := self.parents[roots], roots):
            roots = further
        self.parents[pixels] = roots
        return roots

    def _join(self, first: Tensor, second: Tensor) -> None:
        """Make one component of the two ends of each pair: the lower root points to the highest beside it."""
        while True:
            first, second = self.root_of(first), self.root_of(second)
            apart = first != second
            if not apart.any():
                return
            first, second = first[apart], second[apart]
            lower, higher = torch.minimum(first, second), torch.maximum(first, second)
            self.parents.scatter_reduce_(0, lower, higher, "amax")

    def _touching(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Put pixels inside, and return every pair of one of them and a neighbour inside, once."""
        on_grid, others, stride = torch.ones_like(pixels, dtype=torch.bool)[:, None], pixels[:, None], 1
        for place, side in zip(self._places(pixels), reversed(self.size), strict=True):
            there = torch.stack([place > 0, place >= 0, place < side - 1], dim=1)
            on_grid = (there[:, :, None] & on_grid[:, None]).flatten(1)
            moves = stride * torch.arange(-1, 2, device=pixels.device)
            others, stride = (others[:, None] + moves[:, None]).flatten(1), stride * side
        others = others.clamp(0, len(self.inside) - 1)
        near = self.inside[others]
        self.inside[pixels] = True
        # Of two that are new, each is a neighbour of the other: one of them is before the middle of its row here.
        half = others.shape[1] // 2
        near[:, :half] = self.inside[others[:, :half]]
        near &= on_grid
        return pixels[near.nonzero()[:, 0]], others[near]

    def _places(self, pixels: Tensor) -> list[Tensor]:
        """Return where each pixel is along each dimension, the last one first: x, y, z."""
        places = []
        for side in reversed(self.size):
            places.append(pixels % side)
            pixels = pixels // side
        return places


IOU_THRESHOLDS = {1: (0.5,), 2: (0.3, 0.5, 0.7)}
"""What counts as a match, by the version of the score."""


def _max_box_accuracy_update(
    saliency: Tensor,
    mask: Tensor,
    boxes: Sequence[Tensor] | None,
    version: int,
    num_thresholds: int,
) -> PerSample:
    """1 where the box matches, by threshold of the map and of the match: rows ``(N, T, D)``."""
    batch = prepare(saliency, mask)
    truth, has_box = _boxes_of(batch, boxes)
    there = ~batch.maps.blank
    # boxes, where there are some, are the annotation
    batch = replace(batch, counted=there & has_box, no_mask=there & ~has_box)
    overlap = _overlaps(batch, even_thresholds(num_thresholds, mask.device), truth, version == 1)
    matches = torch.tensor(IOU_THRESHOLDS[version], device=overlap.device)
    return batch.scored((overlap[..., None] >= matches).float())


def _max_box_accuracy_compute(total: Tensor, n: Tensor) -> Tensor:
    """Accuracy at the best threshold of the map, for each match; then the mean over the matches."""
    return (total / n[..., None, None]).amax(dim=-2).mean(dim=-1).to(torch.float32)


def max_box_accuracy(
    saliency: Tensor,
    mask: Tensor,
    boxes: Sequence[Tensor] | None = None,
    *,
    version: int = 2,
    num_thresholds: int = 100,
) -> Tensor:
    """Average how often a box around the thresholded saliency matches an object's box, at the best threshold.

    {S >= threshold * max S} falls into connected components, with eight neighbours a pixel (26 in a volume).
    Version 1 draws a box around the one with the most pixels (the best of them, where several have as many)
    and takes an IoU of 0.5 with a box of the object; version 2 draws one around each, takes the best, and
    averages over IoUs of 0.3, 0.5 and 0.7. The threshold is the same for all samples, and chosen, for each
    IoU, on the very samples that are scored.

    A box ends **after** its last pixel, so that a region of one pixel has an area of 1. The authors' code
    (wsolevaluation) writes ``x + w``, the first column past the region, into a box whose last column counts as
    inside: each of its boxes is one pixel too large to the right and below, and a map that equals a 10 x 10
    object has an IoU of 100/121 there, of 1 here. It also rounds maps to 8 bits, takes what is strictly above
    the threshold, and measures the largest component by the polygon through the centres of its border pixels,
    in which a line has no area. A sample whose map is blank (all zero, or not finite) or that has no object is
    left out.

    Args:
        saliency: ``(N, *spatial)``, floating, at least 0, of any scale.
        mask: ``(N, *spatial)`` bool, True on the object.
        boxes: N tensors ``(M, 4)``, each row ``x1, y1, x2, y2`` in pixels, of the objects of a sample; any of
            them may be matched. In volumes ``(M, 6)``, ``x1, y1, z1, x2, y2, z2``; of signals ``(M, 2)``. The
            box around the whole mask where they are left out.
        version: 1 or 2.
        num_thresholds: The grid: k / num_thresholds of the map's own peak, for k = 1 to num_thresholds. The
            paper takes 1000; the time grows with it.

    Returns:
        A float32 scalar in [0, 1], on the saliency's device; NaN if every sample was left out.

    Raises:
        TypeError: If ``saliency`` is not floating or ``mask`` is not bool.
        ValueError: If the shapes are not both ``(N, *spatial)``, ``saliency`` has negative values, ``boxes`` does
            not hold N such tensors, ``version`` is not 1 or 2, or ``num_thresholds`` is not a positive
            integer.

    Example:
        >>> import torch
        >>> from lightning_gcam.metrics.functional import max_box_accuracy
        >>> saliency = torch.tensor([[[4.0, 3.0, 1.0], [0.0, 0.0, 0.0]]])
        >>> mask = torch.tensor([[[True, True, False], [False, False, False]]])
        >>> max_box_accuracy(saliency, mask)
        tensor(1.)

    Source:
        Choe et al., 2020, arXiv 2001.12471 (version 1: MaxBoxAcc) and arXiv 2007.04178 (version 2:
        MaxBoxAccV2).
    """
    check_version(version)
    check_whole("num_thresholds", num_thresholds)
    update = _max_box_accuracy_update(saliency, mask, boxes, version, num_thresholds)
    return score_counted(update, _max_box_accuracy_compute)


def check_version(version: int) -> None:
    """Refuse a version that does not exist.

    Raises:
        InputError: If it is not 1 or 2.
    """
    if version not in IOU_THRESHOLDS:
        raise InputError(f"`version` must be 1 (MaxBoxAcc) or 2 (MaxBoxAccV2), got {version!r}.")


def _boxes_of(batch: CheckedBatch, boxes: Sequence[Tensor] | None) -> tuple[Tensor, Tensor]:
    """The objects' boxes ``(N, M, 2 * d)``, filled up with boxes of no area, and which samples have one ``(N,)``."""
    columns = 2 * (batch.mask.ndim - 1)
    if boxes is None:
        return _box_around(batch.mask)[:, None], batch.size > 0
    shapes = [tuple(each.shape) if isinstance(each, Tensor) else type(each).__name__ for each in boxes]
    if len(boxes) != len(batch.mask) or not all(len(each) == 2 and each[-1] == columns for each in shapes):
        raise InputError(
            f"`boxes` must hold {len(batch.mask)} tensors (M, {columns}), one per sample, got {shapes}. "
            f"A sample without an object has a tensor (0, {columns})."
        )
    most = max([len(each) for each in boxes], default=0)
    filled = torch.zeros(len(boxes), max(most, 1), columns, device=batch.mask.device)
    for row, each in zip(filled, boxes, strict=True):
        row[: len(each)] = each
    starts, ends = filled.chunk(2, dim=-1)
    return filled, (ends > starts).all(dim=2).any(dim=1)


def _box_around(masks: Tensor) -> Tensor:
    """The box around each mask, which ends behind its last pixel: ``(N, 2 * d)``, zero where the mask is empty."""
    starts, ends = [], []
    for axis in range(masks.ndim - 1, 0, -1):
        reached = masks[..., None].movedim(axis, 1).flatten(2).any(dim=2)
        places = torch.arange(masks.shape[axis], device=masks.device)
        ends.append(((places + 1) * reached).amax(dim=1))
        starts.append(torch.where(reached, places, ends[-1][:, None]).amin(dim=1))
    return torch.stack([*starts, *ends], dim=1).float()


def _overlaps(batch: CheckedBatch, thresholds: Tensor, truth: Tensor, largest_only: bool) -> Tensor:
    """The highest IoU of a component's box with one of the objects' boxes, at each threshold: ``(N, T)``."""
    saliency, size = batch.maps.pixels, tuple(batch.mask.shape[1:])
    levels = thresholds.to(saliency.device) * batch.maps.peak[:, None]
    # How many thresholds each pixel reaches.
    reached = torch.searchsorted(levels, saliency, right=True)
    at_once = max(_PIXELS_AT_ONCE // prod(size), 1)
    parts = zip(reached.split(at_once), truth.split(at_once), strict=True)
    return torch.cat([_overlaps_as_they_grow(*part, size, len(thresholds), largest_only) for part in parts])


def _overlaps_as_they_grow(
    reached: Tensor, truth: Tensor, size: tuple[int, ...], num_thresholds: int, largest_only: bool
) -> Tensor:
    """The same of some samples, by how many thresholds each of their pixels reaches, ``(N, P)``."""
    pixels = reached.flatten().argsort(descending=True, stable=True)
    counts = reached.flatten().bincount(minlength=num_thresholds + 1).flip(0).tolist()
    regions = GrowingRegions((len(reached), *size), reached.device)
    found: list[Tensor] = []
    # From the highest threshold down, the regions grow; the last part reaches no threshold.
    for part in pixels.split(counts)[:-1]:
        same = found and len(part) == 0
        found.append(found[-1] if same else _best_overlap(regions.add(part), truth, largest_only))
    return torch.stack(found[::-1], dim=1)


def _best_overlap(found: Components, truth: Tensor, largest_only: bool) -> Tensor:
    """The highest IoU of one of the components' boxes with one of the objects' boxes: ``(N,)``."""
    samples, boxes, areas = found
    if largest_only:
        most = areas.new_zeros(len(truth)).scatter_reduce(0, samples, areas, "amax")
        largest = areas == most[samples]
        samples, boxes = samples[largest], boxes[largest]
    overlap = _box_overlaps(boxes, truth[samples]).amax(dim=1)
    return overlap.new_zeros(len(truth)).scatter_reduce(0, samples, overlap, "amax")


def _box_overlaps(boxes: Tensor, others: Tensor) -> Tensor:
    """IoU of boxes ``(R, 2 * d)``, each with its own ``(R, M, 2 * d)``: ``(R, M)``, 0 where neither has an area."""
    (starts, ends), (other_starts, other_ends) = boxes[:, None].chunk(2, dim=-1), others.chunk(2, dim=-1)
    shared = _area(torch.maximum(starts, other_starts), torch.minimum(ends, other_ends))
    union = _area(starts, ends) + _area(other_starts, other_ends) - shared
    return (shared / union).nan_to_num()


def _area(starts: Tensor, ends: Tensor) -> Tensor:
    """The areas of boxes, lengths along one dimension and volumes along three; 0 where one ends before it starts."""
    return (ends - starts).clamp(min=0).prod(dim=-1)


class MaxBoxAccuracy(SampleMean):
    """How often a box around the thresholded saliency matches an object's box, at the best threshold.

    {S >= threshold * max S} falls into connected components, with eight neighbours a pixel (26 in a volume).
    Version 1 draws a box around the one with the most pixels (the best of them, where several have as many)
    and takes an IoU of 0.5 with a box of the object; version 2 draws one around each, takes the best, and
    averages over IoUs of 0.3, 0.5 and 0.7. The threshold is the same for all samples, and chosen, for each
    IoU, on the very samples that are scored.

    A box ends **after** its last pixel; the authors' code (wsolevaluation) makes each box one pixel too large,
    see `lightning_gcam.metrics.functional.max_box_accuracy`. A sample whose map is blank (all zero, or
    not finite) or that has no object is left out, and counted in ``left_out``.

    As input to ``forward`` and ``update`` the metric accepts ``saliency`` ``(N, *spatial)``, floating, at
    least 0, ``mask`` ``(N, *spatial)`` bool, and, if each of several objects in a sample may be matched by
    itself, ``boxes``: N tensors ``(M, 4)``, ``(M, 6)`` in volumes, ``(M, 2)`` of signals. ``compute`` returns
    a float32 scalar in [0, 1], NaN if every sample was left out.

    Args:
        version: 1 or 2.
        num_thresholds: The grid: k / num_thresholds of the map's own peak, for k = 1 to num_thresholds.
        kwargs: Passed on to `torchmetrics.Metric`.

    Raises:
        TypeError: In ``update``, if ``saliency`` is not floating or ``mask`` is not bool.
        ValueError: If ``version`` is not 1 or 2, or ``num_thresholds`` is not a positive integer; in
            ``update``, if the shapes are not both ``(N, *spatial)``, ``saliency`` has negative values, or
            ``boxes`` does not hold N such tensors.

    Example:
        >>> import torch
        >>> from lightning_gcam.metrics import MaxBoxAccuracy
        >>> saliency = torch.tensor([[[4.0, 3.0, 1.0], [0.0, 0.0, 0.0]]])
        >>> mask = torch.tensor([[[True, True, False], [False, False, False]]])
        >>> MaxBoxAccuracy(version=1)(saliency, mask)
        tensor(1.)

    Source:
        Choe et al., 2020, arXiv 2001.12471 (version 1: MaxBoxAcc) and arXiv 2007.04178 (version 2:
        MaxBoxAccV2).
    """

    takes_boxes: bool = True

    def __init__(self, version: int = 2, num_thresholds: int = 100, **kwargs: Any) -> None:
        check_version(version)
        check_whole("num_thresholds", num_thresholds)
        super().__init__(shape=(num_thresholds, len(IOU_THRESHOLDS[version])), **kwargs)
        self.version, self.num_thresholds = version, num_thresholds

    def _score(self, saliency: Tensor, mask: Tensor, boxes: Sequence[Tensor] | None = None) -> PerSample:
        return _max_box_accuracy_update(saliency, mask, boxes, self.version, self.num_thresholds)

    def update(self, saliency: Tensor, mask: Tensor, boxes: Sequence[Tensor] | None = None) -> None:
        """Add a batch of maps and masks, both ``(N, *spatial)``, and perhaps each sample's boxes."""
        self._add(self._score(saliency, mask, boxes))

    def _value(self, total: Tensor, n: Tensor) -> Tensor:
        return _max_box_accuracy_compute(total, n)
