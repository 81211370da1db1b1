"""Any name as a part of a path: it never leads out of the folder it is put into, and every file system takes it."""

from __future__ import annotations

import hashlib
import re
from urllib.parse import quote

LONGEST = 100
"""Most signs of one part. File systems take 255 bytes, MLflow puts a whole tag into one of them, and W&B takes 128."""

_DEVICES = {
    *("CON", "PRN", "AUX", "NUL"),
    *(f"{port}{number}" for port in ("COM", "LPT") for number in range(10)),
}
"""What Windows takes for a device, whatever ending stands behind it."""


def safe_name(name: str) -> str:
    """A name as one component of a path: ASCII letters, digits, "_.-~" and spaces stay, all else is percent-encoded.

    Dots and spaces at either end and the names of Windows' devices are encoded too. `urllib.parse.unquote` gives the
    name back, unless it was too long: then its end is a checksum. No two names come out alike; which would where a file
    system does not tell capital letters apart, `same_on_any_disk` says.

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
    """A name with slashes as a path below a folder: each part by `safe_name`, and no part of it is empty.

    Args:
        name: any text, such as a tag.

    Example:
        >>> safe_path("saliency/overlay"), safe_path("../up"), safe_path("/a/b"), safe_path("c//d/")
        ('saliency/overlay', '%2E%2E/up', 'a/b', 'c/d')
    """
    return "/".join(safe_name(part) for part in name.split("/") if part) or safe_name("")


def same_on_any_disk(name: str, other: str) -> bool:
    """Whether two names are one path where a file system does not tell capital letters apart.

    Example:
        >>> same_on_any_disk("Saliency", "saliency/"), same_on_any_disk("a", "b")
        (True, False)
    """
    return safe_path(name).casefold() == safe_path(other).casefold()


def shortened(name: str, most: int, whole: str | None = None) -> str:
    """The beginning of a name that is too long, with a checksum behind it: `most` signs.

    Args:
        name: what is shortened, whether or not it is too long.
        most: how many signs are left at most.
        whole: what the checksum is of, where `name` is only a part of it.

    Example:
        >>> shortened("a cat that is far too long", 12)
        'a c-d7f0a17c'
    """
    checked = (name if whole is None else whole).encode("utf-8", "surrogatepass")
    digest = hashlib.blake2b(checked, digest_size=4).hexdigest()
    start = re.sub(r"%.?$", "", name[: most - len(digest) - 1])  # half of an encoded sign
    return f"{start}-{digest}"
