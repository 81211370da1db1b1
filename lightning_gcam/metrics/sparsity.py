"""How concentrated the saliency is, over the pixels and over the image's positions, and how often it is blank."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from lightning_gcam.metrics.base import SampleMean, SampleScore
from lightning_gcam.metrics.samples import (
    PerSample,
    check_maps,
    mean_counted,
    prepare,
    score_counted,
)
from lightning_gcam.utils.dimensions import pixels_of, pool_of


def _saliency_gini_update(saliency: Tensor) -> PerSample:
    """Gini index of each map's pixels."""
    maps = check_maps(saliency)
    pixels = maps.ordered / maps.peak[:, None]
    count = pixels.shape[1]
    weights = (2 * torch.arange(1, count + 1, device=pixels.device) - count - 1).float() / count
    return PerSample((weights * pixels).sum(dim=1) / pixels.sum(dim=1), ~maps.blank, maps.blank)


def saliency_gini(saliency: Tensor) -> Tensor:
    """Average the Gini index of the maps' pixels: 0 for a uniform map, 1 - 1/n for a single one of n.

    With the n pixels in ascending order, sum_i (2 i - n - 1) S_i / (n sum_i S_i). Neither end is better: it
    measures how concentrated a map is, not where. A sample whose map is blank (all zero, or not finite) is left
    out.

    Args:
        saliency: ``(N, *spatial)``, floating, at least 0, of any scale.

    Returns:
        A float32 scalar in [0, 1), on the saliency's device; NaN if every sample was left out.

    Raises:
        TypeError: If ``saliency`` is not floating.
        ValueError: If its shape is not ``(N, *spatial)``, or it has negative values.

    Example:
        >>> import torch
        >>> from lightning_gcam.metrics.functional import saliency_gini
        >>> saliency_gini(torch.tensor([[[1.0, 0.0], [0.0, 0.0]], [[1.0, 1.0], [1.0, 1.0]]]))
        tensor(0.3750)

    Source:
        Chalasani et al., 2020, arXiv 1810.06583 (sparseness).
    """
    return mean_counted(_saliency_gini_update(saliency))


def _saliency_entropy_update(saliency: Tensor) -> PerSample:
    """Entropy of each map as a distribution over its pixels, as a share of the highest possible."""
    maps = check_maps(saliency)
    shares = maps.unit.flatten(1) / maps.total[:, None]
    # A map of one pixel has one way to be: no entropy, and none possible.
    highest = math.log(shares.shape[1]) or 1.0
    return PerSample(entropy(shares) / highest, ~maps.blank, maps.blank)


def saliency_entropy(saliency: Tensor) -> Tensor:
    """Average the entropy of the maps, as a share of a uniform map's: 0 for a single pixel, 1 for a uniform map.

    With p = S / sum(S) over n pixels, -sum p log p / log(n). Neither end is better: it measures how spread out a
    map is, not where. A sample whose map is blank (all zero, or not finite) is left out.

    Args:
        saliency: ``(N, *spatial)``, floating, at least 0, of any scale.

    Returns:
        A float32 scalar in [0, 1], on the saliency's device; NaN if every sample was left out.

    Raises:
        TypeError: If ``saliency`` is not floating.
        ValueError: If its shape is not ``(N, *spatial)``, or it has negative values.

    Example:
        >>> import torch
        >>> from lightning_gcam.metrics.functional import saliency_entropy
        >>> saliency_entropy(torch.tensor([[[1.0, 1.0], [0.0, 0.0]], [[1.0, 1.0], [1.0, 1.0]]]))
        tensor(0.7500)

    Source:
        Bhatt et al., 2020, arXiv 2005.00631 (complexity, there not divided by its highest value).
    """
    return mean_counted(_saliency_entropy_update(saliency))


def entropy(shares: Tensor) -> Tensor:
    """Entropy in nats over the last axis of shares that sum to 1; 0 log 0 is 0."""
    parts: Tensor = torch.special.xlogy(shares, shares)
    return 0 - parts.sum(dim=-1)  # and not -0 where all is in one place


