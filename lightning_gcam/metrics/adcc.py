"""ADCC and its parts: is a map coherent, simple, and enough for the model?"""

from torch import Tensor

from lightning_gcam.metrics.base import SampleScore
from lightning_gcam.metrics.functional.adcc import _adcc_update, _coherency_update, _complexity_update
from lightning_gcam.metrics.functional.mean import PerSample
from lightning_gcam.metrics.question import Question


class Coherency(SampleScore):
    """How much each map is like the map of the image of which only the salient pixels are left: mean (1 + r) / 2.

    r is Pearson's correlation over the pixels of the two maps; 0.5 is no correlation. Where the second map is
    blank, the sample scores 0. A sample whose own map is blank (all zero, or not finite), or one of whose maps
    is the same everywhere, is left out, and counted in ``left_out``.

    As input to ``forward`` and ``update`` the metric accepts ``saliency`` and ``kept``, both ``(N, H, W)``,
    floating, at least 0: the maps of the images, and those of
    :func:`keep_salient(images, saliency) <lightning_gcam.metrics.functional.keep_salient>`. ``compute``
    returns a float32 scalar in [0, 1], NaN if every sample was left out.

    Args:
        kwargs: Passed on to :class:`torchmetrics.Metric`.

    Raises:
        TypeError: In ``update``, if ``saliency`` is not floating.
        ValueError: In ``update``, if the shapes are not both ``(N, H, W)``, or a map has negative values.

    Example:
        >>> import torch
        >>> from lightning_gcam.metrics import Coherency
        >>> Coherency()(torch.tensor([[[1.0, 2.0, 3.0]]]), torch.tensor([[[2.0, 4.0, 6.0]]]))
        tensor(1.)

    Source:
        Poppi et al., 2021, arXiv 2104.10252.
    """

    requires: frozenset[str] = frozenset({"maps"})
    cost: int = 1
    question: Question | None = Question("keep", "zero")

    def _score(self, saliency: Tensor, kept: Tensor) -> PerSample:
        return _coherency_update(saliency, kept)

    def update(self, saliency: Tensor, kept: Tensor) -> None:
        """Add a batch of maps, and of the maps of the kept images, both ``(N, H, W)``."""
        self._add(self._score(saliency, kept))


class Complexity(SampleScore):
    """Mean of the maps' pixels, each map scaled by its peak: 1 for a uniform map, 1/(HW) for a single pixel.

    A sample whose map is blank (all zero, or not finite) is left out, and counted in ``left_out``.

    As input to ``forward`` and ``update`` the metric accepts ``saliency`` ``(N, H, W)``, floating, at least
    0, and a ``mask`` that it does not look at. ``compute`` returns a float32 scalar in (0, 1], NaN if every
    sample was left out.

    Args:
        kwargs: Passed on to :class:`torchmetrics.Metric`.

    Raises:
        TypeError: In ``update``, if ``saliency`` is not floating.
        ValueError: In ``update``, if its shape is not ``(N, H, W)``, or it has negative values.

    Example:
        >>> import torch
        >>> from lightning_gcam.metrics import Complexity
        >>> Complexity()(torch.tensor([[[4.0, 2.0], [0.0, 0.0]]]))
        tensor(0.3750)

    Source:
        Poppi et al., 2021, arXiv 2104.10252 (the L1 norm, as a share of the number of pixels).
    """

    higher_is_better: bool | None = False

    def _score(self, saliency: Tensor, mask: Tensor | None = None) -> PerSample:
        return _complexity_update(saliency)

    def update(self, saliency: Tensor, mask: Tensor | None = None) -> None:
        """Add a batch of maps ``(N, H, W)``; the mask is taken so that all scores can be called alike."""
        self._add(self._score(saliency))


class ADCC(SampleScore):
    """Mean over the samples of the harmonic mean of coherency, 1 - complexity and 1 - average drop.

    0 where one of the three is: a map must be coherent **and** simple **and** enough. A sample that one of the
    parts leaves out is left out, and counted in ``left_out``.

    As input to ``forward`` and ``update`` the metric accepts ``saliency`` and ``kept``, both ``(N, H, W)``,
    floating, at least 0: the maps of the images, and those of
    :func:`keep_salient(images, saliency) <lightning_gcam.metrics.functional.keep_salient>`; and ``before`` and
    ``after``, ``(N,)`` floating, the probabilities of the explained class for both. One pass over the kept
    images gives ``kept`` and ``after``. ``compute`` returns a float32 scalar in [0, 1], NaN if every sample
    was left out.

    Args:
        kwargs: Passed on to :class:`torchmetrics.Metric`.

    Raises:
        TypeError: In ``update``, if ``saliency`` is not floating.
        ValueError: In ``update``, if shapes do not fit, a map has negative values, or these are not
            probabilities in [0, 1].

    Example:
        >>> import torch
        >>> from lightning_gcam.metrics import ADCC
        >>> saliency = torch.tensor([[[1.0, 0.0]]])
        >>> ADCC()(saliency, saliency, torch.tensor([0.8]), torch.tensor([0.8]))
        tensor(0.7500)

    Source:
        Poppi et al., "Revisiting The Evaluation of Class Activation Mapping for Explainability", 2021, arXiv
        2104.10252.
    """

    requires: frozenset[str] = frozenset({"forwards", "maps"})
    cost: int = 1
    question: Question | None = Question("keep", "zero")

    def _score(self, saliency: Tensor, kept: Tensor, before: Tensor, after: Tensor) -> PerSample:
        return _adcc_update(saliency, kept, before, after)

    def update(self, saliency: Tensor, kept: Tensor, before: Tensor, after: Tensor) -> None:
        """Add a batch: maps and maps of the kept images ``(N, H, W)``, and the probabilities of both ``(N,)``."""
        self._add(self._score(saliency, kept, before, after))
