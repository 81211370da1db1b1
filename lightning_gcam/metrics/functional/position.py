"""Does the saliency stay at the same places while the objects move?"""

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, pad

from lightning_gcam.metrics.functional.inputs import prepare
from lightning_gcam.metrics.functional.mean import PerSample, score_counted
from lightning_gcam.metrics.functional.shape import entropy

CELLS = 8
"""The grid has this many cells a side: coarse, so that a map's sharpness inside a cell makes no difference."""


def _positional_concentration_update(saliency: Tensor, mask: Tensor) -> PerSample:
    """Each map's and each mask's shares in the cells of a coarse grid: rows ``(N, 2, CELLS ** 2)``."""
    batch = prepare(saliency, mask)
    return batch.scored(torch.stack([_shares(batch.saliency), _shares(batch.mask.float())], dim=1))


def _positional_concentration_compute(total: Tensor, n: Tensor) -> Tensor:
    """1 - H(P) / H(Q), of the mean map P and the mean mask Q; NaN where the masks are all in one cell."""
    mean = (total / n[..., None, None]).to(torch.float32)
    places, possible = entropy(mean).unbind(dim=-1)
    return torch.where(possible > 1e-6, 1 - places / possible, torch.nan)


def positional_concentration(saliency: Tensor, mask: Tensor) -> Tensor:
    """Say how much fewer places the saliency takes, over all samples, than the objects do.

    On a grid of 8 x 8 cells, let P be the mean over the samples of S / sum(S), and Q the mean of M / |M|, both
    distributions over the cells, with the entropies H(P) and H(Q); the result is 1 - H(P) / H(Q). 0: the
    saliency spreads over as many places as the objects; below 0: over more; 1: all of it lies in one cell in
    every sample. A model that always looks at the same place is suspicious where the objects are not always
    there. Few samples with sharp maps cannot fill many cells, and score somewhat above 0 by that alone; the
    interval shows by how much. A sample whose map is blank (all zero, or not finite) or whose mask is empty is
    left out.

    Args:
        saliency: ``(N, H, W)``, floating, at least 0, of any scale.
        mask: ``(N, H, W)`` bool, True on the object.

    Returns:
        A float32 scalar of at most 1, on the saliency's device; NaN if every sample was left out, or all
        objects lie in one and the same cell.

    Raises:
        TypeError: If ``saliency`` is not floating or ``mask`` is not bool.
        ValueError: If the shapes are not both ``(N, H, W)``, or ``saliency`` has negative values.

    Example:
        >>> import torch
        >>> from lightning_gcam.metrics.functional import positional_concentration
        >>> left, right = torch.eye(2)[:, None, :]
        >>> mask = torch.stack([left, right]).bool()
        >>> positional_concentration(torch.stack([left, right]), mask)
        tensor(0.)
        >>> positional_concentration(torch.stack([left, left]), mask)
        tensor(1.)
    """
    update = _positional_concentration_update(saliency, mask)
    return score_counted(update, _positional_concentration_compute)


def _shares(grids: Tensor) -> Tensor:
    """The share of each grid's sum that lies in each cell, ``(N, CELLS ** 2)``."""
    grids = grids / grids.amax(dim=(1, 2), keepdim=True)
    # A side of fewer pixels than cells has a cell a pixel, and the rest stay empty.
    height, width = (min(side, CELLS) for side in grids.shape[1:])
    cells = adaptive_avg_pool2d(grids[:, None], (height, width))[:, 0]
    cells = pad(cells, (0, CELLS - width, 0, CELLS - height)).flatten(1)
    return cells / cells.sum(dim=1, keepdim=True)
