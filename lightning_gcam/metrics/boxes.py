"""Does a box drawn around the thresholded saliency match the object's box?"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from lightning_gcam.metrics.base import SampleMean
from lightning_gcam.metrics.functional.boxes import (
    IOU_THRESHOLDS,
    _max_box_accuracy_compute,
    _max_box_accuracy_update,
    check_version,
)
from lightning_gcam.metrics.functional.mean import PerSample
from lightning_gcam.metrics.functional.thresholds import check_count


class MaxBoxAccuracy(SampleMean):
    """How often a box around the thresholded saliency matches an object's box, at the best threshold.

    {S >= threshold * max S} falls into connected components, with eight neighbours a pixel. Version 1 draws a
    box around the one with the most pixels (the best of them, where several have as many) and asks for an IoU
    of 0.5 with a box of the object; version 2 draws one around each, takes the best, and averages over IoUs of
    0.3, 0.5 and 0.7. The threshold is the same for all samples, and chosen, for each IoU, on the very samples
    that are scored.

    A box ends **after** its last pixel; the authors' code (wsolevaluation) makes each box one pixel too large,
    see :func:`lightning_gcam.metrics.functional.max_box_accuracy`. A sample whose map is blank (all zero, or
    not finite) or that has no object is left out, and counted in ``left_out``.

    As input to ``forward`` and ``update`` the metric accepts ``saliency`` ``(N, H, W)``, floating, at least
    0, ``mask`` ``(N, H, W)`` bool, and, if each of several objects in a sample may be matched by itself,
    ``boxes``: N tensors ``(M, 4)``. ``compute`` returns a float32 scalar in [0, 1], NaN if every sample was
    left out.

    Args:
        version: 1 or 2.
        num_thresholds: The grid: k / num_thresholds of the map's own peak, for k = 1 to num_thresholds.
        kwargs: Passed on to :class:`torchmetrics.Metric`.

    Raises:
        TypeError: In ``update``, if ``saliency`` is not floating or ``mask`` is not bool.
        ValueError: If ``version`` is not 1 or 2, or ``num_thresholds`` is not a positive integer; in
            ``update``, if the shapes are not both ``(N, H, W)``, ``saliency`` has negative values, or
            ``boxes`` does not hold N tensors ``(M, 4)``.

    Example:
        >>> import torch
        >>> from lightning_gcam.metrics import MaxBoxAccuracy
        >>> saliency = torch.tensor([[[4.0, 3.0, 1.0], [0.0, 0.0, 0.0]]])
        >>> mask = torch.tensor([[[True, True, False], [False, False, False]]])
        >>> MaxBoxAccuracy(version=1)(saliency, mask)
        tensor(1.)

    Source:
        Choe et al., 2020, arXiv 2001.12471 (version 1: MaxBoxAcc) and arXiv 2007.04178 (version 2:
        MaxBoxAccV2).
    """

    takes_boxes: bool = True

    def __init__(self, version: int = 2, num_thresholds: int = 100, **kwargs: Any) -> None:
        check_version(version)
        check_count("num_thresholds", num_thresholds)
        super().__init__(shape=(num_thresholds, len(IOU_THRESHOLDS[version])), **kwargs)
        self.version, self.num_thresholds = version, num_thresholds

    def _score(self, saliency: Tensor, mask: Tensor, boxes: Sequence[Tensor] | None = None) -> PerSample:
        return _max_box_accuracy_update(saliency, mask, boxes, self.version, self.num_thresholds)

    def update(self, saliency: Tensor, mask: Tensor, boxes: Sequence[Tensor] | None = None) -> None:
        """Add a batch of maps and masks, both ``(N, H, W)``, and perhaps each sample's boxes."""
        self._add(self._score(saliency, mask, boxes))

    def _value(self, total: Tensor, n: Tensor) -> Tensor:
        return _max_box_accuracy_compute(total, n)
