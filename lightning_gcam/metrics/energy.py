"""How much of the saliency lies on the object, and how much would by chance."""

from typing import Any

from torch import Tensor

from lightning_gcam.metrics.base import SampleMean
from lightning_gcam.metrics.functional.energy import (
    _energy_chance_update,
    _energy_pointing_game_update,
    _region_lift_compute,
    _region_lift_update,
)
from lightning_gcam.metrics.functional.mean import PerSample


class EnergyPointingGame(SampleMean):
    """Mean, over the samples, of the share of the saliency that lies in the object: sum(S in M) / sum(S).

    Also known as relevance mass accuracy. Read it beside :class:`EnergyChance`: a uniform map scores the
    mask's share of the area. A sample whose map is blank (all zero, or not finite) or whose mask is empty is
    left out, and counted in ``left_out``.

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

    Taken over the samples that :class:`EnergyPointingGame` scores, so that the two numbers can be compared:
    one with a blank map (all zero, or not finite) or an empty mask is left out, and counted in ``left_out``.

    As input to ``forward`` and ``update`` the metric accepts ``saliency`` ``(N, H, W)``, floating, at least
    0, and ``mask`` ``(N, H, W)`` bool. ``compute`` returns a float32 scalar in (0, 1], NaN if every sample
    was left out.

    Args:
        kwargs: Passed on to :class:`torchmetrics.Metric`.

    Raises:
        TypeError: In ``update``, if ``saliency`` is not floating or ``mask`` is not bool.
        ValueError: In ``update``, if the shapes are not both ``(N, H, W)``, or ``saliency`` has negative
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

    This is a **ratio of means**, not a mean of ratios: it equals :class:`EnergyPointingGame` divided by
    :class:`EnergyChance`, and one tiny object cannot carry the whole number. A sample whose map is blank (all
    zero, or not finite) or whose mask is empty is left out, and counted in ``left_out``.

    As input to ``forward`` and ``update`` the metric accepts ``saliency`` ``(N, H, W)``, floating, at least
    0, and ``mask`` ``(N, H, W)`` bool: the object, or a region that should not matter. ``compute`` returns a
    float32 scalar of at least 0, NaN if every sample was left out.

    Args:
        kwargs: Passed on to :class:`torchmetrics.Metric`.

    Raises:
        TypeError: In ``update``, if ``saliency`` is not floating or ``mask`` is not bool.
        ValueError: In ``update``, if the shapes are not both ``(N, H, W)``, or ``saliency`` has negative
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

    :class:`RegionLift` of a region that should not matter: a corner, a frame, where a mark is printed. Far
    above 1, the maps lie on it far more than a uniform map would. Near 1 or below, nothing follows: a model
    can use a region without the saliency saying so.

    As input to ``forward`` and ``update`` the metric accepts ``saliency`` ``(N, H, W)``, floating, at least
    0, and, in the place of the mask, the suspect region ``(N, H, W)`` bool. ``compute`` returns a float32
    scalar of at least 0, NaN if every sample was left out.

    Args:
        kwargs: Passed on to :class:`torchmetrics.Metric`.

    Raises:
        TypeError: In ``update``, if ``saliency`` is not floating or ``mask`` is not bool.
        ValueError: In ``update``, if the shapes are not both ``(N, H, W)``, or ``saliency`` has negative
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