CELLS = 64
"""The grid's cells: 64, 8 x 8 or 4 x 4 x 4, coarse, so that a map's sharpness inside a cell makes no difference."""


def _positional_concentration_update(saliency: Tensor, mask: Tensor) -> PerSample:
    """Each map's and each mask's shares in the cells of a coarse grid: rows ``(N, 2, CELLS)``."""
    batch = prepare(saliency, mask)
    # An empty mask has no share of its own, and does not count.
    return batch.scored(torch.stack([_shares(batch.maps.unit), _shares(batch.mask.float())], dim=1))


def _positional_concentration_compute(total: Tensor, n: Tensor) -> Tensor:
    """1 - H(P) / H(Q), of the mean map P and the mean mask Q; NaN where the masks are all in one cell."""
    mean = (total / n[..., None, None]).to(torch.float32)
    places, possible = entropy(mean).unbind(dim=-1)
    return torch.where(possible > 1e-6, 1 - places / possible, torch.nan)


def positional_concentration(saliency: Tensor, mask: Tensor) -> Tensor:
    """Compute how much fewer places the saliency takes, over all samples, than the objects do.

    On a grid of 64 cells (8 x 8 in images, 4 x 4 x 4 in volumes), let P be the mean over the samples of S /
    sum(S), and Q the mean of M / |M|, both distributions over the cells, with the entropies H(P) and H(Q);
    the result is 1 - H(P) / H(Q). 0: the saliency spreads over as many places as the objects; below 0: over
    more; 1: all of it lies in one cell in every sample. A model that always looks at the same place is
    suspicious where the objects are not always there. Few samples with sharp maps cannot fill many cells, and
    score somewhat above 0 by that alone; the interval shows by how much. A sample whose map is blank (all
    zero, or not finite) or whose mask is empty is left out.

    Args:
        saliency: ``(N, *spatial)``, floating, at least 0, of any scale.
        mask: ``(N, *spatial)`` bool, True on the object.

    Returns:
        A float32 scalar of at most 1, on the saliency's device; NaN if every sample was left out, or all
        objects lie in one and the same cell.

    Raises:
        TypeError: If ``saliency`` is not floating or ``mask`` is not bool.
        ValueError: If the shapes are not both ``(N, *spatial)``, or ``saliency`` has negative values.

    Example:
        >>> import torch
        >>> from lightning_gcam.metrics.functional import positional_concentration
        >>> left, right = torch.eye(2)[:, None, :]
        >>> mask = torch.stack([left, right]).bool()
        >>> positional_concentration(torch.stack([left, right]), mask)
        tensor(0.)
        >>> positional_concentration(torch.stack([left, left]), mask)
        tensor(1.)
    """
    update = _positional_concentration_update(saliency, mask)
    return score_counted(update, _positional_concentration_compute)


def _shares(grids: Tensor) -> Tensor:
    """The share of each grid's sum that lies in each cell, ``(N, CELLS)``; no number may be above 1."""
    dimensions = grids.ndim - 1
    # A side of fewer pixels than cells has a cell a pixel, and the rest stay empty.
    full = round(CELLS ** (1 / dimensions))
    sides = [min(side, full) for side in grids.shape[1:]]
    cells = pool_of("adaptive_avg", dimensions)(grids[:, None], sides)[:, 0]
    cells = pad(cells, [edge for side in reversed(sides) for edge in (0, full - side)]).flatten(1)
    return cells / cells.sum(dim=1, keepdim=True)


def _blank_rate_update(saliency: Tensor) -> PerSample:
    """1 for each blank map, 0 for each other; every sample counts."""
    blank = check_maps(saliency).blank
    return PerSample(blank.float(), torch.ones_like(blank))


