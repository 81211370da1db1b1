"""Where the saliency's mass and its peak lie: on the object, or on a suspect region."""

import math
from typing import Any

import torch
from torch import Tensor

from lightning_gcam.metrics.base import SampleMean
from lightning_gcam.metrics.samples import PerSample, mean_counted, prepare, score_counted


def _energy_pointing_game_update(saliency: Tensor, mask: Tensor) -> PerSample:
    """Share of each map's sum that lies in its mask."""
    batch = prepare(saliency, mask)
    return batch.scored(batch.energy)


def energy_pointing_game(saliency: Tensor, mask: Tensor) -> Tensor:
    """Average, over the samples, the share of the saliency that lies in the object: sum(S in M) / sum(S).

    Also known as relevance mass accuracy. Read it beside `energy_chance`: a uniform map scores the
    mask's share of the area. A sample whose map is blank (all zero, or not finite) or whose mask is empty is
    left out.

    Args:
        saliency: ``(N, *spatial)``, floating, at least 0, of any scale.
        mask: ``(N, *spatial)`` bool, True on the object.

    Returns:
        A float32 scalar in [0, 1], on the saliency's device; NaN if every sample was left out.

    Raises:
        TypeError: If ``saliency`` is not floating or ``mask`` is not bool.
        ValueError: If the shapes are not both ``(N, *spatial)``, or ``saliency`` has negative values.

    Example:
        >>> import torch
        >>> from lightning_gcam.metrics.functional import energy_pointing_game
        >>> saliency = torch.tensor([[[3.0, 1.0], [0.0, 0.0]]])
        >>> mask = torch.tensor([[[True, False], [False, False]]])
        >>> energy_pointing_game(saliency, mask)
        tensor(0.7500)

    Source:
        Wang et al., "Score-CAM", 2020, arXiv 1910.01279 (energy-based pointing game, there with a bounding
        box); Arras et al., 2020, arXiv 2003.07258 (relevance mass accuracy).
    """
    return mean_counted(_energy_pointing_game_update(saliency, mask))


def _energy_chance_update(saliency: Tensor, mask: Tensor) -> PerSample:
    """Share of each mask's grid that it covers."""
    batch = prepare(saliency, mask)
    return batch.scored(batch.size.float() / math.prod(batch.mask.shape[1:]))


def energy_chance(saliency: Tensor, mask: Tensor) -> Tensor:
    """Average the share of the area that the object covers: what a uniform map would score as its energy.

    Taken over the samples that `energy_pointing_game` scores, so that the two numbers can be compared:
    one with a blank map (all zero, or not finite) or an empty mask is left out.

    Args:
        saliency: ``(N, *spatial)``, floating, at least 0; it only decides which samples count.
        mask: ``(N, *spatial)`` bool, True on the object.

    Returns:
        A float32 scalar in (0, 1], on the saliency's device; NaN if every sample was left out.

    Raises:
        TypeError: If ``saliency`` is not floating or ``mask`` is not bool.
        ValueError: If the shapes are not both ``(N, *spatial)``, or ``saliency`` has negative values.

    Example:
        >>> import torch
        >>> from lightning_gcam.metrics.functional import energy_chance
        >>> saliency = torch.tensor([[[3.0, 1.0], [0.0, 0.0]]])
        >>> mask = torch.tensor([[[True, False], [False, False]]])
        >>> energy_chance(saliency, mask)
        tensor(0.2500)
    """
    return mean_counted(_energy_chance_update(saliency, mask))


def _region_lift_update(saliency: Tensor, mask: Tensor) -> PerSample:
    """Each sample's energy and its chance level: rows of two."""
    energy, chance = _energy_pointing_game_update(saliency, mask), _energy_chance_update(saliency, mask)
    return energy._replace(values=torch.stack([energy.values, chance.values], dim=1))


def _region_lift_compute(total: Tensor, n: Tensor) -> Tensor:
    """Divide mean energy by mean area share: both are over the same samples, so their number cancels."""
    return (total[..., 0] / total[..., 1]).float()


