"""Checked inputs, one number per sample, the mean over the samples that count, and its bootstrap interval."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from lightning_gcam.utils.errors import InputError, is_whole_number

FromSums = Callable[[Tensor, Tensor], Tensor]
"""The total ``(..., *shape)`` and the number of samples ``(...)`` in, the score ``(...)`` out."""


class PerSample(NamedTuple):
    """One number per sample (or one row of numbers), which samples count, and why the others do not."""

    values: Tensor
    """``(N,)`` or ``(N, *shape)`` float32; of no meaning where the sample does not count."""
    counted: Tensor
    """``(N,)`` bool."""
    blank: Tensor | None = None
    """``(N,)`` bool: left out because its map is blank; ``None`` where that is not distinguished."""
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


class CheckedBatch(NamedTuple):
    """A checked batch: maps and masks on one device, and which samples count."""

    saliency: Tensor
    """``(N, H, W)`` float32, finite, at least 0; all zero where the map is blank."""
    mask: Tensor
    """``(N, H, W)`` bool, on the saliency's device."""
    counted: Tensor
    """``(N,)`` bool; False where the map is blank or the mask is empty."""
    blank: Tensor
    """``(N,)`` bool: the map is blank."""
    no_mask: Tensor
    """``(N,)`` bool: the map is not blank, but the mask is empty."""

    def scored(self, values: Tensor) -> PerSample:
        """Combine one number or one row per sample with which samples count, and why others do not."""
        return PerSample(values, self.counted, self.blank, self.no_mask)


def prepare(saliency: Tensor, mask: Tensor) -> CheckedBatch:
    """Check a batch and make it ready to be scored.

    Args:
        saliency: ``(N, H, W)``, floating, at least 0.
        mask: ``(N, H, W)`` bool, True on the object.

    Raises:
        TypeError: If an argument is not a tensor of the expected dtype.
        ValueError: If a shape does not fit, or a saliency is negative.
    """
    check_saliency(saliency)
    check_mask(mask, saliency)
    saliency, blank = find_blank(saliency)
    mask = mask.to(saliency.device)
    filled = mask.flatten(1).any(dim=1)
    return CheckedBatch(saliency, mask, ~blank & filled, blank, ~blank & ~filled)


def find_blank(saliency: Tensor) -> tuple[Tensor, Tensor]:
    """Return which maps have nothing to score, all zero or not finite, and make these all zero.

    Args:
        saliency: ``(N, H, W)``, floating, at least 0.

    Returns:
        The maps, ``(N, H, W)`` float32; and which of them are blank, ``(N,)`` bool.

    Raises:
        ValueError: If a finite map has a negative value.
    """
    # float32 and never float64: MPS has none.
    saliency = saliency.detach().to(torch.float32)
    finite = saliency.isfinite().flatten(1).all(dim=1)
    saliency = torch.where(finite[:, None, None], saliency, 0.0)
    if (saliency < 0).any():
        raise ValueError(
            f"`saliency` must be at least 0, got a minimum of {saliency.min().item():.3g}. "
            "Rectify it first: `saliency.clamp(min=0)`."
        )
    return saliency, (saliency == 0).flatten(1).all(dim=1)


def check_saliency(saliency: Tensor) -> None:
    """Refuse what is not a floating ``(N, H, W)`` tensor with at least one pixel.

    Raises:
        TypeError: If it is not a floating tensor.
        ValueError: If its shape is not ``(N, H, W)``.
    """
    if not isinstance(saliency, Tensor):
        raise TypeError(f"`saliency` must be a tensor (N, H, W), got {type(saliency).__name__}.")
    if not saliency.is_floating_point():
        raise TypeError(f"`saliency` must be floating, got {saliency.dtype}. Convert it: `saliency.float()`.")
    if saliency.ndim != 3 or 0 in saliency.shape[1:]:
        raise ValueError(
            f"`saliency` must have the shape (N, H, W), got {tuple(saliency.shape)}. "
            "One map per sample: leave the channels out, keep the batch."
        )


def check_mask(mask: Tensor, saliency: Tensor) -> None:
    """Refuse a mask that is not bool or not on the saliency's grid.

    Raises:
        TypeError: If it is not a bool tensor.
        ValueError: If its shape is not that of the saliency.
    """
    if not isinstance(mask, Tensor):
        raise TypeError(f"`mask` must be a bool tensor (N, H, W), got {type(mask).__name__}.")
    if mask.dtype != torch.bool:
        raise TypeError(
            f"`mask` must be bool, True on the object, got {mask.dtype}. Convert it: `mask.bool()`."
        )
    if mask.shape != saliency.shape:
        raise ValueError(
            f"`mask` must have the shape of `saliency` {tuple(saliency.shape)}, got {tuple(mask.shape)}. "
            "Bring both to one grid, one mask per sample."
        )


