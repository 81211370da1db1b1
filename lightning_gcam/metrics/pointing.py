"""Whether the peak, or as many of the highest pixels as the object has, lie on the object."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from lightning_gcam.metrics.base import SampleMean
from lightning_gcam.metrics.samples import PerSample, check_tolerance, mean_counted, prepare


def dilate(mask: Tensor, tolerance: float) -> Tensor:
    """Grow a mask by a Euclidean disc: True where a True pixel is at most ``tolerance`` pixels away.

    Args:
        mask: ``(N, H, W)`` bool.
        tolerance: The disc's radius in pixels, between the centres of two pixels; at least 0.

    Returns:
        ``(N, H, W)`` bool.
    """
    # A radius past the grid reaches no further pixel, and costs quadratically.
    radius = min(math.floor(tolerance), max(mask.shape[1:]))
    if radius == 0:
        return mask
    offset = torch.arange(-radius, radius + 1, device=mask.device)
    disc = offset[:, None] ** 2 + offset**2 <= tolerance**2
    reached = conv2d(mask[:, None].float(), disc[None, None].float(), padding=radius)
    # Counts of pixels: 0.5 stands clear of what a fast convolution rounds.
    return reached[:, 0] > 0.5


def _pointing_game_update(saliency: Tensor, mask: Tensor, tolerance: float) -> PerSample:
    """Share of each map's peak pixels that lie in its grown mask: 0 or 1, unless several share the peak."""
    batch = prepare(saliency, mask)
    peak = (batch.saliency == batch.saliency.amax(dim=(1, 2), keepdim=True)).flatten(1)
    hit = (peak & dilate(batch.mask, tolerance).flatten(1)).sum(dim=1)
    return batch.scored(hit.float() / peak.sum(dim=1).float())


def pointing_game(saliency: Tensor, mask: Tensor, tolerance: float = 0) -> Tensor:
    """Average, over the samples, whether the peak of the saliency lies in the object.

    Where several pixels share the peak, the share of them that lies in the object counts, so the result does
    not depend on which one ``argmax`` would name. The mean is over samples, where the paper averages over
    classes. A sample whose map is blank (all zero, or not finite) or whose mask is empty is left out.

    Args:
        saliency: ``(N, H, W)``, floating, at least 0, of any scale.
        mask: ``(N, H, W)`` bool, True on the object.
        tolerance: How far from the object a peak may lie, in pixels of the mask's grid: a Euclidean disc. The
            default 0 asks for the object itself; published tables often take 15.

    Returns:
        A float32 scalar in [0, 1], on the saliency's device; NaN if every sample was left out.

    Raises:
        TypeError: If ``saliency`` is not floating or ``mask`` is not bool.
        ValueError: If the shapes are not both ``(N, H, W)``, ``saliency`` has negative values, or
            ``tolerance`` is negative or not finite.

    Example:
        >>> import torch
        >>> from lightning_gcam.metrics.functional import pointing_game
        >>> saliency = torch.tensor([[[0.0, 1.0, 4.0]], [[4.0, 1.0, 0.0]]])
        >>> mask = torch.tensor([[[True, True, False]], [[True, True, False]]])
        >>> pointing_game(saliency, mask)
        tensor(0.5000)
        >>> pointing_game(saliency, mask, tolerance=1)
        tensor(1.)

    Source:
        Zhang et al., "Top-down Neural Attention by Excitation Backprop", 2016, arXiv 1608.00507.
    """
    check_tolerance(tolerance)
    return mean_counted(_pointing_game_update(saliency, mask, tolerance))


def _relevance_rank_accuracy_update(saliency: Tensor, mask: Tensor) -> PerSample:
    """Share of each map's K highest pixels that lie in its mask of K pixels, ties by expectation."""
    batch = prepare(saliency, mask)
    saliency, mask = batch.saliency.flatten(1), batch.mask.flatten(1)
    size = mask.sum(dim=1, keepdim=True)
    ranked = saliency.sort(dim=1, descending=True).values
    lowest = ranked.gather(1, (size - 1).clamp(min=0))
    above, tied = saliency > lowest, saliency == lowest
    free_places = (size[:, 0] - above.sum(dim=1)).float()
    tied_hits = free_places * (tied & mask).sum(dim=1).float() / tied.sum(dim=1).float()
    hits = (above & mask).sum(dim=1).float() + tied_hits
    return batch.scored(hits / size[:, 0].float())