def region_lift(saliency: Tensor, mask: Tensor) -> Tensor:
    """Divide the mean energy in the region by the region's mean share of the area; 1 is chance.

    This is a **ratio of means**, not a mean of ratios: it equals `energy_pointing_game` divided by
    `energy_chance`, and one tiny object cannot carry the whole number. A sample whose map is blank (all
    zero, or not finite) or whose mask is empty is left out.

    Args:
        saliency: ``(N, *spatial)``, floating, at least 0, of any scale.
        mask: ``(N, *spatial)`` bool, True on the region: the object, or one that should not matter.

    Returns:
        A float32 scalar of at least 0, on the saliency's device; NaN if every sample was left out.

    Raises:
        TypeError: If ``saliency`` is not floating or ``mask`` is not bool.
        ValueError: If the shapes are not both ``(N, *spatial)``, or ``saliency`` has negative values.

    Example:
        >>> import torch
        >>> from lightning_gcam.metrics.functional import region_lift
        >>> saliency = torch.tensor([[[3.0, 1.0], [0.0, 0.0]]])
        >>> mask = torch.tensor([[[True, False], [False, False]]])
        >>> region_lift(saliency, mask)
        tensor(3.)
    """
    return score_counted(_region_lift_update(saliency, mask), _region_lift_compute)


class EnergyPointingGame(SampleMean):
    """Mean, over the samples, of the share of the saliency that lies in the object: sum(S in M) / sum(S).

    Also known as relevance mass accuracy. Read it beside `EnergyChance`: a uniform map scores the
    mask's share of the area. A sample whose map is blank (all zero, or not finite) or whose mask is empty is
    left out, and counted in ``left_out``.

    As input to ``forward`` and ``update`` the metric accepts ``saliency`` ``(N, *spatial)``, floating, at least
    0, and ``mask`` ``(N, *spatial)`` bool. ``compute`` returns a float32 scalar in [0, 1], NaN if every sample
    was left out.

    Args:
        kwargs: Passed on to `torchmetrics.Metric`.

    Raises:
        TypeError: In ``update``, if ``saliency`` is not floating or ``mask`` is not bool.
        ValueError: In ``update``, if the shapes are not both ``(N, *spatial)``, or ``saliency`` has negative
            values.

    Example:
        >>> import torch
        >>> from lightning_gcam.metrics import EnergyPointingGame
        >>> metric = EnergyPointingGame()
        >>> saliency = torch.tensor([[[3.0, 1.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]])
        >>> mask = torch.tensor([[[True, False], [False, False]], [[True, True], [False, False]]])
        >>> metric.update(saliency, mask)
        >>> metric.compute(), metric.n, metric.left_out
        (tensor(0.7500), 1, 1)

    Source:
        Wang et al., "Score-CAM", 2020, arXiv 1910.01279 (energy-based pointing game, there with a bounding
        box); Arras et al., 2020, arXiv 2003.07258 (relevance mass accuracy).
    """

    def _score(self, saliency: Tensor, mask: Tensor) -> PerSample:
        return _energy_pointing_game_update(saliency, mask)


class EnergyChance(SampleMean):
    """Mean share of the area that the object covers: what a uniform map would score as its energy.

    Taken over the samples that `EnergyPointingGame` scores, so that the two numbers can be compared:
    one with a blank map (all zero, or not finite) or an empty mask is left out, and counted in ``left_out``.

    As input to ``forward`` and ``update`` the metric accepts ``saliency`` ``(N, *spatial)``, floating, at least
    0, and ``mask`` ``(N, *spatial)`` bool. ``compute`` returns a float32 scalar in (0, 1], NaN if every sample
    was left out.

    Args:
        kwargs: Passed on to `torchmetrics.Metric`.

    Raises:
        TypeError: In ``update``, if ``saliency`` is not floating or ``mask`` is not bool.
        ValueError: In ``update``, if the shapes are not both ``(N, *spatial)``, or ``saliency`` has negative
            values.

    Example:
        >>> import torch
        >>> from lightning_gcam.metrics import EnergyChance
        >>> metric = EnergyChance()
        >>> saliency = torch.tensor([[[3.0, 1.0], [0.0, 0.0]]])
        >>> mask = torch.tensor([[[True, False], [False, False]]])
        >>> metric.update(saliency, mask)
        >>> metric.compute()
        tensor(0.2500)
    """

    # A property of the samples: neither end is better.
    higher_is_better: bool | None = None

    def _score(self, saliency: Tensor, mask: Tensor) -> PerSample:
        return _energy_chance_update(saliency, mask)