def check_threshold(threshold: float) -> None:
    """Refuse a threshold outside (0, 1].

    Raises:
        ValueError: If it is not a finite number in (0, 1].
    """
    if not isinstance(threshold, (int, float)) or not 0 < threshold <= 1:
        raise ValueError(
            f"`threshold` must be a number in (0, 1], a share of the map's peak, got {threshold!r}. "
            "0.3 is the default."
        )


def check_tolerance(tolerance: float) -> None:
    """Refuse a tolerance that is negative or not finite.

    Raises:
        ValueError: If it is not a finite number of at least 0.
    """
    if not isinstance(tolerance, (int, float)) or not math.isfinite(tolerance) or tolerance < 0:
        raise ValueError(
            f"`tolerance` must be a finite number of pixels, at least 0, got {tolerance!r}. "
            "0 asks for the peak inside the mask itself."
        )


def check_count(name: str, count: int, least: int = 1) -> None:
    """Refuse what is not an integer of at least ``least``.

    Raises:
        InputError: Naming the argument.
    """
    if not is_whole_number(count, least):
        raise InputError(f"`{name}` must be an integer of at least {least}, got {count!r}.")


def even_thresholds(count: int, device: torch.device | str = "cpu") -> Tensor:
    """Return ``k / count`` for k = 1 to ``count``: ``(count,)`` float32, ascending, the last one 1.

    Example:
        >>> from lightning_gcam.metrics.samples import even_thresholds
        >>> even_thresholds(4)
        tensor([0.2500, 0.5000, 0.7500, 1.0000])
    """
    return torch.arange(1, count + 1, device=device, dtype=torch.float32) / count


def count_above(saliency: Tensor, mask: Tensor, thresholds: Tensor) -> tuple[Tensor, Tensor]:
    """Count, for each threshold, the pixels that reach it, inside and outside of the mask.

    Args:
        saliency: ``(N, H, W)`` float32, finite, at least 0.
        mask: ``(N, H, W)`` bool.
        thresholds: ``(T,)`` ascending shares of each map's own peak.

    Returns:
        Two ``(N, T)`` int64: pixels of the mask, and pixels outside of it, with S >= threshold * max S.
    """
    saliency, mask = saliency.flatten(1), mask.flatten(1)
    levels = thresholds * saliency.amax(dim=1, keepdim=True)
    # How many of the thresholds each pixel reaches, 0 to T; then how many pixels reach each.
    reached = torch.searchsorted(levels, saliency, right=True)
    empty = torch.zeros(len(saliency), len(thresholds) + 1, dtype=torch.int64, device=saliency.device)
    inside = empty.scatter_add(1, reached, mask.long())
    outside = empty.scatter_add(1, reached, (~mask).long())
    return _at_least(inside), _at_least(outside)


def _at_least(counts: Tensor) -> Tensor:
    """Convert counts of "exactly k thresholds" to counts of "at least k", for k from 1."""
    return counts.flip(1).cumsum(dim=1).flip(1)[:, 1:]


_AT_ONCE = 2**22


