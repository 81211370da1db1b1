"""The mean over the samples that count: sums first, so that batches can be added up, then one division."""

from typing import NamedTuple

import torch
from torch import Tensor


class PerSample(NamedTuple):
    """One number a sample, and which samples count."""

    values: Tensor
    """``(N,)`` float32; of no meaning where the sample does not count."""
    counted: Tensor
    """``(N,)`` bool."""


def sum_counted(
    sample: PerSample, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor, Tensor]:
    """Sum one number a sample over the samples that count.

    Args:
        sample: The numbers ``(N,)`` and which of them count.
        device: Where the sums go.
        dtype: What the total is kept in.

    Returns:
        The total (``dtype``), how many counted and how many were left out (int64), all scalars on ``device``.
    """
    # Move, then widen: the device the values come from may have no float64.
    values = sample.values.to(device).to(dtype)
    counted = sample.counted.to(device)
    return torch.where(counted, values, 0.0).sum(), counted.sum(), (~counted).sum()


def _mean_compute(total: Tensor, n: Tensor) -> Tensor:
    """Divide the total by the number of samples: float32, NaN where there are none."""
    return (total / n).to(torch.float32)


def mean_counted(sample: PerSample) -> Tensor:
    """Average one number a sample over the samples that count.

    Args:
        sample: The numbers ``(N,)`` and which of them count.

    Returns:
        A float32 scalar on the device of the numbers; NaN where no sample counts.
    """
    total, n, _ = sum_counted(sample)
    return _mean_compute(total, n).to(sample.values.device)
