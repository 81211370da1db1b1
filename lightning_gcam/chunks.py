"""Run a model over a batch piece by piece; where memory runs out, go on with pieces half as large."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import nn
from tqdm.auto import tqdm

from lightning_gcam._errors import InputError
from lightning_gcam._quiet import is_quiet
from lightning_gcam.attribution import Attribution, attribute
from lightning_gcam.batch import SaliencyBatch
from lightning_gcam.cam.targets import Labels, Targets, are_measurements

Part = TypeVar("Part")


def in_chunks(n: int, work: Callable[[slice], Part], chunk_size: int | None = None) -> tuple[list[Part], int]:
    """Do `work` for all of n samples, a piece after the other.

    Args:
        n: how many samples there are.
        work: given the samples' slice, gives their part of the result.
        chunk_size: how many samples to run at once; all where it is left out.

    Returns:
        The parts in order, and the size of the pieces that went through.

    Raises:
        RuntimeError: where memory does not suffice for a single sample.

    Example:
        >>> in_chunks(5, lambda piece: list(range(5))[piece], chunk_size=2)
        ([[0, 1], [2, 3], [4]], 2)
    """
    size, parts, done = max(chunk_size or n, 1), list[Part](), 0
    with tqdm(total=n, desc="saliency", delay=2, leave=False, disable=size >= n or is_quiet()) as progress:
        while done < n:
            piece = slice(done, min(done + size, n))
            part = _tried(work, piece, size)
            if part is None:
                size = max(size // 2, 1)
                continue
            parts.append(part)
            progress.update(piece.stop - done)
            done = piece.stop
    return parts, size


def _tried(work: Callable[[slice], Part], piece: slice, size: int) -> Part | None:
    """The part, or None where memory ran out and a smaller piece may still go through.

    The caller goes on outside of the `except` block: inside it, the traceback would keep the memory alive.
    """
    try:
        return work(piece)
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if size == 1 or not is_out_of_memory(error):
            raise
        return None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out; the CPU allocator says so in a plain RuntimeError, in other words on each system."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    said = ("not enough memory", "can't allocate memory", "out of memory")
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in said)


def attribute_in_chunks(
    model: nn.Module,
    batch: SaliencyBatch,
    targets: Targets = "label",
    *,
    chunk_size: int | None = None,
    **options: Any,
) -> tuple[Attribution, int]:
    """Attribute a batch piece by piece.

    Args:
        model: any `nn.Module`.
        batch: the samples, on the model's device.
        targets: as in `record_saliency`.
        chunk_size: how many samples to run at once; all where it is left out.
        options: the further arguments of `attribute`.

    Returns:
        The attribution of the whole batch, and the size of the pieces that went through.

    Raises:
        InputError: where the number of targets is not the number of samples.
        RuntimeError: where memory does not suffice for a single sample.
    """
    if isinstance(targets, str) and targets == "label":
        targets = labels_of(batch)
    masks = batch.object_masks

    def work(piece: slice) -> Attribution:
        part = attribute(
            model,
            batch.images[piece],
            targets_of_piece(targets, piece, len(batch)),
            masks=masks[piece] if masks is not None else None,
            **options,
        )
        return replace(part, images=None)  # the batch has them

    parts, size = in_chunks(len(batch), work, chunk_size)
    return Attribution.cat(parts), size


def labels_of(batch: SaliencyBatch, whole: SaliencyBatch | None = None) -> Labels | None:
    """A batch's labels as targets; None where there are none.

    Args:
        batch: the samples.
        whole: the batch that they are a part of: whether labels name classes or measure something is seen in all.
    """
    if batch.labels is None:
        return None
    all_labels = whole.labels if whole is not None and whole.labels is not None else batch.labels
    return Labels(batch.labels, are_measurements(all_labels))


def targets_of_piece(targets: Targets, piece: slice, n: int) -> Targets:
    """The targets' share of a piece of n samples.

    Args:
        targets: as in `attribute`.
        piece: their place.
        n: how many samples there are.

    Raises:
        InputError: where the number of targets is not the number of samples.
    """
    if targets is None or isinstance(targets, (str, int)) or callable(targets):
        return targets
    given = targets if isinstance(targets, Labels) else Labels.of(torch.as_tensor(targets))
    if len(given) != n:
        raise InputError(f"`targets` must hold {n} classes, one per sample; got {len(given)}.")
    return given[piece]
