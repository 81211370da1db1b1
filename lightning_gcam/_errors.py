"""The one error this package raises on purpose, and the helper that finds the nearest name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """What was handed in cannot be used.

    The message names the argument, what was expected, what came, and what to do. It is a `ValueError`, so code
    that does not know this package can catch it too.
    """


class InputTypeError(InputError, TypeError):
    """What was handed in is of a type that cannot be used; to code that does not know this package, a `TypeError`."""


def words_of(error: BaseException) -> str:
    """What an exception says; a substitute where its own `__str__` raises, which must not hide the first failure.

    Example:
        >>> words_of(ValueError("too small"))
        'too small'
    """
    try:
        return str(error)
    except Exception:
        return "(its message cannot be shown: `__str__` raises)"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The known names nearest to `name`, as a sentence to append to an error; all of them where none is near.

    Example:
        >>> did_you_mean("grad_can", ["grad_cam", "layer_cam"])
        'Did you mean "grad_cam"?'
        >>> did_you_mean("zzz", ["grad_cam", "layer_cam"])
        'Known: "grad_cam", "layer_cam".'
    """
    choices = list(known)
    near = difflib.get_close_matches(name, choices, n=3, cutoff=0.6)
    if near:
        return "Did you mean " + " or ".join(f'"{choice}"' for choice in near) + "?"
    shown = ", ".join(f'"{choice}"' for choice in choices[:20])
    return f"Known: {shown}{', ...' if len(choices) > 20 else ''}."
