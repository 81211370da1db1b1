"""Class activation maps: the methods, the layer, and the one pass that feeds them."""

from lightning_gcam.cam import scored as scored  # its methods are known once it is imported
from lightning_gcam.cam.layers import TargetLayer, find_target_layer, resolve_target_layer
from lightning_gcam.cam.methods import (
    ScoredMethod,
    available_methods,
    register_method,
    register_scored_method,
    resolve_methods,
)
from lightning_gcam.cam.scorer import Scorer

__all__ = [
    "ScoredMethod",
    "Scorer",
    "TargetLayer",
    "available_methods",
    "find_target_layer",
    "register_method",
    "register_scored_method",
    "resolve_methods",
    "resolve_target_layer",
]
