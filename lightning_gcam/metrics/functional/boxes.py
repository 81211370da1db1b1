"""Does a box drawn around the thresholded saliency match the object's box?"""

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_gcam._errors import InputError
from lightning_gcam.metrics.functional.components import Components, component_boxes, label_components
from lightning_gcam.metrics.functional.inputs import Scorable, prepare
from lightning_gcam.metrics.functional.mean import PerSample, score_counted
from lightning_gcam.metrics.functional.thresholds import check_count, even_thresholds

IOU_THRESHOLDS = {1: (0.5,), 2: (0.3, 0.5, 0.7)}
"""What counts as a match, by the version of the score."""


def _max_box_accuracy_update(
    saliency: Tensor,
    mask: Tensor,
    boxes: Sequence[Tensor] | None,
    version: int,
    num_thresholds: int,
) -> PerSample:
    """1 where the box matches, by threshold of the map and of the match: rows ``(N, T, D)``."""
    batch = prepare(saliency, mask)
    truth, has_box = _boxes_of(batch, boxes)
    batch = batch._replace(
        counted=~batch.blank & has_box, no_mask=~batch.blank & ~has_box
    )  # boxes, where there are some, are the annotation
    peaks = batch.saliency.amax(dim=(1, 2))
    labels, found = None, []
    # From the highest threshold down the regions grow, so each labelling starts from the one before it.
    for threshold in even_thresholds(num_thresholds).flip(0).tolist():
        region = batch.saliency >= (threshold * peaks)[:, None, None]
        labels = label_components(region & ~batch.blank[:, None, None], labels)
        found.append(_best_overlap(component_boxes(labels), truth, largest_only=version == 1))
    overlap = torch.stack(found[::-1], dim=1)
    matches = torch.tensor(IOU_THRESHOLDS[version], device=overlap.device)
    return batch.scored((overlap[..., None] >= matches).float())


def _max_box_accuracy_compute(total: Tensor, n: Tensor) -> Tensor:
    """Accuracy at the best threshold of the map, for each match; then the mean over the matches."""
    return (total / n[..., None, None]).amax(dim=-2).mean(dim=-1).to(torch.float32)


def max_box_accuracy(
    saliency: Tensor,
    mask: Tensor,
    boxes: Sequence[Tensor] | None = None,
    *,
    version: int = 2,
    num_thresholds: int = 100,
) -> Tensor:
    """Average how often a box around the thresholded saliency matches an object's box, at the best threshold.

    {S >= threshold * max S} falls into connected components, with eight neighbours a pixel. Version 1 draws a
    box around the one with the most pixels and asks for an IoU of 0.5 with a box of the object; version 2
    draws one around each, takes the best, and averages over IoUs of 0.3, 0.5 and 0.7. The threshold is the
    same for all samples, and chosen, for each IoU, on the very samples that are scored.

    A box ends **after** its last pixel, so that a region of one pixel has an area of 1. The authors' code
    (wsolevaluation) writes ``x + w``, the first column past the region, into a box whose last column counts as
    inside: each of its boxes is one pixel too large to the right and below, and a map that equals a 10 x 10
    object has an IoU of 100/121 there, of 1 here. It also rounds maps to 8 bits, takes what is strictly above
    the threshold, and measures the largest component by the polygon through the centres of its border pixels,
    in which a line has no area. A sample whose map is blank (all zero, or not finite) or that has no object is
    left out.

    Args:
        saliency: ``(N, H, W)``, floating, at least 0, of any scale.
        mask: ``(N, H, W)`` bool, True on the object.
        boxes: N tensors ``(M, 4)``, each row ``x1, y1, x2, y2`` in pixels, of the objects of a sample; any of
            them may be matched. The box around the whole mask where they are left out.
        version: 1 or 2.
        num_thresholds: The grid: k / num_thresholds of the map's own peak, for k = 1 to num_thresholds. The
            paper takes 1000; the time grows with it.

    Returns:
        A float32 scalar in [0, 1], on the saliency's device; NaN if every sample was left out.

    Raises:
        TypeError: If ``saliency`` is not floating or ``mask`` is not bool.
        ValueError: If the shapes are not both ``(N, H, W)``, ``saliency`` has negative values, ``boxes`` does
            not hold N tensors ``(M, 4)``, ``version`` is not 1 or 2, or ``num_thresholds`` is not a positive
            integer.

    Example:
        >>> import torch
        >>> from lightning_gcam.metrics.functional import max_box_accuracy
        >>> saliency = torch.tensor([[[4.0, 3.0, 1.0], [0.0, 0.0, 0.0]]])
        >>> mask = torch.tensor([[[True, True, False], [False, False, False]]])
        >>> max_box_accuracy(saliency, mask)
        tensor(1.)

    Source:
        Choe et al., 2020, arXiv 2001.12471 (version 1: MaxBoxAcc) and arXiv 2007.04178 (version 2:
        MaxBoxAccV2).
    """
    check_version(version)
    check_count("num_thresholds", num_thresholds)
    update = _max_box_accuracy_update(saliency, mask, boxes, version, num_thresholds)
    return score_counted(update, _max_box_accuracy_compute)


