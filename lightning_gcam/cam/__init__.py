"""Class activation maps: the methods, finding the target layer, and capturing activations and gradients there."""

from lightning_gcam.cam import methods as methods  # registered once the package is imported
from lightning_gcam.cam.context import MethodContext
from lightning_gcam.cam.layers import TargetLayer, find_target_layer, resolve_target_layer
from lightning_gcam.cam.registry import (
    ModelMethod,
    available_methods,
    register_method,
    register_model_method,
    resolve_methods,
)

__all__ = [
    "MethodContext",
    "ModelMethod",
    "TargetLayer",
    "available_methods",
    "find_target_layer",
    "register_method",
    "register_model_method",
    "resolve_methods",
    "resolve_target_layer",
]
