"""Panels at the size they are shown: small ones enlarged by a whole factor, large ones shrunk."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def shrink_images(images: Tensor, height: int, width: int) -> Tensor:
    """Shrink uint8 pictures `(N, 3, H, W)` with antialiasing."""
    if images.shape[-2:] == (height, width):
        return images
    small = F.interpolate(images.float(), (height, width), mode="bilinear", antialias=True)
    return small.round_().clamp_(0, 255).to(torch.uint8)


def shrink_maps(maps: Tensor, height: int, width: int) -> Tensor:
    """Shrink float or bool maps `(N, H, W)`; each pixel keeps the highest value it stands for.

    Averaging would dim a narrow peak, and a thin mask would vanish.
    """
    if maps.shape[-2:] == (height, width):
        return maps
    small = F.adaptive_max_pool2d(maps.float().unsqueeze(1), (height, width)).squeeze(1)
    return small.to(maps.dtype)


def enlarge(pictures: Tensor, factor: int | tuple[int, int]) -> Tensor:
    """Repeat every pixel of `(..., H, W)`: `factor` times in both directions, or as often as it says down and across.

    Example:
        >>> enlarge(torch.tensor([[1, 2]]), (2, 1))
        tensor([[1, 2],
                [1, 2]])
    """
    down, across = (factor, factor) if isinstance(factor, int) else factor
    if (down, across) == (1, 1):
        return pictures
    *lead, height, width = pictures.shape
    repeated = pictures[..., :, None, :, None].expand(*lead, height, down, width, across)
    return repeated.reshape(*lead, height * down, width * across)


def peak_centers(maps: Tensor, height: int, width: int) -> Tensor:
    """Find each map's first highest pixel, in the coordinates of a panel of `height` x `width`.

    Args:
        maps: `(N, H, W)`, at their own size, since shrinking may move a peak.
        height: Of the panel.
        width: Of the panel.

    Returns:
        `(N, 2)`, float: row and column of the middle of that pixel.
    """
    rows, columns = maps.shape[-2:]
    index = maps.flatten(1).argmax(1)
    row = (index // columns + 0.5) * (height / rows) - 0.5
    column = (index % columns + 0.5) * (width / columns) - 0.5
    return torch.stack([row, column], dim=1)
