"""Small pictures for the page: images once as data URIs, maps as a few bytes each."""

from __future__ import annotations

import base64
import io
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, features
from torch import Tensor

from lightning_gcam.visual.lines import Color
from lightning_gcam.visual.scale import shrink_maps

_SMALL = 96
"""An image of fewer pixels a side is kept as it is: of so few, every one is seen."""

_LONGEST_MAP = 56
"""The grid of a usual target layer is 7 to 28 cells a side; half of a stage before it is seen in twice as many."""


def data_uri(pixels: npt.NDArray[np.uint8], *, exact: bool = False) -> str:
    """The smallest of PNG, WebP and JPEG, as a data URI.

    Args:
        pixels: `(H, W, 3)` or `(H, W, 4)`, uint8.
        exact: whether every pixel must be kept, as it is for small pictures and those that are transparent.

    Example:
        >>> data_uri(np.zeros((8, 8, 3), dtype=np.uint8)).startswith("data:image/")
        True
    """
    picture = Image.fromarray(pixels)
    webp = bool(features.check("webp"))
    ways: list[tuple[str, dict[str, Any]]] = [("png", {})]
    if exact or max(pixels.shape[:2]) <= _SMALL:
        ways += [("webp", {"lossless": True})] if webp else []
    else:
        ways += [("jpeg", {"quality": 85}), *([("webp", {"quality": 82})] if webp else [])]
    encoded = {_encoded(picture, form, **options): form for form, options in ways}
    smallest = min(encoded, key=len)
    return f"data:image/{encoded[smallest]};base64,{base64.b64encode(smallest).decode()}"


def map_side(maps: int) -> int:
    """How many cells a map keeps along its longer side: 56 alone, fewer the more maps share the page.

    Example:
        >>> map_side(1), map_side(2), map_side(6)
        (56, 39, 22)
    """
    return max(16, int(_LONGEST_MAP / math.sqrt(max(maps, 1))))


def pack_maps(maps: Tensor, side: int) -> tuple[list[str], tuple[int, int]]:
    """Maps as base64 of one byte a cell; a cell keeps the highest value it stands for.

    Args:
        maps: `(N, H, W)`, float in [0, 1]; NaN counts as 0.
        side: the most cells along the longer side.

    Returns:
        A string for each map, and the height and width they share.

    Example:
        >>> pack_maps(torch.tensor([[[0.0, 1.0]]]), 8)
        (['AP8='], (1, 2))
    """
    height, width = maps.shape[1:]
    scale = min(1.0, side / max(height, width))
    size = max(1, round(height * scale)), max(1, round(width * scale))
    small = shrink_maps(maps.detach().float().nan_to_num(0).clamp(0, 1), *size)
    cells = small.mul(255).round().to(torch.uint8).cpu().numpy()
    return [base64.b64encode(each.tobytes()).decode() for each in cells], size


def line_layer(lines: list[tuple[npt.NDArray[np.bool_], Color]]) -> npt.NDArray[np.uint8]:
    """Lines with a dark edge on a transparent ground, to be laid over the picture.

    Args:
        lines: each `(H, W)` bool, and its colour.

    Returns:
        `(H, W, 4)`, uint8.
    """
    layer = np.zeros((*lines[0][0].shape, 4), dtype=np.uint8)
    for line, color in lines:
        around = np.zeros_like(line)
        rows, columns = line.nonzero()
        for down in (-1, 0, 1):
            for right in (-1, 0, 1):
                beside = (
                    (rows + down).clip(0, line.shape[0] - 1),
                    (columns + right).clip(0, line.shape[1] - 1),
                )
                around[beside] = True
        layer[around] = (0, 0, 0, 128)
        layer[line] = (*color, 255)
    return layer


def _encoded(picture: Image.Image, form: str, **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, format=form, **options)
    return file.getvalue()
