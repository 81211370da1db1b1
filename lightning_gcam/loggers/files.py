"""The backend of plain files: PNG, scores.csv and alerts.csv in the run's own directory."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from lightning_gcam.loggers.disk import claimed_directory, directory_of_logger, run_all, write_png
from lightning_gcam.loggers.registry import Backend, Pixels, has, register_backend
from lightning_gcam.pipeline.record import SaliencyRecord
from lightning_gcam.utils.files import append_text, atomic_write, atomic_write_text, safe_path
from lightning_gcam.utils.lightning_compat import rank_zero_info, rank_zero_warn


def log_to_files(logger: Any, record: SaliencyRecord) -> None:
    """Write the look under the directory of `logger`: its `log_dir`, else its `save_dir`, else the working directory.

    Args:
        logger: any Lightning logger, such as `CSVLogger`.
        record: the look.
    """
    write_look(directory_of_logger(logger), record)


def log_by_log_image(logger: Any, record: SaliencyRecord) -> None:
    """Call `log_image(key, images, step)`, the method that Lightning's own loggers with pictures share.

    The key is the tag as `safe_path` writes it: such a logger may make a path of it.

    Args:
        logger: any logger with that method.
        record: the look.
    """
    run_all(
        partial(picture_by_log_image, logger, tag, picture, record.step)
        for tag, picture in record.pictures.items()
    )


def picture_by_log_image(logger: Any, tag: str, picture: Pixels, step: int) -> None:
    """Call `log_image` for one picture.

    Args:
        logger: as in `log_by_log_image`.
        tag: its name.
        picture: `(height, width, 3)`, uint8.
        step: of it.
    """
    logger.log_image(key=safe_path(tag), images=[picture], step=step)


def log_scalars_only(logger: Any, record: SaliencyRecord) -> None:
    """Write the pictures of a look as files under the directory of `logger`, and report once that it gets none.

    Args:
        logger: any logger; the scores reach it as any other metric.
        record: the look.
    """
    name = type(logger).__name__
    if not (claimed_directory(directory_of_logger(logger)) / safe_path(record.stamp.log_prefix)).exists():
        rank_zero_info(
            f"{name} is not known to take images (it has neither `log_image` nor an `experiment` with `add_image`), so "
            f"it gets the scores alone. A function under `@log_saliency.register({name})` would show it the overlays."
        )
    log_to_files(logger, record)


def write_look(directory: Path, record: SaliencyRecord) -> Path:
    """Add a line to `<prefix>/scores.csv` and write `<prefix>/overlay-step=<step>.png`.

    Beside them `<prefix>/measurements-step=<step>.csv` has each score's n, what was left out and its interval; each
    sample's own picture, where `sample_images` is set, lies in `<prefix>/sample`. They are written whole under another
    name and then renamed, so that neither is ever half there. The table's line is appended, so that a look costs the
    same however many came before it: a process that is killed meanwhile may leave a last line that is cut off, which is
    left out when the table is read, and every earlier line is kept. A look at a step that is already in the table (a
    run that was resumed) takes its place. The scores come first, and what cannot be written takes nothing else with it.

    Args:
        directory: of the run. While another process writes its looks there, they go to a `run_2` in it.
        record: the look.

    Returns:
        The directory that holds the files: no `log_prefix` leads out of `directory`, see `safe_path`.
    """
    directory = claimed_directory(directory)
    target = directory / safe_path(record.stamp.log_prefix)
    target.mkdir(parents=True, exist_ok=True)
    at = f"-step={record.step:08d}"

    def write_pictures() -> None:
        run_all(
            partial(_write_picture, directory, tag, picture, record.step)
            for tag, picture in record.pictures.items()
        )

    def write_measurements() -> None:
        if record.table:
            _write_rows(target / f"measurements{at}.csv", record.table)

    run_all([partial(_add_row, target / "scores.csv", record.row), write_measurements, write_pictures])
    return target


def write_picture(directory: Path, tag: str, picture: Pixels, step: int) -> Path:
    """Write a picture as `<tag>-step=<step>.png`, in the directory that `write_look` writes to.

    Args:
        directory: of the run.
        tag: its name; signs that are none of a file's name are encoded, see `safe_path`.
        picture: `(height, width, 3)`, uint8.
        step: of it.

    Returns:
        The file.
    """
    return _write_picture(claimed_directory(directory), tag, picture, step)


def _write_picture(directory: Path, tag: str, picture: Pixels, step: int) -> Path:
    path = directory / f"{safe_path(tag)}-step={step:08d}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_png(path, picture)


def picture_to_files(logger: Any, tag: str, picture: Pixels, step: int) -> None:
    """Write a picture under the directory of `logger`, beside the looks.

    Args:
        logger: any Lightning logger, such as `CSVLogger`.
        tag: as in `write_picture`.
        picture: as in `write_picture`.
        step: as in `write_picture`.
    """
    write_picture(directory_of_logger(logger), tag, picture, step)


def write_scores(directory: Path, record: SaliencyRecord) -> None:
    """Add the scores of a record to `<prefix>/scores.csv`, beside what stands there for the same step.

    Args:
        directory: of the run.
        record: the look.
    """
    target = claimed_directory(directory) / safe_path(record.stamp.log_prefix)
    target.mkdir(parents=True, exist_ok=True)
    _add_row(target / "scores.csv", record.row)


def alert_to_files(logger: Any, alert: Mapping[str, Any]) -> None:
    """Write the alert under the directory of `logger`, beside the looks.

    Args:
        logger: any Lightning logger, such as `CSVLogger`.
        alert: as in `log_alert`.
    """
    write_alert(directory_of_logger(logger), alert)


def write_alert(directory: Path, alert: Mapping[str, Any]) -> Path:
    """Add a line to `<prefix>/alerts.csv`, in the directory that `write_look` writes to.

    Args:
        directory: of the run.
        alert: as in `log_alert`.

    Returns:
        The file.
    """
    path = claimed_directory(directory) / safe_path(str(alert["log_prefix"])) / "alerts.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    _add_row(path, alert)
    return path


class _KnownTable(NamedTuple):
    """What a table holds, for as long as its file is the one that `stamp` is of."""

    columns: tuple[str, ...]
    last_step: int
    stamp: tuple[int, int, int]


_MOST_KNOWN = 64

_KNOWN: OrderedDict[Path, _KnownTable] = OrderedDict()
"""The tables that this process wrote last: a look is appended to such a one, and nothing is read."""


def _add_row(path: Path, row: Mapping[str, Any]) -> None:
    """Add a line to a table, or further columns to the line of the same step. A list is written as JSON.

    The line is appended where the table is as this process left it, has all its columns and ends at an earlier step.
    Otherwise the table is read and written anew as a whole, in the order of the steps. A process that is killed so
    leaves every earlier line whole; a last line without an end was cut off, and is left out by whoever reads it.
    """
    row = {name: json.dumps(value) if isinstance(value, list) else value for name, value in row.items()}
    key = path.resolve()
    known = _KNOWN.pop(key, None)  # until all is written: what fails half-way is read anew the next time
    if (
        known is not None
        and known.stamp == _stamp(path)
        and known.last_step < row["step"]
        and set(known.columns).issuperset(row)
    ):
        append_text(path, _as_lines(known.columns, [row]))
        columns, last_step = known.columns, row["step"]
    else:
        rows = _read_rows(path)
        rows[row["step"]] = {**rows.get(row["step"], {}), **row}
        columns, last_step = _write_rows(path, [rows[step] for step in sorted(rows)]), max(rows)
    _KNOWN[key] = _KnownTable(columns, last_step, _stamp(path))
    while len(_KNOWN) > _MOST_KNOWN:
        _KNOWN.popitem(last=False)


def _stamp(path: Path) -> tuple[int, int, int]:
    """Return which file lies at a path, its size and when it was changed; zeros where there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return 0, 0, 0
    return found.st_ino, found.st_size, found.st_mtime_ns


