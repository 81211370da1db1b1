"""Who exchanges with whom: for each sample another one, of another class."""

from __future__ import annotations

import torch
from torch import Tensor


def partners_of(classes: Tensor, usable: Tensor) -> Tensor:
    """Give each sample a partner of another class, always the same one.

    In the order of their classes, each takes the one that is as many places on as the largest class has samples: so
    every sample is taken once, and none by its own class. Where one class holds more than half of them, those that are
    left over take the samples of other classes in turn.

    Args:
        classes: `(N,)` whole numbers.
        usable: `(N,)` bool, the samples that may exchange.

    Returns:
        `(N,)` int64; -1 for samples that may not, and for all where there is a single class.

    Example:
        >>> partners_of(torch.tensor([0, 0, 1, 1, 2]), torch.tensor([True, True, True, True, False])).tolist()
        [2, 3, 0, 1, -1]
    """
    partners = torch.full((len(classes),), -1, device=classes.device)
    rows = usable.nonzero()[:, 0]
    _, inverse, counts = classes[rows].unique(return_inverse=True, return_counts=True)
    if len(counts) < 2:
        return partners
    ordered = rows[inverse.argsort(stable=True)]
    partners[ordered] = ordered.roll(-int(counts.max()))
    left_over = rows[classes[partners[rows]] == classes[rows]].tolist()
    for turn, row in enumerate(left_over):
        others = rows[classes[rows] != classes[row]]
        partners[row] = others[turn % len(others)]
    return partners
