"""Saliency as heat over a dimmed picture, for all samples at once, on their device."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_gcam._errors import InputError
from lightning_gcam.visual.checks import check_pictures, check_same_size
from lightning_gcam.visual.colormap import color_table, look_up

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
    if not 0 <= alpha <= 1:
        raise InputError(f"`alpha` must lie in [0, 1], but it is {alpha}. Leave it out for 0.8.")
    saliency = maps.detach().to(images.device).float().nan_to_num(0).clamp(0, 1)
    heat = look_up(saliency, heat_table(cmap)).permute(0, 3, 1, 2)
    picture = _grey(images).mul_(1 - alpha * saliency).round_().to(torch.uint8).unsqueeze(1)
    return picture + torch.minimum(heat, 255 - picture)  # the sum, stopped at 255


def heat_table(cmap: str = "inferno") -> Tensor:
    """The colours that are added, `(256, 3)` uint8: without the light a map has at 0, so that none adds nothing."""
    table = color_table(cmap)
    fade = torch.linspace(0, 1, len(table)).div(_FADE_IN).clamp(max=1)
    return table.mul(fade[:, None]).round().to(torch.uint8)


def _grey(images: Tensor) -> Tensor:
    """`(N, 3, H, W)` uint8 to dimmed luma `(N, H, W)` float, with the weights of ITU-R BT.601."""
    red, green, blue = images.unbind(1)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    return luma.mul_(_DIM)
