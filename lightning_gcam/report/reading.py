"""What is read of a run's directory: whole and of the right kind, or left out with a reason.

A run that was killed, a full disk and other programs leave anything there, and a directory may come from a stranger.
"""

from __future__ import annotations

import csv
import io
import json
import math
import stat
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

MOST_BYTES = 1 << 28
"""A file that is read at once and is larger is none of ours: a look of 1,000 samples takes a tenth of it."""

MOST_BYTES_OF_LINES = 1 << 30

MOST_PIXELS = 1 << 26
"""Of a picture: the overlay of 400 samples with a map each has half as many."""

_LONGEST_SIDE = 16383
"""WebP knows no longer one."""

LARGEST_STEP = 2**53
"""Beyond it JavaScript knows no whole numbers."""


class BrokenFile(Exception):
    """A file, or a part of it, that cannot be used. The message says why."""


def open_file(path: Path, most: int = MOST_BYTES) -> IO[bytes]:
    """Open a file for reading that is a regular one: reading from a pipe or a device may never end.

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
    """All of a file.

    Raises:
        BrokenFile: as `open_file`.
    """
    with open_file(path) as file:
        try:
            return file.read(MOST_BYTES)
        except OSError as error:
            raise BrokenFile(error.strerror or str(error)) from error


def read_text(path: Path) -> str:
    """All of a file, as text.

    Raises:
        BrokenFile: as `open_file`, and where it is empty or not UTF-8.
    """
    return text_of(read_bytes(path))


def text_of(content: bytes) -> str:
    """Bytes as text.

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
    """What JSON says; without NaN and infinity, which a browser does not take.

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
    """`value` as a float; None for words, and for what is not finite.

    Example:
        >>> finite_number("0.5"), finite_number("no"), finite_number(float("nan")), finite_number(10**400)
        (0.5, None, None, None)
    """
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):  # RuntimeError: a tensor of several numbers
        return None
    return number if math.isfinite(number) else None


def step_of(value: Any) -> int:
    """A step, from JSON or from a cell of a table.

    Raises:
        BrokenFile: where it is no whole number.

    Example:
        >>> step_of("7"), step_of(7.0), step_of("7.0")
        (7, 7, 7)
        >>> step_of("abc")
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
    """The objects of a file that has one a line, each with its step; in place of a broken one what is wrong with it.

    Raises:
        BrokenFile: as `open_file`.
    """
    with open_file(path, MOST_BYTES_OF_LINES) as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = parse_json(text_of(line))
                if not isinstance(row, dict):
                    raise BrokenFile("it is no object")
                yield {**row, "step": step_of(row.get("step"))}
            except BrokenFile as error:
                yield BrokenFile(f"line {number}: {error}")


def csv_rows(path: Path) -> Iterator[dict[str, Any] | BrokenFile]:
    """The rows of a table, each with its step; in place of a broken one what is wrong with it.

    Raises:
        BrokenFile: as `open_file`, and where there is no column "step".
    """
    with open_file(path, MOST_BYTES_OF_LINES) as file:
        is_cut_off = _is_cut_off(file)
        # what is not UTF-8 becomes halves of surrogate pairs: these rows are found, and the others read
        text = io.TextIOWrapper(file, encoding="utf-8", errors="surrogateescape", newline="")
        reader = csv.DictReader(text, strict=True)
        try:
            columns = reader.fieldnames or []
        except csv.Error as error:
            raise BrokenFile(f"it is no table ({error})") from error
        if not columns:
            raise BrokenFile("it is empty")
        if "step" not in columns:
            raise BrokenFile('it has no column "step"')
        held: dict[str, Any] | BrokenFile | None = None  # the last row is known as such when no other comes
        while (row := _next_row(reader)) is not None:
            if held is not None:
                yield held
            held = row
        if held is not None:
            yield BrokenFile(f"line {reader.reader.line_num}: it is cut off") if is_cut_off else held


def _is_cut_off(file: IO[bytes]) -> bool:
    """Whether the last line does not end, as it does where a table is whole: half a number looks like a whole one."""
    if file.seek(0, io.SEEK_END) == 0:
        return False
    file.seek(-1, io.SEEK_END)
    last = file.read(1)
    file.seek(0)
    return last not in b"\r\n"


def _next_row(reader: csv.DictReader[str]) -> dict[str, Any] | BrokenFile | None:
    try:
        row: dict[Any, Any] = next(reader)
        if None in row or None in row.values():
            raise BrokenFile("it has more or fewer cells than the table has columns")
        if any("\udc80" <= sign <= "\udcff" for cell in row.values() for sign in cell):
            raise BrokenFile("it is not UTF-8")
        return {**row, "step": step_of(row["step"])}
    except StopIteration:
        return None
    except (BrokenFile, csv.Error) as error:
        return BrokenFile(f"line {reader.reader.line_num}: {error}")


def read_picture(
    content: bytes, formats: tuple[str, ...] = ("PNG", "JPEG"), most: int = MOST_PIXELS
) -> npt.NDArray[np.uint8]:
    """The pixels of an encoded picture, `(H, W, 3)`; its size is known before any memory is taken for it.

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
