"""How well does the thresholded saliency cover the object, and nothing else?"""

import torch
from torch import Tensor

from lightning_gcam.metrics.functional.inputs import check_threshold, prepare
from lightning_gcam.metrics.functional.mean import PerSample, mean_counted, score_counted
from lightning_gcam.metrics.functional.thresholds import check_count, count_above, even_thresholds


def _saliency_iou_update(saliency: Tensor, mask: Tensor, threshold: float) -> PerSample:
    """Intersection over union of each thresholded map and its mask."""
    batch = prepare(saliency, mask)
    saliency, mask = batch.saliency.flatten(1), batch.mask.flatten(1)
    region = saliency >= threshold * saliency.amax(dim=1, keepdim=True)
    intersection = (region & mask).sum(dim=1).float()
    return batch.scored(intersection / (region | mask).sum(dim=1).float())


def saliency_iou(saliency: Tensor, mask: Tensor, threshold: float = 0.3) -> Tensor:
    """Average, over the samples, the intersection over union of {S >= threshold * max S} and the object.

    A sample whose map is blank (all zero, or not finite) or whose mask is empty is left out.

    Args:
        saliency: ``(N, H, W)``, floating, at least 0, of any scale.
        mask: ``(N, H, W)`` bool, True on the object.
        threshold: The share of the map's own peak from which a pixel belongs to the region, in (0, 1].

    Returns:
        A float32 scalar in [0, 1], on the saliency's device; NaN if every sample was left out.

    Raises:
        TypeError: If ``saliency`` is not floating or ``mask`` is not bool.
        ValueError: If the shapes are not both ``(N, H, W)``, ``saliency`` has negative values, or
            ``threshold`` is not in (0, 1].

    Example:
        >>> import torch
        >>> from lightning_gcam.metrics.functional import saliency_iou
        >>> saliency = torch.tensor([[[4.0, 2.0], [1.0, 0.0]]])
        >>> mask = torch.tensor([[[True, False], [False, False]]])
        >>> saliency_iou(saliency, mask)
        tensor(0.5000)
        >>> saliency_iou(saliency, mask, threshold=1.0)
        tensor(1.)
    """
    check_threshold(threshold)
    return mean_counted(_saliency_iou_update(saliency, mask, threshold))


def _best_saliency_iou_update(saliency: Tensor, mask: Tensor, num_thresholds: int) -> PerSample:
    """Intersection over union at each threshold: rows ``(N, num_thresholds)``."""
    batch = prepare(saliency, mask)
    thresholds = even_thresholds(num_thresholds, saliency.device)
    inside, outside = count_above(batch.saliency, batch.mask, thresholds)
    size = batch.mask.flatten(1).sum(dim=1, keepdim=True)
    return batch.scored(inside.float() / (size + outside).float())


def _best_saliency_iou_compute(total: Tensor, n: Tensor) -> Tensor:
    """Highest mean over the thresholds."""
    return (total / n.unsqueeze(-1)).amax(dim=-1).to(torch.float32)


def best_saliency_iou(saliency: Tensor, mask: Tensor, num_thresholds: int = 20) -> Tensor:
    """Average the intersection over union at the one threshold, the same for all samples, where it is highest.

    The threshold is chosen on the very samples that are scored, so this is an upper bound on what one fixed
    threshold reaches on others. A sample whose map is blank (all zero, or not finite) or whose mask is empty
    is left out.

    Args:
        saliency: ``(N, H, W)``, floating, at least 0, of any scale.
        mask: ``(N, H, W)`` bool, True on the object.
        num_thresholds: The grid: k / num_thresholds of the map's own peak, for k = 1 to num_thresholds.

    Returns:
        A float32 scalar in [0, 1], on the saliency's device; NaN if every sample was left out.

    Raises:
        TypeError: If ``saliency`` is not floating or ``mask`` is not bool.
        ValueError: If the shapes are not both ``(N, H, W)``, ``saliency`` has negative values, or
            ``num_thresholds`` is not a positive integer.

    Example:
        >>> import torch
        >>> from lightning_gcam.metrics.functional import best_saliency_iou, saliency_iou
        >>> saliency = torch.tensor([[[4.0, 2.0], [1.0, 0.0]]])
        >>> mask = torch.tensor([[[True, False], [False, False]]])
        >>> saliency_iou(saliency, mask), best_saliency_iou(saliency, mask)
        (tensor(0.5000), tensor(1.))
    """
    check_count("num_thresholds", num_thresholds)
    update = _best_saliency_iou_update(saliency, mask, num_thresholds)
    return score_counted(update, _best_saliency_iou_compute)
