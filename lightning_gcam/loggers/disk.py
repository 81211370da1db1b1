"""Writing files safely, for all backends: directories of one process each, encoded pictures, undamaged event files."""

from __future__ import annotations

import errno
import io
import os
import re
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from lightning_gcam.utils.files import atomic_write
from lightning_gcam.utils.lightning_compat import rank_zero_warn


def run_all(steps: Iterable[Callable[[], object]]) -> None:
    """Run every step in order, also after one that fails.

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
_LOCKED_ERRORS = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)
"""The errors where another process has the lock; any other one means that this file system has no locks."""

_MOST_CLAIMS = 16
"""Locks at once: a process that trains a thousand runs, one after the other, must not keep a thousand files open."""

_CLAIMS: OrderedDict[tuple[int, Path], tuple[str, int | None]] = OrderedDict()
"""For each process and directory the claimed subdirectory and its lock. A forked process has none of these."""


def claimed_directory(directory: Path) -> Path:
    """Return the directory itself, or `run_2`, `run_3` ... in it while other processes write there.

    The first process to come holds a lock until it ends, however it ends; a run that is resumed then gets the same
    directory again. Where a file system has no locks it is the directory itself.

    Args:
        directory: of a run; it is made where it is not there.

    Example:
        >>> import tempfile
        >>> directory = Path(tempfile.mkdtemp())
        >>> claimed_directory(directory) == directory
        True
    """
    key = _key(directory)
    if key not in _CLAIMS:
        _keep_claim(
            key,
            next(
                taken for each in _subdirectories() if (taken := _try_to_claim(directory, each)) is not None
            ),
        )
        if within := _CLAIMS[key][0]:
            rank_zero_warn(
                f"Another process writes its looks to {directory}, so those of this one go to {directory / within}. "
                "Give each run a directory of its own."
            )
    _CLAIMS.move_to_end(key)
    return directory / _CLAIMS[key][0]


def claim_directory(directory: Path) -> bool:
    """Claim a directory for this process; return whether it is claimed by no other.

    Args:
        directory: it is made where it is not there.
    """
    key = _key(directory)
    if key not in _CLAIMS and (taken := _try_to_claim(directory)) is not None:
        _keep_claim(key, taken)
    return key in _CLAIMS and not _CLAIMS[key][0]


def release_directory(directory: Path) -> None:
    """Give a claimed directory up before this process ends: a notebook may stay open for days.

    Args:
        directory: of `claimed_directory` or `claim_directory`.
    """
    within, lock = _CLAIMS.pop(_key(directory), ("", None))
    if lock is not None:
        with suppress(OSError):  # Windows removes no file that is open
            os.unlink(directory / within / _LOCK)
        os.close(lock)


def _key(directory: Path) -> tuple[int, Path]:
    return os.getpid(), directory.resolve()


def _keep_claim(key: tuple[int, Path], taken: tuple[str, int | None]) -> None:
    _CLAIMS[key] = taken
    while len(_CLAIMS) > _MOST_CLAIMS:
        _, (_, lock) = _CLAIMS.popitem(last=False)
        if lock is not None:
            os.close(lock)


def _try_to_claim(directory: Path, within: str = "") -> tuple[str, int | None] | None:
    """Lock a directory; return the subdirectory and the lock, or None where another process has it."""
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
            return None if error.errno in _LOCKED_ERRORS else (within, None)
        if _is_file_at(file, place / _LOCK):
            return within, file
        os.close(
            file
        )  # whoever had it has removed it since it was opened: a lock on it would be seen by nobody


def _is_file_at(file: int, path: Path) -> bool:
    """Return whether an open file is the one at a path."""
    try:
        return os.path.samestat(os.fstat(file), os.stat(path))
    except OSError:
        return False


def _subdirectories() -> Iterator[str]:
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


def directory_of_logger(logger: Any) -> Path:
    """Return the directory of a logger's files: its `log_dir`, else its `save_dir`, else the working directory."""
    return Path(getattr(logger, "log_dir", None) or getattr(logger, "save_dir", None) or os.getcwd())


def next_version(root: Path) -> Path:
    """Make the first `version_<n>` under `root` that does not exist, as Lightning's own loggers number their runs.

    Two processes that call it at the same time get two.

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
    """Write a picture `(H, W, 3)` uint8 as a PNG file, complete or not at all."""
    with atomic_write(path) as file:
        Image.fromarray(picture).save(file, format="png", compress_level=2)  # a third of 6's time
    return path


_JPEG_QUALITY = 90


def encode_jpeg(picture: npt.NDArray[np.uint8]) -> bytes:
    """Encode a picture as a JPEG without chroma subsampling, which would smear the colours of small maps.

    A PNG takes three times as many bytes, and thirty times as long.

    Args:
        picture: `(H, W, 3)`, uint8.

    Example:
        >>> encode_jpeg(np.zeros((8, 8, 3), dtype=np.uint8))[6:10]
        b'JFIF'
    """
    file = io.BytesIO()
    Image.fromarray(picture).save(file, format="jpeg", quality=_JPEG_QUALITY, subsampling=0)
    return file.getvalue()


@contextmanager
def restored_on_failure(logger: Any) -> Iterator[None]:
    """Remove what the block added to TensorBoard's event file where writing it fails, as on a full disk.

    A thread writes the file. It ends with the first error and raises that again at every later call: a picture of ours
    that finds no room would make Lightning's own row of numbers, which may find some, end the training. Half a record
    would hide all that is written behind it, too.

    Args:
        logger: any; nothing is done where its `experiment` is no writer of an event file on a local disk.
    """
    events = _event_writer_of(logger)
    if events is None:
        yield
        return
    events.flush()  # raises where the writer failed before: that is not ours to mend
    size = os.path.getsize(events._file_name)
    try:
        yield
        events.flush()
    except Exception:
        if events._async_writer._worker.exception is not None:
            _truncate(events, size)
        raise


def is_summary_writer(writer: Any) -> bool:
    """Whether an object is torch's `SummaryWriter`, without importing it: TensorBoard is slow to import."""
    module = sys.modules.get("torch.utils.tensorboard")
    return module is not None and isinstance(writer, module.SummaryWriter)


def _event_writer_of(logger: Any) -> Any:
    writer: Any = getattr(logger, "experiment", None)
    if not is_summary_writer(writer):
        return None
    events = writer._get_file_writer().event_writer
    worker = getattr(getattr(events, "_async_writer", None), "_worker", None)
    # TensorFlow's own file, where that is installed, is kept open and cannot be cut from here
    is_plain = getattr(getattr(events, "_general_file_writer", None), "fs_supports_append", False)
    return events if is_plain and hasattr(worker, "exception") and os.path.isfile(events._file_name) else None


def _truncate(events: Any, size: int) -> None:
    """Cut the file to its size before, and start another thread that writes it."""
    from tensorboard.summary.writer import event_file_writer  # type: ignore[import-untyped]  # slow to import

    ended = events._async_writer._worker
    os.truncate(events._file_name, size)
    worker = event_file_writer._AsyncWriterThread(ended._queue, ended._record_writer, ended._flush_secs)
    events._async_writer._worker = worker
    worker.start()
