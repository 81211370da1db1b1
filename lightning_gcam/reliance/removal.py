"""How a region is removed from an image: by what lies around it, so that nothing of the region itself is left."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from lightning_gcam._errors import InputError, did_you_mean
from lightning_gcam.reliance.regions import boxes_of

Removal = Literal["blur", "mean", "neighbours"] | Callable[[Tensor, Tensor], Tensor]
"""A name, or a callable from images `(N, C, H, W)` and regions `(N, H, W)` bool to images."""

DEFAULT_REMOVAL: Removal = "neighbours"  # docs/shortcuts.md, "How the object is removed"

_SIGMA = 1 / 4


def check_removal(removal: Any) -> None:
    """Refuse what does not say how a region is removed.

    Raises:
        InputError: naming what came.
    """
    if not callable(removal) and removal not in _FILLS:
        raise InputError(f'`removal` "{removal}" is not known. {did_you_mean(str(removal), _FILLS)}')


def remove_regions(images: Tensor, regions: Tensor, removal: Removal = DEFAULT_REMOVAL) -> Tensor:
    """Replace a region of each image; what lies outside of it stays as it is, to the bit.

    None of the named ways uses a pixel of the region, not even its colour: what an object looked like must be gone.

    Args:
        images: `(N, C, H, W)`, floating point or whole numbers, on any device.
        regions: `(N, H, W)` bool; an empty one leaves its image as it is.
        removal: "blur": the mean of what lies around, weighted by a Gaussian of a quarter of the region's longer side;
            "mean": each channel's mean outside of the region; "neighbours": what lies beside the region, mirrored into
            it from the side with the most room (blurred where there is no room on any side); or a callable from images
            and regions to images, of which only the region is taken.

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
    fill = removal if callable(removal) else _FILLS[removal]
    made = fill(images if callable(removal) else in_floats(images), regions)
    if not isinstance(made, Tensor) or made.shape != images.shape:
        came = tuple(made.shape) if isinstance(made, Tensor) else type(made).__name__
        raise InputError(f"`removal` must give images of the shape {tuple(images.shape)}; got {came}.")
    return torch.where(regions[:, None], in_dtype_of(images, made), images)


def in_floats(images: Tensor) -> Tensor:
    """Images in which means can be taken: float32, or float64 where they are."""
    return images.to(torch.promote_types(images.dtype, torch.float32))


def in_dtype_of(images: Tensor, made: Tensor) -> Tensor:
    """What was made of images in their dtype again; whole numbers are rounded, and clamped to what it holds."""
    if images.is_floating_point() or images.dtype == torch.bool or not made.is_floating_point():
        return made.to(images)
    limits = torch.iinfo(images.dtype)
    return made.round().clamp(limits.min, limits.max).to(images)


def _mean(images: Tensor, regions: Tensor) -> Tensor:
    outside = (~regions)[:, None].to(images)
    area = outside.sum(dim=(2, 3), keepdim=True).clamp(min=1)
    return ((images * outside).sum(dim=(2, 3), keepdim=True) / area).expand_as(images)


def _blur(images: Tensor, regions: Tensor) -> Tensor:
    """A normalized convolution: pixels of the region count for nothing (Knutsson and Westin, 1993)."""
    boxes = boxes_of(regions)
    longer = torch.maximum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1])
    sigmas = (longer * _SIGMA).clamp(min=1).tolist()
    return torch.stack([_blur_one(*each) for each in zip(images, regions, sigmas, strict=True)])


def _blur_one(image: Tensor, region: Tensor, sigma: float) -> Tensor:
    outside = (~region).to(image)
    down, across = (_gaussian(length, sigma, image) for length in region.shape)
    weights = down @ outside @ across
    return (down @ (image * outside) @ across) / weights.clamp(min=torch.finfo(image.dtype).tiny)


def _gaussian(length: int, sigma: float, like: Tensor) -> Tensor:
    """How much each place counts at each other one, `(length, length)`."""
    places = torch.arange(length, device=like.device, dtype=like.dtype)
    return torch.exp(-0.5 * ((places[:, None] - places[None]) / sigma) ** 2)


def _neighbours(images: Tensor, regions: Tensor) -> Tensor:
    boxes = boxes_of(regions).tolist()
    return torch.stack([_mirrored(*each) for each in zip(images, regions, boxes, strict=True)])


def _mirrored(image: Tensor, region: Tensor, box: list[int]) -> Tensor:
    """The strip between the region's box and the image's edge, mirrored into the box, to and fro where it is short."""
    (left, top, right, bottom), (height, width) = box, region.shape
    rooms = {"left": left, "right": width - right, "top": top, "bottom": height - bottom}
    side = max(rooms, key=lambda each: rooms[each])
    room = rooms[side]
    if room == 0:
        return _blur(image[None], region[None])[0]
    low, high = (left, right) if side in ("left", "right") else (top, bottom)
    length = width if side in ("left", "right") else height
    places = torch.arange(length, device=image.device)
    depth = places - low if side in ("left", "top") else high - 1 - places
    depth = depth % (2 * room)
    depth = torch.where(depth < room, depth, 2 * room - 1 - depth)
    source = low - 1 - depth if side in ("left", "top") else high + depth
    return image[:, :, source] if side in ("left", "right") else image[:, source]


_FILLS: dict[Any, Callable[[Tensor, Tensor], Tensor]] = {
    "blur": _blur,
    "mean": _mean,
    "neighbours": _neighbours,
}
