"""Of as many of the highest pixels as the object has, how many lie on it?"""

from torch import Tensor

from lightning_gcam.metrics.base import SampleMean
from lightning_gcam.metrics.functional.mean import PerSample
from lightning_gcam.metrics.functional.rank import _relevance_rank_accuracy_update


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
