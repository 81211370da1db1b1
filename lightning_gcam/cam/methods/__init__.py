"""All CAM methods; each is registered under its name when this package is imported."""

# The order of registration is the order of every table.
# isort: off
from lightning_gcam.cam.methods.gradient import (
    eigen_cam,
    eigen_grad_cam,
    element_wise_grad_cam,
    grad_cam,
    grad_cam_plus_plus,
    guidance_cam,
    hires_cam,
    hires_cam_squared,
    layer_cam,
    layer_cam_squared,
    xgrad_cam,
)
from lightning_gcam.cam.methods.perturbation import ablation_cam, is_cam, score_cam, ss_cam
from lightning_gcam.cam.methods.aggregation import cameras, smooth_grad_cam_plus_plus
from lightning_gcam.cam.methods.aggregation import full_grad, smooth_full_grad
from lightning_gcam.cam.methods.attention import attention_relevance, attention_rollout
from lightning_gcam.cam.methods.comparison import (
    centre,
    guided_grad_cam,
    integrated_gradients,
    occlusion,
    random,
)
# isort: on

__all__ = [
    "ablation_cam",
    "attention_relevance",
    "attention_rollout",
    "cameras",
    "centre",
    "eigen_cam",
    "eigen_grad_cam",
    "element_wise_grad_cam",
    "full_grad",
    "grad_cam",
    "grad_cam_plus_plus",
    "guidance_cam",
    "guided_grad_cam",
    "hires_cam",
    "hires_cam_squared",
    "integrated_gradients",
    "is_cam",
    "layer_cam",
    "layer_cam_squared",
    "occlusion",
    "random",
    "score_cam",
    "smooth_full_grad",
    "smooth_grad_cam_plus_plus",
    "ss_cam",
    "xgrad_cam",
]
