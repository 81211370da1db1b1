"""The policy for failures: one warning, and the training goes on; no further look after three failed ones."""

from __future__ import annotations

import errno
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from lightning_gcam.pipeline.config import CHECKING, PERTURBING
from lightning_gcam.utils.chunking import is_out_of_memory
from lightning_gcam.utils.errors import InputError, did_you_mean, error_text
from lightning_gcam.utils.lightning_compat import rank_zero_warn

MAX_IN_A_ROW = 3
MAX_WARNINGS = 5
"""A step that fails in ever new ways (a message with a count in it) is warned of so many times."""
THE_LOOK = "The look"
WITH_THE_MODEL = (THE_LOOK, PERTURBING, CHECKING)
"""The steps that run the user's model: one cause is warned of once for all of them."""
_CHOICES = ("warn", "raise")
_PASSES_GUARDS = "_passes_guards"
"""The mark of an exception that a callback with `on_error="raise"` lets through: another's guard does so, too."""
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_REMEDIES = (
    (
        is_out_of_memory,
        "Not even one sample fits beside the training: name a later `target_layer`, or free memory.",
    ),
    (
        lambda error: getattr(error, "errno", None) in _FULL,
        "The disk is full: free some space, later looks use it.",
    ),
    (
        lambda error: "Inference tensors cannot" in error_text(error),
        "The model keeps a tensor that was made under inference mode: pass `Trainer(inference_mode=False)`.",
    ),
    (lambda error: isinstance(error, OSError), "Check that it is there, can be reached and may be written."),
)
"""The first that fits is the remedy; an error of ours names its own."""


class FailurePolicy:
    """Turn failures into warnings.

    Args:
        on_error: "warn": one warning for each failure (a place and a message), and after three failed looks in a row
            no further one is taken; "raise": failures pass through (for tests).
        host: what goes on all the same.

    Example:
        >>> import warnings
        >>> policy = FailurePolicy("warn")
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("ignore")
        ...     with policy.guard("The look"):
        ...         raise RuntimeError("the disk is full")
        >>> policy.has_warned, policy.has_given_up
        (True, False)
    """

    def __init__(self, on_error: str = "warn", host: str = "the training") -> None:
        if on_error not in _CHOICES:
            raise InputError(f'`on_error` "{on_error}" is not known. {did_you_mean(str(on_error), _CHOICES)}')
        self.on_error = on_error
        self._host = host
        self.has_given_up = False
        self._given: set[str] = set()
        self._reported: set[tuple[str, str]] = set()
        self._causes: set[str] = set()
        self._counts: Counter[str] = Counter()
        self._in_a_row = 0

    @property
    def has_warned(self) -> bool:
        """Whether a warning was given."""
        return bool(self._given)

    def warn_once(self, kind: str, message: str) -> None:
        """Warn, unless a warning of this kind was given before."""
        if kind not in self._given:
            self._given.add(kind)
            rank_zero_warn(message)

    @contextmanager
    def guard(self, work: str, *, before_training: bool = False) -> Iterator[None]:
        """Run the body; an `Exception` becomes a warning. KeyboardInterrupt and SIGTERM pass.

        Args:
            work: what was being done, as the beginning of a sentence.
            before_training: no training time is at stake yet, so input that cannot be used is refused at once.
        """
        try:
            yield
        except Exception as error:
            if (before_training and isinstance(error, InputError)) or getattr(error, _PASSES_GUARDS, False):
                raise
            self.report(work, error)

    def report(self, work: str, error: Exception) -> None:
        """Warn of a failure, or raise it where `on_error` is "raise"."""
        if self.on_error == "raise":
            with suppress(AttributeError):  # an exception with `__slots__`
                setattr(error, _PASSES_GUARDS, True)
            raise error
        cause = f"{type(error).__name__}: {error_text(error)}"
        failure = f"{_place_of(error)} {cause}"
        if self._counts[work] > MAX_WARNINGS or (work, failure) in self._reported:
            return
        is_known = work in WITH_THE_MODEL and failure in self._causes
        self._reported.add((work, failure))
        self._causes.add(failure)
        if is_known:
            return  # what breaks the checks will break the next look as well
        self._counts[work] += 1
        if self._counts[work] > MAX_WARNINGS:
            self._warn(f"{work} failed in {MAX_WARNINGS} ways that were told; further ones are not.")
            return
        self._warn(
            f"{work} failed, and {self._host} goes on without it: {cause} "
            f'{_remedy(error)}(`on_error="raise"` shows where it comes from.)'
        )

    def _warn(self, message: str) -> None:
        self._given.add(message)
        rank_zero_warn(message)

    def count(self, *, succeeded: bool, work: str = THE_LOOK) -> None:
        """Count failed looks, in all processes alike; after three in a row there is no further look."""
        self._in_a_row = 0 if succeeded else self._in_a_row + 1
        if self._in_a_row == MAX_IN_A_ROW:
            self.has_given_up = True
            rank_zero_warn(f"{work} failed {MAX_IN_A_ROW} times in a row and is not tried again in this run.")


def _place_of(error: Exception) -> str:
    """The file and line that raised; nothing for an exception of another process."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""


def _remedy(error: Exception) -> str:
    return next((f"{remedy} " for fits, remedy in _REMEDIES if fits(error)), "")
