"""What a map is computed by: the registry, and the methods that are pure functions of (activations, gradients)."""

from lightning_gcam.cam.methods.gradient import (
    element_wise_grad_cam,
    grad_cam,
    grad_cam_plus_plus,
    guidance_cam,
    hires_cam,
    layer_cam,
    xgrad_cam,
)
from lightning_gcam.cam.methods.principal import eigen_cam, eigen_grad_cam
from lightning_gcam.cam.methods.registry import (
    AnyMethod,
    Method,
    Methods,
    ScoredMethod,
    available_methods,
    register_method,
    register_scored_method,
    resolve_methods,
)

__all__ = [
    "AnyMethod",
    "Method",
    "Methods",
    "ScoredMethod",
    "available_methods",
    "eigen_cam",
    "eigen_grad_cam",
    "element_wise_grad_cam",
    "grad_cam",
    "grad_cam_plus_plus",
    "guidance_cam",
    "hires_cam",
    "layer_cam",
    "register_method",
    "register_scored_method",
    "resolve_methods",
    "xgrad_cam",
]
