"""Files that are whole or not there: written beside their place under a random name, put on disk, then renamed."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

UNFINISHED = ".part"
"""How a file's name ends before it is whole; one is left where the process is killed."""


def atomic_write(path: Path) -> AbstractContextManager[IO[bytes]]:
    """Open a file for bytes that takes the place of `path` when the block ends, and leaves no trace where it fails.

    Args:
        path: of the file; its directory is made where it is not there. A link is replaced, not followed.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "picture.png"
        >>> with atomic_write(path) as file:
        ...     _ = file.write(b"all of it")
        >>> path.read_bytes()
        b'all of it'
    """
    return _replacing(path, mode="xb")


def atomic_write_text(path: Path, newline: str | None = None) -> AbstractContextManager[IO[str]]:
    """As `atomic_write`, for text in UTF-8.

    Args:
        path: as in `atomic_write`.
        newline: as in `open`; the module `csv` wants "".
    """
    # half of a surrogate pair, as in a file name that is no UTF-8, is written as its escape
    return _replacing(path, mode="x", newline=newline, encoding="utf-8", errors="backslashreplace")


@contextmanager
def atomic_write_texts(paths: Sequence[Path], newline: str | None = None) -> Iterator[list[IO[str]]]:
    """As `atomic_write_text`, for several files: all are on disk before the first, in this order, has its name.

    Args:
        paths: of the files.
        newline: as in `open`.
    """
    with ExitStack() as stack:
        # the last to be entered is the first to be renamed
        files = [stack.enter_context(atomic_write_text(path, newline)) for path in reversed(paths)][::-1]
        yield files
        for file in files:
            file.flush()
            _put_on_disk(file.fileno())


@contextmanager
def _replacing(path: Path, **options: Any) -> Iterator[IO[Any]]:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name[:40]}.{secrets.token_hex(8)}{UNFINISHED}")
    # mode "x" is O_EXCL: whatever another has laid there, a link to elsewhere too, is an error and is not written to
    file = beside.open(**options)
    try:
        with file:
            yield file
            file.flush()
            _put_on_disk(file.fileno())
        os.replace(beside, path)
    except BaseException:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise


def _put_on_disk(descriptor: int) -> None:
    """Without it a machine that loses its power may keep the rename and lose what was written before it."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (
            errno.EINVAL,
            errno.ENOSYS,
            errno.ENOTSUP,
        ):  # a file system that knows no fsync
            raise


def printable(text: str | os.PathLike[str]) -> str:
    r"""A path or a name for a message of one line: what cannot be printed is escaped.

    Example:
        >>> printable("runs/ü\n\x1b[31m\udcff")
        'runs/ü\\n\\x1b[31m\\udcff'
    """
    return "".join(
        sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in os.fspath(text)
    )
