"""A score is a function of sums over the samples that count: sums first, so that batches can be added up."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

FromSums = Callable[[Tensor, Tensor], Tensor]
"""The total ``(..., *shape)`` and the number of samples ``(...)`` in, the score ``(...)`` out."""


class PerSample(NamedTuple):
    """One number per sample (or one row of numbers), which samples count, and why the others do not."""

    values: Tensor
    """``(N,)`` or ``(N, *shape)`` float32; of no meaning where the sample does not count."""
    counted: Tensor
    """``(N,)`` bool."""
    blank: Tensor | None = None
    """``(N,)`` bool: left out because its map is blank; ``None`` where nobody asked."""
    no_mask: Tensor | None = None
    """``(N,)`` bool: left out because its mask is empty; no sample is both."""


def sum_counted(
    sample: PerSample, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor, Tensor]:
    """Sum the numbers over the samples that count.

    Args:
        sample: The numbers ``(N, *shape)`` and which samples count.
        device: Where the sums go.
        dtype: What the total is kept in.

    Returns:
        The total ``shape`` (``dtype``), how many counted and how many were left out (int64 scalars), on
        ``device``.
    """
    # Move, then widen: the device the values come from may have no float64.
    values = sample.values.to(device).to(dtype)
    counted = sample.counted.to(device)
    chosen = counted.reshape(-1, *[1] * (values.ndim - 1))
    return torch.where(chosen, values, 0.0).sum(dim=0), counted.sum(), (~counted).sum()


def _mean_compute(total: Tensor, n: Tensor) -> Tensor:
    """Divide the total by the number of samples: float32, NaN where there are none."""
    return (total / n).to(torch.float32)


def score_counted(sample: PerSample, compute: FromSums = _mean_compute) -> Tensor:
    """Score a batch: the sums over the samples that count, and what ``compute`` makes of them.

    Args:
        sample: The numbers ``(N, *shape)`` and which samples count.
        compute: From the total and the number of samples to the score; their quotient where it is left out.

    Returns:
        A float32 scalar on the device of the numbers; NaN where no sample counts.
    """
    total, n, _ = sum_counted(sample)
    return compute(total, n).to(sample.values.device)


def mean_counted(sample: PerSample) -> Tensor:
    """Average one number per sample over the samples that count.

    Args:
        sample: The numbers ``(N,)`` and which of them count.

    Returns:
        A float32 scalar on the device of the numbers; NaN where no sample counts.
    """
    return score_counted(sample)