def blank_rate(saliency: Tensor) -> Tensor:
    """Return the share of samples whose map is blank: all zero, or not finite.

    Every sample counts. Such maps happen (a zero-initialised head before the first step, a class with no
    evidence), and every other score leaves them out, so this one is the share of the batch that they do not cover.

    Args:
        saliency: ``(N, *spatial)``, floating, at least 0, of any scale.

    Returns:
        A float32 scalar in [0, 1], on the saliency's device; NaN if there is no sample.

    Raises:
        TypeError: If ``saliency`` is not floating.
        ValueError: If its shape is not ``(N, *spatial)``, or it has negative values.

    Example:
        >>> import torch
        >>> from lightning_gcam.metrics.functional import blank_rate
        >>> blank_rate(torch.tensor([[[0.0, 0.0]], [[0.0, 1.0]]]))
        tensor(0.5000)
    """
    return mean_counted(_blank_rate_update(saliency))


class SaliencyGini(SampleScore):
    """Mean Gini index of the maps' pixels: 0 for a uniform map, 1 - 1/n for a single one of n.

    Neither end is better: it measures how concentrated a map is, not where. A sample whose map is blank (all zero,
    or not finite) is left out, and counted in ``left_out``.

    As input to ``forward`` and ``update`` the metric accepts ``saliency`` ``(N, *spatial)``, floating, at least
    0, and a ``mask`` that it does not use. ``compute`` returns a float32 scalar in [0, 1), NaN if every
    sample was left out.

    Args:
        kwargs: Passed on to `torchmetrics.Metric`.

    Raises:
        TypeError: In ``update``, if ``saliency`` is not floating.
        ValueError: In ``update``, if its shape is not ``(N, *spatial)``, or it has negative values.

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
        """Add a batch of maps ``(N, *spatial)``; the mask is taken so that all scores can be called alike."""
        self._add(self._score(saliency))


class SaliencyEntropy(SampleScore):
    """Mean entropy of the maps, as a share of a uniform map's: 0 for a single pixel, 1 for a uniform map.

    Neither end is better: it measures how spread out a map is, not where. A sample whose map is blank (all zero,
    or not finite) is left out, and counted in ``left_out``.

    As input to ``forward`` and ``update`` the metric accepts ``saliency`` ``(N, *spatial)``, floating, at least
    0, and a ``mask`` that it does not use. ``compute`` returns a float32 scalar in [0, 1], NaN if every
    sample was left out.

    Args:
        kwargs: Passed on to `torchmetrics.Metric`.

    Raises:
        TypeError: In ``update``, if ``saliency`` is not floating.
        ValueError: In ``update``, if its shape is not ``(N, *spatial)``, or it has negative values.

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
        """Add a batch of maps ``(N, *spatial)``; the mask is taken so that all scores can be called alike."""
        self._add(self._score(saliency))


class PositionalConcentration(SampleMean):
    """How much fewer places the saliency takes, over all samples, than the objects do: 1 - H(P) / H(Q).

    P is the mean over the samples of S / sum(S), and Q of M / |M|, on a grid of 64 cells (8 x 8 in images, 4
    x 4 x 4 in volumes); H is the entropy. 0: the saliency spreads over as many places as the objects; below
    0: over more; 1: all of it lies in one cell in every sample. A model that always looks at the same place
    is suspicious where the objects are not always there. Few samples with sharp maps cannot fill many cells,
    and score somewhat above 0 by that alone. A sample whose map is blank (all zero, or not finite) or whose
    mask is empty is left out, and counted in ``left_out``.

    As input to ``forward`` and ``update`` the metric accepts ``saliency`` ``(N, *spatial)``, floating, at least
    0, and ``mask`` ``(N, *spatial)`` bool. ``compute`` returns a float32 scalar of at most 1, NaN if every sample
    was left out, or all objects lie in one and the same cell.

    Args:
        kwargs: Passed on to `torchmetrics.Metric`.

    Raises:
        TypeError: In ``update``, if ``saliency`` is not floating or ``mask`` is not bool.
        ValueError: In ``update``, if the shapes are not both ``(N, *spatial)``, or ``saliency`` has negative
            values.

    Example:
        >>> import torch
        >>> from lightning_gcam.metrics import PositionalConcentration
        >>> left, right = torch.eye(2)[:, None, :]
        >>> PositionalConcentration()(torch.stack([left, left]), torch.stack([left, right]).bool())
        tensor(1.)
    """

    higher_is_better: bool | None = False
    plot_lower_bound: float | None = None

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(shape=(2, CELLS), **kwargs)

    def _score(self, saliency: Tensor, mask: Tensor) -> PerSample:
        return _positional_concentration_update(saliency, mask)

    def _value(self, total: Tensor, n: Tensor) -> Tensor:
        return _positional_concentration_compute(total, n)


