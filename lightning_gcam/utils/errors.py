"""The one error that this package raises on purpose, and what its messages are made of."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any


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


OF_THE_MACHINE = re.compile(r"memory|CUDA|CUDNN|cuDNN|CUBLAS|NCCL|device")
"""What an error says that is nobody's mistake."""


@contextmanager
def of_the_users(argument: str, given: Any) -> Iterator[None]:
    """Run a function of the user's on `given`; where it raises, refuse the argument, whatever the error's type.

    Raises:
        InputError: naming the argument, what it was given, and what it raised.
    """
    try:
        yield
    except InputError:
        raise
    except (RuntimeError, TypeError, LookupError, AttributeError, ValueError) as error:
        if OF_THE_MACHINE.search(words_of(error)):
            raise
        raise InputError(
            f"`{argument}` failed on {tuple(given.shape)} {str(given.dtype).removeprefix('torch.')}: "
            f"{type(error).__name__}: {words_of(error)}. Write it for a tensor of this shape."
        ) from error
