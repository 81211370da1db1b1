"""Parts of images exchanged between samples of different classes: the background, or the suspect region."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from lightning_gcam.reliance.regions import boxes_of
from lightning_gcam.reliance.removal import in_dtype_of, in_floats


def exchange(images: Tensor, lent: Tensor, has_partner: Tensor, regions: Tensor) -> Tensor:
    """Give each image, in its region, what its partner has at the same place.

    Args:
        images: `(N, C, H, W)`.
        lent: `(N, C, H, W)`, the partner's image for each of them.
        has_partner: `(N,)` bool; a sample without one stays as it is.
        regions: `(N, H, W)` bool.

    Example:
        >>> images = torch.tensor([[[[1.0, 2.0]]], [[[3.0, 4.0]]]])
        >>> left = torch.tensor([[[True, False]]] * 2)
        >>> exchange(images, images.flip(0), torch.tensor([True, False]), left).flatten(1).tolist()
        [[3.0, 2.0], [3.0, 4.0]]
    """
    return torch.where((regions & has_partner[:, None, None])[:, None], lent, images)


def exchange_regions(
    images: Tensor, lent: Tensor, has_partner: Tensor, regions: Tensor, lent_regions: Tensor, to: Tensor
) -> Tensor:
    """Give each image, in its region, what its partner has in its own: the boxes around both are laid on each other.

    Args:
        images: `(N, C, H, W)`.
        lent: `(N, C, H, W)`, the partner's image for each of them.
        has_partner: `(N,)` bool; a sample without one stays as it is.
        regions: `(N, H, W)` bool, all of one place or each somewhere else.
        lent_regions: `(N, H, W)` bool, the partners' regions. A box of another size is resized.
        to: `(N, H, W)` bool, the part of each region that is to be changed.

    Example:
        >>> images = torch.tensor([[[[1.0, 2.0, 3.0]]], [[[4.0, 5.0, 6.0]]]])
        >>> ends = torch.tensor([[[True, False, False]], [[False, False, True]]])
        >>> both = torch.tensor([True, True])
        >>> exchange_regions(images, images.flip(0), both, ends, ends.flip(0), ends).flatten(1).tolist()
        [[6.0, 2.0, 3.0], [4.0, 5.0, 1.0]]
    """
    laid = images.clone()
    boxes = zip(boxes_of(regions).tolist(), boxes_of(lent_regions).tolist(), strict=True)
    for row, ((left, top, right, bottom), (x1, y1, x2, y2)) in enumerate(boxes):
        if has_partner[row]:
            part = lent[row, :, y1:y2, x1:x2]
            laid[row, :, top:bottom, left:right] = _resized(part, (bottom - top, right - left))
    return torch.where((to & has_partner[:, None, None])[:, None], laid, images)


def _resized(image: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(image.shape[1:]) == size:
        return image
    made = interpolate(in_floats(image)[None], size=size, mode="bilinear", align_corners=False)[0]
    return in_dtype_of(image, made)