def check_version(version: int) -> None:
    """Refuse a version that does not exist.

    Raises:
        InputError: If it is not 1 or 2.
    """
    if version not in IOU_THRESHOLDS:
        raise InputError(f"`version` must be 1 (MaxBoxAcc) or 2 (MaxBoxAccV2), got {version!r}.")


def _boxes_of(batch: Scorable, boxes: Sequence[Tensor] | None) -> tuple[Tensor, Tensor]:
    """The objects' boxes ``(N, M, 4)``, filled up with boxes of no area, and which samples have one ``(N,)``."""
    if boxes is None:
        found = component_boxes(torch.where(batch.mask, 0, -1))
        return found.boxes[:, :1], batch.mask.flatten(1).any(dim=1)
    shapes = [tuple(each.shape) if isinstance(each, Tensor) else type(each).__name__ for each in boxes]
    if len(boxes) != len(batch.mask) or not all(len(each) == 2 and each[-1] == 4 for each in shapes):
        raise InputError(
            f"`boxes` must hold {len(batch.mask)} tensors (M, 4), one a sample, got {shapes}. "
            "A sample without an object has a tensor (0, 4)."
        )
    most = max([len(each) for each in boxes], default=0)
    filled = torch.zeros(len(boxes), max(most, 1), 4, device=batch.mask.device)
    for row, each in zip(filled, boxes, strict=True):
        row[: len(each)] = each
    has_area = (filled[..., 2:] > filled[..., :2]).all(dim=2).any(dim=1)
    return filled, has_area


def _best_overlap(found: Components, truth: Tensor, largest_only: bool) -> Tensor:
    """The highest IoU of one of the components' boxes with one of the objects' boxes: ``(N,)``."""
    boxes, areas = found
    if largest_only:
        largest = areas.argmax(dim=1, keepdim=True)
        areas = areas.gather(1, largest)
        boxes = boxes.gather(1, largest[..., None].expand(-1, -1, 4))
    best = torch.zeros(len(boxes), device=boxes.device)
    for box in truth.unbind(dim=1):
        overlap = _iou(boxes, box[:, None])
        best = torch.maximum(best, torch.where(areas > 0, overlap, 0.0).amax(dim=1))
    return best


def _iou(boxes: Tensor, others: Tensor) -> Tensor:
    """Intersection over union of boxes ``(..., 4)``; 0 where neither has an area."""
    near, far = torch.maximum(boxes[..., :2], others[..., :2]), torch.minimum(boxes[..., 2:], others[..., 2:])
    common = (far - near).clamp(min=0).prod(dim=-1)
    areas = [(each[..., 2:] - each[..., :2]).clamp(min=0).prod(dim=-1) for each in (boxes, others)]
    union = areas[0] + areas[1] - common
    return torch.where(union > 0, common / union, 0.0)
