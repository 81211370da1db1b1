"""Maps that use nothing of the model, on the layer's grid: noise, and a Gaussian in the middle."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_gcam.cam.context import MethodContext
from lightning_gcam.cam.registry import register_model_method

CENTRE_SIGMA = 1 / 4
"""The standard deviation of the centre map, as a share of each side."""


@register_model_method("random")
def random(context: MethodContext) -> Tensor:
    """Uniform noise on the layer's grid: as coarse as the other maps, and as blind as can be.

    It is drawn by a generator that is seeded by the sample's pixels: the same at every look, in every batch.

    Cost: none.

    Args:
        context: of the samples.

    Returns:
        `(N, h, w)` in [0, 1).
    """
    _, _, height, width = context.activations.shape
    return context.uniform((height, width))


@register_model_method("centre")
def centre(context: MethodContext) -> Tensor:
    """A Gaussian in the middle, its standard deviation a quarter of each side.

    Photographers put objects in the middle, so that this map, which sees no image, does well on many data sets.

    Cost: none.

    Args:
        context: of the samples.

    Returns:
        `(N, h, w)` in (0, 1].

    Source: the centre baseline of the pointing game (Fong et al., arXiv 1910.08485); the same as
    `lightning_gcam.metrics.functional.centre_map`, on the layer's grid.
    """
    n, _, *grid = context.activations.shape
    positions = [torch.arange(side, device=context.images.device) - (side - 1) / 2 for side in grid]
    rows, columns = (
        torch.exp(-0.5 * (each / (CENTRE_SIGMA * side)) ** 2)
        for each, side in zip(positions, grid, strict=True)
    )
    return (rows[:, None] * columns).expand(n, *grid)
