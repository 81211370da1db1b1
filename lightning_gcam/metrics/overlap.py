"""How well does the thresholded saliency cover the object, and nothing else?"""

from typing import Any

import torch
from torch import Tensor

from lightning_gcam.metrics.base import SampleMean
from lightning_gcam.metrics.functional.inputs import check_threshold
from lightning_gcam.metrics.functional.mean import PerSample
from lightning_gcam.metrics.functional.overlap import (
    _best_saliency_iou_compute,
    _best_saliency_iou_update,
    _saliency_iou_update,
)
from lightning_gcam.metrics.functional.thresholds import check_count, even_thresholds


class SaliencyIoU(SampleMean):
    """Mean, over the samples, of the intersection over union of {S >= threshold * max S} and the object.

    A sample whose map is blank (all zero, or not finite) or whose mask is empty is left out, and counted in
    ``left_out``.

    As input to ``forward`` and ``update`` the metric accepts ``saliency`` ``(N, H, W)``, floating, at least
    0, and ``mask`` ``(N, H, W)`` bool. ``compute`` returns a float32 scalar in [0, 1], NaN if every sample
    was left out.

    Args:
        threshold: The share of the map's own peak from which a pixel belongs to the region, in (0, 1].
        kwargs: Passed on to :class:`torchmetrics.Metric`.

    Raises:
        TypeError: In ``update``, if ``saliency`` is not floating or ``mask`` is not bool.
        ValueError: If ``threshold`` is not in (0, 1]; in ``update``, if the shapes are not both ``(N, H,
            W)``, or ``saliency`` has negative values.

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
    threshold reaches on others; ``best_threshold`` says which it was. A sample whose map is blank (all zero,
    or not finite) or whose mask is empty is left out, and counted in ``left_out``.

    As input to ``forward`` and ``update`` the metric accepts ``saliency`` ``(N, H, W)``, floating, at least
    0, and ``mask`` ``(N, H, W)`` bool. ``compute`` returns a float32 scalar in [0, 1], NaN if every sample
    was left out.

    Args:
        num_thresholds: The grid: k / num_thresholds of the map's own peak, for k = 1 to num_thresholds.
        kwargs: Passed on to :class:`torchmetrics.Metric`.

    Raises:
        TypeError: In ``update``, if ``saliency`` is not floating or ``mask`` is not bool.
        ValueError: If ``num_thresholds`` is not a positive integer; in ``update``, if the shapes are not both
            ``(N, H, W)``, or ``saliency`` has negative values.

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
        check_count("num_thresholds", num_thresholds)
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
