"""Overlap of the most salient pixels with the object's mask: IoU, average precision, rank accuracy."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_gcam.metrics.base import SampleMean
from lightning_gcam.metrics.samples import (
    CheckedBatch,
    CheckedMaps,
    PerSample,
    mean_counted,
    prepare,
    score_counted,
)
from lightning_gcam.utils.errors import check_whole


def check_threshold(threshold: float) -> None:
    """Refuse a threshold outside (0, 1].

    Raises:
        ValueError: If it is not a finite number in (0, 1].
    """
    if not isinstance(threshold, (int, float)) or not 0 < threshold <= 1:
        raise ValueError(
            f"`threshold` must be a number in (0, 1], a share of the map's peak, got {threshold!r}. "
            "0.3 is the default."
        )


def even_thresholds(count: int, device: torch.device | str = "cpu") -> Tensor:
    """Return ``k / count`` for k = 1 to ``count``: ``(count,)`` float32, ascending, the last one 1.

    Example:
        >>> from lightning_gcam.metrics.overlap import even_thresholds
        >>> even_thresholds(4)
        tensor([0.2500, 0.5000, 0.7500, 1.0000])
    """
    return torch.arange(1, count + 1, device=device, dtype=torch.float32) / count


def count_above(batch: CheckedBatch, thresholds: Tensor) -> tuple[Tensor, Tensor]:
    """Count, for each threshold, the pixels that reach it, inside and outside of the mask.

    Args:
        batch: Of N samples.
        thresholds: ``(T,)`` ascending shares of each map's own peak.

    Returns:
        Two ``(N, T)`` int64: pixels of the mask, and pixels outside of it, with S >= threshold * max S.
    """
    pixels, mask = batch.maps.pixels, batch.mask.flatten(1)
    # How many of the thresholds each pixel reaches, 0 to T; then how many pixels reach each.
    reached = torch.searchsorted(thresholds * batch.maps.peak[:, None], pixels, right=True)
    empty = torch.zeros(len(pixels), len(thresholds) + 1, dtype=torch.int64, device=pixels.device)
    inside = empty.scatter_add(1, reached, mask.long())
    outside = empty.scatter_add(1, reached, (~mask).long())
    return _at_least(inside), _at_least(outside)


def _at_least(counts: Tensor) -> Tensor:
    """Convert counts of "exactly k thresholds" to counts of "at least k", for k from 1."""
    return counts.flip(1).cumsum(dim=1).flip(1)[:, 1:]


def _saliency_iou_update(saliency: Tensor, mask: Tensor, threshold: float) -> PerSample:
    """Intersection over union of each thresholded map and its mask."""
    batch = prepare(saliency, mask)
    region = batch.maps.pixels >= threshold * batch.maps.peak[:, None]
    intersection = (region & batch.mask.flatten(1)).sum(dim=1)
    union = region.sum(dim=1) + batch.size - intersection
    return batch.scored(intersection.float() / union.float())


def saliency_iou(saliency: Tensor, mask: Tensor, threshold: float = 0.3) -> Tensor:
    """Average, over the samples, the intersection over union of {S >= threshold * max S} and the object.

    A sample whose map is blank (all zero, or not finite) or whose mask is empty is left out.

    Args:
        saliency: ``(N, *spatial)``, floating, at least 0, of any scale.
        mask: ``(N, *spatial)`` bool, True on the object.
        threshold: The share of the map's own peak from which a pixel belongs to the region, in (0, 1].

    Returns:
        A float32 scalar in [0, 1], on the saliency's device; NaN if every sample was left out.

    Raises:
        TypeError: If ``saliency`` is not floating or ``mask`` is not bool.
        ValueError: If the shapes are not both ``(N, *spatial)``, ``saliency`` has negative values, or
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
    inside, outside = count_above(batch, thresholds)
    return batch.scored(inside.float() / (batch.size[:, None] + outside).float())


def _best_saliency_iou_compute(total: Tensor, n: Tensor) -> Tensor:
    """Highest mean over the thresholds."""
    return (total / n.unsqueeze(-1)).amax(dim=-1).to(torch.float32)


