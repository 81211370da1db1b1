"""Whether a look and its samples have the parts that the page and the strips take for granted."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from lightning_gcam.report.pictures import data_uri
from lightning_gcam.report.reading import BrokenFile, finite_number, read_picture, step_of

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
