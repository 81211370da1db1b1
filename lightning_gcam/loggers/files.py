"""A look as files: PNG, scores.csv, alerts.csv, in a directory of the run's own."""

from __future__ import annotations

import csv
import errno
import json
import os
import re
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from lightning_gcam.pipeline.record import SaliencyRecord
from lightning_gcam.utils.files import atomic_write, atomic_write_text, safe_path
from lightning_gcam.utils.lightning_compat import rank_zero_info, rank_zero_warn


def run_all(steps: Iterable[Callable[[], object]]) -> None:
    """Run every step in order, also behind one that fails.

    Args:
        steps: functions without arguments.

    Raises:
        Exception: the first failure, once all steps were run.

    Example:
        >>> run_all([lambda: print("scores"), lambda: 1 / 0, lambda: print("pictures")])
        Traceback (most recent call last):
            ...
        ZeroDivisionError: division by zero
    """
    first: Exception | None = None
    for step in steps:
        try:
            step()
        except Exception as error:
            first = first or error
    if first is not None:
        raise first


_LOCK = ".lightning_gcam.lock"
_TAKEN = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)
"""What the lock of another process is answered with; any other error says that this file system has no locks."""

_MOST = 16
"""Locks at once: a process that trains a thousand runs, one after the other, must not keep a thousand files open."""

_OURS: OrderedDict[tuple[int, Path], tuple[str, int | None]] = OrderedDict()
"""By process and directory, where in it its files go, and the lock. A process that is forked off has none of these."""


def own_directory(directory: Path) -> Path:
    """The directory itself, or `run_2`, `run_3` ... in it while other processes write there.

    The first process to come holds a lock until it ends, however it ends; a run that is resumed then gets the same
    directory again. Where a file system has no locks it is the directory itself.

    Args:
        directory: of a run; it is made where it is not there.

    Example:
        >>> import tempfile
        >>> directory = Path(tempfile.mkdtemp())
        >>> own_directory(directory) == directory
        True
    """
    key = _key(directory)
    if key not in _OURS:
        _keep(key, next(taken for each in _candidates() if (taken := _take(directory, each)) is not None))
        if within := _OURS[key][0]:
            rank_zero_warn(
                f"Another process writes its looks to {directory}, so those of this one go to {directory / within}. "
                "Give each run a directory of its own."
            )
    _OURS.move_to_end(key)
    return directory / _OURS[key][0]


def is_ours(directory: Path) -> bool:
    """Whether no other process writes to a directory; then none will, until this one ends.

    Args:
        directory: it is made where it is not there.
    """
    key = _key(directory)
    if key not in _OURS and (taken := _take(directory)) is not None:
        _keep(key, taken)
    return key in _OURS and not _OURS[key][0]


def release(directory: Path) -> None:
    """Leave a directory to other processes before this one ends: a notebook may stay open for days.

    Args:
        directory: of `own_directory` or `is_ours`.
    """
    within, lock = _OURS.pop(_key(directory), ("", None))
    if lock is not None:
        with suppress(OSError):  # Windows removes no file that is open
            os.unlink(directory / within / _LOCK)
        os.close(lock)


def _key(directory: Path) -> tuple[int, Path]:
    return os.getpid(), directory.resolve()


def _keep(key: tuple[int, Path], taken: tuple[str, int | None]) -> None:
    _OURS[key] = taken
    while len(_OURS) > _MOST:
        _, (_, lock) = _OURS.popitem(last=False)
        if lock is not None:
            os.close(lock)


def _take(directory: Path, within: str = "") -> tuple[str, int | None] | None:
    """The place in a directory and the file by which this process has it; None where another one has."""
    place = directory / within
    place.mkdir(parents=True, exist_ok=True)
    while True:
        try:
            file = os.open(place / _LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError:  # another user's; what cannot be written here is said where it is written
            return within, None
        try:
            _lock(file)
        except OSError as error:
            os.close(file)
            return None if error.errno in _TAKEN else (within, None)
        if _is_at(file, place / _LOCK):
            return within, file
        os.close(
            file
        )  # whoever had it has removed it since it was opened: a lock on it would be seen by nobody


def _is_at(file: int, path: Path) -> bool:
    """Whether an open file is the one at a path."""
    try:
        return os.path.samestat(os.fstat(file), os.stat(path))
    except OSError:
        return False


def _candidates() -> Iterator[str]:
    yield ""
    yield from (f"run_{number}" for number in count(2))


if sys.platform == "win32":

    def _lock(file: int) -> None:
        import msvcrt

        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)

else:

    def _lock(file: int) -> None:
        """Of the process, not of the open file: a worker that is forked off does not hold it on."""
        import fcntl

        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def log_to_files(logger: Any, record: SaliencyRecord) -> None:
    """Write the look under the directory of `logger`: its `log_dir`, else its `save_dir`, else the working directory.

    Args:
        logger: any Lightning logger, such as `CSVLogger`.
        record: the look.
    """
    write_look(directory_of(logger), record)


