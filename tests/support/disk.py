"""What a stretch of code does on disk, counted: files opened, folders listed, bytes read and written."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_COUNTERS = Path("/proc/self/io")
"""What the kernel has counted; on Linux only, elsewhere no bytes are counted."""

_ACTIVE: list[DiskUse] = []


@dataclass
class DiskUse:
    """What was done, by all threads of this process."""

    opened: int = 0
    listed: int = 0
    read: int = 0
    written: int = 0


@contextmanager
def counted_disk_use() -> Iterator[DiskUse]:
    """Count what the block does; the numbers are there when it ends."""
    _listen()
    use = DiskUse()
    nothing = _bytes()
    before = _bytes()  # reading the counters is itself counted
    _ACTIVE.append(use)
    try:
        yield use
    finally:
        _ACTIVE.remove(use)
        after = _bytes()
        use.read = after[0] - 2 * before[0] + nothing[0]
        use.written = after[1] - before[1]


@cache
def _listen() -> None:
    """Add the hook, once a process: Python takes none away again."""

    def hook(event: str, _: object) -> None:
        for use in _ACTIVE:
            use.opened += event == "open"
            use.listed += event in ("os.listdir", "os.scandir")

    sys.addaudithook(hook)


def _bytes() -> tuple[int, int]:
    if not _COUNTERS.exists():
        return 0, 0
    file = os.open(_COUNTERS, os.O_RDONLY)
    try:
        counts = dict(line.split(": ") for line in os.read(file, 4096).decode().splitlines())
    finally:
        os.close(file)
    return int(counts["rchar"]), int(counts["wchar"])
