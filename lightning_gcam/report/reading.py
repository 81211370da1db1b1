"""Read and check the files of a run's directory: each is valid, or left out with a reason.

A run that was killed, a full disk and other programs leave anything there, and a directory may come from a stranger.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import math
import stat
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from PIL import Image, features

MOST_BYTES = 1 << 28
"""A file that is read at once and is larger is none of ours: a look of 1,000 samples takes a tenth of it."""

MOST_BYTES_OF_LINES = 1 << 30

MOST_PIXELS = 1 << 26
"""Of a picture: the overlay of 400 samples with a map each has half as many."""

_LONGEST_SIDE = 16383
"""The longest side of a WebP picture."""

LARGEST_STEP = 2**53
"""Beyond it JavaScript does not represent every whole number."""


class BrokenFile(Exception):
    """A file, or a part of it, cannot be used; the message has the reason."""


def open_file(path: Path, most: int = MOST_BYTES) -> IO[bytes]:
    """Open a regular file for reading; reading from a pipe or a device might not end.

    Raises:
        BrokenFile: where it is something else, cannot be opened, or has more than `most` bytes.
    """
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise BrokenFile("it is no regular file")
        if found.st_size > most:
            raise BrokenFile(f"it has {found.st_size:,} bytes, more than the {most:,} that are read")
        return path.open("rb")
    except OSError as error:
        raise BrokenFile(error.strerror or str(error)) from error


def read_bytes(path: Path) -> bytes:
    """Read a whole file.

    Raises:
        BrokenFile: as `open_file`.
    """
    with open_file(path) as file:
        try:
            return file.read(MOST_BYTES)
        except OSError as error:
            raise BrokenFile(error.strerror or str(error)) from error


def read_text(path: Path) -> str:
    """Read a whole file as text.

    Raises:
        BrokenFile: as `open_file`, and where it is empty or not UTF-8.
    """
    return decode_text(read_bytes(path))


def decode_text(content: bytes) -> str:
    """Decode UTF-8.

    Raises:
        BrokenFile: where there are none, or they are not UTF-8.
    """
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BrokenFile(f"it is not UTF-8 (at byte {error.start})") from error
    if not text.strip():
        raise BrokenFile("it is empty")
    return text


def parse_json(text: str) -> Any:
    """Parse JSON without NaN and infinity, which browsers do not read.

    Raises:
        BrokenFile: where it is no JSON, or only the beginning of one.

    Example:
        >>> parse_json('{"step": 3, "sc')
        Traceback (most recent call last):
            ...
        lightning_gcam.report.reading.BrokenFile: it is no whole JSON (Unterminated string starting at character 12)
    """
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise BrokenFile(f"it is no whole JSON ({error.msg} character {error.pos})") from error
    except (ValueError, RecursionError) as error:  # thousands of digits or of brackets
        raise BrokenFile("it is no JSON that can be read") from error


def _refuse_constant(name: str) -> None:
    raise BrokenFile(f"{name} is no JSON")


def finite_number(value: Any) -> float | None:
    """Convert a value to a float; None for text, and for what is not finite.

    Example:
        >>> finite_number("0.5"), finite_number("no"), finite_number(float("nan")), finite_number(10**400)
        (0.5, None, None, None)
    """
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):  # RuntimeError: a tensor of several numbers
        return None
    return number if math.isfinite(number) else None


def parse_step(value: Any) -> int:
    """Convert a step from JSON or from a cell of a table to an int.

    Raises:
        BrokenFile: where it is no whole number.

    Example:
        >>> parse_step("7"), parse_step(7.0), parse_step("7.0")
        (7, 7, 7)
        >>> parse_step("abc")
        Traceback (most recent call last):
            ...
        lightning_gcam.report.reading.BrokenFile: its step 'abc' is no whole number
    """
    number = None if isinstance(value, bool) else finite_number(value)
    if number is None or number != int(number) or abs(number) > LARGEST_STEP:
        shown = repr(value)
        raise BrokenFile(f"its step {shown if len(shown) <= 40 else shown[:39] + '…'} is no whole number")
    return int(number)


def json_lines(path: Path) -> Iterator[dict[str, Any] | BrokenFile]:
    """Yield the JSON object of each line, with its step; for a broken line the error.

    Raises:
        BrokenFile: as `open_file`.
    """
    with open_file(path, MOST_BYTES_OF_LINES) as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = parse_json(decode_text(line))
                if not isinstance(row, dict):
                    raise BrokenFile("it is no object")
                yield {**row, "step": parse_step(row.get("step"))}
            except BrokenFile as error:
                yield BrokenFile(f"line {number}: {error}")


def read_picture(
    content: bytes, formats: tuple[str, ...] = ("PNG", "JPEG"), most: int = MOST_PIXELS
) -> npt.NDArray[np.uint8]:
    """Decode a picture to `(H, W, 3)`; its size is checked before memory is allocated.

    Args:
        content: the encoded picture.
        formats: as Pillow calls them; others are not tried, some of which start programs.
        most: how many pixels are read.

    Raises:
        BrokenFile: where it is none, half of one, or too large.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=formats) as opened:
                width, height = opened.size
                if width * height > most or max(width, height) > _LONGEST_SIDE:
                    raise BrokenFile(f"it has {width} x {height} pixels, more than are read")
                return np.array(opened.convert("RGB"))
    except BrokenFile:
        raise
    except Image.DecompressionBombError as error:
        raise BrokenFile("it has more pixels than are read") from error
    except (
        Exception
    ) as error:  # Pillow raises whatever a broken file leads it to: SyntaxError, struct.error, ...
        raise BrokenFile("it is no picture, or half of one") from error


