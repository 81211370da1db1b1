"""Colour maps, resizing, and saliency maps drawn over their images."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from lightning_gcam.utils.errors import InputError, did_you_mean
from lightning_gcam.visual.images import Color, check_pictures, check_same_size, pack, unpack

_ENTRIES = 256


def colormap(values: Tensor, name: str = "inferno") -> Tensor:
    """Colour every value, exactly as matplotlib does.

    The default is perceptually even: equal steps in the value look like equal steps in the picture.

    Args:
        values: `(...)`, float in [0, 1], any device. What lies outside is clamped; NaN counts as 0.
        name: The name of one of matplotlib's colour maps.

    Returns:
        `(..., 3)`, uint8 RGB, on the device of `values`.

    Raises:
        InputError: If matplotlib has no colour map called `name`.

    Example:
        >>> import torch
        >>> colormap(torch.tensor([0.0, 1.0])).tolist()
        [[0, 0, 3], [252, 254, 164]]
    """
    return apply_table(values, color_table(name))


def color_table(name: str) -> Tensor:
    """Return all colours of a colour map, `(256, 3)` uint8, on the CPU."""
    # a copy at every call: what is cached must not be changed, nor made under somebody's inference_mode
    return torch.from_numpy(_cached_table(name).copy())


def apply_table(values: Tensor, table: Tensor) -> Tensor:
    """Colour `(...)` floats in [0, 1] from a `(256, 3)` table: `(..., 3)`, on the device of `values`."""
    index = values.detach().float().nan_to_num(0).mul(_ENTRIES).clamp(0, _ENTRIES - 1).int()
    return table.to(values.device).index_select(0, index.flatten()).view(*values.shape, 3)


def check_colormap(name: str) -> str:
    """Return `name` if matplotlib has a colour map of that name, and raise otherwise.

    Raises:
        InputError: If it has none, with the nearest names it does have.

    Example:
        >>> check_colormap("viridis")
        'viridis'
    """
    from matplotlib import colormaps

    if name not in colormaps:
        hint = did_you_mean(str(name), colormaps)
        raise InputError(f'`cmap` "{name}" is not a colour map of matplotlib. {hint}')
    return name


@lru_cache(maxsize=16)
def _cached_table(name: str) -> npt.NDArray[np.uint8]:
    """Compute the `(256, 3)` colours of a map; by linspace, since a qualitative map has fewer entries."""
    from matplotlib import colormaps

    colours = colormaps[check_colormap(name)](np.linspace(0, 1, _ENTRIES), bytes=True)
    return np.array(colours[:, :3], dtype=np.uint8)


def shrink_maps(maps: Tensor, height: int, width: int) -> Tensor:
    """Shrink float or bool maps `(N, H, W)`; each pixel keeps the highest value it stands for.

    Averaging would dim a narrow peak, and a thin mask would vanish.

    Example:
        >>> shrink_maps(torch.tensor([[[1.0, 2.0, 3.0, 0.0]]]), 1, 2).tolist()
        [[[2.0, 3.0]]]
    """
    return _highest(_highest(maps, height, 1), width, 2)


def _highest(maps: Tensor, side: int, dim: int) -> Tensor:
    """Shrink one dimension to windows that cover it, each as long as it must be; no copy of the whole is made."""
    length = maps.shape[dim]
    if length == side:
        return maps
    index = torch.arange(side, device=maps.device)
    first, last = index * length // side, -((index + 1) * -length // side) - 1
    found = maps.index_select(dim, first)
    for step in range(1, -(-length // side) + 1):
        found = torch.maximum(found, maps.index_select(dim, torch.minimum(first + step, last)))
    return found


def shrink_saliency(maps: Tensor, height: int, width: int) -> Tensor:
    """Shrink maps `(N, H, W)` where they are, and copy them to the CPU once; what is not finite counts as 0."""
    small = shrink_maps(maps.detach(), height, width).cpu()
    if small.shape == maps.shape or bool(small.isfinite().all()):
        return small
    return shrink_maps(maps.detach().nan_to_num(0, 0, 0), height, width).cpu()


def enlarge(pictures: Tensor, factor: int | tuple[int, int]) -> Tensor:
    """Repeat every pixel of `(..., H, W)`: `factor` times in both directions, or by a pair of factors down and across.

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
    return repeated.reshape(*lead, height * down, width * across).contiguous()


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


# Where saliency increased and decreased, in the report too: equally light, and distinct for every colour blindness.
INCREASE_COLOR: Color = (255, 157, 60)
DECREASE_COLOR: Color = (74, 168, 255)

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
    return _dimmed_luma(images).round_().to(torch.uint8).unsqueeze(1).expand(-1, 3, -1, -1)


