"""Images and maps for display: argument checks, undoing the normalization, scaling, packing, a figure for notebooks."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Mapping, Sequence, Sized
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from lightning_gcam.utils.errors import InputError, did_you_mean

Color: TypeAlias = tuple[int, int, int]
"""Red, green and blue, 0 to 255."""


def check_pictures(images: Tensor, argument: str = "images") -> None:
    """Raise where a tensor is not a batch of uint8 RGB pictures."""
    if images.ndim != 4 or images.shape[1] != 3 or images.dtype != torch.uint8:
        raise InputError(
            f"`{argument}` must be uint8 (N, 3, H, W), but it is {images.dtype} {tuple(images.shape)}. "
            "Pass it through `to_display` first."
        )


def check_same_size(images: Tensor, maps: Tensor, argument: str) -> None:
    """Raise where maps or masks do not have the images' number and size."""
    expected = (images.shape[0], *images.shape[2:])
    if tuple(maps.shape) != expected:
        raise InputError(
            f"`{argument}` must be (N, H, W) = {expected}, as the images are, "
            f"but its shape is {tuple(maps.shape)}. Resize it to the images first."
        )


def check_figure(
    images: Tensor,
    maps: Mapping[str, Tensor],
    masks: Tensor | None,
    boxes: Sequence[Tensor] | None,
    suspect: Tensor | None,
    beside: Mapping[str, Tensor] | None = None,
) -> None:
    """Raise where images, maps, masks and boxes do not belong to the same samples."""
    check_pictures(images)
    if not images.numel():
        raise InputError(f"`images` is empty: its shape is {tuple(images.shape)}. Give at least one sample.")
    for name, values in maps.items():
        check_same_size(images, values, f'maps["{name}"]')
    for argument, mask in (("masks", masks), ("suspect", suspect)):
        if mask is not None:
            check_same_size(images, mask, argument)
    check_count(boxes, len(images), "boxes", "sample")
    for name, pictures in (beside or {}).items():
        check_pictures(pictures, f'beside["{name}"]')
        check_same_size(images, pictures[:, 0], f'beside["{name}"]')


def check_before(images: Tensor, maps: Mapping[str, Tensor], before: Mapping[str, Tensor] | None) -> None:
    """Raise where earlier maps do not belong to these samples and maps."""
    for name, values in (before or {}).items():
        if name not in maps:
            raise InputError(f'`before` "{name}" is not one of the maps. {did_you_mean(name, maps)}')
        check_same_size(images, values, f'before["{name}"]')


def check_texts(
    samples: int,
    maps: Mapping[str, Tensor],
    captions: Sequence[str],
    correct: Sequence[bool | None] | None,
    headings: Sequence[str] | None,
    notes: Mapping[str, Sequence[str]] | None,
) -> None:
    """Raise where captions, headings or notes do not fit the number of samples and maps."""
    check_count(captions, samples, "captions", "sample")
    check_count(correct, samples, "correct", "sample")
    check_count(headings, len(maps), "headings", "map")
    for name, lines in (notes or {}).items():
        if name not in maps:
            raise InputError(f'`notes` "{name}" is not one of the maps. {did_you_mean(name, maps)}')
        check_count(lines, samples, f'notes["{name}"]', "sample")


def check_count(values: Sized | None, count: int, argument: str, what: str) -> None:
    """Raise where a sequence does not have one entry for each sample or map."""
    if values is not None and len(values) != count:
        raise InputError(
            f"`{argument}` must have one entry for each {what}, {count}, but it has {len(values)}. "
            f"Give {count}, in the same order."
        )


Normalize: TypeAlias = tuple[float | Sequence[float], float | Sequence[float]]
"""`(mean, std)` of the input normalization: a number, or one for each channel."""
# Half a display step: a resize that overshoots by less cannot be seen, so it still counts as [0, 1].
_TOLERANCE = 0.5 / 255