def bootstrap_interval(
    rows: Tensor,
    compute: FromSums = _mean_compute,
    *,
    bounds: tuple[float, float] | None = None,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[float, float] | None:
    """Compute the percentile bootstrap interval of a score over its samples.

    The samples are drawn with replacement, ``resamples`` times, by a generator of its own: the same numbers
    give the same interval, in whichever order they come, and no other random stream moves. With fewer than
    about ten samples it is too narrow. Where every number is at the same end of ``bounds``, resampling shows
    no spread at all, as if nothing else were possible; there, the exact bound for a mean of numbers between
    these bounds stands instead: with alpha = 1 - level, all n at the upper end still allow a mean as low as
    (alpha/2)^(1/n) of the way up.

    Args:
        rows: ``(n, *shape)`` floating, the numbers of the samples that count.
        compute: From totals ``(B, *shape)`` and the number of samples ``(B,)`` to scores ``(B,)``; the mean
            where it is left out.
        bounds: What each number lies between, where the score is their mean; ``None`` where it is not.
        level: How often such an interval should hold the true score.
        resamples: How often the samples are drawn.
        seed: Of the draws.

    Returns:
        The lower and the upper end; ``None`` where there is nothing to resample (no sample, or one alone that is
        not at an end of its bounds) or no resample has a score.

    Example:
        >>> import torch
        >>> from lightning_gcam.metrics.samples import bootstrap_interval
        >>> low, high = bootstrap_interval(torch.tensor([0.2, 0.4, 0.4, 0.6]))
        >>> 0.2 <= low < 0.4 < high <= 0.6
        True
        >>> low, high = bootstrap_interval(torch.ones(16), bounds=(0.0, 1.0))
        >>> round(low, 2), high
        (0.79, 1.0)

    Source:
        Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13; the bound is Clopper and
        Pearson's for n of n, which holds for any numbers in [0, 1], since P(X = 1) <= E X.
    """
    n = len(rows)
    exact = _at_an_end(rows, bounds, (1 - level) / 2)
    if exact is not None or n < 2:
        return exact
    flat = _in_order(rows.detach().cpu().double().reshape(n, -1))
    generator = torch.Generator().manual_seed(seed)
    scores = []
    # In blocks of a bounded size; the draws follow one another, so the blocks change nothing.
    block = max(1, _AT_ONCE // max(n, flat.shape[1]))
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        drawn = torch.randint(n, (size, n), generator=generator)
        times = torch.zeros(size, n, dtype=torch.float64).scatter_add_(
            1, drawn, torch.ones_like(drawn).double()
        )
        totals = (times @ flat).reshape(size, *rows.shape[1:])
        scores.append(compute(totals, torch.full((size,), n)))
    found = torch.cat(scores).double()
    found = found[found.isfinite()]
    if len(found) == 0:
        return None
    low, high = found.quantile(torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)).tolist()
    return low, high


def _at_an_end(rows: Tensor, bounds: tuple[float, float] | None, tail: float) -> tuple[float, float] | None:
    """Compute the exact interval where all numbers are at the same end of their bounds, else None."""
    if bounds is None or rows.ndim != 1 or len(rows) == 0:
        return None
    low, high = bounds
    reach = (high - low) * (1 - tail ** (1 / len(rows)))
    if bool((rows == high).all()):
        return high - reach, high
    if bool((rows == low).all()):
        return low, low + reach
    return None


def _in_order(flat: Tensor) -> Tensor:
    """Sort the rows: it must not matter which process had which sample."""
    keys = flat.numpy()
    return flat[torch.from_numpy(np.lexsort(keys.T))]


def check_groups(groups: Tensor, n: int) -> None:
    """Refuse groups that do not belong to the samples.

    Raises:
        InputError: If they are not ``(N,)`` integers or ``(N, K)`` multi-hot.
    """
    whole = isinstance(groups, Tensor) and not groups.is_floating_point() and not groups.is_complex()
    if not whole or groups.ndim not in (1, 2) or len(groups) != n:
        came = (
            f"{groups.dtype} {tuple(groups.shape)}" if isinstance(groups, Tensor) else type(groups).__name__
        )
        raise InputError(
            f"`groups` must be ({n},) integers, negative for none, or ({n}, K) multi-hot, one row per sample, "
            f"got {came}."
        )


def group_numbers(groups: Tensor) -> Tensor:
    """Return the numbers of each sample's groups, ``(N, K)``, from ``(N,)`` numbers or an ``(N, K)`` multi-hot."""
    if groups.ndim == 1:
        return groups.long()[:, None]
    return torch.where(groups > 0, torch.arange(groups.shape[1], device=groups.device), -1)


def no_groups(device: torch.device) -> Tensor:
    """Return the groups of no sample, ``(0, 1)``."""
    return torch.zeros(0, 1, dtype=torch.int64, device=device)


def cat_groups(groups: Tensor | list[Tensor]) -> Tensor:
    """Join several ``(N, K)`` to one, the narrower ones filled up with no group."""
    parts = [groups] if isinstance(groups, Tensor) else groups
    widest = max(each.shape[1] for each in parts)
    return torch.cat([pad(each, (0, widest - each.shape[1]), value=-1) for each in parts])


def group_members(numbers: Tensor) -> dict[int, Tensor]:
    """Return which samples each group has: ``(N,)`` bool by number, only groups with a member, in the numbers' order.

    Args:
        numbers: ``(N, K)`` integers, the numbers of each sample's groups; negative for none.

    Example:
        >>> import torch
        >>> from lightning_gcam.metrics.samples import group_members
        >>> group_members(torch.tensor([[1], [-1], [1]]))
        {1: tensor([ True, False,  True])}
    """
    return {number: (numbers == number).any(dim=1) for number in numbers.unique().tolist() if number >= 0}
