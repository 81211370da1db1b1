"""Files that are whole or not there: written beside their place under a random name, put on disk, then renamed."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO, Any


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
def _replacing(path: Path, **options: Any) -> Iterator[IO[Any]]:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name[:40]}.{secrets.token_hex(8)}.part")
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