def overlay(images: Tensor, maps: Tensor, cmap: str = "inferno", alpha: float = 0.8) -> Tensor:
    """Draw saliency in colour over the dimmed picture.

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
    return unpack(heat_pixels(images, maps, cmap, alpha))


def heat_pixels(images: Tensor, maps: Tensor, cmap: str, alpha: float) -> Tensor:
    """Draw saliency as `overlay` does, into packed pixels `(N, H, W)` int32."""
    saliency = maps.detach().to(images.device).float().nan_to_num(0).clamp_(0, 1)
    grey = _faded(images, saliency, alpha).int()
    index = saliency.mul_(_ENTRIES).clamp_(max=_ENTRIES - 1).int().mul_(_ENTRIES).add_(grey)
    table = torch.from_numpy(_glow_table(cmap)).to(images.device)
    return table.index_select(0, index.flatten()).view_as(index)


def overlay_change(images: Tensor, changes: Tensor, alpha: float = 0.8) -> Tensor:
    """Draw a change over the dimmed picture: orange where saliency increased, blue where it decreased.

    The two grow alike in lightness, and they differ for readers with weak colour vision, too. No change is exactly
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
    colors = torch.tensor([INCREASE_COLOR, DECREASE_COLOR], device=images.device)
    glow = colors[(change < 0).long()].permute(0, 3, 1, 2) * change.abs()[:, None]
    grey = _faded(images, change.abs(), alpha).to(torch.uint8)
    return _add_glow(grey[:, None], glow.round_().to(torch.uint8))


def heat_table(cmap: str = "inferno") -> Tensor:
    """Return the colours that are added to a picture, `(256, 3)` uint8: black where there is no saliency."""
    table = color_table(cmap)
    fade = torch.linspace(0, 1, len(table)).div(_FADE_IN).clamp(max=1)
    return table.mul(fade[:, None]).round().to(torch.uint8)


def _check_alpha(alpha: float) -> None:
    if not 0 <= alpha <= 1:
        raise InputError(f"`alpha` must lie in [0, 1], but it is {alpha}. Leave it out for 0.8.")


def _faded(images: Tensor, share: Tensor, alpha: float) -> Tensor:
    """The grey `(N, H, W)`, whole floats, of dimmed pictures that fade with `share`."""
    return _dimmed_luma(images).mul_(share.mul(-alpha).add_(1)).round_()


def _add_glow(picture: Tensor, glow: Tensor) -> Tensor:
    """Add two tensors of uint8, and stop at 255."""
    return picture + torch.minimum(glow, 255 - picture)


@lru_cache(maxsize=8)
def _glow_table(cmap: str) -> npt.NDArray[np.int32]:
    """The pixel that each of 256 saliencies makes of each of 256 greys, `(65536,)`, packed."""
    glow = heat_table(cmap)[:, :, None].expand(-1, -1, _ENTRIES)
    grey = torch.arange(_ENTRIES, dtype=torch.uint8).expand_as(glow)
    return pack(_add_glow(grey, glow)[:, :, None]).flatten().numpy()


def _dimmed_luma(images: Tensor) -> Tensor:
    """Convert `(N, 3, H, W)` uint8 to dimmed luma `(N, H, W)` float, with the weights of ITU-R BT.601."""
    red, green, blue = images.float().unbind(1)
    return red.mul(0.299).add_(green * 0.587).add_(blue * 0.114).mul_(_DIM)


@lru_cache(maxsize=8)
def color_bar(cmap: str, alpha: float, width: int, height: int) -> Image.Image:
    """Draw the colours of saliency 0 to 1 over mid grey, blended as in the panels."""
    return _to_pillow(overlay(_grey_picture(width, height), _ramp(0, width, height), cmap, alpha))


@lru_cache(maxsize=8)
def change_bar(alpha: float, width: int, height: int) -> Image.Image:
    """Draw the colours of a change from -1 to 1 over mid grey, blended as in the panels."""
    return _to_pillow(overlay_change(_grey_picture(width, height), _ramp(-1, width, height), alpha))


def _grey_picture(width: int, height: int) -> Tensor:
    return torch.full((1, 3, height, width), 128, dtype=torch.uint8)


def _ramp(start: float, width: int, height: int) -> Tensor:
    return torch.linspace(start, 1, width).expand(1, height, width)


def _to_pillow(drawn: Tensor) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(drawn[0].permute(1, 2, 0).numpy()))