def best_saliency_iou(saliency: Tensor, mask: Tensor, num_thresholds: int = 20) -> Tensor:
    """Average the intersection over union at the one threshold, the same for all samples, where it is highest.

    The threshold is chosen on the very samples that are scored, so this is an upper bound on what one fixed
    threshold reaches on others. A sample whose map is blank (all zero, or not finite) or whose mask is empty
    is left out.

    Args:
        saliency: ``(N, *spatial)``, floating, at least 0, of any scale.
        mask: ``(N, *spatial)`` bool, True on the object.
        num_thresholds: The grid: k / num_thresholds of the map's own peak, for k = 1 to num_thresholds.

    Returns:
        A float32 scalar in [0, 1], on the saliency's device; NaN if every sample was left out.

    Raises:
        TypeError: If ``saliency`` is not floating or ``mask`` is not bool.
        ValueError: If the shapes are not both ``(N, *spatial)``, ``saliency`` has negative values, or
            ``num_thresholds`` is not a positive integer.

    Example:
        >>> import torch
        >>> from lightning_gcam.metrics.functional import best_saliency_iou, saliency_iou
        >>> saliency = torch.tensor([[[4.0, 2.0], [1.0, 0.0]]])
        >>> mask = torch.tensor([[[True, False], [False, False]]])
        >>> saliency_iou(saliency, mask), best_saliency_iou(saliency, mask)
        (tensor(0.5000), tensor(1.))
    """
    check_whole("num_thresholds", num_thresholds)
    update = _best_saliency_iou_update(saliency, mask, num_thresholds)
    return score_counted(update, _best_saliency_iou_compute)


def _pixel_average_precision_update(saliency: Tensor, mask: Tensor, num_thresholds: int) -> PerSample:
    """Pixels at or above each threshold, in and out of the mask: rows ``(N, 2, num_thresholds)``."""
    batch = prepare(saliency, mask)
    thresholds = torch.linspace(0, 1, num_thresholds, device=saliency.device)
    return batch.scored(torch.stack(count_above(batch, thresholds), dim=1).float())


def _pixel_average_precision_compute(total: Tensor, n: Tensor) -> Tensor:
    """Sum precision times the gain in recall, from the highest threshold to 0, where all pixels are in."""
    inside, outside = total.unbind(dim=-2)
    precision = inside / (inside + outside)
    recall = inside / inside[..., :1]
    gain = recall - torch.cat([recall[..., 1:], torch.zeros_like(recall[..., :1])], dim=-1)
    return (precision * gain).sum(dim=-1).to(torch.float32)


