"""How well the saliency lies on the object, and how well it explains the model: a torchmetrics class for each score.

``(N, *spatial)`` stands for one to three spatial dimensions: ``(N, L)`` of signals, ``(N, H, W)`` of images,
``(N, D, H, W)`` of volumes, ``(N, T, H, W)`` of videos. A pixel is then a sample of a signal, or a voxel.
"""

from lightning_gcam.metrics.base import SampleMean, SampleScore, needs, needs_mask
from lightning_gcam.metrics.curves import DeletionAUC, InsertionAUC
from lightning_gcam.metrics.faithfulness import ADCC, AverageDrop, AverageGain, AverageIncrease, WinRate
from lightning_gcam.metrics.localization import (
    EnergyChance,
    EnergyPointingGame,
    PointingGame,
    RegionLift,
    SuspectLift,
)
from lightning_gcam.metrics.measurement import (
    GroupedMeasurement,
    Measured,
    Measurement,
    measure,
    measure_groups,
    measure_samples,
)
from lightning_gcam.metrics.overlap import (
    BestSaliencyIoU,
    PixelAveragePrecision,
    RelevanceRankAccuracy,
    SaliencyIoU,
)
from lightning_gcam.metrics.perturbation import Perturbation
from lightning_gcam.metrics.registry import (
    available_scores,
    baseline_scores,
    default_scores,
    resolve_scores,
)
from lightning_gcam.metrics.similarity import Coherency, RandomModelSimilarity, RandomModelSSIM, SaliencyDrift
from lightning_gcam.metrics.sparsity import (
    BlankRate,
    Complexity,
    PositionalConcentration,
    SaliencyEntropy,
    SaliencyGini,
)
from lightning_gcam.metrics.wsol import MaxBoxAccuracy

__all__ = [
    "ADCC",
    "AverageDrop",
    "AverageGain",
    "AverageIncrease",
    "BestSaliencyIoU",
    "BlankRate",
    "Coherency",
    "Complexity",
    "DeletionAUC",
    "EnergyChance",
    "EnergyPointingGame",
    "GroupedMeasurement",
    "InsertionAUC",
    "MaxBoxAccuracy",
    "Measured",
    "Measurement",
    "Perturbation",
    "PixelAveragePrecision",
    "PointingGame",
    "PositionalConcentration",
    "RandomModelSSIM",
    "RandomModelSimilarity",
    "RegionLift",
    "RelevanceRankAccuracy",
    "SaliencyDrift",
    "SaliencyEntropy",
    "SaliencyGini",
    "SaliencyIoU",
    "SampleMean",
    "SampleScore",
    "SuspectLift",
    "WinRate",
    "available_scores",
    "baseline_scores",
    "default_scores",
    "measure",
    "measure_groups",
    "measure_samples",
    "needs",
    "needs_mask",
    "resolve_scores",
]