class RegionLift(SampleMean):
    """Mean energy in the region divided by the region's mean share of the area; 1 is chance.

    This is a **ratio of means**, not a mean of ratios: it equals `EnergyPointingGame` divided by
    `EnergyChance`, and one tiny object cannot carry the whole number. A sample whose map is blank (all
    zero, or not finite) or whose mask is empty is left out, and counted in ``left_out``.

    As input to ``forward`` and ``update`` the metric accepts ``saliency`` ``(N, *spatial)``, floating, at least
    0, and ``mask`` ``(N, *spatial)`` bool: the object, or a region that should not matter. ``compute`` returns a
    float32 scalar of at least 0, NaN if every sample was left out.

    Args:
        kwargs: Passed on to `torchmetrics.Metric`.

    Raises:
        TypeError: In ``update``, if ``saliency`` is not floating or ``mask`` is not bool.
        ValueError: In ``update``, if the shapes are not both ``(N, *spatial)``, or ``saliency`` has negative
            values.

    Example:
        >>> import torch
        >>> from lightning_gcam.metrics import RegionLift
        >>> metric = RegionLift()
        >>> saliency = torch.tensor([[[3.0, 1.0], [0.0, 0.0]]])
        >>> mask = torch.tensor([[[True, False], [False, False]]])
        >>> metric.update(saliency, mask)
        >>> metric.compute()
        tensor(3.)
    """

    plot_upper_bound: float | None = None

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(shape=(2,), **kwargs)

    def _score(self, saliency: Tensor, mask: Tensor) -> PerSample:
        return _region_lift_update(saliency, mask)

    def _value(self, total: Tensor, n: Tensor) -> Tensor:
        return _region_lift_compute(total, n)


class SuspectLift(RegionLift):
    """Mean energy in a suspect region divided by the region's mean share of the area; 1 is chance.

    `RegionLift` of a region that should not matter: a corner, a frame, where a mark is printed. Far
    above 1, the maps lie on it far more than a uniform map would. Near 1 or below, nothing follows: a model
    can use a region without the saliency saying so.

    As input to ``forward`` and ``update`` the metric accepts ``saliency`` ``(N, *spatial)``, floating, at least
    0, and, in the place of the mask, the suspect region ``(N, *spatial)`` bool. ``compute`` returns a float32
    scalar of at least 0, NaN if every sample was left out.

    Args:
        kwargs: Passed on to `torchmetrics.Metric`.

    Raises:
        TypeError: In ``update``, if ``saliency`` is not floating or ``mask`` is not bool.
        ValueError: In ``update``, if the shapes are not both ``(N, *spatial)``, or ``saliency`` has negative
            values.

    Example:
        >>> import torch
        >>> from lightning_gcam.metrics import SuspectLift
        >>> saliency = torch.tensor([[[3.0, 1.0], [0.0, 0.0]]])
        >>> suspect = torch.tensor([[[True, False], [False, False]]])
        >>> metric = SuspectLift()
        >>> metric(saliency, suspect), sorted(metric.requires)
        (tensor(3.), ['suspect'])
    """

    higher_is_better: bool | None = False
    requires: frozenset[str] = frozenset({"suspect"})


def dilate(mask: Tensor, tolerance: float) -> Tensor:
    """Grow a mask by a Euclidean ball: True where a True pixel is at most ``tolerance`` pixels away.

    Args:
        mask: ``(N, *spatial)`` bool.
        tolerance: The ball's radius in pixels, between the centres of two pixels; at least 0.

    Returns:
        ``(N, *spatial)`` bool.
    """
    if tolerance < 1:
        return mask
    squared = torch.where(mask, 0.0, torch.inf)
    # The squared distance to the nearest True pixel, one dimension after the other: whole numbers, so exact.
    for axis in range(1, mask.ndim):
        side, before = mask.shape[axis], squared.clone()
        for step in range(1, min(math.floor(tolerance), side - 1) + 1):
            for to, source in ((0, step), (step, 0)):
                reached = squared.narrow(axis, to, side - step)
                torch.minimum(reached, before.narrow(axis, source, side - step) + step**2, out=reached)
    return squared <= tolerance**2


