"""How many maps have nothing in them to score?"""

from torch import Tensor

from lightning_gcam.metrics.base import SampleMean
from lightning_gcam.metrics.functional.blank import _blank_rate_update
from lightning_gcam.metrics.functional.mean import PerSample


class BlankRate(SampleMean):
    """Share of the samples whose map is blank: all zero, or not finite.

    Every sample counts, with or without a mask; ``left_out`` is always 0. Such maps happen (a
    zero-initialised head before the first step, a class with no evidence), and every other score leaves them
    out, so this one says how much of the batch the others speak for.

    As input to ``forward`` and ``update`` the metric accepts ``saliency`` ``(N, H, W)``, floating, at least
    0, and a ``mask`` that it does not look at. ``compute`` returns a float32 scalar in [0, 1], NaN if there
    was no sample.

    Args:
        kwargs: Passed on to :class:`torchmetrics.Metric`.

    Raises:
        TypeError: In ``update``, if ``saliency`` is not floating.
        ValueError: In ``update``, if its shape is not ``(N, H, W)``, or it has negative values.

    Example:
        >>> import torch
        >>> from lightning_gcam.metrics import BlankRate
        >>> BlankRate()(torch.tensor([[[0.0, 0.0]], [[0.0, 1.0]]]))
        tensor(0.5000)
    """

    higher_is_better: bool | None = False
    requires: frozenset[str] = frozenset()

    def _score(self, saliency: Tensor, mask: Tensor | None = None) -> PerSample:
        return _blank_rate_update(saliency)

    def update(self, saliency: Tensor, mask: Tensor | None = None) -> None:
        """Add a batch of maps ``(N, H, W)``; the mask is taken so that all scores can be called alike."""
        self._add(self._score(saliency))