def to_display(
    images: Tensor, normalize: Normalize | None = None, size: tuple[int, int] | None = None
) -> Tensor:
    """Turn images of any channel count and dtype into RGB pictures.

    Floats are un-normalised with `normalize`. Without it, a batch that lies in [0, 1] is kept, and any other
    is stretched image by image from its own minimum to its own maximum (a constant image becomes mid grey).
    uint8 passes through. Values that are not finite are shown black.

    Args:
        images: `(N, C, H, W)`, any dtype and device. One channel becomes grey; of other than 1 or 3 channels
            the first three are shown (the first alone if there are two); `shown_channels` describes them in words.
        normalize: The `(mean, std)` the images were normalised with, one number each or one per channel.
        size: `(h, w)` that they are shrunk to before anything else, on their own device; the pictures are then made on
            the CPU. They stay as large as they are, and where they are, if it is left out.

    Returns:
        `(N, 3, H, W)`, uint8, on the device of `images`; with `size` `(N, 3, h, w)`, on the CPU.

    Raises:
        InputError: If `images` is not `(N, C, H, W)`, or `normalize` does not fit it.

    Example:
        >>> import torch
        >>> to_display(torch.zeros(1, 1, 1, 1), normalize=(0.5, 0.25)).flatten().tolist()
        [128, 128, 128]
        >>> to_display(torch.rand(1, 1, 4, 4), size=(2, 2)).shape
        torch.Size([1, 3, 2, 2])
    """
    _check_images(images)
    shown = images.detach()[:, : 1 if images.shape[1] < 3 else 3]
    if size is not None:
        shown = _finite_shrunk(shown, *size)
    if normalize is not None:
        mean, std = check_normalize(normalize, channels=images.shape[1])
        if images.is_floating_point():
            shown = _denormalize(shown.float(), mean, std)
    if shown.dtype != torch.uint8:
        shown = _to_uint8(shown.float())
    return shown.expand(-1, 3, -1, -1)


def shrink_images(images: Tensor, height: int, width: int) -> Tensor:
    """Shrink images `(N, C, H, W)` with antialiasing; uint8 stays uint8, of any other dtype come floats."""
    if images.shape[-2:] == (height, width):
        return images
    # one after the other: whole numbers are copied as floats, and so one image at a time
    small = [
        F.interpolate(each[None].float(), (height, width), mode="bilinear", antialias=True) for each in images
    ]
    found = torch.cat(small) if small else images.new_zeros(0, images.shape[1], height, width)
    return found.round_().clamp_(0, 255).to(torch.uint8) if images.dtype == torch.uint8 else found


def _finite_shrunk(images: Tensor, height: int, width: int) -> Tensor:
    """Shrink images, on the CPU at the end; values that are not finite are left out of the averages."""
    small = shrink_images(images, height, width).cpu()
    if small.shape == images.shape or not small.is_floating_point():
        return small
    for row in (~small.isfinite()).flatten(1).any(dim=1).nonzero()[:, 0].tolist():
        own = images[row, None].float()
        finite = own.isfinite()
        sums, shares = (shrink_images(each, height, width) for each in (own.where(finite, 0), finite))
        small[row] = (sums / shares).cpu()[0]
    return small


def shown_channels(channels: int, signal: bool = False) -> str | None:
    """Describe which channels `to_display` shows, or which curves are drawn; None where all are.

    Args:
        channels: How many channels the images have.
        signal: Whether each is a curve, of which the first four are drawn.

    Example:
        >>> shown_channels(13)
        'channels 1-3 of 13'
        >>> shown_channels(3) is None
        True
    """
    if signal:
        return None if channels <= 4 else f"channels 1-4 of {channels}"
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
    """Convert one number or several, from Python, numpy or torch, to a tuple of floats."""
    plain = value.tolist() if hasattr(value, "tolist") else value
    numbers = (float(plain),) if isinstance(plain, (int, float)) else tuple(float(v) for v in plain)
    if not numbers or not all(math.isfinite(v) for v in numbers):
        raise ValueError("empty, or not finite")
    return numbers


