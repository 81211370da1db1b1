"""Does the peak of the saliency lie on the object?"""

from typing import Any

from torch import Tensor

from lightning_gcam.metrics.base import SampleMean
from lightning_gcam.metrics.functional.inputs import check_tolerance
from lightning_gcam.metrics.functional.mean import PerSample
from lightning_gcam.metrics.functional.pointing import _pointing_game_update


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
