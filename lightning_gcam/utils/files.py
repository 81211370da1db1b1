"""Atomic writing of files, and names made safe as parts of a path."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import secrets
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

LONGEST = 100
"""The most characters of one part of a path.

File systems take 255 bytes, MLflow puts a whole tag into one of them, and W&B takes 128."""

_DEVICES = {
    *("CON", "PRN", "AUX", "NUL"),
    *(f"{port}{number}" for port in ("COM", "LPT") for number in range(10)),
}
"""The names that Windows reserves for devices, with any suffix."""


def safe_name(name: str) -> str:
    """Encode a name as one component of a path.

    ASCII letters, digits, "_.-~" and spaces stay, all else is percent-encoded. Dots and spaces at either end and the
    names of Windows' devices are encoded too. `urllib.parse.unquote` gives the name back, unless it was too long: then
    its end is a checksum. No two names come out alike; those that would where a file system ignores the case of
    letters apart are found by `same_on_any_disk`.

    Args:
        name: any text.

    Example:
        >>> safe_name("saliency"), safe_name(".."), safe_name("a/b"), safe_name("nul.txt"), safe_name("")
        ('saliency', '%2E%2E', 'a%2Fb', '%6Eul.txt', '%')
        >>> safe_name("my saliency"), safe_name(" a.")
        ('my saliency', '%20a%2E')
        >>> len(safe_name("a" * 1000))
        100
    """
    quoted = quote(name, safe=" ", errors="surrogatepass") or "%"
    quoted = re.sub(r"^[. ]|[. ]$", lambda end: f"%{ord(end[0]):02X}", quoted)
    if quoted.split(".")[0].strip().upper() in _DEVICES:
        quoted = f"%{ord(quoted[0]):02X}{quoted[1:]}"
    return quoted if len(quoted) <= LONGEST else shortened(quoted, LONGEST, name)


def safe_path(name: str) -> str:
    """Encode a name with slashes as a relative path: each part by `safe_name`, and no part is empty.

    Args:
        name: any text, such as a tag.

    Example:
        >>> safe_path("saliency/overlay"), safe_path("../up"), safe_path("/a/b"), safe_path("c//d/")
        ('saliency/overlay', '%2E%2E/up', 'a/b', 'c/d')
    """
    return "/".join(safe_name(part) for part in name.split("/") if part) or safe_name("")


def same_on_any_disk(name: str, other: str) -> bool:
    """Whether two names are one path on a file system that ignores case.

    Example:
        >>> same_on_any_disk("Saliency", "saliency/"), same_on_any_disk("a", "b")
        (True, False)
    """
    return safe_path(name).casefold() == safe_path(other).casefold()


def shortened(name: str, most: int, whole: str | None = None) -> str:
    """Shorten a name to at most `most` characters, the last of which are a checksum of the whole name.

    Args:
        name: what is shortened, whether or not it is too long.
        most: how many characters are left at most.
        whole: what the checksum is of, where `name` is only a part of it.

    Example:
        >>> shortened("a cat that is far too long", 12)
        'a c-d7f0a17c'
    """
    checked = (name if whole is None else whole).encode("utf-8", "surrogatepass")
    digest = hashlib.blake2b(checked, digest_size=4).hexdigest()
    start = re.sub(r"%.?$", "", name[: most - len(digest) - 1])  # half of an encoded sign
    return f"{start}-{digest}"


UNFINISHED = ".part"
"""The suffix of a file that is still being written; one is left behind where the process is killed."""


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
        newline: as in `open`; the module `csv` needs "".
    """
    # half of a surrogate pair, as in a file name that is no UTF-8, is written as its escape
    return _replacing(path, mode="x", newline=newline, encoding="utf-8", errors="backslashreplace")


@contextmanager
def atomic_write_texts(paths: Sequence[Path], newline: str | None = None) -> Iterator[list[IO[str]]]:
    """As `atomic_write_text`, for several files: all are on disk before the first of them gets its name.

    Args:
        paths: of the files.
        newline: as in `open`.
    """
    with ExitStack() as stack:
        # the last to be entered is the first to be renamed
        files = [stack.enter_context(atomic_write_text(path, newline)) for path in reversed(paths)][::-1]
        yield files
        for file in files:
            _flush_to_disk(file)


def append_text(path: Path, text: str) -> None:
    r"""Append text in UTF-8 to a file and flush it to disk; what was in it stays, wherever this is cut off.

    Args:
        path: of the file, which is made where it is not there; its directory is not.
        text: line ends are written as they come.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "lines.txt"
        >>> for line in ("one\n", "two\n"):
        ...     append_text(path, line)
        >>> path.read_text()
        'one\ntwo\n'
    """
    with path.open("a", encoding="utf-8", errors="backslashreplace", newline="") as file:
        file.write(text)
        _flush_to_disk(file)


@contextmanager
def _replacing(path: Path, **options: Any) -> Iterator[IO[Any]]:
    """Write a temporary file beside `path`, and rename it to `path` when the block ends without an exception."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name[:40]}.{secrets.token_hex(8)}{UNFINISHED}")
    # mode "x" is O_EXCL: whatever another has laid there, a link to elsewhere too, is an error and is not written to
    file = beside.open(**options)
    try:
        with file:
            yield file
            _flush_to_disk(file)
        os.replace(beside, path)
    except BaseException:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise


def _flush_to_disk(file: IO[Any]) -> None:
    """Flush a file to the disk, so that after a loss of power no renamed file is empty."""
    file.flush()
    try:
        os.fsync(file.fileno())
    except OSError as error:
        if error.errno not in (
            errno.EINVAL,
            errno.ENOSYS,
            errno.ENOTSUP,
        ):  # a file system without fsync
            raise


def printable(text: str | os.PathLike[str]) -> str:
    r"""Escape the unprintable characters of a path or a name, for a message of one line.

    Example:
        >>> printable("runs/ü\n\x1b[31m\udcff")
        'runs/ü\\n\\x1b[31m\\udcff'
    """
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in os.fspath(text)
    )
