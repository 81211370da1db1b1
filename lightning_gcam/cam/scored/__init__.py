"""Methods that need the model again: functions that are handed a `Scorer` and give maps."""

from lightning_gcam.cam.scored.ablated import ablation_cam
from lightning_gcam.cam.scored.masked import score_cam
from lightning_gcam.cam.scored.without_model import centre, random

__all__ = ["ablation_cam", "centre", "random", "score_cam"]
