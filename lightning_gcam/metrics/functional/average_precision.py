"""How well do the pixels of all samples, sorted by their saliency, separate object from background?"""

import torch
from torch import Tensor

from lightning_gcam.metrics.functional.inputs import prepare
from lightning_gcam.metrics.functional.mean import PerSample, score_counted
from lightning_gcam.metrics.functional.thresholds import check_count, count_above


def _pixel_average_precision_update(saliency: Tensor, mask: Tensor, num_thresholds: int) -> PerSample:
    """Pixels at or above each threshold, in and out of the mask: rows ``(N, 2, num_thresholds)``."""
    batch = prepare(saliency, mask)
    thresholds = torch.linspace(0, 1, num_thresholds, device=saliency.device)
    return batch.scored(torch.stack(count_above(batch.saliency, batch.mask, thresholds), dim=1).float())


def _pixel_average_precision_compute(total: Tensor, n: Tensor) -> Tensor:
    """Sum precision times the gain in recall, from the highest threshold to 0, where all pixels are in."""
    inside, outside = total.unbind(dim=-2)
    precision = inside / (inside + outside)
    recall = inside / inside[..., :1]
    gain = recall - torch.cat([recall[..., 1:], torch.zeros_like(recall[..., :1])], dim=-1)
    return (precision * gain).sum(dim=-1).to(torch.float32)


def pixel_average_precision(saliency: Tensor, mask: Tensor, num_thresholds: int = 101) -> Tensor:
    """Give the average precision over the pixels of all samples together (PxAP), each map scaled by its peak.

    It is what :class:`torchmetrics.classification.BinaryAveragePrecision` gives for the same scaled pixels and
    the same ``thresholds``, here from sums per sample, so that n, an interval and groups can stand beside it. A
    large object weighs more than a small one. A uniform map scores the objects' share of the pixels. A sample
    whose map is blank (all zero, or not finite) or whose mask is empty is left out.

    Args:
        saliency: ``(N, H, W)``, floating, at least 0, of any scale.
        mask: ``(N, H, W)`` bool, True on the object.
        num_thresholds: How many thresholds, evenly from 0 to 1 of each map's own peak; at least 2.

    Returns:
        A float32 scalar in [0, 1], on the saliency's device; NaN if every sample was left out.

    Raises:
        TypeError: If ``saliency`` is not floating or ``mask`` is not bool.
        ValueError: If the shapes are not both ``(N, H, W)``, ``saliency`` has negative values, or
            ``num_thresholds`` is not an integer of at least 2.

    Example:
        >>> import torch
        >>> from lightning_gcam.metrics.functional import pixel_average_precision
        >>> saliency = torch.tensor([[[4.0, 3.0], [2.0, 0.0]]])
        >>> mask = torch.tensor([[[True, False], [True, False]]])
        >>> pixel_average_precision(saliency, mask)
        tensor(0.8333)

    Source:
        Choe et al., "Evaluating Weakly Supervised Object Localization Methods Right", 2020, arXiv 2001.12471
        (section 3.3, there with a step of 0.001).
    """
    check_count("num_thresholds", num_thresholds, least=2)
    update = _pixel_average_precision_update(saliency, mask, num_thresholds)
    return score_counted(update, _pixel_average_precision_compute)
