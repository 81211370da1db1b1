"""How well do the pixels of all samples, sorted by their saliency, separate object from background?"""

from typing import Any

from torch import Tensor

from lightning_gcam.metrics.base import SampleMean
from lightning_gcam.metrics.functional.average_precision import (
    _pixel_average_precision_compute,
    _pixel_average_precision_update,
)
from lightning_gcam.metrics.functional.mean import PerSample
from lightning_gcam.metrics.functional.thresholds import check_count


class PixelAveragePrecision(SampleMean):
    """Average precision over the pixels of all samples together (PxAP), each map scaled by its peak.

    It is what :class:`torchmetrics.classification.BinaryAveragePrecision` gives for the same scaled pixels and
    the same ``thresholds``, here from sums per sample, so that n, an interval and groups can stand beside it. A
    large object weighs more than a small one. A uniform map scores the objects' share of the pixels. A sample
    whose map is blank (all zero, or not finite) or whose mask is empty is left out, and counted in
    ``left_out``.

    As input to ``forward`` and ``update`` the metric accepts ``saliency`` ``(N, H, W)``, floating, at least
    0, and ``mask`` ``(N, H, W)`` bool. ``compute`` returns a float32 scalar in [0, 1], NaN if every sample
    was left out.

    Args:
        num_thresholds: How many thresholds, evenly from 0 to 1 of each map's own peak; at least 2.
        kwargs: Passed on to :class:`torchmetrics.Metric`.

    Raises:
        TypeError: In ``update``, if ``saliency`` is not floating or ``mask`` is not bool.
        ValueError: If ``num_thresholds`` is not an integer of at least 2; in ``update``, if the shapes are not
            both ``(N, H, W)``, or ``saliency`` has negative values.

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
        check_count("num_thresholds", num_thresholds, least=2)
        super().__init__(shape=(2, num_thresholds), **kwargs)
        self.num_thresholds = num_thresholds

    def _score(self, saliency: Tensor, mask: Tensor) -> PerSample:
        return _pixel_average_precision_update(saliency, mask, self.num_thresholds)

    def _value(self, total: Tensor, n: Tensor) -> Tensor:
        return _pixel_average_precision_compute(total, n)
