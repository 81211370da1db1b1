"""Parts of images exchanged between samples of different classes: the background, or the suspect region."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from lightning_gcam.reliance.regions import boxes_of
from lightning_gcam.reliance.removal import in_dtype_of, in_floats


def exchange(images: Tensor, others: Tensor, partners: Tensor, regions: Tensor) -> Tensor:
    """Give each image, in its region, what its partner has at the same place.

    Args:
        images: `(N, C, H, W)`.
        others: `(N, C, H, W)`, what the partners give.
        partners: `(N,)` int64; a sample without one (-1) stays as it is.
        regions: `(N, H, W)` bool.

    Example:
        >>> images = torch.tensor([[[[1.0, 2.0]]], [[[3.0, 4.0]]]])
        >>> left = torch.tensor([[[True, False]]] * 2)
        >>> exchange(images, images, torch.tensor([1, -1]), left).flatten(1).tolist()
        [[3.0, 2.0], [3.0, 4.0]]
    """
    has_partner = (partners >= 0)[:, None, None]
    return torch.where((regions & has_partner)[:, None], others[partners.clamp(min=0)], images)


def exchange_regions(images: Tensor, others: Tensor, partners: Tensor, regions: Tensor, to: Tensor) -> Tensor:
    """Give each image, in its region, what its partner has in its own: the boxes around both are laid on each other.

    Args:
        images: `(N, C, H, W)`.
        others: `(N, C, H, W)`, what the partners give.
        partners: `(N,)` int64; a sample without one (-1) stays as it is.
        regions: `(N, H, W)` bool, all of one place or each somewhere else. A partner's box of another size is resized.
        to: `(N, H, W)` bool, the part of each region that is to be changed.

    Example:
        >>> images = torch.tensor([[[[1.0, 2.0, 3.0]]], [[[4.0, 5.0, 6.0]]]])
        >>> ends = torch.tensor([[[True, False, False]], [[False, False, True]]])
        >>> exchange_regions(images, images, torch.tensor([1, 0]), ends, ends).flatten(1).tolist()
        [[6.0, 2.0, 3.0], [4.0, 5.0, 1.0]]
    """
    laid, boxes = others.clone(), boxes_of(regions).tolist()
    for row, partner in enumerate(partners.tolist()):
        if partner >= 0:
            (left, top, right, bottom), (x1, y1, x2, y2) = boxes[row], boxes[partner]
            lent = others[partner, :, y1:y2, x1:x2]
            laid[row, :, top:bottom, left:right] = _resized(lent, (bottom - top, right - left))
    return torch.where((to & (partners >= 0)[:, None, None])[:, None], laid, images)


def _resized(image: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(image.shape[1:]) == size:
        return image
    made = interpolate(in_floats(image)[None], size=size, mode="bilinear", align_corners=False)[0]
    return in_dtype_of(image, made)
