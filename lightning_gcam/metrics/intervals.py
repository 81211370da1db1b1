"""Bootstrap intervals of a score, and the groups that it is taken over."""

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from lightning_gcam.metrics.samples import FromSums, _mean_compute
from lightning_gcam.utils.errors import InputError

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
    """Give the percentile bootstrap interval of a score over its samples.

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
        >>> from lightning_gcam.metrics.intervals import bootstrap_interval
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
    """The exact interval where all numbers are at the same end of their bounds, else None."""
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
    """The rows in an order of their own: it must not matter which process saw which sample."""
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
    """The numbers of each sample's groups, ``(N, K)``, from ``(N,)`` numbers or an ``(N, K)`` multi-hot."""
    if groups.ndim == 1:
        return groups.long()[:, None]
    return torch.where(groups > 0, torch.arange(groups.shape[1], device=groups.device), -1)


def no_groups(device: torch.device) -> Tensor:
    """No sample's groups, ``(0, 1)``."""
    return torch.zeros(0, 1, dtype=torch.int64, device=device)


def cat_groups(groups: Tensor | list[Tensor]) -> Tensor:
    """One ``(N, K)`` of several, the narrower ones filled up with no group."""
    parts = [groups] if isinstance(groups, Tensor) else groups
    widest = max(each.shape[1] for each in parts)
    return torch.cat([pad(each, (0, widest - each.shape[1]), value=-1) for each in parts])


def group_members(numbers: Tensor) -> dict[int, Tensor]:
    """Say who is in which group: ``(N,)`` bool by number, only groups with a member, in the numbers' order.

    Args:
        numbers: ``(N, K)`` integers, the numbers of each sample's groups; negative for none.

    Example:
        >>> import torch
        >>> from lightning_gcam.metrics.intervals import group_members
        >>> group_members(torch.tensor([[1], [-1], [1]]))
        {1: tensor([ True, False,  True])}
    """
    return {number: (numbers == number).any(dim=1) for number in numbers.unique().tolist() if number >= 0}
