"""Work done chunk by chunk, in smaller chunks where memory runs out, with a progress bar."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

import torch
from tqdm.auto import tqdm

from lightning_gcam.utils.errors import words_of

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


Part = TypeVar("Part")


def in_chunks(
    n: int, work: Callable[[slice], Part], chunk_size: int | None = None, label: str = "saliency"
) -> tuple[list[Part], int]:
    """Do `work` for all of n samples, a piece after the other.

    Args:
        n: how many samples there are.
        work: given the samples' slice, gives their part of the result.
        chunk_size: how many samples to run at once; all where it is left out.
        label: what the progress bar says, which shows where several pieces take longer than two seconds.

    Returns:
        The parts in order, and the size of the pieces that went through.

    Raises:
        RuntimeError: where memory does not suffice for a single sample.

    Example:
        >>> in_chunks(5, lambda piece: list(range(5))[piece], chunk_size=2)
        ([[0, 1], [2, 3], [4]], 2)
    """
    size, parts, done = max(chunk_size or n, 1), list[Part](), 0
    with tqdm(total=n, desc=label, delay=2, leave=False, disable=size >= n or is_quiet()) as progress:
        while done < n:
            piece = slice(done, min(done + size, n))
            part = _tried(work, piece, size)
            if part is None:
                size = max(size // 2, 1)
                continue
            parts += part
            progress.update(piece.stop - done)
            done = piece.stop
    return parts, size


def _tried(work: Callable[[slice], Part], piece: slice, size: int) -> list[Part] | None:
    """The part in a list, or None where memory ran out and a smaller piece may still go through.

    The caller goes on outside of the `except` block: inside it, the traceback would keep the memory alive.
    """
    try:
        return [work(piece)]
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if size == 1 or not is_out_of_memory(error):
            raise
        return None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out: the CPU allocator and CUDA's libraries say so in a plain RuntimeError, each its way."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    if not isinstance(error, RuntimeError):
        return False
    said = words_of(error).lower()
    # the last is of cuDNN, cuBLAS, cuSOLVER and their kind: CUDNN_STATUS_ALLOC_FAILED, CUFFT_ALLOC_FAILED
    return any(
        each in said
        for each in ("not enough memory", "can't allocate memory", "out of memory", "_alloc_failed")
    )
