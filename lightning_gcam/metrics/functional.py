"""The scores as pure functions: tensors of one batch in, one number out; and what they are made from."""

from lightning_gcam.metrics.curves import deletion_auc, insertion_auc
from lightning_gcam.metrics.faithfulness import adcc, average_drop, average_gain, average_increase, win_rate
from lightning_gcam.metrics.localization import (
    energy_chance,
    energy_pointing_game,
    pointing_game,
    region_lift,
)
from lightning_gcam.metrics.overlap import (
    best_saliency_iou,
    pixel_average_precision,
    relevance_rank_accuracy,
    saliency_iou,
)
from lightning_gcam.metrics.perturbation import deletion_steps, insertion_steps, keep_salient
from lightning_gcam.metrics.registry import centre_map, uniform_map
from lightning_gcam.metrics.similarity import coherency, drift, random_model_similarity, random_model_ssim
from lightning_gcam.metrics.sparsity import (
    blank_rate,
    complexity,
    positional_concentration,
    saliency_entropy,
    saliency_gini,
)
from lightning_gcam.metrics.wsol import max_box_accuracy

__all__ = [
    "adcc",
    "average_drop",
    "average_gain",
    "average_increase",
    "best_saliency_iou",
    "blank_rate",
    "centre_map",
    "coherency",
    "complexity",
    "deletion_auc",
    "deletion_steps",
    "drift",
    "energy_chance",
    "energy_pointing_game",
    "insertion_auc",
    "insertion_steps",
    "keep_salient",
    "max_box_accuracy",
    "pixel_average_precision",
    "pointing_game",
    "positional_concentration",
    "random_model_similarity",
    "random_model_ssim",
    "region_lift",
    "relevance_rank_accuracy",
    "saliency_entropy",
    "saliency_gini",
    "saliency_iou",
    "uniform_map",
    "win_rate",
]