def _denormalize(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    as_channels = (1, -1, 1, 1)
    channels = images.shape[1]
    scale = torch.tensor(std[:channels], device=images.device).view(as_channels)
    shift = torch.tensor(mean[:channels], device=images.device).view(as_channels)
    shown = (images * scale).add_(shift)
    # clamp would turn an infinity into a colour, and it is none
    return shown.clamp_(0, 1) if are_finite(shown) else shown.clamp(0, 1).where(images.isfinite(), torch.nan)


def are_finite(values: Tensor) -> bool:
    """Whether all values are finite, by the two ends of their range, which any that is not would be."""
    return not values.numel() or bool(torch.stack(values.aminmax()).isfinite().all())


def _to_uint8(images: Tensor) -> Tensor:
    """Round float images, scaled to [0, 1] where they do not lie in it; what is not finite becomes 0."""
    if are_finite(images):
        return _to_unit(images, None).mul_(255).round_().clamp_(0, 255).to(torch.uint8)
    finite = images.isfinite()
    return _to_unit(images, finite).mul(255).round().clamp(0, 255).where(finite, 0).to(torch.uint8)


def _to_unit(images: Tensor, finite: Tensor | None) -> Tensor:
    """Scale float images to [0, 1]; values that are not finite do not affect the scale. None: all are finite."""
    if not images.numel():
        return images.clone()
    low, high = (images if finite is None else images.where(finite, end) for end in (torch.inf, -torch.inf))
    low, high = low.amin((1, 2, 3), keepdim=True), high.amax((1, 2, 3), keepdim=True)
    # One rule for the whole batch, or chance would show two images of one data set on different scales.
    if bool((low >= -_TOLERANCE).all() & (high <= 1 + _TOLERANCE).all()):
        return images.clamp(0, 1)
    # divided before they are subtracted: high - low may be more than a float holds
    size = torch.maximum(low.abs(), high.abs()).clamp(min=torch.finfo(images.dtype).tiny)
    spread = high / size - low / size
    stretched = (images / size).sub_(low / size).div_(spread)
    return stretched if bool((spread > 0).all()) else stretched.where(spread > 0, 0.5)


def pack(pictures: Tensor) -> Tensor:
    """Put the three colours of each pixel into one number, so that a picture is drawn by a third of the steps.

    Args:
        pictures: `(N, 3, H, W)`, uint8.

    Returns:
        `(N, H, W)`, int32: red + 256 green + 65536 blue.

    Example:
        >>> pack(torch.tensor([1, 2, 3], dtype=torch.uint8).view(1, 3, 1, 1)).item() == 1 + 2 * 256 + 3 * 65536
        True
    """
    red, green, blue = pictures.to(torch.int32).unbind(1)
    return red.add(green, alpha=1 << 8).add_(blue, alpha=1 << 16)


def unpack(pixels: Tensor) -> Tensor:
    """Take the pixels of `pack`, `(N, H, W)`, apart: `(N, 3, H, W)` uint8."""
    return torch.stack([(pixels >> shift & 255).to(torch.uint8) for shift in (0, 8, 16)], dim=1)


Scale: TypeAlias = Literal["own", "shared", "run"]
"""The value that is drawn the brightest: each map's own maximum, that of all samples, or that of all looks so far."""


def check_scale(scale: Any, allowed: Sequence[Scale] = get_args(Scale)) -> Scale:
    """Return `scale` if it is one of the allowed values, and raise otherwise.

    Raises:
        InputError: If it is not, with the words that are.

    Example:
        >>> check_scale("shared")
        'shared'
    """
    if scale not in allowed:
        raise InputError(f"`scale` {scale!r} is not known here. {did_you_mean(str(scale), allowed)}")
    return scale  # type: ignore[no-any-return]


def to_unit(
    maps: Tensor, scale: Scale = "own", earlier_top: float = 0.0, tops: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Scale maps to [0, 1], and return which are blank.

    Args:
        maps: `(N, H, W)`, float; what is not finite, or below 0, counts as 0.
        scale: "own" divides each map by its own maximum, "shared" all of them by the greatest, "run" by the greater of
            that and `earlier_top`.
        earlier_top: the greatest value at the looks before.
        tops: `(N,)`, each map's own maximum, where `maps` are parts of larger ones.

    Returns:
        Maps `(N, H, W)` float32, 0 everywhere where they are blank, and `(N,)` bool: which have no value above 0.

    Example:
        >>> maps = torch.tensor([[[1.0, 2.0]], [[0.0, 4.0]], [[0.0, 0.0]]])
        >>> to_unit(maps, "shared")[0].flatten().tolist()
        [0.25, 0.5, 0.0, 1.0, 0.0, 0.0]
        >>> to_unit(maps)[1].tolist()
        [False, False, True]
    """
    finite = maps.detach().float().nan_to_num(0, 0, 0).clamp_(min=0)
    own = finite.amax((1, 2), keepdim=True) if tops is None else tops.to(finite)[:, None, None]
    blank = own < torch.finfo(torch.float32).tiny
    top = own if scale == "own" else own.amax().clamp(min=earlier_top if scale == "run" else 0.0)
    return finite.div_(top).masked_fill_(blank, 0), blank.flatten()


def change_of(
    maps: Tensor, before: Tensor, tops_before: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the difference of each map to its map at the look before, both scaled to their own maximum.

    Args:
        maps: `(N, H, W)`, float, now.
        before: the same samples' at the look before.
        tops_before: `(N,)`, the maximum of each map before, where `before` has parts of larger ones.

    Returns:
        The change `(N, H, W)` in [-1, 1], 0 where one of the two is blank, which has no change; which are blank now,
        and which were blank before, `(N,)` bool.

    Example:
        >>> change_of(torch.tensor([[[4.0, 1.0]]]), torch.tensor([[[0.0, 0.5]]]))[0].tolist()
        [[[1.0, -0.75]]]
    """
    now, blank = to_unit(maps)
    then, was_blank = to_unit(before.to(maps.device), tops=tops_before)
    return (now - then).where(~(blank | was_blank)[:, None, None], 0), blank, was_blank


class Figure:
    """A picture that a notebook displays where it is the last value of a cell.

    Args:
        image: `(height, width, 3)`, uint8 RGB.

    Example:
        >>> figure = Figure(np.zeros((4, 6, 3), dtype=np.uint8))
        >>> figure, figure._repr_png_()[1:4]
        (Figure(6 x 4 pixels), b'PNG')
    """

    def __init__(self, image: npt.NDArray[np.uint8]) -> None:
        self.image = image

    def __repr__(self) -> str:
        height, width = self.image.shape[:2]
        return f"Figure({width} x {height} pixels)"

    def _repr_png_(self) -> bytes:
        """Encode `image` as a PNG: IPython calls this to display the object."""
        file = io.BytesIO()
        Image.fromarray(self.image).save(file, format="png")
        return file.getvalue()

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the picture in the format of the ending of `path` (`.png` keeps every pixel).

        Returns:
            `path`; its directory is made where it is not there.

        Raises:
            InputError: If Pillow writes no format with that ending.

        Example:
            >>> import tempfile
            >>> Figure(np.zeros((4, 6, 3), dtype=np.uint8)).save(tempfile.mkdtemp() + "/look.png").name
            'look.png'
        """
        target = Path(path)
        if Image.registered_extensions().get(target.suffix.lower()) not in Image.SAVE:
            raise InputError(
                f'`path` "{target}" has no ending that says a picture\'s format. Give "look.png".'
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(self.image).save(target)
        return target
