"""Class activation maps: the methods, the layer, and the one pass that feeds them."""

from lightning_gcam.cam.layers import TargetLayer, find_target_layer, resolve_target_layer
from lightning_gcam.cam.methods import available_methods, register_method, resolve_methods

__all__ = [
    "TargetLayer",
    "available_methods",
    "find_target_layer",
    "register_method",
    "resolve_methods",
    "resolve_target_layer",
]
