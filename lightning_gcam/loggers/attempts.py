"""Steps of which one that fails takes no other with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable


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
