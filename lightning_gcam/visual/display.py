"""Images as a model takes them, turned into pictures a person can look at."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from lightning_gcam._errors import InputError

Normalize: TypeAlias = tuple[float | Sequence[float], float | Sequence[float]]

# Half a display step: a resize that overshoots by less cannot be seen, so it still counts as [0, 1].
_TOLERANCE = 0.5 / 255


def to_display(images: Tensor, normalize: Normalize | None = None) -> Tensor:
    """Turn images of any channel count and dtype into RGB pictures.

    Floats are un-normalised with `normalize`. Without it, a batch that lies in [0, 1] is kept, and any other
    is stretched image by image from its own minimum to its own maximum (a constant image becomes mid grey).
    uint8 passes through. Values that are not finite are shown black.

    Args:
        images: `(N, C, H, W)`, any dtype and device. One channel becomes grey; of other than 1 or 3 channels
            the first three are shown (the first alone if there are two); `shown_channels` says so in words.
        normalize: The `(mean, std)` the images were normalised with, one number each or one per channel.

    Returns:
        `(N, 3, H, W)`, uint8, on the device of `images`.

    Raises:
        InputError: If `images` is not `(N, C, H, W)`, or `normalize` does not fit it.

    Example:
        >>> import torch
        >>> to_display(torch.zeros(1, 1, 1, 1), normalize=(0.5, 0.25)).flatten().tolist()
        [128, 128, 128]
    """
    _check_images(images)
    images = images.detach()
    if normalize is not None:
        mean, std = check_normalize(normalize, channels=images.shape[1])
        if images.is_floating_point():
            images = _denormalize(images.float(), mean, std)
    images = _show_channels(images)
    if images.dtype == torch.uint8:
        return images
    images = images.float()
    finite = images.isfinite()
    unit = _to_unit(images, finite)
    return unit.mul(255).round().clamp(0, 255).where(finite, 0).to(torch.uint8)


def shown_channels(channels: int) -> str | None:
    """Say which channels `to_display` shows, or None where it shows them all.

    Args:
        channels: How many channels the images have.

    Example:
        >>> shown_channels(13)
        'channels 1-3 of 13'
        >>> shown_channels(3) is None
        True
    """
    if channels in (1, 3):
        return None
    return "channel 1 of 2" if channels == 2 else f"channels 1-3 of {channels}"


def check_normalize(
    normalize: Normalize, channels: int | None = None
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Check a `(mean, std)` pair early, and return it as two tuples of equal length.

    Args:
        normalize: `(mean, std)`; each one number per channel, or a single number for all of them.
        channels: How many channels the images have, where that is known.

    Raises:
        InputError: If it is not such a pair, the lengths differ, or a std is not above 0.

    Example:
        >>> check_normalize((0.5, (0.2, 0.3)))
        ((0.5, 0.5), (0.2, 0.3))
    """
    try:
        first, second = normalize
        mean, std = _numbers(first), _numbers(second)
    except (TypeError, ValueError):
        raise InputError(
            f"`normalize` must be a pair (mean, std) of finite numbers, but it is {normalize!r}. "
            "Give for example ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), or leave it out."
        ) from None
    if min(std) <= 0:
        raise InputError(f"`normalize` needs every std above 0, but std is {std}. The order is (mean, std).")
    length = max(len(mean), len(std))
    if {len(mean), len(std)} - {1, length}:
        raise InputError(
            f"`normalize` has {len(mean)} means and {len(std)} stds. Give as many of one as of the other."
        )
    if channels is not None and length not in (1, channels):
        raise InputError(
            f"`normalize` is for {length} channels, but the images have {channels}. "
            "Give one number per channel, or a single number for all."
        )
    return mean * (length // len(mean)), std * (length // len(std))


def _check_images(images: Tensor) -> None:
    if images.ndim != 4 or images.shape[1] == 0:
        raise InputError(
            f"`images` must be (N, C, H, W) with at least one channel, "
            f"but its shape is {tuple(images.shape)}. One image (C, H, W) becomes a batch of one by `images[None]`, "
            "grey images (N, H, W) get their channel by `images[:, None]`."
        )


def _numbers(value: Any) -> tuple[float, ...]:
    """One number or many, from Python, numpy or torch, as a tuple of floats."""
    plain = value.tolist() if hasattr(value, "tolist") else value
    numbers = (float(plain),) if isinstance(plain, (int, float)) else tuple(float(v) for v in plain)
    if not numbers or not all(math.isfinite(v) for v in numbers):
        raise ValueError("empty, or not finite")
    return numbers


def _denormalize(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    as_channels = (1, -1, 1, 1)
    scale = torch.tensor(std, device=images.device).view(as_channels)
    shift = torch.tensor(mean, device=images.device).view(as_channels)
    clamped = (images * scale + shift).clamp(0, 1)
    # clamp would turn an infinity into a colour, and it is none
    return clamped.where(images.isfinite(), torch.nan)


def _show_channels(images: Tensor) -> Tensor:
    """The one rule for which channels are seen: `shown_channels` is its description."""
    if images.shape[1] < 3:
        return images[:, :1].expand(-1, 3, -1, -1)
    return images[:, :3]


def _to_unit(images: Tensor, finite: Tensor) -> Tensor:
    """Float images to [0, 1]; whatever is not `finite` has no say in the scale."""
    if not images.numel():
        return images
    low = images.where(finite, torch.inf).amin((1, 2, 3), keepdim=True)
    high = images.where(finite, -torch.inf).amax((1, 2, 3), keepdim=True)
    # One rule for the whole batch, or chance would show two images of one data set on different scales.
    if bool((low >= -_TOLERANCE).all() & (high <= 1 + _TOLERANCE).all()):
        return images.clamp(0, 1)
    # divided before they are subtracted: high - low may be more than a float holds
    size = torch.maximum(low.abs(), high.abs()).clamp(min=torch.finfo(images.dtype).tiny)
    spread = high / size - low / size
    stretched = (images / size - low / size) / spread
    return stretched.where(spread > 0, 0.5)
