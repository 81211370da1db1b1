"""How concentrated is a map, wherever it lies?"""

import math

import torch
from torch import Tensor

from lightning_gcam.metrics.functional.inputs import check_saliency, find_blank
from lightning_gcam.metrics.functional.mean import PerSample, mean_counted


def _saliency_gini_update(saliency: Tensor) -> PerSample:
    """Gini index of each map's pixels."""
    check_saliency(saliency)
    saliency, blank = find_blank(saliency)
    pixels = saliency.flatten(1).sort(dim=1).values
    pixels = pixels / pixels[:, -1:]
    count = pixels.shape[1]
    weights = (2 * torch.arange(1, count + 1, device=pixels.device) - count - 1).float() / count
    return PerSample((weights * pixels).sum(dim=1) / pixels.sum(dim=1), ~blank, blank)


def saliency_gini(saliency: Tensor) -> Tensor:
    """Average the Gini index of the maps' pixels: 0 for a uniform map, 1 - 1/(HW) for a single pixel.

    With the n pixels in ascending order, sum_i (2 i - n - 1) S_i / (n sum_i S_i). Neither end is better: it
    says how concentrated a map is, not where. A sample whose map is blank (all zero, or not finite) is left
    out.

    Args:
        saliency: ``(N, H, W)``, floating, at least 0, of any scale.

    Returns:
        A float32 scalar in [0, 1), on the saliency's device; NaN if every sample was left out.

    Raises:
        TypeError: If ``saliency`` is not floating.
        ValueError: If its shape is not ``(N, H, W)``, or it has negative values.

    Example:
        >>> import torch
        >>> from lightning_gcam.metrics.functional import saliency_gini
        >>> saliency_gini(torch.tensor([[[1.0, 0.0], [0.0, 0.0]], [[1.0, 1.0], [1.0, 1.0]]]))
        tensor(0.3750)

    Source:
        Chalasani et al., 2020, arXiv 1810.06583 (sparseness).
    """
    return mean_counted(_saliency_gini_update(saliency))


def _saliency_entropy_update(saliency: Tensor) -> PerSample:
    """Entropy of each map as a distribution over its pixels, as a share of the highest possible."""
    check_saliency(saliency)
    saliency, blank = find_blank(saliency)
    pixels = saliency.flatten(1)
    pixels = pixels / pixels.amax(dim=1, keepdim=True)
    shares = pixels / pixels.sum(dim=1, keepdim=True)
    # A map of one pixel has one way to be: no entropy, and none possible.
    highest = math.log(pixels.shape[1]) or 1.0
    return PerSample(entropy(shares) / highest, ~blank, blank)


def saliency_entropy(saliency: Tensor) -> Tensor:
    """Average the entropy of the maps, as a share of a uniform map's: 0 for a single pixel, 1 for a uniform map.

    With p = S / sum(S), -sum p log p / log(HW). Neither end is better: it says how spread out a map is, not
    where. A sample whose map is blank (all zero, or not finite) is left out.

    Args:
        saliency: ``(N, H, W)``, floating, at least 0, of any scale.

    Returns:
        A float32 scalar in [0, 1], on the saliency's device; NaN if every sample was left out.

    Raises:
        TypeError: If ``saliency`` is not floating.
        ValueError: If its shape is not ``(N, H, W)``, or it has negative values.

    Example:
        >>> import torch
        >>> from lightning_gcam.metrics.functional import saliency_entropy
        >>> saliency_entropy(torch.tensor([[[1.0, 1.0], [0.0, 0.0]], [[1.0, 1.0], [1.0, 1.0]]]))
        tensor(0.7500)

    Source:
        Bhatt et al., 2020, arXiv 2005.00631 (complexity, there not divided by its highest value).
    """
    return mean_counted(_saliency_entropy_update(saliency))


def entropy(shares: Tensor) -> Tensor:
    """Entropy in nats over the last axis of shares that sum to 1; 0 log 0 is 0."""
    parts: Tensor = torch.special.xlogy(shares, shares)
    return 0 - parts.sum(dim=-1)  # and not -0 where all is in one place
