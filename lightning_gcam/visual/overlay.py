"""Saliency as heat over a dimmed picture, for all samples at once, on their device."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_gcam._errors import InputError
from lightning_gcam.visual.checks import check_pictures, check_same_size
from lightning_gcam.visual.colormap import color_table, look_up
from lightning_gcam.visual.lines import Color

# What came and what went, in the report too: of one lightness, and apart for every kind of colour blindness.
CAME_COLOR: Color = (255, 157, 60)
WENT_COLOR: Color = (74, 168, 255)

_DIM = 0.62
# Below this share of the maximum the heat fades in: no saliency is no colour, whatever the colour map.
_FADE_IN = 0.08


def dim(images: Tensor) -> Tensor:
    """Turn pictures into the dark grey ones that heat is drawn on.

    Args:
        images: `(N, 3, H, W)`, uint8.

    Returns:
        `(N, 3, H, W)`, uint8, all three channels alike.

    Example:
        >>> import torch
        >>> dim(torch.full((1, 3, 1, 1), 255, dtype=torch.uint8)).flatten().tolist()
        [158, 158, 158]
    """
    return _grey(images).round_().to(torch.uint8).unsqueeze(1).expand(-1, 3, -1, -1)


def overlay(images: Tensor, maps: Tensor, cmap: str = "inferno", alpha: float = 0.8) -> Tensor:
    """Let saliency glow over the dimmed picture.

    The heat is added to the picture while the picture fades beneath it, so more saliency is never darker than
    less, and no saliency is exactly `dim(images)`.

    Args:
        images: `(N, 3, H, W)`, uint8.
        maps: `(N, H, W)`, float in [0, 1]; NaN counts as 0.
        cmap: The name of one of matplotlib's colour maps.
        alpha: How far the picture fades where saliency is 1: 0 not at all, 1 completely.

    Returns:
        `(N, 3, H, W)`, uint8, on the device of `images`.

    Raises:
        InputError: If the shapes do not fit, `alpha` is outside [0, 1], or there is no such colour map.

    Example:
        >>> import torch
        >>> black = torch.zeros(1, 3, 1, 2, dtype=torch.uint8)
        >>> overlay(black, torch.tensor([[[0.0, 1.0]]]))[0, :, 0].T.tolist()
        [[0, 0, 0], [252, 254, 164]]
    """
    check_pictures(images)
    check_same_size(images, maps, "maps")
    _check_alpha(alpha)
    saliency = maps.detach().to(images.device).float().nan_to_num(0).clamp(0, 1)
    heat = look_up(saliency, heat_table(cmap)).permute(0, 3, 1, 2)
    return _glowing(images, heat, saliency, alpha)


def overlay_change(images: Tensor, changes: Tensor, alpha: float = 0.8) -> Tensor:
    """Let a change glow over the dimmed picture: orange where saliency came, blue where it went.

    The two grow alike in lightness, and who does not see colours well can tell them apart. No change is exactly
    `dim(images)`.

    Args:
        images: `(N, 3, H, W)`, uint8.
        changes: `(N, H, W)`, float in [-1, 1]; NaN counts as 0.
        alpha: How far the picture fades where the change is whole: 0 not at all, 1 completely.

    Returns:
        `(N, 3, H, W)`, uint8, on the device of `images`.

    Raises:
        InputError: If the shapes do not fit, or `alpha` is outside [0, 1].

    Example:
        >>> import torch
        >>> black = torch.zeros(1, 3, 1, 3, dtype=torch.uint8)
        >>> overlay_change(black, torch.tensor([[[-1.0, 0.0, 1.0]]]))[0, :, 0].T.tolist()
        [[74, 168, 255], [0, 0, 0], [255, 157, 60]]
    """
    check_pictures(images)
    check_same_size(images, changes, "changes")
    _check_alpha(alpha)
    change = changes.detach().to(images.device).float().nan_to_num(0).clamp(-1, 1)
    colors = torch.tensor([CAME_COLOR, WENT_COLOR], device=images.device)
    glow = colors[(change < 0).long()].permute(0, 3, 1, 2) * change.abs()[:, None]
    return _glowing(images, glow.round_().to(torch.uint8), change.abs(), alpha)


def heat_table(cmap: str = "inferno") -> Tensor:
    """The colours that are added, `(256, 3)` uint8: without the light a map has at 0, so that none adds nothing."""
    table = color_table(cmap)
    fade = torch.linspace(0, 1, len(table)).div(_FADE_IN).clamp(max=1)
    return table.mul(fade[:, None]).round().to(torch.uint8)


def _check_alpha(alpha: float) -> None:
    if not 0 <= alpha <= 1:
        raise InputError(f"`alpha` must lie in [0, 1], but it is {alpha}. Leave it out for 0.8.")


def _glowing(images: Tensor, glow: Tensor, share: Tensor, alpha: float) -> Tensor:
    """`glow` `(N, 3, H, W)` uint8 added to the dimmed picture, which fades beneath it with `share` `(N, H, W)`."""
    picture = _grey(images).mul_(1 - alpha * share).round_().to(torch.uint8).unsqueeze(1)
    return picture + torch.minimum(glow, 255 - picture)  # the sum, stopped at 255


def _grey(images: Tensor) -> Tensor:
    """`(N, 3, H, W)` uint8 to dimmed luma `(N, H, W)` float, with the weights of ITU-R BT.601."""
    red, green, blue = images.unbind(1)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    return luma.mul_(_DIM)