def _write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Write a table as a whole; return its columns."""
    columns = tuple(dict.fromkeys(name for row in rows for name in row))
    with atomic_write_text(path, newline="") as file:
        file.write(_as_lines(columns, [{name: name for name in columns}, *rows]))
    return columns


def _as_lines(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """Format rows as lines of a table, each with its end."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    for row in rows:
        writer.writerow([_without_nul(row.get(name, "")) for name in columns])
    return text.getvalue()


def _without_nul(value: Any) -> Any:
    """Return text without the character NUL, which `csv` refuses before Python 3.11; any other value as it is."""
    return value.replace("\x00", "") if sys.version_info < (3, 11) and isinstance(value, str) else value


def _read_rows(path: Path) -> dict[int, dict[str, Any]]:
    """Read the lines of a table by step, but for a last one that was cut off. What is left out is set aside."""
    content = path.read_bytes() if path.exists() else b""
    end = content.rfind(b"\n") + 1
    rows: dict[int, dict[str, Any]] = {}
    try:
        lines = io.StringIO(content[:end].decode("utf-8"), newline="")
        reader = csv.DictReader(lines, restkey="", strict=True)
        if content and "step" not in (reader.fieldnames or ()):
            raise ValueError("it has no such column")
        try:
            for row in reader:
                rows[int(row["step"])] = {name: row[name] for name in row if name}
        except csv.Error:
            if next(lines, None) is not None:
                raise
            end = 0  # cut off within the quotes of a text of several lines
    except (ValueError, TypeError, csv.Error) as error:
        rank_zero_warn(
            f"{path} is no table with a whole number in its column `step` ({type(error).__name__}: {error}), so it is "
            f"set aside as {_set_aside(path, content)}, and a new one begins."
        )
        return {}
    if end < len(content):
        rank_zero_warn(
            f"The last line of {path} is cut off (its end is missing: a process was killed, or an editor took it "
            "away), so it is left out. The file as it was is set aside as "
            f"{_set_aside(path, content)}."
        )
    return rows


def _set_aside(path: Path, content: bytes) -> str:
    """Keep what a table was in a file beside it; return its name."""
    aside = path.with_name(f"{path.name}.broken")
    with atomic_write(aside) as file:
        file.write(content)
    return aside.name


def _any_logger(logger: Any) -> bool:
    return True


# registered before all others, so the last to be tried
register_backend(
    Backend(
        log_look=log_scalars_only,
        log_alert=alert_to_files,
        takes_look=_any_logger,
        takes_alert=_any_logger,
        log_picture=picture_to_files,
    )
)
register_backend(
    Backend(log_by_log_image, alert_to_files, takes_look=has("log_image"), log_picture=picture_by_log_image)
)
register_backend(
    Backend(log_to_files, alert_to_files, types=["loggers.CSVLogger"], log_picture=picture_to_files)
)