_SMALL = 96
"""An image of fewer pixels a side is kept as it is: of so few, every one is seen."""


def data_uri(pixels: npt.NDArray[np.uint8], *, exact: bool = False) -> str:
    """Encode a picture as a data URI, in the smallest of PNG, WebP and JPEG.

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


def _encoded(picture: Image.Image, form: str, **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, format=form, **options)
    return file.getvalue()


_MOST_OF_A_SAMPLE = 1 << 20
"""Pixels; ours are shrunk to a sixteenth of it."""

_FORMATS = {"png": "PNG", "webp": "WEBP", "jpeg": "JPEG"}


def check_look(look: Any, step: int, samples: int | None) -> int:
    """Check that a look has the form that `plain_look` returns.

    Args:
        look: parsed JSON.
        step: which its file's name gives it.
        samples: how many there are; None where that is not known.

    Returns:
        How many samples it has.

    Raises:
        BrokenFile: with the first part that does not fit.
    """
    _require(isinstance(look, dict), "it is no object")
    own = parse_step(look.get("step"))
    _require(own == step, f"it is of step {own}, its name says {step}")
    _require(look.get("epoch") is None or _is_number(look["epoch"]), "its epoch is no number")
    for name in ("layer", "explains"):
        _require(isinstance(look.get(name, ""), str), f"its {name} is no text")
    _require(_are_numbers(look.get("scores", {})), "its scores are no numbers by name")
    _require(
        _are_number_lists(look.get("measured", {})), "what it has measured is no list of numbers by name"
    )
    rows = look.get("samples")
    _require(isinstance(rows, list), "it has no samples")
    _require(samples in (None, len(rows)), f"it has {len(rows)} samples, of which there are {samples}")
    cells = _number_of_cells(look.get("size"))
    for index, row in enumerate(rows):
        _require(isinstance(row, dict), f"sample {index} is no object")
        _check_words(row, index)
        _check_maps(row.get("maps"), index, cells)
    return len(rows)


def repair_samples(samples: Any) -> tuple[list[dict[str, Any]], str | None]:
    """Check samples of the form that `plain_samples` returns; a grey square replaces each broken one.

    Args:
        samples: parsed JSON.

    Returns:
        The samples, and what was wrong with the first that was; None where all are as they came.

    Raises:
        BrokenFile: where it is no list.
    """
    _require(isinstance(samples, list), "it is no list")
    mended, first = [], None
    for index, sample in enumerate(samples):
        try:
            _check_sample(sample)
        except BrokenFile as error:
            first = first or f"sample {index}: {error}; a grey square stands for it"
            sample = placeholder_sample()
        mended.append(sample)
    return mended, first


def placeholder_sample() -> dict[str, Any]:
    """Return a grey square for a sample of which only the maps are known."""
    return {"name": "", "classes": [], "image": data_uri(np.full((64, 64, 3), 128, dtype=np.uint8))}


def decode_picture(uri: str) -> npt.NDArray[np.uint8]:
    """Decode a sample's data URI to pixels `(H, W, 3)`.

    Raises:
        BrokenFile: where it is none, or not of a small picture.
    """
    head, _, cells = uri.partition(";base64,")
    form = _FORMATS.get(head.removeprefix("data:image/"))
    _require(head.startswith("data:image/") and form is not None, "its picture is no PNG, WebP or JPEG")
    return read_picture(_decode_base64(cells), (str(form),), _MOST_OF_A_SAMPLE)


def _check_sample(sample: Any) -> None:
    _require(isinstance(sample, dict), "it is no object")
    _require(isinstance(sample.get("name", ""), str), "its name is no text")
    classes = sample.get("classes")
    _require(
        isinstance(classes, list) and all(isinstance(each, str) for each in classes),
        "its classes are no texts",
    )
    _require(isinstance(sample.get("image"), str), "it has no picture")
    height, width, _ = decode_picture(sample["image"]).shape
    if "outline" in sample:
        _require(isinstance(sample["outline"], str), "its outline is no picture")
        decode_picture(sample["outline"])
    others = sample.get("beside", {})
    are_texts = isinstance(others, dict) and all(isinstance(each, str) for each in others.values())
    _require(are_texts, "its second pictures are none")
    for each in others.values():
        decode_picture(each)
    if "band" in sample:
        _require(_are_whole(sample["band"], 4), "its band is no four whole numbers")
        left, top, right, bottom = sample["band"]
        _require(left < right <= width and top < bottom <= height, "its band lies outside of its picture")
    if "slices" in sample:
        _check_slices(sample["slices"], height)


def _check_slices(slices: Any, height: int) -> None:
    _require(isinstance(slices, dict) and isinstance(slices.get("kind"), str), "its slices have no kind")
    numbers = slices.get("numbers")
    count = len(numbers) if isinstance(numbers, list) else 0
    _require(count > 0 and _are_whole(numbers, count), "its slices have no whole numbers")
    _require(height % count == 0, f"its picture is not of {count} slices")
    _require(
        _are_whole(slices.get("size"), 2) and _are_whole([slices.get("of")], 1), "its slices have no size"
    )


def _are_whole(values: Any, count: int) -> bool:
    return (
        isinstance(values, list)
        and len(values) == count
        and all(type(each) is int and each >= 0 for each in values)
    )


def _check_words(row: Mapping[str, Any], index: int) -> None:
    _require(isinstance(row.get("caption"), str), f"sample {index} has no caption")
    _require(isinstance(row.get("predicted", ""), str), f"the predicted class of sample {index} is no text")
    _require(
        row.get("probability") is None or _is_number(row["probability"]),
        f"the probability of sample {index} is no number",
    )
    _require(row.get("right") in (None, True, False), f"sample {index} is neither right nor wrong")
    _require(_are_numbers(row.get("scores")), f"the scores of sample {index} are no numbers by name")


def _check_maps(maps: Any, index: int, cells: int) -> None:
    _require(isinstance(maps, dict) and bool(maps), f"sample {index} has no maps")
    for each in maps.values():
        _require(isinstance(each, list) and len(each) == 4, f"a map of sample {index} has not four parts")
        packed, peak, row, column = each
        _require(isinstance(packed, str), f"a map of sample {index} has no cells")
        _require(len(_decode_base64(packed)) == cells, f"a map of sample {index} has not {cells} cells")
        _require(peak is None or _is_number(peak), f"the raw peak of a map of sample {index} is no number")
        _require(_is_number(row) and _is_number(column), f"the peak of a map of sample {index} has no place")


def _number_of_cells(size: Any) -> int:
    is_pair = (
        isinstance(size, list) and len(size) == 2 and all(type(side) is int and side > 0 for side in size)
    )
    _require(is_pair, "the size of its maps is no pair of whole numbers")
    return int(size[0] * size[1])


def _decode_base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BrokenFile("it has cells that are no base64") from error


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and finite_number(value) is not None


def _are_numbers(values: Any) -> bool:
    return isinstance(values, dict) and all(map(_is_number, values.values()))


def _are_number_lists(values: Any) -> bool:
    return isinstance(values, dict) and all(
        isinstance(each, list) and all(part is None or _is_number(part) for part in each)
        for each in values.values()
    )


def _require(holds: bool, reason: str) -> None:
    if not holds:
        raise BrokenFile(reason)
