"""Regions of images removed, or exchanged with those of other samples."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from lightning_gcam.utils.chunking import run_in_chunks
from lightning_gcam.utils.errors import InputError, did_you_mean
from lightning_gcam.utils.transfer import to_device

Removal = Literal["blur", "mean", "neighbours"] | Callable[[Tensor, Tensor], Tensor]
"""A name, or a callable from images `(N, C, H, W)` and regions `(N, H, W)` bool to images."""

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
        images: `(N, C, H, W)`, floating point or whole numbers, on any device.
        regions: `(N, H, W)` bool; an empty one leaves its image as it is.
        removal: "blur": the mean of what lies around, weighted by a Gaussian of a quarter of the region's longer side;
            "mean": each channel's mean outside of the region; "neighbours": what lies beside the region, mirrored into
            it from the side with the most room (blurred where there is no room on any side); or a callable from images
            and regions to images, of which only the region is taken.
        boxes: the boxes of the regions, where they are known on the host: then no device is waited for.

    Returns:
        `(N, C, H, W)` in the dtype of `images`; whole numbers are rounded and clamped.

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
        images: `(N, C, H, W)`.
        regions: `(N, H, W)` bool on the host, in which the objects are removed.
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
        """`(N, C, H, W)`, of the dtype and on the device of the images; made in fewer at once where memory runs out."""
        boxes, regions = boxes_of(self._regions), to_device(self._regions, self._images.device)

        def work(part: slice) -> Tensor:
            return remove_regions(self._images[part], regions[part], self._removal, boxes[part])

        parts, _ = run_in_chunks(len(boxes), work, label="objects removed")
        return parts[0] if len(parts) == 1 else torch.cat(parts)


def boxes_of(regions: Tensor) -> Tensor:
    """The smallest box around each region, `(N, 4)` int64 `x1, y1, x2, y2`, the far edges past the last pixel.

    Args:
        regions: `(N, H, W)` bool; an empty one has the box 0, 0, 0, 0.

    Example:
        >>> boxes_of(torch.tensor([[[False, False, True], [False, True, False]]])).tolist()
        [[1, 0, 3, 2]]
    """
    (top, bottom), (left, right) = _ends(regions.any(dim=2)), _ends(regions.any(dim=1))
    return torch.stack([left, top, right, bottom], dim=1)


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
    outside = (~regions)[:, None].to(images)
    area = outside.sum(dim=(2, 3), keepdim=True).clamp(min=1)
    return ((images * outside).sum(dim=(2, 3), keepdim=True) / area).expand_as(images)


def _blur(images: Tensor, regions: Tensor, boxes: Tensor) -> Tensor:
    """Blur by a normalized convolution: pixels of the region do not count (Knutsson and Westin, 1993)."""
    return torch.stack([_blur_one(*each) for each in zip(images, regions, boxes.tolist(), strict=True)])


def _blur_one(image: Tensor, region: Tensor, box: list[int]) -> Tensor:
    """The image with the box around its region blurred.

    Where the Gaussian is wide, it is taken over the sums of small cells, so that the cost grows with the number of
    pixels, and not with the third power of the side.
    """
    left, top, right, bottom = box
    sigma = max(max(right - left, bottom - top) * _SIGMA, 1)
    cell = max(int(sigma / _CELLS), 1)
    outside = (~region).to(image)[None]
    down = _gaussian(range(top, bottom), region.shape[0], cell, sigma, image)
    across = _gaussian(range(left, right), region.shape[1], cell, sigma, image).T
    weights = down @ _sums(outside, cell) @ across
    made = image.clone()
    made[:, top:bottom, left:right] = (down @ _sums(image * outside, cell) @ across) / weights.clamp(
        min=torch.finfo(image.dtype).tiny
    )
    return made


def _sums(images: Tensor, cell: int) -> Tensor:
    """The sum over each cell of `cell` x `cell` pixels; those at the far edges may be smaller."""
    return avg_pool2d(images, cell, ceil_mode=True, divisor_override=1) if cell > 1 else images


def _gaussian(places: range, length: int, cell: int, sigma: float, like: Tensor) -> Tensor:
    """How much each cell of an axis counts at each of some places, `(places, cells)`."""
    at = torch.tensor(places, device=like.device, dtype=like.dtype)
    starts = torch.arange(0, length, cell, device=like.device, dtype=like.dtype)
    middles = (starts + (starts + cell).clamp(max=length) - 1) / 2
    return torch.exp(-0.5 * ((at[:, None] - middles[None]) / sigma) ** 2)


def _neighbours(images: Tensor, regions: Tensor, boxes: Tensor) -> Tensor:
    return torch.stack([_mirrored(*each) for each in zip(images, regions, boxes.tolist(), strict=True)])


def _mirrored(image: Tensor, region: Tensor, box: list[int]) -> Tensor:
    """The strip between the region's box and the image's edge, mirrored into the box, to and fro where it is short."""
    (left, top, right, bottom), (height, width) = box, region.shape
    rooms = {"left": left, "right": width - right, "top": top, "bottom": height - bottom}
    side = max(rooms, key=lambda each: rooms[each])
    room = rooms[side]
    if room == 0:
        return _blur_one(image, region, box)
    low, high = (left, right) if side in ("left", "right") else (top, bottom)
    length = width if side in ("left", "right") else height
    places = torch.arange(length, device=image.device)
    depth = places - low if side in ("left", "top") else high - 1 - places
    depth = depth % (2 * room)
    depth = torch.where(depth < room, depth, 2 * room - 1 - depth)
    source = low - 1 - depth if side in ("left", "top") else high + depth
    return image[:, :, source] if side in ("left", "right") else image[:, source]


_FILLS: dict[Any, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "blur": _blur,
    "mean": _mean,
    "neighbours": _neighbours,
}


def exchange(images: Tensor, donor_images: Tensor, has_donor: Tensor, regions: Tensor) -> Tensor:
    """Replace each image's region by what its donor has at the same place.

    Args:
        images: `(N, C, H, W)`.
        donor_images: `(N, C, H, W)`, the donor's image for each of them.
        has_donor: `(N,)` bool; a sample without one stays as it is.
        regions: `(N, H, W)` bool.

    Example:
        >>> images = torch.tensor([[[[1.0, 2.0]]], [[[3.0, 4.0]]]])
        >>> left = torch.tensor([[[True, False]]] * 2)
        >>> exchange(images, images.flip(0), torch.tensor([True, False]), left).flatten(1).tolist()
        [[3.0, 2.0], [3.0, 4.0]]
    """
    return torch.where((regions & has_donor[:, None, None])[:, None], donor_images, images)


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
        images: `(N, C, H, W)`.
        donor_images: `(N, C, H, W)`, the donor's image for each of them.
        has_donor: `(N,)` bool; a sample without one stays as it is.
        regions: `(N, H, W)` bool, all of one place or each somewhere else; best on the host: their boxes are read.
        donor_regions: `(N, H, W)` bool, the donors' regions, likewise. A box of another size is resized.
        to: `(N, H, W)` bool, the part of each region that is to be changed, on the images' device.

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
    for row, ((left, top, right, bottom), (x1, y1, x2, y2)) in enumerate(
        zip(own.tolist(), lent.tolist(), strict=True)
    ):
        if x2 > x1 and right > left:
            part = donor_images[row, :, y1:y2, x1:x2]
            laid[row, :, top:bottom, left:right] = _resized(part, (bottom - top, right - left))
    return exchange(images, laid, has_donor, to)


def _resized(image: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(image.shape[1:]) == size:
        return image
    made = interpolate(in_floats(image)[None], size=size, mode="bilinear", align_corners=False)[0]
    return in_dtype_of(image, made)
