"""A grid of thresholds, each a share of the map's own peak, and how many pixels reach each of them."""

import torch
from torch import Tensor

from lightning_gcam._errors import InputError


def check_count(name: str, count: int, least: int = 1) -> None:
    """Refuse what is not an integer of at least ``least``.

    Raises:
        InputError: Naming the argument.
    """
    if isinstance(count, bool) or not isinstance(count, int) or count < least:
        raise InputError(f"`{name}` must be an integer of at least {least}, got {count!r}.")


def even_thresholds(count: int, device: torch.device | str = "cpu") -> Tensor:
    """Return ``k / count`` for k = 1 to ``count``: ``(count,)`` float32, ascending, the last one 1.

    Example:
        >>> from lightning_gcam.metrics.functional.thresholds import even_thresholds
        >>> even_thresholds(4)
        tensor([0.2500, 0.5000, 0.7500, 1.0000])
    """
    return torch.arange(1, count + 1, device=device, dtype=torch.float32) / count


def count_above(saliency: Tensor, mask: Tensor, thresholds: Tensor) -> tuple[Tensor, Tensor]:
    """Count, for each threshold, the pixels that reach it, inside and outside of the mask.

    Args:
        saliency: ``(N, H, W)`` float32, finite, at least 0.
        mask: ``(N, H, W)`` bool.
        thresholds: ``(T,)`` ascending shares of each map's own peak.

    Returns:
        Two ``(N, T)`` int64: pixels of the mask, and pixels outside of it, with S >= threshold * max S.
    """
    saliency, mask = saliency.flatten(1), mask.flatten(1)
    levels = thresholds * saliency.amax(dim=1, keepdim=True)
    # How many of the thresholds each pixel reaches, 0 to T; then how many pixels reach each.
    reached = torch.searchsorted(levels, saliency, right=True)
    empty = torch.zeros(len(saliency), len(thresholds) + 1, dtype=torch.int64, device=saliency.device)
    inside = empty.scatter_add(1, reached, mask.long())
    outside = empty.scatter_add(1, reached, (~mask).long())
    return _at_least(inside), _at_least(outside)


def _at_least(counts: Tensor) -> Tensor:
    """From "reaches exactly k thresholds" to "reaches the k-th", for k from 1."""
    return counts.flip(1).cumsum(dim=1).flip(1)[:, 1:]
