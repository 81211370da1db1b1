"""How much two maps of a sample are alike: over the looks, against random weights, of the kept image."""

from typing import Any, Literal

import torch
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from lightning_gcam.metrics.base import SampleScore
from lightning_gcam.metrics.perturbation import Perturbation
from lightning_gcam.metrics.samples import (
    CheckedMaps,
    PerSample,
    check_maps,
    check_saliency,
    mean_counted,
    once,
)
from lightning_gcam.utils.dimensions import for_each
from lightning_gcam.utils.errors import InputError


def _pair(saliency: Tensor, other: Tensor, name: str) -> tuple[CheckedMaps, CheckedMaps, Tensor]:
    """Return both maps on one device, and where one of them is blank, ``(N,)``."""
    check_saliency(saliency)
    if not isinstance(other, Tensor) or not other.is_floating_point() or other.shape != saliency.shape:
        came = f"{other.dtype} {tuple(other.shape)}" if isinstance(other, Tensor) else type(other).__name__
        raise InputError(
            f"`{name}` must be floating maps of the shape of `saliency` {tuple(saliency.shape)}, got {came}. "
            "Both are maps of the same samples, on one grid."
        )
    maps, others = check_maps(saliency), check_maps(other.to(saliency.device))
    return maps, others, maps.blank | others.blank


def _rank_correlation_update(saliency: Tensor, other: Tensor, name: str = "other") -> PerSample:
    """Spearman's correlation of each map with its other one."""
    maps, others, blank = _pair(saliency, other, name)
    values, defined = pearson(once(_ranks, maps), once(_ranks, others))
    return PerSample(values, defined & ~blank, blank)


def drift(saliency: Tensor, earlier: Tensor) -> Tensor:
    """Average the rank correlation (Spearman) of each sample's map with its map at an earlier look.

    1: the order of the pixels is what it was; 0: it has nothing to do with it; -1: it is reversed. Tied pixels
    share their mean rank. A sample of which one map is blank (all zero, or not finite), or the same
    everywhere, is left out.

    Args:
        saliency: ``(N, *spatial)``, floating, at least 0, of any scale.
        earlier: ``(N, *spatial)``, the maps of the same samples at an earlier look.

    Returns:
        A float32 scalar in [-1, 1], on the saliency's device; NaN if every sample was left out.

    Raises:
        TypeError: If ``saliency`` is not floating.
        ValueError: If the shapes are not both ``(N, *spatial)``, or a map has negative values.

    Example:
        >>> import torch
        >>> from lightning_gcam.metrics.functional import drift
        >>> drift(torch.tensor([[[1.0, 2.0, 3.0]]]), torch.tensor([[[1.0, 5.0, 9.0]]]))
        tensor(1.)
    """
    return mean_counted(_rank_correlation_update(saliency, earlier, "earlier"))


def random_model_similarity(saliency: Tensor, randomized: Tensor) -> Tensor:
    """Average the rank correlation of each sample's map with that of the same model with random weights.

    Near 1, the map would be there without any training: it shows the image or the architecture, and not what
    the model has learnt. Near 0 is what a faithful method gives. Tied pixels share their mean rank. A sample
    of which one map is blank (all zero, or not finite), or the same everywhere, is left out.

    Args:
        saliency: ``(N, *spatial)``, floating, at least 0, of any scale.
        randomized: ``(N, *spatial)``, the maps of the same samples by the model with random weights.

    Returns:
        A float32 scalar in [-1, 1], on the saliency's device; NaN if every sample was left out.

    Raises:
        TypeError: If ``saliency`` is not floating.
        ValueError: If the shapes are not both ``(N, *spatial)``, or a map has negative values.

    Example:
        >>> import torch
        >>> from lightning_gcam.metrics.functional import random_model_similarity
        >>> random_model_similarity(torch.tensor([[[1.0, 2.0, 3.0]]]), torch.tensor([[[9.0, 5.0, 1.0]]]))
        tensor(-1.)

    Source:
        Adebayo et al., "Sanity Checks for Saliency Maps", 2018, arXiv 1810.03292.
    """
    return mean_counted(_rank_correlation_update(saliency, randomized, "randomized"))


SSIM_SIDE = 11
"""The side of SSIM's window, in pixels: a map must have at least that in each of its two or three dimensions."""

_PIXELS_AT_ONCE = 2**21
"""How many pixels SSIM is computed of at once: it takes up to a hundred times their memory."""


