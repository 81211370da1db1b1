"""The errors for unusable input, the checks of common arguments, and the parts that error messages share."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn


class InputError(ValueError):
    """Raised where an argument, or what a model or a file gives, cannot be used.

    The message names the argument, what was expected, what came, and what to do. It is a `ValueError`, so code
    that does not use this package's errors can catch it too.
    """


class InputTypeError(InputError, TypeError):
    """An `InputError` for a value of the wrong type, which is a `TypeError` too."""


def error_text(error: BaseException) -> str:
    """The message of an exception; a substitute where its own `__str__` raises, which must not hide the first failure.

    Example:
        >>> error_text(ValueError("too small"))
        'too small'
    """
    try:
        return str(error)
    except Exception:
        return "(its message cannot be shown: `__str__` raises)"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A sentence for an error message with the known names most similar to `name`, or all where none is similar.

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


MACHINE_FAILURE = re.compile(r"memory|CUDA|CUDNN|cuDNN|CUBLAS|NCCL|device")
"""Words in the message of an error that comes from the device or its memory, and not from what was handed in."""


def is_whole_number(value: Any, least: int = 1) -> bool:
    """Whether a value is an integer of at least `least`; True and False are none.

    Example:
        >>> is_whole_number(3), is_whole_number(True), is_whole_number(2.0), is_whole_number(0)
        (True, False, False, False)
    """
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def check_whole(
    name: str, value: Any, least: int = 1, *, expected: str | None = None, remedy: str = ""
) -> None:
    """Refuse what is not a whole number of at least `least`.

    Args:
        name: of the argument.
        value: what was given.
        least: the smallest number that is accepted.
        expected: what the argument takes, in words, where it is more than such a number.
        remedy: a sentence about what to do.

    Raises:
        InputError: naming the argument, what was expected, and what came.

    Example:
        >>> check_whole("num_samples", 0)
        Traceback (most recent call last):
        ...
        lightning_gcam.utils.errors.InputError: `num_samples` must be a whole number from 1; got 0.
    """
    if not is_whole_number(value, least):
        expected = f"a whole number from {least}" if expected is None else expected
        raise InputError(f"`{name}` must be {expected}; got {value!r}.{f' {remedy}' if remedy else ''}")


def check_flag(name: str, value: Any) -> None:
    """Refuse what is neither True nor False.

    Raises:
        InputError: naming the argument and what came.

    Example:
        >>> check_flag("show_change", 1)
        Traceback (most recent call last):
        ...
        lightning_gcam.utils.errors.InputError: `show_change` must be True or False; got 1.
    """
    if not isinstance(value, bool):
        raise InputError(f"`{name}` must be True or False; got {value!r}.")


def check_choice(name: str, value: Any, choices: Iterable[str]) -> None:
    """Refuse a word that is none of a few choices; the message lists them all.

    Raises:
        InputError: naming the argument, the choices, and what came.

    Example:
        >>> check_choice("subset", "none", ("all", "difficult"))
        Traceback (most recent call last):
        ...
        lightning_gcam.utils.errors.InputError: `subset` must be "all" or "difficult"; got 'none'. Choose one of them.
    """
    choices = list(choices)
    if value not in choices:
        listed = " or ".join(f'"{each}"' for each in choices)
        raise InputError(f"`{name}` must be {listed}; got {value!r}. Choose one of them.")


def check_known(name: str, value: Any, known: Iterable[str]) -> None:
    """Refuse a name that is not among the known ones; the message gives the most similar.

    Raises:
        InputError: naming the argument, what came, and the most similar names.

    Example:
        >>> check_known("fuse", "produkt", ["product", "mean"])
        Traceback (most recent call last):
        ...
        lightning_gcam.utils.errors.InputError: `fuse` "produkt" is not known. Did you mean "product"?
    """
    known = list(known)
    if value not in known:
        raise InputError(f'`{name}` "{value}" is not known. {did_you_mean(str(value), known)}')


@contextmanager
def user_function_errors(argument: str, given: Any) -> Iterator[None]:
    """Turn any error that a user's function raises on the tensor `given` into an `InputError` about the argument.

    Raises:
        InputError: naming the argument, what it was given, and what it raised.
    """
    try:
        yield
    except Exception as error:
        raise_for_user_function(argument, given, error)


def raise_for_user_function(argument: str, given: Any, error: Exception) -> NoReturn:
    """As `user_function_errors`, for an error that was caught already."""
    kinds = (RuntimeError, TypeError, LookupError, AttributeError, ValueError)
    if (
        isinstance(error, InputError)
        or not isinstance(error, kinds)
        or MACHINE_FAILURE.search(error_text(error))
    ):
        raise error
    raise InputError(
        f"`{argument}` failed on {tuple(given.shape)} {str(given.dtype).removeprefix('torch.')}: "
        f"{type(error).__name__}: {error_text(error)}. Write it for a tensor of this shape."
    ) from error
