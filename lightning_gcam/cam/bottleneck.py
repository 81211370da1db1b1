"""Where to look in a network that gives logits at every position: before it goes up to the image's size again.

At the logits themselves the map is the prediction, and where only pointwise layers follow, the score of a region
depends on nothing but the region: every map would lie in its mask, whatever the network has learned. So the layer is
the last one of the coarsest grid whose positions still influence the logits at *other* positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from torch import Tensor

Layer = TypeVar("Layer")

COARSEST = 32
"""Pixels that a cell of an encoder's last grid is wide; what is coarser are the pools of a pyramid (1, 2, 3, 6)."""


def corner(logits: Tensor) -> Tensor:
    """The mean logits `(N, K)` of a corner of `(N, K, h, w)`: a quarter of each side, rounded up."""
    rows, columns = (-(-side // 4) for side in logits.shape[2:])
    return logits[:, :, :rows, :columns].mean(dim=(2, 3))


def reaches_beyond_corner(gradient: Tensor) -> bool:
    """Whether the corner's score depends on positions outside of the corner.

    Args:
        gradient: of the `corner` of the logits with respect to a layer, as a grid `(N, C, h, w)`. A corner that is a
            cell wider is left out: resizing the logits alone reaches as far.

    Example:
        >>> import torch
        >>> gradient = torch.zeros(1, 1, 8, 8)
        >>> gradient[:, :, :3, :3] = 1
        >>> reaches_beyond_corner(gradient), reaches_beyond_corner(gradient.roll(1, dims=2))
        (False, True)
    """
    rows, columns = (-(-side // 4) + 1 for side in gradient.shape[2:])
    return bool(gradient[:, :, rows:].count_nonzero() or gradient[:, :, :, columns:].count_nonzero())


def up_to_the_bottleneck(
    layers: Sequence[Layer],
    grids: Sequence[tuple[int, int]],
    reach: Sequence[bool],
    image_size: tuple[int, int],
) -> list[Layer]:
    """The layers up to the last one of the coarsest grid that reaches beyond its own positions.

    Args:
        layers: in the order of execution, at least one.
        grids: rows and columns of each.
        reach: for each whether its positions influence others, as `reaches_beyond_corner` tells; if none does, the
            last layer of the grid is taken.
        image_size: height and width of the image, in pixels.

    Example:
        >>> layers = {"stem": 32, "layer4": 8, "norm": 8, "pyramid": 2, "head": 8, "resized": 64}
        >>> grids, reach = [(side, side) for side in layers.values()], [True, True, True, True, False, False]
        >>> up_to_the_bottleneck([*layers], grids, reach, (256, 256))
        ['stem', 'layer4', 'norm']

    Source: the bottleneck is where Seg-Grad-CAM looks (Vinogradova et al., arXiv 2002.11434).
    """
    least = [side // COARSEST for side in image_size]
    cells = [rows * columns for rows, columns in grids]
    deep = [
        count for count, grid in zip(cells, grids, strict=True) if grid[0] >= least[0] and grid[1] >= least[1]
    ]
    coarsest = [index for index, count in enumerate(cells) if count == min(deep or cells)]
    last = max([index for index in coarsest if reach[index]] or coarsest)
    return list(layers[: last + 1])
