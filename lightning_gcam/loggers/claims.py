"""A directory for each run: two that write at the same time never write into the same one."""

from __future__ import annotations

import errno
import os
import sys
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path

from lightning_gcam._lightning import rank_zero_warn

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
