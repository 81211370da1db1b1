"""The scores as pure functions: one batch of saliency maps and masks in, one number out."""

from lightning_gcam.metrics.functional.blank import blank_rate
from lightning_gcam.metrics.functional.energy import energy_chance, energy_pointing_game, region_lift
from lightning_gcam.metrics.functional.overlap import saliency_iou
from lightning_gcam.metrics.functional.pointing import pointing_game
from lightning_gcam.metrics.functional.rank import relevance_rank_accuracy

__all__ = [
    "blank_rate",
    "energy_chance",
    "energy_pointing_game",
    "pointing_game",
    "region_lift",
    "relevance_rank_accuracy",
    "saliency_iou",
]
