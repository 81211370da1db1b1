"""A directory for each run: two that write at the same time never write into the same one."""

from __future__ import annotations

import errno
import os
import sys
from collections import OrderedDict
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from lightning_gcam._lightning import rank_zero_warn

_LOCK = ".lightning_gcam.lock"
_TAKEN = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)
"""What the lock of another process is answered with; any other error says that this file system has no locks."""

_MOST = 16
"""Locks at once: a process that trains a thousand runs, one after the other, must not keep a thousand files open."""

_OURS: OrderedDict[tuple[int, Path], tuple[Path, int | None]] = OrderedDict()
"""By process and directory, where its files go, and the lock. A process that is forked off has its parent's not."""


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
    key = os.getpid(), directory.resolve()
    if key not in _OURS:
        _keep(key, next(taken for each in _candidates(directory) if (taken := _take(each)) is not None))
        if _OURS[key][0] != directory:
            rank_zero_warn(
                f"Another process writes its looks to {directory}, so those of this one go to {_OURS[key][0]}. Give "
                "each run a directory of its own."
            )
    _OURS.move_to_end(key)
    return _OURS[key][0]


def is_ours(directory: Path) -> bool:
    """Whether no other process writes to a directory; then none will, until this one ends.

    Args:
        directory: it is made where it is not there.
    """
    key = os.getpid(), directory.resolve()
    if key not in _OURS and (taken := _take(directory)) is not None:
        _keep(key, taken)
    return key in _OURS and _OURS[key][0] == directory


def _keep(key: tuple[int, Path], taken: tuple[Path, int | None]) -> None:
    _OURS[key] = taken
    while len(_OURS) > _MOST:
        _, (_, lock) = _OURS.popitem(last=False)
        if lock is not None:
            os.close(lock)


def _take(directory: Path) -> tuple[Path, int | None] | None:
    """The directory and the file by which this process has it; None where another one has."""
    directory.mkdir(parents=True, exist_ok=True)
    try:
        file = os.open(directory / _LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError:  # another user's; what cannot be written here is said where it is written
        return directory, None
    try:
        _lock(file)
    except OSError as error:
        os.close(file)
        return None if error.errno in _TAKEN else (directory, None)
    return directory, file


def _candidates(directory: Path) -> Iterator[Path]:
    yield directory
    yield from (directory / f"run_{number}" for number in count(2))


if sys.platform == "win32":

    def _lock(file: int) -> None:
        import msvcrt

        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)

else:

    def _lock(file: int) -> None:
        """Of the process, not of the open file: a worker that is forked off does not hold it on."""
        import fcntl

        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