def write_look(directory: Path, record: SaliencyRecord) -> Path:
    """Add a line to `<prefix>/scores.csv` and write `<prefix>/overlay-step=<step>.png`.

    Beside them `<prefix>/measurements-step=<step>.csv` has each score's n, what was left out and its interval; each
    sample's own picture, where that is asked for, lies in `<prefix>/sample`. All are
    written whole under another name and then renamed, so that neither is ever half there. A look at a step
    that is already in the table (a run that was resumed) takes its place. The scores come first, and what cannot be
    written takes nothing else with it.

    Args:
        directory: of the run. While another process writes its looks there, they go to a `run_2` in it.
        record: the look.

    Returns:
        The directory that holds the files: no `log_prefix` leads out of `directory`, see `safe_path`.
    """
    directory = own_directory(directory)
    target = directory / safe_path(record.stamp.log_prefix)
    if not target.exists():
        rank_zero_info(f"Saliency overlays and scores.csv are written to {target}")
    target.mkdir(parents=True, exist_ok=True)
    at = f"-step={record.step:08d}"

    def write_pictures() -> None:
        run_all(
            partial(write_png, directory / f"{safe_path(tag)}{at}.png", picture)
            for tag, picture in record.pictures.items()
        )

    def write_measurements() -> None:
        if record.table:
            _write_rows(target / f"measurements{at}.csv", record.table)

    run_all([partial(_add_row, target / "scores.csv", record.row), write_measurements, write_pictures])
    return target


def write_scores(directory: Path, record: SaliencyRecord) -> None:
    """Add the scores of a record to `<prefix>/scores.csv`, beside what stands there for the same step.

    Args:
        directory: of the run.
        record: the look.
    """
    target = own_directory(directory) / safe_path(record.stamp.log_prefix)
    target.mkdir(parents=True, exist_ok=True)
    _add_row(target / "scores.csv", record.row)


def alert_to_files(logger: Any, alert: Mapping[str, Any]) -> None:
    """Write the alert under the directory of `logger`, beside the looks.

    Args:
        logger: any Lightning logger, such as `CSVLogger`.
        alert: as in `log_alert`.
    """
    write_alert(directory_of(logger), alert)


def write_alert(directory: Path, alert: Mapping[str, Any]) -> Path:
    """Add a line to `<prefix>/alerts.csv`, in the way of `write_look`.

    Args:
        directory: of the run.
        alert: as in `log_alert`.

    Returns:
        The file.
    """
    path = own_directory(directory) / safe_path(str(alert["log_prefix"])) / "alerts.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    _add_row(path, alert)
    return path


def directory_of(logger: Any) -> Path:
    """Where the files of a logger are: its `log_dir`, else its `save_dir`, else the working directory."""
    return Path(getattr(logger, "log_dir", None) or getattr(logger, "save_dir", None) or os.getcwd())


def next_version(root: Path) -> Path:
    """Make the first `version_<n>` under `root` that is not there yet, as Lightning's own loggers number their runs.

    Two processes that ask at the same time are given two.

    Args:
        root: the directory of all runs; it need not exist.
    """
    root.mkdir(parents=True, exist_ok=True)
    matches = (re.fullmatch(r"version_(\d+)", path.name) for path in root.iterdir())
    taken = [int(match[1]) for match in matches if match]
    for number in count(max(taken, default=-1) + 1):
        try:
            (root / f"version_{number}").mkdir()
        except FileExistsError:
            continue
        break
    return root / f"version_{number}"


def write_png(path: Path, picture: npt.NDArray[np.uint8]) -> Path:
    """Write a picture `(H, W, 3)` uint8 under another name, then rename it: it is never half there."""
    with atomic_write(path) as file:
        Image.fromarray(picture).save(file, format="png", compress_level=2)  # a third of 6's time
    return path


def _add_row(path: Path, row: Mapping[str, Any]) -> None:
    """One more line in a table, or further columns in the line of the same step. A list is written as JSON."""
    row = {name: json.dumps(value) if isinstance(value, list) else value for name, value in row.items()}
    rows = _read_rows(path)
    rows[row["step"]] = {**rows.get(row["step"], {}), **row}
    _write_rows(path, [rows[step] for step in sorted(rows)])


def _write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with atomic_write_text(path, newline="") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)


def _read_rows(path: Path) -> dict[int, dict[str, Any]]:
    """The lines of a table by step. One that is not such a table is set aside, so that this one is not lost too."""
    if not path.exists():
        return {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [dict(row) for row in csv.DictReader(file, restkey="", strict=True)]
        return {int(row["step"]): {name: row[name] for name in row if name} for row in rows}
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        aside = path.with_name(f"{path.name}.broken")
        path.replace(aside)
        rank_zero_warn(
            f"{path} is no table with a whole number in its column `step` ({type(error).__name__}: {error}), so it is "
            f"set aside as {aside.name}, and a new one begins."
        )
        return {}
