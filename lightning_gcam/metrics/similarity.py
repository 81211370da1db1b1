"""How alike are two maps of the same sample: of two looks, or of a trained and a random model?"""

from typing import Any, Literal

from torch import Tensor

from lightning_gcam._errors import InputError
from lightning_gcam.metrics.base import SampleScore
from lightning_gcam.metrics.functional.mean import PerSample
from lightning_gcam.metrics.functional.similarity import _random_model_ssim_update, _rank_correlation_update


class SaliencyDrift(SampleScore):
    """Mean rank correlation (Spearman) of each sample's map with its map at an earlier look.

    1: the order of the pixels is what it was; 0: it has nothing to do with it; -1: it is reversed. A sample of
    which one map is blank (all zero, or not finite), or the same everywhere, is left out, and counted in
    ``left_out``.

    As input to ``forward`` and ``update`` the metric accepts ``saliency`` and ``earlier``, both ``(N, H,
    W)``, floating, at least 0. ``compute`` returns a float32 scalar in [-1, 1], NaN if every sample was left
    out.

    Args:
        since: Which look is meant, for whoever keeps the maps: the "previous" one, the "first", or the "best" (at
            which the explained classes were the most probable).
        kwargs: Passed on to :class:`torchmetrics.Metric`.

    Raises:
        TypeError: In ``update``, if ``saliency`` is not floating.
        ValueError: If ``since`` is not known; in ``update``, if the shapes are not both ``(N, H, W)``, or a map
            has negative values.

    Example:
        >>> import torch
        >>> from lightning_gcam.metrics import SaliencyDrift
        >>> SaliencyDrift()(torch.tensor([[[1.0, 2.0, 3.0]]]), torch.tensor([[[1.0, 5.0, 9.0]]]))
        tensor(1.)
    """

    # A map that stays is no better than one that learns.
    higher_is_better: bool | None = None
    plot_lower_bound: float | None = -1.0
    requires: frozenset[str] = frozenset({"earlier"})

    def __init__(self, since: Literal["previous", "first", "best"] = "previous", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if since not in ("previous", "first", "best"):
            raise InputError(f'`since` must be "previous", "first" or "best", got {since!r}.')
        self.since = since

    def _score(self, saliency: Tensor, earlier: Tensor) -> PerSample:
        return _rank_correlation_update(saliency, earlier, "earlier")

    def update(self, saliency: Tensor, earlier: Tensor) -> None:
        """Add a batch of maps, and the same samples' maps at an earlier look, both ``(N, H, W)``."""
        self._add(self._score(saliency, earlier))


class RandomModelSimilarity(SampleScore):
    """Mean rank correlation of each sample's map with that of the same model with random weights.

    Near 1, the map would be there without any training: it shows the image or the architecture, and not what
    the model has learnt. Near 0 is what a faithful method gives. A sample of which one map is blank (all zero,
    or not finite), or the same everywhere, is left out, and counted in ``left_out``.

    As input to ``forward`` and ``update`` the metric accepts ``saliency`` and ``randomized``, both ``(N, H,
    W)``, floating, at least 0. ``compute`` returns a float32 scalar in [-1, 1], NaN if every sample was left
    out.

    Args:
        kwargs: Passed on to :class:`torchmetrics.Metric`.

    Raises:
        TypeError: In ``update``, if ``saliency`` is not floating.
        ValueError: In ``update``, if the shapes are not both ``(N, H, W)``, or a map has negative values.

    Example:
        >>> import torch
        >>> from lightning_gcam.metrics import RandomModelSimilarity
        >>> RandomModelSimilarity()(torch.tensor([[[1.0, 2.0, 3.0]]]), torch.tensor([[[9.0, 5.0, 1.0]]]))
        tensor(-1.)

    Source:
        Adebayo et al., "Sanity Checks for Saliency Maps", 2018, arXiv 1810.03292.
    """

    higher_is_better: bool | None = False
    plot_lower_bound: float | None = -1.0
    requires: frozenset[str] = frozenset({"random"})
    cost: int = 1

    def _score(self, saliency: Tensor, randomized: Tensor) -> PerSample:
        return _rank_correlation_update(saliency, randomized, "randomized")

    def update(self, saliency: Tensor, randomized: Tensor) -> None:
        """Add a batch of maps, and the same samples' maps by the random model, both ``(N, H, W)``."""
        self._add(self._score(saliency, randomized))


class RandomModelSSIM(RandomModelSimilarity):
    """Mean structural similarity of each sample's map with that of the same model with random weights.

    torchmetrics' SSIM, a window of 11 pixels, of maps scaled by their peaks. Read it as
    :class:`RandomModelSimilarity`; two maps that are empty in the same places are similar by that alone. A
    sample of which one map is blank (all zero, or not finite) is left out, and counted in ``left_out``.

    As input to ``forward`` and ``update`` the metric accepts ``saliency`` and ``randomized``, both ``(N, H,
    W)``, floating, at least 0, at least 11 x 11. ``compute`` returns a float32 scalar in [-1, 1], NaN if every
    sample was left out.

    Args:
        kwargs: Passed on to :class:`torchmetrics.Metric`.

    Raises:
        TypeError: In ``update``, if ``saliency`` is not floating.
        ValueError: In ``update``, if the shapes are not both ``(N, H, W)``, smaller than 11 x 11, or a map has
            negative values.

    Example:
        >>> import torch
        >>> from lightning_gcam.metrics import RandomModelSSIM
        >>> maps = torch.arange(256.0).reshape(1, 16, 16)
        >>> RandomModelSSIM()(maps, maps * 3)
        tensor(1.)

    Source:
        Adebayo et al., "Sanity Checks for Saliency Maps", 2018, arXiv 1810.03292; Wang et al., 2004 (SSIM).
    """

    def _score(self, saliency: Tensor, randomized: Tensor) -> PerSample:
        return _random_model_ssim_update(saliency, randomized)
