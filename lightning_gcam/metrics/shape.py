"""How concentrated is a map, wherever it lies?"""

from torch import Tensor

from lightning_gcam.metrics.base import SampleScore
from lightning_gcam.metrics.functional.mean import PerSample
from lightning_gcam.metrics.functional.shape import _saliency_entropy_update, _saliency_gini_update


class SaliencyGini(SampleScore):
    """Mean Gini index of the maps' pixels: 0 for a uniform map, 1 - 1/(HW) for a single pixel.

    Neither end is better: it says how concentrated a map is, not where. A sample whose map is blank (all zero,
    or not finite) is left out, and counted in ``left_out``.

    As input to ``forward`` and ``update`` the metric accepts ``saliency`` ``(N, H, W)``, floating, at least
    0, and a ``mask`` that it does not look at. ``compute`` returns a float32 scalar in [0, 1), NaN if every
    sample was left out.

    Args:
        kwargs: Passed on to :class:`torchmetrics.Metric`.

    Raises:
        TypeError: In ``update``, if ``saliency`` is not floating.
        ValueError: In ``update``, if its shape is not ``(N, H, W)``, or it has negative values.

    Example:
        >>> import torch
        >>> from lightning_gcam.metrics import SaliencyGini
        >>> SaliencyGini()(torch.tensor([[[1.0, 0.0], [0.0, 0.0]], [[1.0, 1.0], [1.0, 1.0]]]))
        tensor(0.3750)

    Source:
        Chalasani et al., 2020, arXiv 1810.06583 (sparseness).
    """

    higher_is_better: bool | None = None

    def _score(self, saliency: Tensor, mask: Tensor | None = None) -> PerSample:
        return _saliency_gini_update(saliency)

    def update(self, saliency: Tensor, mask: Tensor | None = None) -> None:
        """Add a batch of maps ``(N, H, W)``; the mask is taken so that all scores can be called alike."""
        self._add(self._score(saliency))


class SaliencyEntropy(SampleScore):
    """Mean entropy of the maps, as a share of a uniform map's: 0 for a single pixel, 1 for a uniform map.

    Neither end is better: it says how spread out a map is, not where. A sample whose map is blank (all zero,
    or not finite) is left out, and counted in ``left_out``.

    As input to ``forward`` and ``update`` the metric accepts ``saliency`` ``(N, H, W)``, floating, at least
    0, and a ``mask`` that it does not look at. ``compute`` returns a float32 scalar in [0, 1], NaN if every
    sample was left out.

    Args:
        kwargs: Passed on to :class:`torchmetrics.Metric`.

    Raises:
        TypeError: In ``update``, if ``saliency`` is not floating.
        ValueError: In ``update``, if its shape is not ``(N, H, W)``, or it has negative values.

    Example:
        >>> import torch
        >>> from lightning_gcam.metrics import SaliencyEntropy
        >>> SaliencyEntropy()(torch.tensor([[[1.0, 1.0], [0.0, 0.0]], [[1.0, 1.0], [1.0, 1.0]]]))
        tensor(0.7500)

    Source:
        Bhatt et al., 2020, arXiv 2005.00631 (complexity, there not divided by its highest value).
    """

    higher_is_better: bool | None = None

    def _score(self, saliency: Tensor, mask: Tensor | None = None) -> PerSample:
        return _saliency_entropy_update(saliency)

    def update(self, saliency: Tensor, mask: Tensor | None = None) -> None:
        """Add a batch of maps ``(N, H, W)``; the mask is taken so that all scores can be called alike."""
        self._add(self._score(saliency))
