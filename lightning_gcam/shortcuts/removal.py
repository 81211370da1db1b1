"""Regions of images removed, or exchanged with those of other samples.

Images are `(N, C, *S)` with one to three sides `S`: signals, images, volumes and videos. A region is `(N, *S)`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, avg_pool3d

from lightning_gcam.utils.chunking import run_in_chunks
from lightning_gcam.utils.dimensions import Size, for_each, positions_of, resize
from lightning_gcam.utils.errors import InputError, did_you_mean
from lightning_gcam.utils.transfer import to_device

Removal = Literal["blur", "mean", "neighbours"] | Callable[[Tensor, Tensor], Tensor]
"""A name, or a callable from images `(N, C, *S)` and regions `(N, *S)` bool to images; `S` are one to three sides."""

DEFAULT_REMOVAL: Removal = "neighbours"  # docs/shortcuts.md, "How the object is removed"

_SIGMA = 1 / 4
_CELLS = 32
"""A Gaussian is taken at so many cells a sigma, or at every pixel: less than a thousandth of the image's range off."""


def check_removal(removal: Any) -> None:
    """Refuse a `removal` that is not known.

    Raises:
        InputError: naming what came.
    """
    if not callable(removal) and removal not in _FILLS:
        raise InputError(f'`removal` "{removal}" is not known. {did_you_mean(str(removal), _FILLS)}')


def remove_regions(
    images: Tensor,
    regions: Tensor,
    removal: Removal = DEFAULT_REMOVAL,
    boxes: Tensor | None = None,
) -> Tensor:
    """Replace a region of each image; what lies outside of it stays as it is, to the bit.

    None of the named ways uses a pixel of the region, not even its colour: what an object looked like must be gone.

    Args:
        images: `(N, C, *S)`, floating point or whole numbers, on any device.
        regions: `(N, *S)` bool; an empty one leaves its image as it is.
        removal: "blur": the mean of what lies around, weighted by a Gaussian of a quarter of the region's longer side;
            "mean": each channel's mean outside of the region; "neighbours": what lies beside the region, mirrored into
            it from the side with the most room (blurred where there is no room on any side); or a callable from images
            and regions to images, of which only the region is taken.
        boxes: the boxes of the regions, where they are known on the host: then no device is waited for.

    Returns:
        `(N, C, *S)` in the dtype of `images`; whole numbers are rounded and clamped.

    Raises:
        InputError: an unknown name, or a callable that gives another shape.

    Example:
        >>> images = torch.tensor([[[[2.0, 9.0, 4.0, 6.0]]]])
        >>> region = torch.tensor([[[False, True, False, False]]])
        >>> remove_regions(images, region, "mean"), remove_regions(images, region, "neighbours")
        (tensor([[[[2., 4., 4., 6.]]]]), tensor([[[[2., 4., 4., 6.]]]]))
    """
    check_removal(removal)
    if callable(removal):
        made = removal(images, regions)
    else:
        made = _FILLS[removal](in_floats(images), regions, boxes_of(regions) if boxes is None else boxes)
    if not isinstance(made, Tensor) or made.shape != images.shape:
        came = tuple(made.shape) if isinstance(made, Tensor) else type(made).__name__
        raise InputError(f"`removal` must give images of the shape {tuple(images.shape)}; got {came}.")
    return torch.where(regions[:, None], in_dtype_of(images, made), images)


class RemovedObjects:
    """The samples of a batch with their objects removed: made at the first use, and once.

    Args:
        images: `(N, C, *S)`.
        regions: `(N, *S)` bool on the host, in which the objects are removed.
        removal: how; see `remove_regions`.

    Example:
        >>> regions = torch.tensor([[[True, False], [False, False]]])
        >>> RemovedObjects(torch.arange(4.0).view(1, 1, 2, 2), regions).images[0, 0].tolist()
        [[1.0, 1.0], [2.0, 3.0]]
    """

    def __init__(self, images: Tensor, regions: Tensor, removal: Removal = DEFAULT_REMOVAL) -> None:
        self._images, self._regions, self._removal = images, regions, removal

    @cached_property
    def images(self) -> Tensor:
        """`(N, C, *S)`, of the dtype and on the device of the images; made in fewer at once where memory runs out."""
        boxes, regions = boxes_of(self._regions), to_device(self._regions, self._images.device)

        def work(part: slice) -> Tensor:
            return remove_regions(self._images[part], regions[part], self._removal, boxes[part])

        parts, _ = run_in_chunks(len(boxes), work, label="objects removed")
        return parts[0] if len(parts) == 1 else torch.cat(parts)


