"""Work done chunk by chunk, in smaller chunks where memory runs out, with a progress bar; and its forwards counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor
from tqdm.auto import tqdm

from lightning_gcam.utils.errors import error_text

_BARS_HIDDEN: ContextVar[bool] = ContextVar("bars_hidden", default=False)


def bars_are_hidden() -> bool:
    """Whether progress bars are hidden here."""
    return _BARS_HIDDEN.get()


@contextmanager
def without_progress_bars() -> Iterator[None]:
    """Hide progress bars inside.

    Example:
        >>> with without_progress_bars():
        ...     bars_are_hidden()
        True
    """
    token = _BARS_HIDDEN.set(True)
    try:
        yield
    finally:
        _BARS_HIDDEN.reset(token)


Part = TypeVar("Part")


def run_in_chunks(
    n: int, work: Callable[[slice], Part], chunk_size: int | None = None, label: str = "saliency"
) -> tuple[list[Part], int]:
    """Run `work` over n samples, one chunk after the other.

    Args:
        n: how many samples there are.
        work: `slice of the samples -> their part of the result`.
        chunk_size: how many samples to run at once; all where it is left out.
        label: the text of the progress bar, which shows where several chunks take longer than two seconds.

    Returns:
        The parts in order, and the size of the chunks that fitted into memory.

    Raises:
        RuntimeError: where memory does not suffice for a single sample.

    Example:
        >>> run_in_chunks(5, lambda chunk: list(range(5))[chunk], chunk_size=2)
        ([[0, 1], [2, 3], [4]], 2)
    """
    size, parts, done = max(chunk_size or n, 1), list[Part](), 0
    with tqdm(total=n, desc=label, delay=2, leave=False, disable=size >= n or bars_are_hidden()) as progress:
        while done < n:
            chunk = slice(done, min(done + size, n))
            try:
                parts.append(work(chunk))
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                if size == 1 or not is_out_of_memory(error):
                    raise
                size = max(size // 2, 1)
                continue  # behind the `except` block: inside it, the traceback would keep the memory alive
            progress.update(chunk.stop - done)
            done = chunk.stop
    return parts, size


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception means that memory ran out; some of torch's libraries raise a plain RuntimeError then."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    if not isinstance(error, RuntimeError):
        return False
    message = error_text(error).lower()
    # the last is of cuDNN, cuBLAS, cuSOLVER and their kind: CUDNN_STATUS_ALLOC_FAILED, CUFFT_ALLOC_FAILED
    return any(
        each in message
        for each in ("not enough memory", "can't allocate memory", "out of memory", "_alloc_failed")
    )


@dataclass
class ForwardCount:
    """How many images a model was run on; an image whose gradient is taken as well counts three times.

    Args:
        images: so many.
    """

    images: int = 0


_COUNT: ContextVar[ForwardCount | None] = ContextVar("forward_count", default=None)


@contextmanager
def count_forwards() -> Iterator[ForwardCount]:
    """Count the images of all forwards inside, in this process; one count inside of another adds to it.

    Example:
        >>> with count_forwards() as count, one_forward(torch.rand(4, 3, 8, 8)):
        ...     count.images
        4
    """
    count, outer = ForwardCount(), _COUNT.get()
    token = _COUNT.set(count)
    try:
        yield count
    finally:
        _COUNT.reset(token)
        if outer is not None:
            outer.images += count.images


@contextmanager
def one_forward(images: Tensor) -> Iterator[None]:
    """Count the images of the one forward inside; a forward that calls another is one.

    Args:
        images: `(N, ...)`, what the model is called with.
    """
    count = _COUNT.get()
    if count is not None:
        count.images += len(images) * (3 if images.requires_grad and torch.is_grad_enabled() else 1)
    token = _COUNT.set(None)
    try:
        yield
    finally:
        _COUNT.reset(token)
