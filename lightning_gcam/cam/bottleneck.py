"""Where to look in a network that gives logits at every position: before it goes up to the image's size again.

At the logits themselves the map is the prediction, and where only pointwise layers follow, the score of a region
depends on nothing but the region: every map would lie in its mask, whatever the network has learned. So the layer is
the last one of the coarsest grid whose positions still influence the logits at *other* positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

Layer = TypeVar("Layer")

COARSEST = 32
"""Pixels that a cell of an encoder's last grid is wide; what is coarser are the pools of a pyramid (1, 2, 3, 6)."""


def corner(logits: Tensor) -> Tensor:
    """The mean logits `(N, K)` of a corner of `(N, K, h, w)`: a quarter of each side, rounded down."""
    rows, columns = (max(side // 4, 1) for side in logits.shape[2:])
    return logits[:, :, :rows, :columns].mean(dim=(2, 3))


def reaches_beyond_corner(gradient: Tensor, size: tuple[int, int]) -> bool:
    """Whether the corner's score depends on positions that bilinear resizing alone would not reach.

    Args:
        gradient: of the `corner` of the logits with respect to a layer, as a grid `(N, C, h, w)`.
        size: rows and columns of the logits.

    Example:
        >>> gradient = torch.zeros(1, 1, 8, 8)
        >>> gradient[:, :, :3, :3] = 1
        >>> reaches_beyond_corner(gradient, (64, 64)), reaches_beyond_corner(gradient.roll(1, dims=2), (64, 64))
        (False, True)
    """
    grid = torch.zeros(1, 1, *gradient.shape[2:], device=gradient.device, requires_grad=True)
    with torch.enable_grad():
        resized = nn.functional.interpolate(grid, size, mode="bilinear")
        (reached,) = torch.autograd.grad(corner(resized).sum(), grid)
    return bool(((gradient != 0) & (reached == 0)).any())


def up_to_the_bottleneck(
    layers: Sequence[Layer],
    gradients: Sequence[Tensor],
    image_size: tuple[int, int],
    logits_size: tuple[int, int],
) -> list[Layer]:
    """The layers up to the last one of the coarsest grid that reaches beyond its own positions.

    Args:
        layers: in the order of execution, at least one.
        gradients: of the `corner` of the logits with respect to each of them, as grids `(N, C, h, w)`. Where none
            reaches beyond the corner, the last layer of the coarsest grid has to do.
        image_size: height and width of the image, in pixels.
        logits_size: rows and columns of the logits.

    Source: the bottleneck is where Seg-Grad-CAM looks (Vinogradova et al., arXiv 2002.11434).
    """
    least = [side // COARSEST for side in image_size]
    cells = [each.shape[2] * each.shape[3] for each in gradients]
    deep = [
        count
        for count, each in zip(cells, gradients, strict=True)
        if each.shape[2] >= least[0] and each.shape[3] >= least[1]
    ]
    coarsest = [index for index, count in enumerate(cells) if count == min(deep or cells)]
    reaching = (index for index in reversed(coarsest) if reaches_beyond_corner(gradients[index], logits_size))
    return list(layers[: next(reaching, coarsest[-1]) + 1])