def check_tolerance(tolerance: float) -> None:
    """Refuse a tolerance that is negative or not finite.

    Raises:
        ValueError: If it is not a finite number of at least 0.
    """
    if not isinstance(tolerance, (int, float)) or not math.isfinite(tolerance) or tolerance < 0:
        raise ValueError(
            f"`tolerance` must be a finite number of pixels, at least 0, got {tolerance!r}. "
            "0 asks for the peak inside the mask itself."
        )


def _pointing_game_update(saliency: Tensor, mask: Tensor, tolerance: float) -> PerSample:
    """Share of each map's peak pixels that lie in its grown mask: 0 or 1, unless several share the peak."""
    batch = prepare(saliency, mask)
    peak = batch.maps.pixels == batch.maps.peak[:, None]
    hit = (peak & dilate(batch.mask, tolerance).flatten(1)).sum(dim=1)
    return batch.scored(hit.float() / peak.sum(dim=1).float())


def pointing_game(saliency: Tensor, mask: Tensor, tolerance: float = 0) -> Tensor:
    """Average, over the samples, whether the peak of the saliency lies in the object.

    Where several pixels share the peak, the share of them that lies in the object counts, so the result does
    not depend on which one ``argmax`` would name. The mean is over samples, where the paper averages over
    classes. A sample whose map is blank (all zero, or not finite) or whose mask is empty is left out.

    Args:
        saliency: ``(N, *spatial)``, floating, at least 0, of any scale.
        mask: ``(N, *spatial)`` bool, True on the object.
        tolerance: How far from the object a peak may lie, in pixels of the mask's grid: a Euclidean ball. The
            default 0 takes the object itself; published tables often take 15.

    Returns:
        A float32 scalar in [0, 1], on the saliency's device; NaN if every sample was left out.

    Raises:
        TypeError: If ``saliency`` is not floating or ``mask`` is not bool.
        ValueError: If the shapes are not both ``(N, *spatial)``, ``saliency`` has negative values, or
            ``tolerance`` is negative or not finite.

    Example:
        >>> import torch
        >>> from lightning_gcam.metrics.functional import pointing_game
        >>> saliency = torch.tensor([[[0.0, 1.0, 4.0]], [[4.0, 1.0, 0.0]]])
        >>> mask = torch.tensor([[[True, True, False]], [[True, True, False]]])
        >>> pointing_game(saliency, mask)
        tensor(0.5000)
        >>> pointing_game(saliency, mask, tolerance=1)
        tensor(1.)

    Source:
        Zhang et al., "Top-down Neural Attention by Excitation Backprop", 2016, arXiv 1608.00507.
    """
    check_tolerance(tolerance)
    return mean_counted(_pointing_game_update(saliency, mask, tolerance))


class PointingGame(SampleMean):
    """Share of the samples whose saliency has its peak in the object.

    Where several pixels share the peak, the share of them that lies in the object counts, so the result does
    not depend on which one ``argmax`` would name. The mean is over samples, where the paper averages over
    classes. A sample whose map is blank (all zero, or not finite) or whose mask is empty is left out, and
    counted in ``left_out``.

    As input to ``forward`` and ``update`` the metric accepts ``saliency`` ``(N, *spatial)``, floating, at least
    0, and ``mask`` ``(N, *spatial)`` bool. ``compute`` returns a float32 scalar in [0, 1], NaN if every sample
    was left out.

    Args:
        tolerance: How far from the object a peak may lie, in pixels of the mask's grid: a Euclidean ball. The
            default 0 takes the object itself; published tables often take 15.
        kwargs: Passed on to `torchmetrics.Metric`.

    Raises:
        TypeError: In ``update``, if ``saliency`` is not floating or ``mask`` is not bool.
        ValueError: If ``tolerance`` is negative or not finite; in ``update``, if the shapes are not both
            ``(N, *spatial)``, or ``saliency`` has negative values.

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
