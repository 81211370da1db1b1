"""Progress bars of single pieces of work are left out where a bar for the whole is on the screen already."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_QUIET: ContextVar[bool] = ContextVar("quiet", default=False)


def is_quiet() -> bool:
    """Whether no bar is to be shown."""
    return _QUIET.get()


@contextmanager
def quietly() -> Iterator[None]:
    """Show no bar inside.

    Example:
        >>> with quietly():
        ...     is_quiet()
        True
    """
    token = _QUIET.set(True)
    try:
        yield
    finally:
        _QUIET.reset(token)