class BlankRate(SampleMean):
    """Share of the samples whose map is blank: all zero, or not finite.

    Every sample counts, with or without a mask; ``left_out`` is always 0. Such maps happen (a
    zero-initialised head before the first step, a class with no evidence), and every other score leaves them
    out, so this one is the share of the batch that they do not cover.

    As input to ``forward`` and ``update`` the metric accepts ``saliency`` ``(N, *spatial)``, floating, at least
    0, and a ``mask`` that it does not use. ``compute`` returns a float32 scalar in [0, 1], NaN if there
    was no sample.

    Args:
        kwargs: Passed on to `torchmetrics.Metric`.

    Raises:
        TypeError: In ``update``, if ``saliency`` is not floating.
        ValueError: In ``update``, if its shape is not ``(N, *spatial)``, or it has negative values.

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
        """Add a batch of maps ``(N, *spatial)``; the mask is taken so that all scores can be called alike."""
        self._add(self._score(saliency))


def _complexity_update(saliency: Tensor) -> PerSample:
    """Mean of each map, scaled by its peak."""
    maps = check_maps(saliency)
    return PerSample(maps.unit.mean(dim=pixels_of(saliency)), ~maps.blank, maps.blank)


def complexity(saliency: Tensor) -> Tensor:
    """Average the mean of the maps' pixels, each map scaled by its peak: 1 for a uniform map, 1/n for one of n.

    A sample whose map is blank (all zero, or not finite) is left out.

    Args:
        saliency: ``(N, *spatial)``, floating, at least 0, of any scale.

    Returns:
        A float32 scalar in (0, 1], lower is better, on the saliency's device; NaN if every sample was left out.

    Raises:
        TypeError: If ``saliency`` is not floating.
        ValueError: If its shape is not ``(N, *spatial)``, or it has negative values.

    Example:
        >>> import torch
        >>> from lightning_gcam.metrics.functional import complexity
        >>> complexity(torch.tensor([[[4.0, 2.0], [0.0, 0.0]]]))
        tensor(0.3750)

    Source:
        Poppi et al., 2021, arXiv 2104.10252 (the L1 norm, as a share of the number of pixels).
    """
    return mean_counted(_complexity_update(saliency))


class Complexity(SampleScore):
    """Mean of the maps' pixels, each map scaled by its peak: 1 for a uniform map, 1/n for a single one of n.

    A sample whose map is blank (all zero, or not finite) is left out, and counted in ``left_out``.

    As input to ``forward`` and ``update`` the metric accepts ``saliency`` ``(N, *spatial)``, floating, at least
    0, and a ``mask`` that it does not use. ``compute`` returns a float32 scalar in (0, 1], NaN if every
    sample was left out.

    Args:
        kwargs: Passed on to `torchmetrics.Metric`.

    Raises:
        TypeError: In ``update``, if ``saliency`` is not floating.
        ValueError: In ``update``, if its shape is not ``(N, *spatial)``, or it has negative values.

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
        """Add a batch of maps ``(N, *spatial)``; the mask is taken so that all scores can be called alike."""
        self._add(self._score(saliency))