def _random_model_ssim_update(saliency: Tensor, randomized: Tensor) -> PerSample:
    """Structural similarity of each map with its other one, both scaled by their peaks."""
    maps, others, blank = _pair(saliency, randomized, "randomized")
    if saliency.ndim == 2 or min(saliency.shape[1:]) < SSIM_SIDE:
        raise InputError(
            "`random_model_ssim` takes `saliency` of two or three dimensions of at least "
            f"{SSIM_SIDE} pixels each, got {tuple(saliency.shape)}. Use `random_model_similarity`, the rank "
            "correlation, which takes any."
        )
    if len(saliency) == 0:
        return PerSample(maps.peak, ~blank, blank)
    first, second = (
        torch.where(for_each(blank, saliency), 0.0, each.unit)[:, None] for each in (maps, others)
    )
    at_once = max(_PIXELS_AT_ONCE // saliency[0].numel(), 1)
    values = [
        torch.as_tensor(structural_similarity_index_measure(*pair, data_range=1.0, reduction="none")).reshape(
            -1
        )
        for pair in zip(first.split(at_once), second.split(at_once), strict=True)
    ]
    return PerSample(torch.cat(values), ~blank, blank)


def random_model_ssim(saliency: Tensor, randomized: Tensor) -> Tensor:
    """Average the structural similarity of each sample's map with that of the same model with random weights.

    torchmetrics' SSIM, a window of 11 pixels, of maps scaled by their peaks. Read it as
    `random_model_similarity`; two maps that are empty in the same places are similar by that alone. A
    sample of which one map is blank (all zero, or not finite) is left out.

    Args:
        saliency: ``(N, *spatial)``, floating, at least 0, of any scale; two or three dimensions of at least 11.
        randomized: ``(N, *spatial)``, the maps of the same samples by the model with random weights.

    Returns:
        A float32 scalar in [-1, 1], on the saliency's device; NaN if every sample was left out.

    Raises:
        TypeError: If ``saliency`` is not floating.
        ValueError: If the shapes are not both ``(N, *spatial)`` of two or three dimensions of at least 11, or a
            map has negative values.

    Example:
        >>> import torch
        >>> from lightning_gcam.metrics.functional import random_model_ssim
        >>> maps = torch.rand(2, 16, 16)
        >>> random_model_ssim(maps, maps * 3)
        tensor(1.)

    Source:
        Adebayo et al., "Sanity Checks for Saliency Maps", 2018, arXiv 1810.03292; Wang et al., 2004 (SSIM).
    """
    return mean_counted(_random_model_ssim_update(saliency, randomized))


# Not torchmetrics' `spearman_corrcoef`: it gives 0 for a map that is the same everywhere, which has no order and is
# left out here, and its epsilon makes 0.9999997 of two equal maps of 6 pixels.
def average_ranks(values: Tensor, ordered: Tensor | None = None) -> Tensor:
    """Rank each row, ties by their mean rank, from above 0 to 1: ``(N, K)`` to ``(N, K)`` float32."""
    ordered = values.sort(dim=1).values if ordered is None else ordered
    below = torch.searchsorted(ordered, values, right=False)
    up_to = torch.searchsorted(ordered, values, right=True)
    return (below + up_to + 1).float() / (2 * values.shape[1])


def _ranks(maps: CheckedMaps) -> Tensor:
    """Rank the pixels of each map, ``(N, P)``."""
    return average_ranks(maps.pixels, maps.ordered)


def pearson(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Correlate each row with its other one: ``(N,)``, and where neither is the same everywhere ``(N,)``."""
    # By the values themselves: a mean of equal numbers is rounded, and leaves a little of each.
    varied = [each.amax(dim=1) > each.amin(dim=1) for each in (first, second)]
    first, second = first - first.mean(dim=1, keepdim=True), second - second.mean(dim=1, keepdim=True)
    # To unit length one by one: the product of two squares of small numbers would underflow.
    lengths = [torch.linalg.vector_norm(each, dim=1, keepdim=True) for each in (first, second)]
    product = (first / lengths[0]) * (second / lengths[1])
    return product.sum(dim=1).clamp(-1, 1), varied[0] & varied[1]


class SaliencyDrift(SampleScore):
    """Mean rank correlation (Spearman) of each sample's map with its map at an earlier look.

    1: the order of the pixels is what it was; 0: it has nothing to do with it; -1: it is reversed. A sample of
    which one map is blank (all zero, or not finite), or the same everywhere, is left out, and counted in
    ``left_out``.

    As input to ``forward`` and ``update`` the metric accepts ``saliency`` and ``earlier``, both
    ``(N, *spatial)``, floating, at least 0. ``compute`` returns a float32 scalar in [-1, 1], NaN if every sample
    was left out.

    Args:
        since: Which look is meant, for whoever keeps the maps: the "previous" one, the "first", or the "best" (at
            which the explained classes were the most probable).
        kwargs: Passed on to `torchmetrics.Metric`.

    Raises:
        TypeError: In ``update``, if ``saliency`` is not floating.
        ValueError: If ``since`` is not known; in ``update``, if the shapes are not both ``(N, *spatial)``, or a map
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
        """Add a batch of maps, and the same samples' maps at an earlier look, both ``(N, *spatial)``."""
        self._add(self._score(saliency, earlier))


class RandomModelSimilarity(SampleScore):
    """Mean rank correlation of each sample's map with that of the same model with random weights.

    Near 1, the map would be there without any training: it shows the image or the architecture, and not what
    the model has learnt. Near 0 is what a faithful method gives. A sample of which one map is blank (all zero,
    or not finite), or the same everywhere, is left out, and counted in ``left_out``.

    As input to ``forward`` and ``update`` the metric accepts ``saliency`` and ``randomized``, both
    ``(N, *spatial)``, floating, at least 0. ``compute`` returns a float32 scalar in [-1, 1], NaN if every sample
    was left out.

    Args:
        kwargs: Passed on to `torchmetrics.Metric`.

    Raises:
        TypeError: In ``update``, if ``saliency`` is not floating.
        ValueError: In ``update``, if the shapes are not both ``(N, *spatial)``, or a map has negative values.

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
        """Add a batch of maps, and the same samples' maps by the random model, both ``(N, *spatial)``."""
        self._add(self._score(saliency, randomized))


class RandomModelSSIM(RandomModelSimilarity):
    """Mean structural similarity of each sample's map with that of the same model with random weights.

    torchmetrics' SSIM, a window of 11 pixels, of maps scaled by their peaks. Read it as
    `RandomModelSimilarity`; two maps that are empty in the same places are similar by that alone. A
    sample of which one map is blank (all zero, or not finite) is left out, and counted in ``left_out``.

    As input to ``forward`` and ``update`` the metric accepts ``saliency`` and ``randomized``, both
    ``(N, *spatial)``, floating, at least 0, of two or three dimensions of at least 11. ``compute`` returns a
    float32 scalar in [-1, 1], NaN if every sample was left out.

    Args:
        kwargs: Passed on to `torchmetrics.Metric`.

    Raises:
        TypeError: In ``update``, if ``saliency`` is not floating.
        ValueError: In ``update``, if the shapes are not both ``(N, *spatial)`` of two or three dimensions of at
            least 11, or a map has negative values.

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


def _coherency_update(saliency: Tensor, kept: Tensor) -> PerSample:
    """(1 + Pearson's correlation) / 2 of each map and that of the kept image; 0 where the latter is blank."""
    maps, again, _ = _pair(saliency, kept, "kept")
    values, defined = pearson(maps.unit.flatten(1), again.unit.flatten(1))
    values = torch.where(again.blank, 0.0, (1 + values) / 2)
    return PerSample(values, ~maps.blank & (defined | again.blank), maps.blank)


def coherency(saliency: Tensor, kept: Tensor) -> Tensor:
    """Average how much each map is like the map of the image of which only the salient pixels are left.

    (1 + r) / 2, with Pearson's correlation r over the pixels of the two maps: a map that holds all that the
    model looks at is found again. 0.5 is no correlation. Where the second map is blank, nothing was found
    again, and the sample scores 0, as in the authors' code. A sample whose own map is blank (all zero, or not
    finite), or one of whose maps is the same everywhere, is left out.

    Args:
        saliency: ``(N, *spatial)``, floating, at least 0, the maps of the images.
        kept: ``(N, *spatial)``, the maps of ``keep_salient(images, saliency)``, of the same classes.

    Returns:
        A float32 scalar in [0, 1], higher is better, on the saliency's device; NaN if every sample was left out.

    Raises:
        TypeError: If ``saliency`` is not floating.
        ValueError: If the shapes are not both ``(N, *spatial)``, or a map has negative values.

    Example:
        >>> import torch
        >>> from lightning_gcam.metrics.functional import coherency
        >>> coherency(torch.tensor([[[1.0, 2.0, 3.0]]]), torch.tensor([[[2.0, 4.0, 6.0]]]))
        tensor(1.)

    Source:
        Poppi et al., "Revisiting The Evaluation of Class Activation Mapping for Explainability", 2021, arXiv
        2104.10252.
    """
    return mean_counted(_coherency_update(saliency, kept))


class Coherency(SampleScore):
    """How much each map is like the map of the image of which only the salient pixels are left: mean (1 + r) / 2.

    r is Pearson's correlation over the pixels of the two maps; 0.5 is no correlation. Where the second map is
    blank, the sample scores 0. A sample whose own map is blank (all zero, or not finite), or one of whose maps
    is the same everywhere, is left out, and counted in ``left_out``.

    As input to ``forward`` and ``update`` the metric accepts ``saliency`` and ``kept``, both ``(N, *spatial)``,
    floating, at least 0: the maps of the images, and those of
    `keep_salient(images, saliency)`. ``compute``
    returns a float32 scalar in [0, 1], NaN if every sample was left out.

    Args:
        kwargs: Passed on to `torchmetrics.Metric`.

    Raises:
        TypeError: In ``update``, if ``saliency`` is not floating.
        ValueError: In ``update``, if the shapes are not both ``(N, *spatial)``, or a map has negative values.

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
    perturbation: Perturbation | None = Perturbation("keep", "zero")

    def _score(self, saliency: Tensor, kept: Tensor) -> PerSample:
        return _coherency_update(saliency, kept)

    def update(self, saliency: Tensor, kept: Tensor) -> None:
        """Add a batch of maps, and of the maps of the kept images, both ``(N, *spatial)``."""
        self._add(self._score(saliency, kept))
