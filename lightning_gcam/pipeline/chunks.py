"""Run a model over a batch piece by piece; where memory runs out, go on with pieces half as large."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from lightning_gcam.cam.targets import Labels, Targets, are_measurements
from lightning_gcam.data import SaliencyBatch
from lightning_gcam.pipeline.attribution import Attribution, attribute
from lightning_gcam.utils.chunking import in_chunks as in_chunks  # for those who want both
from lightning_gcam.utils.chunking import is_out_of_memory as is_out_of_memory
from lightning_gcam.utils.errors import InputError


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
    return Labels(batch.labels, are_measurements(all_labels), of_batch=True)


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
