"""How well does the thresholded saliency cover the object, and nothing else?"""

from typing import Any

from torch import Tensor

from lightning_gcam.metrics.base import SampleMean
from lightning_gcam.metrics.functional.inputs import check_threshold
from lightning_gcam.metrics.functional.mean import PerSample
from lightning_gcam.metrics.functional.overlap import _saliency_iou_update


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
