"""Checked inputs, one number per sample, the mean over the samples that count, and its bootstrap interval."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from lightning_gcam.utils.dimensions import for_each, pixels_of
from lightning_gcam.utils.errors import InputError

FromSums = Callable[[Tensor, Tensor], Tensor]
"""The total ``(..., *shape)`` and the number of samples ``(...)`` in, the score ``(...)`` out."""

Computed = TypeVar("Computed")


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
        The total ``shape`` (``dtype``), how many counted and how many were left out (int64), on ``device``.
    """
    # Move, then widen: the device the values come from may have no float64.
    values = sample.values.to(device).to(dtype)
    counted = sample.counted.to(device)
    return torch.where(for_each(counted, values), values, 0.0).sum(dim=0), counted.sum(), (~counted).sum()


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


class Extremes(NamedTuple):
    """The least and the highest value of each map of a batch, and what these show of the batch."""

    least: Tensor
    most: Tensor
    """Both ``(N,)`` float32; NaN where the map holds NaN."""
    are_finite: bool
    are_valid: bool
    """Whether no finite map has a negative value."""


def extremes_of(*saliency: Tensor) -> list[Extremes]:
    """Find the extremes of batches of maps ``(N, *spatial)``; a device is waited for once, not once a batch."""
    pairs, flags = [], []
    for maps in map(_as_float32, saliency):
        least, most = maps.amin(dim=pixels_of(maps)), maps.amax(dim=pixels_of(maps))
        finite = least.isfinite() & most.isfinite()
        pairs.append((least, most))
        flags.append(torch.stack([finite.all(), ~(finite & (least < 0)).any()]))
    seen = torch.stack(flags).tolist() if flags else []
    return [Extremes(*pair, *each) for pair, each in zip(pairs, seen, strict=True)]


def _as_float32(saliency: Tensor) -> Tensor:
    """Return the maps without their graph; float32 and never float64: MPS has none."""
    return saliency.detach().to(torch.float32)


class CheckedMaps:
    """Maps that can be scored, and what several scores need of them, computed once and only where it is needed.

    Args:
        saliency: ``(N, *spatial)`` floating.
        extremes: Of the maps, where they are known.

    Raises:
        ValueError: If a finite map has a negative value.
    """

    def __init__(self, saliency: Tensor, extremes: Extremes | None = None) -> None:
        saliency = _as_float32(saliency)
        least, most, are_finite, are_valid = extremes or extremes_of(saliency)[0]
        finite = least.isfinite() & most.isfinite()
        if not are_finite:
            saliency = torch.where(for_each(finite, saliency), saliency, 0.0)
        if not are_valid:
            raise ValueError(
                f"`saliency` must be at least 0, got a minimum of {saliency.min().item():.3g}. "
                "Rectify it first: `saliency.clamp(min=0)`."
            )
        self.saliency = saliency
        """``(N, *spatial)`` float32, finite, at least 0; all zero where the map is blank."""
        self.pixels = saliency.flatten(1).contiguous()
        """The same as rows of P pixels, ``(N, P)``."""
        self.peak = torch.where(finite, most, 0.0)
        """``(N,)`` float32: each map's maximum."""
        self.blank = self.peak == 0
        """``(N,)`` bool: the map is all zero, or not finite."""

    @cached_property
    def unit(self) -> Tensor:
        """The maps scaled by their peaks, ``(N, *spatial)``, so that sums do not overflow; NaN where they are blank."""
        return self.saliency / for_each(self.peak, self.saliency)

    @cached_property
    def total(self) -> Tensor:
        """The sum of each scaled map, ``(N,)``."""
        return self.unit.flatten(1).sum(dim=1)

    @cached_property
    def ordered(self) -> Tensor:
        """The pixels of each map in ascending order, ``(N, P)``."""
        return self.pixels.sort(dim=1).values


@dataclass(frozen=True)
class CheckedBatch:
    """A checked batch: maps and masks on one device, and which samples count."""

    maps: CheckedMaps
    mask: Tensor
    size: Tensor
    """``(N,)`` int64: how many pixels of each mask are True."""
    counted: Tensor
    """``(N,)`` bool; False where the map is blank or the mask is empty."""
    no_mask: Tensor
    """``(N,)`` bool: the map is not blank, but the mask is empty."""

    @cached_property
    def energy(self) -> Tensor:
        """The share of each map's sum that lies in its mask, ``(N,)``."""
        inside = (self.maps.unit.flatten(1) * self.mask.flatten(1)).sum(dim=1)
        return inside / self.maps.total

    def scored(self, values: Tensor) -> PerSample:
        """Combine one number or one row per sample with which samples count, and why others do not."""
        return PerSample(values, self.counted, self.maps.blank, self.no_mask)