def pixel_average_precision(saliency: Tensor, mask: Tensor, num_thresholds: int = 101) -> Tensor:
    """Give the average precision over the pixels of all samples together (PxAP), each map scaled by its peak.

    It is what `torchmetrics.classification.BinaryAveragePrecision` gives for the same scaled pixels and
    the same ``thresholds``, here from sums per sample, so that n, an interval and groups can stand beside it. A
    large object weighs more than a small one. A uniform map scores the objects' share of the pixels. A sample
    whose map is blank (all zero, or not finite) or whose mask is empty is left out.

    Args:
        saliency: ``(N, *spatial)``, floating, at least 0, of any scale.
        mask: ``(N, *spatial)`` bool, True on the object.
        num_thresholds: How many thresholds, evenly from 0 to 1 of each map's own peak; at least 2.

    Returns:
        A float32 scalar in [0, 1], on the saliency's device; NaN if every sample was left out.

    Raises:
        TypeError: If ``saliency`` is not floating or ``mask`` is not bool.
        ValueError: If the shapes are not both ``(N, *spatial)``, ``saliency`` has negative values, or
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
    check_whole("num_thresholds", num_thresholds, least=2)
    update = _pixel_average_precision_update(saliency, mask, num_thresholds)
    return score_counted(update, _pixel_average_precision_compute)


class SaliencyIoU(SampleMean):
    """Mean, over the samples, of the intersection over union of {S >= threshold * max S} and the object.

    A sample whose map is blank (all zero, or not finite) or whose mask is empty is left out, and counted in
    ``left_out``.

    As input to ``forward`` and ``update`` the metric accepts ``saliency`` ``(N, *spatial)``, floating, at least
    0, and ``mask`` ``(N, *spatial)`` bool. ``compute`` returns a float32 scalar in [0, 1], NaN if every sample
    was left out.

    Args:
        threshold: The share of the map's own peak from which a pixel belongs to the region, in (0, 1].
        kwargs: Passed on to `torchmetrics.Metric`.

    Raises:
        TypeError: In ``update``, if ``saliency`` is not floating or ``mask`` is not bool.
        ValueError: If ``threshold`` is not in (0, 1]; in ``update``, if the shapes are not both
            ``(N, *spatial)``, or ``saliency`` has negative values.

    Example:
        >>> import torch
        >>> from lightning_gcam.metrics import SaliencyIoU
        >>> saliency = torch.tensor([[[4.0, 2.0], [1.0, 0.0]]])
        >>> mask = torch.tensor([[[True, False], [False, False]]])
        >>> SaliencyIoU()(saliency, mask)
        tensor(0.5000)
    """

    def __init__(self, threshold: float = 0.3, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_threshold(threshold)
        self.threshold = threshold

    def _score(self, saliency: Tensor, mask: Tensor) -> PerSample:
        return _saliency_iou_update(saliency, mask, self.threshold)


class BestSaliencyIoU(SampleMean):
    """Mean intersection over union at the one threshold, the same for all samples, where it is highest.

    The threshold is chosen on the very samples that are scored, so this is an upper bound on what one fixed
    threshold reaches on others; ``best_threshold`` is that one. A sample whose map is blank (all zero,
    or not finite) or whose mask is empty is left out, and counted in ``left_out``.

    As input to ``forward`` and ``update`` the metric accepts ``saliency`` ``(N, *spatial)``, floating, at least
    0, and ``mask`` ``(N, *spatial)`` bool. ``compute`` returns a float32 scalar in [0, 1], NaN if every sample
    was left out.

    Args:
        num_thresholds: The grid: k / num_thresholds of the map's own peak, for k = 1 to num_thresholds.
        kwargs: Passed on to `torchmetrics.Metric`.

    Raises:
        TypeError: In ``update``, if ``saliency`` is not floating or ``mask`` is not bool.
        ValueError: If ``num_thresholds`` is not a positive integer; in ``update``, if the shapes are not both
            ``(N, *spatial)``, or ``saliency`` has negative values.

    Example:
        >>> import torch
        >>> from lightning_gcam.metrics import BestSaliencyIoU
        >>> metric = BestSaliencyIoU(num_thresholds=4)
        >>> saliency = torch.tensor([[[4.0, 2.0], [1.0, 0.0]]])
        >>> mask = torch.tensor([[[True, True], [False, False]]])
        >>> metric.update(saliency, mask)
        >>> metric.compute(), metric.best_threshold
        (tensor(1.), 0.5)
    """

    def __init__(self, num_thresholds: int = 20, **kwargs: Any) -> None:
        check_whole("num_thresholds", num_thresholds)
        super().__init__(shape=(num_thresholds,), **kwargs)
        self.num_thresholds = num_thresholds

    @property
    def best_threshold(self) -> float:
        """The threshold with the highest mean so far, the lowest of them where several tie; NaN without samples."""
        if self.n == 0:
            return float("nan")
        return float(even_thresholds(self.num_thresholds)[int(torch.argmax(self.total))])

    def _score(self, saliency: Tensor, mask: Tensor) -> PerSample:
        return _best_saliency_iou_update(saliency, mask, self.num_thresholds)

    def _value(self, total: Tensor, n: Tensor) -> Tensor:
        return _best_saliency_iou_compute(total, n)


class PixelAveragePrecision(SampleMean):
    """Average precision over the pixels of all samples together (PxAP), each map scaled by its peak.

    It is what `torchmetrics.classification.BinaryAveragePrecision` gives for the same scaled pixels and
    the same ``thresholds``, here from sums per sample, so that n, an interval and groups can stand beside it. A
    large object weighs more than a small one. A uniform map scores the objects' share of the pixels. A sample
    whose map is blank (all zero, or not finite) or whose mask is empty is left out, and counted in
    ``left_out``.

    As input to ``forward`` and ``update`` the metric accepts ``saliency`` ``(N, *spatial)``, floating, at least
    0, and ``mask`` ``(N, *spatial)`` bool. ``compute`` returns a float32 scalar in [0, 1], NaN if every sample
    was left out.

    Args:
        num_thresholds: How many thresholds, evenly from 0 to 1 of each map's own peak; at least 2.
        kwargs: Passed on to `torchmetrics.Metric`.

    Raises:
        TypeError: In ``update``, if ``saliency`` is not floating or ``mask`` is not bool.
        ValueError: If ``num_thresholds`` is not an integer of at least 2; in ``update``, if the shapes are not
            both ``(N, *spatial)``, or ``saliency`` has negative values.

    Example:
        >>> import torch
        >>> from lightning_gcam.metrics import PixelAveragePrecision
        >>> saliency = torch.tensor([[[4.0, 3.0], [2.0, 0.0]]])
        >>> mask = torch.tensor([[[True, False], [True, False]]])
        >>> PixelAveragePrecision()(saliency, mask)
        tensor(0.8333)

    Source:
        Choe et al., "Evaluating Weakly Supervised Object Localization Methods Right", 2020, arXiv 2001.12471
        (section 3.3, there with a step of 0.001).
    """

    def __init__(self, num_thresholds: int = 101, **kwargs: Any) -> None:
        check_whole("num_thresholds", num_thresholds, least=2)
        super().__init__(shape=(2, num_thresholds), **kwargs)
        self.num_thresholds = num_thresholds

    def _score(self, saliency: Tensor, mask: Tensor) -> PerSample:
        return _pixel_average_precision_update(saliency, mask, self.num_thresholds)

    def _value(self, total: Tensor, n: Tensor) -> Tensor:
        return _pixel_average_precision_compute(total, n)


def _relevance_rank_accuracy_update(saliency: Tensor, mask: Tensor) -> PerSample:
    """Share of each map's K highest pixels that lie in its mask of K pixels, ties by expectation."""
    batch = prepare(saliency, mask)
    pixels, mask, size = batch.maps.pixels, batch.mask.flatten(1), batch.size
    lowest = _kth_highest(batch.maps, size.clamp(min=1))[:, None]
    above, tied = pixels > lowest, pixels == lowest
    free_places = (size - above.sum(dim=1)).float()
    tied_hits = free_places * (tied & mask).sum(dim=1).float() / tied.sum(dim=1).float()
    hits = (above & mask).sum(dim=1).float() + tied_hits
    return batch.scored(hits / size.float())


