"""What the files of a report must look like; pictures as text."""

from __future__ import annotations

import base64
import binascii
import io
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, features
from torch import Tensor

from lightning_gcam.report.reading import BrokenFile, finite_number, read_picture, step_of
from lightning_gcam.visual.images import Color
from lightning_gcam.visual.overlay import shrink_maps

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


_MOST_OF_A_SAMPLE = 1 << 20
"""Pixels; ours are shrunk to a sixteenth of it."""

_FORMATS = {"png": "PNG", "webp": "WEBP", "jpeg": "JPEG"}


def check_look(look: Any, step: int, samples: int | None) -> int:
    """Check a look, as `plain_look` gives it.

    Args:
        look: parsed JSON.
        step: which its file's name gives it.
        samples: how many there are; None where that is not known.

    Returns:
        How many samples it has.

    Raises:
        BrokenFile: with the first part that does not fit.
    """
    _need(isinstance(look, dict), "it is no object")
    own = step_of(look.get("step"))
    _need(own == step, f"it is of step {own}, its name says {step}")
    _need(look.get("epoch") is None or _is_number(look["epoch"]), "its epoch is no number")
    for name in ("layer", "explains"):
        _need(isinstance(look.get(name, ""), str), f"its {name} is no text")
    _need(_are_numbers(look.get("scores", {})), "its scores are no numbers by name")
    _need(_are_intervals(look.get("measured", {})), "what it has measured is no list of numbers by name")
    rows = look.get("samples")
    _need(isinstance(rows, list), "it has no samples")
    _need(samples in (None, len(rows)), f"it has {len(rows)} samples, of which there are {samples}")
    cells = _cells(look.get("size"))
    for index, row in enumerate(rows):
        _need(isinstance(row, dict), f"sample {index} is no object")
        _check_words(row, index)
        _check_maps(row.get("maps"), index, cells)
    return len(rows)


def mended_samples(samples: Any) -> tuple[list[dict[str, Any]], str | None]:
    """What does not change from look to look, as `plain_samples` gives it; a grey square for what cannot be shown.

    Args:
        samples: parsed JSON.

    Returns:
        The samples, and what was wrong with the first that was; None where all are as they came.

    Raises:
        BrokenFile: where it is no list.
    """
    _need(isinstance(samples, list), "it is no list")
    mended, first = [], None
    for index, sample in enumerate(samples):
        try:
            _check_sample(sample)
        except BrokenFile as error:
            first = first or f"sample {index}: {error}; a grey square stands for it"
            sample = unknown_sample()
        mended.append(sample)
    return mended, first


def unknown_sample() -> dict[str, Any]:
    """A grey square, for a sample of which nothing is known but its maps."""
    return {"name": "", "classes": [], "image": data_uri(np.full((64, 64, 3), 128, dtype=np.uint8))}


def picture_of(uri: str) -> npt.NDArray[np.uint8]:
    """The pixels of a sample's data URI, `(H, W, 3)`.

    Raises:
        BrokenFile: where it is none, or not of a small picture.
    """
    head, _, cells = uri.partition(";base64,")
    form = _FORMATS.get(head.removeprefix("data:image/"))
    _need(head.startswith("data:image/") and form is not None, "its picture is no PNG, WebP or JPEG")
    return read_picture(_decoded(cells), (str(form),), _MOST_OF_A_SAMPLE)


def _check_sample(sample: Any) -> None:
    _need(isinstance(sample, dict), "it is no object")
    _need(isinstance(sample.get("name", ""), str), "its name is no text")
    classes = sample.get("classes")
    _need(
        isinstance(classes, list) and all(isinstance(each, str) for each in classes),
        "its classes are no texts",
    )
    _need(isinstance(sample.get("image"), str), "it has no picture")
    picture_of(sample["image"])
    if "outline" in sample:
        _need(isinstance(sample["outline"], str), "its outline is no picture")
        picture_of(sample["outline"])


def _check_words(row: Mapping[str, Any], index: int) -> None:
    _need(isinstance(row.get("caption"), str), f"sample {index} has no caption")
    _need(isinstance(row.get("predicted", ""), str), f"the predicted class of sample {index} is no text")
    _need(
        row.get("probability") is None or _is_number(row["probability"]),
        f"the probability of sample {index} is no number",
    )
    _need(row.get("right") in (None, True, False), f"sample {index} is neither right nor wrong")
    _need(_are_numbers(row.get("scores")), f"the scores of sample {index} are no numbers by name")


def _check_maps(maps: Any, index: int, cells: int) -> None:
    _need(isinstance(maps, dict) and bool(maps), f"sample {index} has no maps")
    for each in maps.values():
        _need(isinstance(each, list) and len(each) == 4, f"a map of sample {index} has not four parts")
        packed, peak, row, column = each
        _need(isinstance(packed, str), f"a map of sample {index} has no cells")
        _need(len(_decoded(packed)) == cells, f"a map of sample {index} has not {cells} cells")
        _need(peak is None or _is_number(peak), f"the raw peak of a map of sample {index} is no number")
        _need(_is_number(row) and _is_number(column), f"the peak of a map of sample {index} has no place")


def _cells(size: Any) -> int:
    is_pair = (
        isinstance(size, list) and len(size) == 2 and all(type(side) is int and side > 0 for side in size)
    )
    _need(is_pair, "the size of its maps is no pair of whole numbers")
    return int(size[0] * size[1])


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BrokenFile("it has cells that are no base64") from error


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and finite_number(value) is not None


def _are_numbers(values: Any) -> bool:
    return isinstance(values, dict) and all(map(_is_number, values.values()))


def _are_intervals(values: Any) -> bool:
    return isinstance(values, dict) and all(
        isinstance(each, list) and all(part is None or _is_number(part) for part in each)
        for each in values.values()
    )


def _need(holds: bool, reason: str) -> None:
    if not holds:
        raise BrokenFile(reason)