def relevance_rank_accuracy(saliency: Tensor, mask: Tensor) -> Tensor:
    """Average, over the samples, the share of the |M| highest pixels that lie in the object M.

    Where pixels tie for the last of these places, their expected share counts (the share that a random order
    would give on average), so the result does not depend on the order of a sort. A sample whose map is blank
    (all zero, or not finite) or whose mask is empty is left out.

    Args:
        saliency: ``(N, H, W)``, floating, at least 0, of any scale.
        mask: ``(N, H, W)`` bool, True on the object.

    Returns:
        A float32 scalar in [0, 1], on the saliency's device; NaN if every sample was left out.

    Raises:
        TypeError: If ``saliency`` is not floating or ``mask`` is not bool.
        ValueError: If the shapes are not both ``(N, H, W)``, or ``saliency`` has negative values.

    Example:
        >>> import torch
        >>> from lightning_gcam.metrics.functional import relevance_rank_accuracy
        >>> saliency = torch.tensor([[[4.0, 3.0], [2.0, 1.0]]])
        >>> mask = torch.tensor([[[True, False], [True, False]]])
        >>> relevance_rank_accuracy(saliency, mask)
        tensor(0.5000)

    Source:
        Arras et al., 2020, arXiv 2003.07258.
    """
    return mean_counted(_relevance_rank_accuracy_update(saliency, mask))


class PointingGame(SampleMean):
    """Share of the samples whose saliency has its peak in the object.

    Where several pixels share the peak, the share of them that lies in the object counts, so the result does
    not depend on which one ``argmax`` would name. The mean is over samples, where the paper averages over
    classes. A sample whose map is blank (all zero, or not finite) or whose mask is empty is left out, and
    counted in ``left_out``.

    As input to ``forward`` and ``update`` the metric accepts ``saliency`` ``(N, H, W)``, floating, at least
    0, and ``mask`` ``(N, H, W)`` bool. ``compute`` returns a float32 scalar in [0, 1], NaN if every sample
    was left out.

    Args:
        tolerance: How far from the object a peak may lie, in pixels of the mask's grid: a Euclidean disc. The
            default 0 asks for the object itself; published tables often take 15.
        kwargs: Passed on to :class:`torchmetrics.Metric`.

    Raises:
        TypeError: In ``update``, if ``saliency`` is not floating or ``mask`` is not bool.
        ValueError: If ``tolerance`` is negative or not finite; in ``update``, if the shapes are not both
            ``(N, H, W)``, or ``saliency`` has negative values.

    Example:
        >>> import torch
        >>> from lightning_gcam.metrics import PointingGame
        >>> saliency = torch.tensor([[[0.0, 1.0, 4.0]], [[4.0, 1.0, 0.0]]])
        >>> mask = torch.tensor([[[True, True, False]], [[True, True, False]]])
        >>> PointingGame()(saliency, mask)
        tensor(0.5000)
        >>> PointingGame(tolerance=1)(saliency, mask)
        tensor(1.)

    Source:
        Zhang et al., "Top-down Neural Attention by Excitation Backprop", 2016, arXiv 1608.00507.
    """

    def __init__(self, tolerance: float = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_tolerance(tolerance)
        self.tolerance = tolerance

    def _score(self, saliency: Tensor, mask: Tensor) -> PerSample:
        return _pointing_game_update(saliency, mask, self.tolerance)


class RelevanceRankAccuracy(SampleMean):
    """Mean, over the samples, of the share of the |M| highest pixels that lie in the object M.

    Where pixels tie for the last of these places, their expected share counts (the share that a random order
    would give on average), so the result does not depend on the order of a sort. A sample whose map is blank
    (all zero, or not finite) or whose mask is empty is left out, and counted in ``left_out``.

    As input to ``forward`` and ``update`` the metric accepts ``saliency`` ``(N, H, W)``, floating, at least
    0, and ``mask`` ``(N, H, W)`` bool. ``compute`` returns a float32 scalar in [0, 1], NaN if every sample
    was left out.

    Args:
        kwargs: Passed on to :class:`torchmetrics.Metric`.

    Raises:
        TypeError: In ``update``, if ``saliency`` is not floating or ``mask`` is not bool.
        ValueError: In ``update``, if the shapes are not both ``(N, H, W)``, or ``saliency`` has negative
            values.

    Example:
        >>> import torch
        >>> from lightning_gcam.metrics import RelevanceRankAccuracy
        >>> saliency = torch.tensor([[[4.0, 3.0], [2.0, 1.0]]])
        >>> mask = torch.tensor([[[True, False], [True, False]]])
        >>> RelevanceRankAccuracy()(saliency, mask)
        tensor(0.5000)

    Source:
        Arras et al., 2020, arXiv 2003.07258.
    """

    def _score(self, saliency: Tensor, mask: Tensor) -> PerSample:
        return _relevance_rank_accuracy_update(saliency, mask)
