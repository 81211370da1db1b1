"""Does a box drawn around the thresholded saliency match the object's box?"""

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_gcam._errors import InputError
from lightning_gcam.metrics.functional.components import Components, GrowingRegions
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
    overlap = _overlaps(batch, even_thresholds(num_thresholds, mask.device), truth, version == 1)
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
    box around the one with the most pixels (the best of them, where several have as many) and asks for an IoU
    of 0.5 with a box of the object; version 2 draws one around each, takes the best, and averages over IoUs of
    0.3, 0.5 and 0.7. The threshold is the same for all samples, and chosen, for each IoU, on the very samples
    that are scored.

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
        return _box_around(batch.mask)[:, None], batch.mask.flatten(1).any(dim=1)
    shapes = [tuple(each.shape) if isinstance(each, Tensor) else type(each).__name__ for each in boxes]
    if len(boxes) != len(batch.mask) or not all(len(each) == 2 and each[-1] == 4 for each in shapes):
        raise InputError(
            f"`boxes` must hold {len(batch.mask)} tensors (M, 4), one per sample, got {shapes}. "
            "A sample without an object has a tensor (0, 4)."
        )
    most = max([len(each) for each in boxes], default=0)
    filled = torch.zeros(len(boxes), max(most, 1), 4, device=batch.mask.device)
    for row, each in zip(filled, boxes, strict=True):
        row[: len(each)] = each
    has_area = (filled[..., 2:] > filled[..., :2]).all(dim=2).any(dim=1)
    return filled, has_area


def _overlaps(batch: Scorable, thresholds: Tensor, truth: Tensor, largest_only: bool) -> Tensor:
    """The highest IoU of a component's box with one of the objects' boxes, at each threshold: ``(N, T)``."""
    saliency = batch.saliency.flatten(1)
    levels = thresholds.to(saliency.device) * saliency.amax(dim=1, keepdim=True)
    # How many thresholds each pixel reaches.
    reached = torch.searchsorted(levels, saliency, right=True)
    pixels = reached.flatten().argsort(descending=True, stable=True)
    counts = reached.flatten().bincount(minlength=len(thresholds) + 1).flip(0).tolist()
    n, height, width = batch.saliency.shape
    regions = GrowingRegions((n, height, width), saliency.device)
    found: list[Tensor] = []
    # From the highest threshold down, the regions grow; the last part reaches no threshold.
    for part in pixels.split(counts)[:-1]:
        same = found and len(part) == 0
        found.append(found[-1] if same else _best_overlap(regions.add(part), truth, largest_only))
    return torch.stack(found[::-1], dim=1)


def _best_overlap(found: Components, truth: Tensor, largest_only: bool) -> Tensor:
    """The highest IoU of one of the components' boxes with one of the objects' boxes: ``(N,)``."""
    samples, boxes, areas = found
    if largest_only:
        most = areas.new_zeros(len(truth)).scatter_reduce(0, samples, areas, "amax")
        largest = areas == most[samples]
        samples, boxes = samples[largest], boxes[largest]
    overlap = _iou(boxes[:, None], truth[samples]).amax(dim=1)
    return overlap.new_zeros(len(truth)).scatter_reduce(0, samples, overlap, "amax")


def _box_around(mask: Tensor) -> Tensor:
    """The box around all of each mask, ``(N, 4)``; of no meaning where the mask is empty."""
    edges = []
    for along in (mask.any(dim=1), mask.any(dim=2)):
        first, last = along.int().argmax(dim=1), along.shape[1] - along.flip(1).int().argmax(dim=1)
        edges.append((first, last))
    (left, right), (top, bottom) = edges
    return torch.stack([left, top, right, bottom], dim=1).float()


def _iou(boxes: Tensor, others: Tensor) -> Tensor:
    """Intersection over union of boxes ``(..., 4)``; 0 where neither has an area."""
    near, far = torch.maximum(boxes[..., :2], others[..., :2]), torch.minimum(boxes[..., 2:], others[..., 2:])
    common = (far - near).clamp(min=0).prod(dim=-1)
    areas = [(each[..., 2:] - each[..., :2]).clamp(min=0).prod(dim=-1) for each in (boxes, others)]
    union = areas[0] + areas[1] - common
    return torch.where(union > 0, common / union, 0.0)
