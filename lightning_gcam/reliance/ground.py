"""What of a batch the checks stand on: which samples have a class, an object with surroundings, and a partner."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_gcam.batch import SaliencyBatch
from lightning_gcam.cam.targets import are_marks
from lightning_gcam.reliance.partners import partners_of
from lightning_gcam.reliance.regions import region_around, with_rim


@dataclass(frozen=True)
class Ground:
    """The parts of an annotation that the checks use.

    Args:
        labels: `(N,)` int64 classes, or `(N, K)` bool marks.
        known: `(N,)` bool, the samples with a class; all of them where they may have several, and so none.
        masks: `(N, H, W)` bool, the objects; None where the batch has neither masks nor boxes.
        objects: the masks with a thin rim.
        around: the regions in which the objects are removed.
        masked: `(N,)` bool, the samples with an object and something beside it.
        suspect: `(N, H, W)` bool, or None.
        partners: `(N,)`, who lends each sample its background; -1 for nobody.
        suspect_partners: `(N,)`, who lends each sample its suspect region; -1 for nobody.
    """

    labels: Tensor
    known: Tensor
    masks: Tensor | None
    objects: Tensor | None
    around: Tensor | None
    masked: Tensor
    suspect: Tensor | None
    partners: Tensor
    suspect_partners: Tensor


def ground_of(batch: SaliencyBatch) -> Ground | None:
    """Read a batch; None where its labels are no classes, or there are none.

    Example:
        >>> batch = SaliencyBatch(torch.zeros(3, 1, 8, 8), torch.tensor([0, 1, -1]))
        >>> ground_of(batch).known.tolist(), ground_of(SaliencyBatch(torch.zeros(3, 1, 8, 8)))
        ([True, True, False], None)
    """
    labels = classes_of_labels(batch)
    if labels is None:
        return None
    if labels.ndim == 2:
        known = torch.ones_like(labels[:, 0]) if are_marks(labels) else labels.any(dim=1)
    else:
        known = labels >= 0
    masks, suspect = batch.object_masks, batch.suspect
    around = region_around(masks) if masks is not None else None
    objects = with_rim(masks) if masks is not None else None
    masked = with_suspect = torch.zeros_like(known)
    if masks is not None and around is not None:
        masked = masks.flatten(1).any(dim=1) & ~around.flatten(1).all(dim=1)
    if suspect is not None:
        suspect = suspect.expand(len(batch), -1, -1)
        beside = suspect & ~objects if objects is not None else suspect
        with_suspect = beside.flatten(1).any(dim=1)
    numbers = labels.unique(dim=0, return_inverse=True)[1]
    partners = partners_of(numbers, known & masked)
    suspect_partners = partners_of(numbers, known & with_suspect)
    return Ground(labels, known, masks, objects, around, masked, suspect, partners, suspect_partners)


def classes_of_labels(batch: SaliencyBatch) -> Tensor | None:
    """The labels as `(N,)` int64 classes or `(N, K)` bool marks; None where they measure, are soft, or are missing."""
    labels = batch.labels
    if labels is None:
        return None
    if labels.ndim == 2:
        return labels > 0 if bool(((labels == 0) | (labels == 1)).all()) else None
    if labels.is_floating_point() and not torch.equal(labels, labels.round()):
        return None
    return labels.long()
