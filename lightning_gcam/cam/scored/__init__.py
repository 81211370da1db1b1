"""Methods that need the model again: functions that are handed a `Scorer` and give maps."""

from lightning_gcam.cam.scored.ablated import ablation_cam
from lightning_gcam.cam.scored.full_gradient import full_grad, smooth_full_grad
from lightning_gcam.cam.scored.images import guided_grad_cam, integrated_gradients, occlusion
from lightning_gcam.cam.scored.masked import is_cam, score_cam, ss_cam
from lightning_gcam.cam.scored.noisy import smooth_grad_cam_plus_plus
from lightning_gcam.cam.scored.scales import cameras
from lightning_gcam.cam.scored.without_model import centre, random

__all__ = [
    "ablation_cam",
    "cameras",
    "centre",
    "full_grad",
    "guided_grad_cam",
    "integrated_gradients",
    "is_cam",
    "occlusion",
    "random",
    "score_cam",
    "smooth_full_grad",
    "smooth_grad_cam_plus_plus",
    "ss_cam",
]
