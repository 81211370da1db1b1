"""How well does the thresholded saliency cover the object, and nothing else?"""

from torch import Tensor

from lightning_gcam.metrics.functional.inputs import check_threshold, prepare
from lightning_gcam.metrics.functional.mean import PerSample, mean_counted


def _saliency_iou_update(saliency: Tensor, mask: Tensor, threshold: float) -> PerSample:
    """Intersection over union of each thresholded map and its mask."""
    saliency, mask, counted = prepare(saliency, mask)
    saliency, mask = saliency.flatten(1), mask.flatten(1)
    region = saliency >= threshold * saliency.amax(dim=1, keepdim=True)
    intersection = (region & mask).sum(dim=1).float()
    return PerSample(intersection / (region | mask).sum(dim=1).float(), counted)


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