def _kth_highest(maps: CheckedMaps, counts: Tensor) -> Tensor:
    """Find each map's pixel that has its count's place in descending order, ``(N,)``."""
    places = maps.pixels.shape[1] - counts
    if not maps.pixels.is_cpu:
        return maps.ordered.gather(1, places[:, None])[:, 0]
    # A tenth of a sort's time. Not `kthvalue`: its time is quadratic where a map falls from its first pixel on.
    rows = zip(maps.pixels.numpy(), places.tolist(), strict=True)
    return maps.pixels.new_tensor([np.partition(row, place)[place] for row, place in rows])


def relevance_rank_accuracy(saliency: Tensor, mask: Tensor) -> Tensor:
    """Average, over the samples, the share of the |M| highest pixels that lie in the object M.

    Where pixels tie for the last of these places, their expected share counts (the share that a random order
    would give on average), so the result does not depend on the order of a sort. A sample whose map is blank
    (all zero, or not finite) or whose mask is empty is left out.

    Args:
        saliency: ``(N, *spatial)``, floating, at least 0, of any scale.
        mask: ``(N, *spatial)`` bool, True on the object.

    Returns:
        A float32 scalar in [0, 1], on the saliency's device; NaN if every sample was left out.

    Raises:
        TypeError: If ``saliency`` is not floating or ``mask`` is not bool.
        ValueError: If the shapes are not both ``(N, *spatial)``, or ``saliency`` has negative values.

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


class RelevanceRankAccuracy(SampleMean):
    """Mean, over the samples, of the share of the |M| highest pixels that lie in the object M.

    Where pixels tie for the last of these places, their expected share counts (the share that a random order
    would give on average), so the result does not depend on the order of a sort. A sample whose map is blank
    (all zero, or not finite) or whose mask is empty is left out, and counted in ``left_out``.

    As input to ``forward`` and ``update`` the metric accepts ``saliency`` ``(N, *spatial)``, floating, at least
    0, and ``mask`` ``(N, *spatial)`` bool. ``compute`` returns a float32 scalar in [0, 1], NaN if every sample
    was left out.

    Args:
        kwargs: Passed on to `torchmetrics.Metric`.

    Raises:
        TypeError: In ``update``, if ``saliency`` is not floating or ``mask`` is not bool.
        ValueError: In ``update``, if the shapes are not both ``(N, *spatial)``, or ``saliency`` has negative
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