_SHARED: ContextVar[dict[tuple[object, ...], tuple[Any, ...]] | None] = ContextVar("_SHARED", default=None)
"""What was computed, by the function and its arguments' ids; with the arguments, so that no others take their ids."""


@contextmanager
def shared_by_scores(saliency: Tensor, extremes: Extremes) -> Iterator[None]:
    """Share among all scores that are computed inside what they need of the same maps and masks.

    Args:
        saliency: ``(N, *spatial)`` floating: the maps that are scored; they are not written on inside.
        extremes: Of these.
    """
    key = CheckedMaps, id(saliency)
    token = _SHARED.set({key: (CheckedMaps(saliency, extremes), saliency)} if extremes.are_valid else {})
    try:
        yield
    finally:
        _SHARED.reset(token)


def once(compute: Callable[..., Computed], *given: object) -> Computed:
    """Compute something, or take it from the scores before (see `shared_by_scores`)."""
    known, key = _SHARED.get(), (compute, *map(id, given))
    if known is None:
        return compute(*given)
    if key not in known:
        known[key] = compute(*given), *given
    found: Computed = known[key][0]
    return found


def prepare(saliency: Tensor, mask: Tensor) -> CheckedBatch:
    """Check a batch and make it ready to be scored.

    Args:
        saliency: ``(N, *spatial)``, floating, at least 0.
        mask: ``(N, *spatial)`` bool, True on the object.

    Raises:
        TypeError: If an argument is not a tensor of the expected dtype.
        ValueError: If a shape does not fit, or a saliency is negative.
    """
    check_saliency(saliency)
    check_mask(mask, saliency)
    return once(_prepared, saliency, mask)


def _prepared(saliency: Tensor, mask: Tensor) -> CheckedBatch:
    """Combine maps and masks that were checked."""
    maps, mask = check_maps(saliency), mask.to(saliency.device)
    size = mask.flatten(1).sum(dim=1)
    return CheckedBatch(maps, mask, size, ~maps.blank & (size > 0), ~maps.blank & (size == 0))


def check_maps(saliency: Tensor) -> CheckedMaps:
    """Check maps, and make them ready to be scored.

    Args:
        saliency: ``(N, *spatial)``, floating, at least 0.

    Raises:
        TypeError: If it is not a floating tensor.
        ValueError: If its shape is not ``(N, *spatial)``, or a finite map has a negative value.
    """
    check_saliency(saliency)
    return once(CheckedMaps, saliency)


def check_saliency(saliency: Tensor) -> None:
    """Refuse what is not a floating ``(N, *spatial)`` tensor with at least one pixel.

    Raises:
        TypeError: If it is not a floating tensor.
        ValueError: If its shape is not ``(N, *spatial)``.
    """
    if not isinstance(saliency, Tensor):
        raise TypeError(f"`saliency` must be a tensor (N, *spatial), got {type(saliency).__name__}.")
    if not saliency.is_floating_point():
        raise TypeError(f"`saliency` must be floating, got {saliency.dtype}. Convert it: `saliency.float()`.")
    if not 2 <= saliency.ndim <= 4 or 0 in saliency.shape[1:]:
        raise ValueError(
            "`saliency` must have the shape (N, *spatial) with one to three dimensions, such as (N, H, W), got "
            f"{tuple(saliency.shape)}. One map per sample: leave the channels out, keep the batch."
        )


def check_mask(mask: Tensor, saliency: Tensor) -> None:
    """Refuse a mask that is not bool or not on the saliency's grid.

    Raises:
        TypeError: If it is not a bool tensor.
        ValueError: If its shape is not that of the saliency.
    """
    if not isinstance(mask, Tensor):
        raise TypeError(f"`mask` must be a bool tensor (N, *spatial), got {type(mask).__name__}.")
    if mask.dtype != torch.bool:
        raise TypeError(
            f"`mask` must be bool, True on the object, got {mask.dtype}. Convert it: `mask.bool()`."
        )
    if mask.shape != saliency.shape:
        raise ValueError(
            f"`mask` must have the shape of `saliency` {tuple(saliency.shape)}, got {tuple(mask.shape)}. "
            "Bring both to one grid, one mask per sample."
        )


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
        ones = torch.ones(size, n, dtype=torch.float64)
        times = torch.zeros_like(ones).scatter_add_(1, drawn, ones)
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
    return flat[torch.from_numpy(np.lexsort(flat.numpy().T))]


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
