"""How well the saliency sits on the object: one torchmetrics class a score."""

from lightning_gcam.metrics.base import SampleMean
from lightning_gcam.metrics.blank import BlankRate
from lightning_gcam.metrics.energy import EnergyChance, EnergyPointingGame, RegionLift
from lightning_gcam.metrics.overlap import SaliencyIoU
from lightning_gcam.metrics.pointing import PointingGame
from lightning_gcam.metrics.rank import RelevanceRankAccuracy
from lightning_gcam.metrics.scores import available_scores, needs_mask, resolve_scores

__all__ = [
    "BlankRate",
    "EnergyChance",
    "EnergyPointingGame",
    "PointingGame",
    "RegionLift",
    "RelevanceRankAccuracy",
    "SaliencyIoU",
    "SampleMean",
    "available_scores",
    "needs_mask",
    "resolve_scores",
]