def boxes_of(regions: Tensor) -> Tensor:
    """The smallest box around each region, its far ends past the last pixel: `(N, 2 * d)` int64 for `d` sides.

    The starts of all sides stand before their ends, the last side first, as in `x1, y1, x2, y2`.

    Args:
        regions: `(N, *S)` bool; of an empty one the box is all zeros.

    Example:
        >>> boxes_of(torch.tensor([[[False, False, True], [False, True, False]]])).tolist()
        [[1, 0, 3, 2]]
        >>> boxes_of(torch.tensor([[False, False, True, True]])).tolist()
        [[2, 4]]
    """
    ends = [
        _ends(regions.movedim(axis, 1)[..., None].flatten(2).any(dim=2))
        for axis in reversed(range(1, regions.ndim))
    ]
    starts, stops = zip(*ends, strict=True)
    return torch.stack([*starts, *stops], dim=1)


def sides_of(box: Sequence[int]) -> list[tuple[int, int]]:
    """The start and the end of a box along each side, in the order of the image's sides.

    Example:
        >>> sides_of([1, 0, 3, 2])  # x1, y1, x2, y2
        [(0, 2), (1, 3)]
    """
    half = len(box) // 2
    return list(zip(box[:half], box[half:], strict=True))[::-1]


def _ends(there: Tensor) -> tuple[Tensor, Tensor]:
    """The first marked position, and the one past the last, `(N,)` each; 0 and 0 where none is marked."""
    places = torch.arange(there.shape[1], device=there.device).expand_as(there)
    last = torch.where(there, places + 1, 0).amax(dim=1)
    first = torch.where(there, places, there.shape[1]).amin(dim=1)
    return torch.minimum(first, last), last


def in_floats(images: Tensor) -> Tensor:
    """Images in which means can be taken: float32, or float64 where they are."""
    return images.to(torch.promote_types(images.dtype, torch.float32))


def in_dtype_of(images: Tensor, made: Tensor) -> Tensor:
    """Convert floats to the dtype of the images; whole numbers are rounded, and clamped to the dtype's range."""
    if images.is_floating_point() or images.dtype == torch.bool or not made.is_floating_point():
        return made.to(images)
    limits = torch.iinfo(images.dtype)
    return made.round().clamp(limits.min, limits.max).to(images)


def _mean(images: Tensor, regions: Tensor, _: Tensor) -> Tensor:
    outside, sides = (~regions)[:, None].to(images), positions_of(images)
    area = outside.sum(dim=sides, keepdim=True).clamp(min=1)
    return ((images * outside).sum(dim=sides, keepdim=True) / area).expand_as(images)


def _blur(images: Tensor, regions: Tensor, boxes: Tensor) -> Tensor:
    """Blur by a normalized convolution: pixels of the region do not count (Knutsson and Westin, 1993)."""
    return torch.stack([_blur_one(*each) for each in zip(images, regions, boxes.tolist(), strict=True)])


def _blur_one(image: Tensor, region: Tensor, box: list[int]) -> Tensor:
    """The image with the box around its region blurred, side by side.

    Where the Gaussian is wide, it is taken over the sums of small cells, so that the cost grows with the number of
    pixels, and not with a higher power of the side.
    """
    sides = sides_of(box)
    sigma = max(max(end - start for start, end in sides) * _SIGMA, 1)
    cell = max(int(sigma / _CELLS), 1)
    outside = (~region).to(image)[None]
    gaussians = [
        _gaussian(range(*side), length, cell, sigma, image)
        for side, length in zip(sides, region.shape, strict=True)
    ]
    weights = _weighted(_sums(outside, cell), gaussians).clamp(min=torch.finfo(image.dtype).tiny)
    made = image.clone()
    made[_inside(sides)] = _weighted(_sums(image * outside, cell), gaussians) / weights
    return made


def _inside(sides: Sequence[tuple[int, int]]) -> tuple[slice, ...]:
    """The index of a box in an image `(C, *S)`."""
    return slice(None), *(slice(*side) for side in sides)


def _sums(images: Tensor, cell: int) -> Tensor:
    """The sum over each cell of `cell` pixels a side, of images `(C, *S)`; those at the far ends may be smaller."""
    if cell == 1:
        return images
    if images.ndim == 2:  # torch's pooling of signals always takes the mean
        return avg_pool2d(images[:, None], (1, cell), ceil_mode=True, divisor_override=1)[:, 0]
    pool = avg_pool2d if images.ndim == 3 else avg_pool3d
    return pool(images, cell, ceil_mode=True, divisor_override=1)


