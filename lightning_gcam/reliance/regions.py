"""Where the object is, as the checks take it: a square that hides its outline, and the object with a thin rim."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

MARGIN = 1 / 8
"""How much wider than the object the region around it is, on each side, as a share of the object's longer side."""

_MOST = 3 / 4
_RIM = 1 / 64


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
    """The first place that is there, and the one past the last, `(N,)` each; 0 and 0 where none is."""
    places = torch.arange(there.shape[1], device=there.device).expand_as(there)
    last = torch.where(there, places + 1, 0).amax(dim=1)
    first = torch.where(there, places, there.shape[1]).amin(dim=1)
    return torch.minimum(first, last), last


def region_around(masks: Tensor) -> Tensor:
    """The region in which an object is removed: a square around its box, a margin wider on every side.

    A hole of the object's outline would still tell what it was, and the sides of a narrow box that it was narrow; a
    square tells its size and place only. It is moved into the image where it would reach beyond. Where it would take
    more than three quarters of the image, the box with its margin stands instead.

    Args:
        masks: `(N, H, W)` bool, the objects.

    Returns:
        `(N, H, W)` bool; empty where the mask is.

    Example:
        >>> mask = torch.zeros(1, 6, 12, dtype=torch.bool)
        >>> mask[0, 2:4, 5] = True  # two high, one wide: a square of four with its margin
        >>> boxes_of(region_around(mask)).tolist()
        [[3, 1, 7, 5]]
    """
    height, width = masks.shape[1:]
    left, top, right, bottom = boxes_of(masks).unbind(dim=1)
    longer = torch.maximum(right - left, bottom - top)
    margin = (longer * MARGIN).ceil().long()
    side = longer + 2 * margin
    square = _filled(
        masks, *_side_by_side(left, right, side, width), *_side_by_side(top, bottom, side, height)
    )
    box = _filled(masks, left - margin, right + margin, top - margin, bottom + margin)
    fits = square.flatten(1).sum(dim=1) <= _MOST * height * width
    return torch.where(fits[:, None, None], square, box) & masks.flatten(1).any(dim=1)[:, None, None]


def with_rim(masks: Tensor) -> Tensor:
    """The objects `(N, H, W)`, a rim of one 64th of the image's shorter side wider: what is kept of an object."""
    radius = max(round(min(masks.shape[1:]) * _RIM), 1)
    return _widened(_widened(masks, radius).transpose(1, 2), radius).transpose(1, 2)


def _widened(masks: Tensor, radius: int) -> Tensor:
    """Each region wider by `radius` pixels to the left and to the right.

    The reach doubles with each step, so that the cost hardly grows with the radius: a maximum over a square window
    would cost the fourth power of an image's side.
    """
    wide, reach = pad(masks, (radius, radius)), 1
    while reach <= 2 * radius:
        step = min(reach, 2 * radius + 1 - reach)
        wide = wide[..., step:] | wide[..., :-step]
        reach += step
    return wide


def _side_by_side(low: Tensor, high: Tensor, side: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """A stretch as long as `side` around the middle of another, moved to where it is in the image."""
    start = torch.div(low + high - side, 2, rounding_mode="floor")
    start = torch.minimum(start, length - side).clamp(min=0)
    return start, start + side


def _filled(like: Tensor, left: Tensor, right: Tensor, top: Tensor, bottom: Tensor) -> Tensor:
    """Boxes as regions `(N, H, W)`."""
    rows = torch.arange(like.shape[1], device=like.device)
    columns = torch.arange(like.shape[2], device=like.device)
    in_rows = (rows >= top[:, None]) & (rows < bottom[:, None])
    in_columns = (columns >= left[:, None]) & (columns < right[:, None])
    return in_rows[:, :, None] & in_columns[:, None, :]