def _weighted(images: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """Images `(C, *S)` weighted along each of their sides by a matrix `(places, cells)`."""
    *others, last = weights
    for axis, each in enumerate(others, start=1):
        behind = images.shape[axis + 1 :]
        images = (each @ images.flatten(axis + 1)).unflatten(axis + 1, behind)
    return images @ last.T


def _gaussian(places: range, length: int, cell: int, sigma: float, like: Tensor) -> Tensor:
    """How much each cell of a side counts at each of some places, `(places, cells)`."""
    at = torch.tensor(places, device=like.device, dtype=like.dtype)
    starts = torch.arange(0, length, cell, device=like.device, dtype=like.dtype)
    middles = (starts + (starts + cell).clamp(max=length) - 1) / 2
    return torch.exp(-0.5 * ((at[:, None] - middles[None]) / sigma) ** 2)


def _neighbours(images: Tensor, regions: Tensor, boxes: Tensor) -> Tensor:
    return torch.stack([_mirrored(*each) for each in zip(images, regions, boxes.tolist(), strict=True)])


def _mirrored(image: Tensor, region: Tensor, box: list[int]) -> Tensor:
    """The strip between the region's box and the image's edge, mirrored into the box, to and fro where it is short."""
    rooms = {}  # by the axis, and whether the room lies before the box or behind it; of equal ones the first counts
    for axis, (low, high) in reversed(list(enumerate(sides_of(box)))):
        rooms[axis, True], rooms[axis, False] = low, region.shape[axis] - high
    axis, is_before = max(rooms, key=lambda each: rooms[each])
    room, (low, high) = rooms[axis, is_before], sides_of(box)[axis]
    if room == 0:
        return _blur_one(image, region, box)
    places = torch.arange(region.shape[axis], device=image.device)
    depth = (places - low if is_before else high - 1 - places) % (2 * room)
    depth = torch.where(depth < room, depth, 2 * room - 1 - depth)
    return image.index_select(axis + 1, low - 1 - depth if is_before else high + depth)


_FILLS: dict[Any, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "blur": _blur,
    "mean": _mean,
    "neighbours": _neighbours,
}


def exchange(images: Tensor, donor_images: Tensor, has_donor: Tensor, regions: Tensor) -> Tensor:
    """Replace each image's region by what its donor has at the same place.

    Args:
        images: `(N, C, *S)`.
        donor_images: `(N, C, *S)`, the donor's image for each of them.
        has_donor: `(N,)` bool; a sample without one stays as it is.
        regions: `(N, *S)` bool.

    Example:
        >>> images = torch.tensor([[[[1.0, 2.0]]], [[[3.0, 4.0]]]])
        >>> left = torch.tensor([[[True, False]]] * 2)
        >>> exchange(images, images.flip(0), torch.tensor([True, False]), left).flatten(1).tolist()
        [[3.0, 2.0], [3.0, 4.0]]
    """
    return torch.where((regions & for_each(has_donor, regions))[:, None], donor_images, images)


def exchange_regions(
    images: Tensor,
    donor_images: Tensor,
    has_donor: Tensor,
    regions: Tensor,
    donor_regions: Tensor,
    to: Tensor,
) -> Tensor:
    """Replace each image's region by the donor's region: the boxes around both are laid on each other.

    Where all of them are at one place, no image is laid by itself.

    Args:
        images: `(N, C, *S)`.
        donor_images: `(N, C, *S)`, the donor's image for each of them.
        has_donor: `(N,)` bool; a sample without one stays as it is.
        regions: `(N, *S)` bool, all of one place or each somewhere else; best on the host: their boxes are read.
        donor_regions: `(N, *S)` bool, the donors' regions, likewise. A box of another size is resized.
        to: `(N, *S)` bool, the part of each region that is to be changed, on the images' device.

    Example:
        >>> images = torch.tensor([[[[1.0, 2.0, 3.0]]], [[[4.0, 5.0, 6.0]]]])
        >>> ends = torch.tensor([[[True, False, False]], [[False, False, True]]])
        >>> both = torch.tensor([True, True])
        >>> exchange_regions(images, images.flip(0), both, ends, ends.flip(0), ends).flatten(1).tolist()
        [[6.0, 2.0, 3.0], [4.0, 5.0, 1.0]]
    """
    own, lent = boxes_of(regions), boxes_of(donor_regions)
    if torch.equal(own, lent):
        return exchange(images, donor_images, has_donor, to)
    laid = images.clone()
    for row, boxes in enumerate(zip(own.tolist(), lent.tolist(), strict=True)):
        to_sides, of_sides = map(sides_of, boxes)
        if all(end > start for start, end in (*to_sides, *of_sides)):
            part = donor_images[row][_inside(of_sides)]
            laid[row][_inside(to_sides)] = _resized(part, tuple(end - start for start, end in to_sides))
    return exchange(images, laid, has_donor, to)


def _resized(image: Tensor, size: Size) -> Tensor:
    """An image `(C, *S)` of another size."""
    if image.shape[1:] == size:
        return image
    return in_dtype_of(image, resize(in_floats(image)[None], size)[0])
