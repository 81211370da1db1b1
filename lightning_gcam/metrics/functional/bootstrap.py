"""How far could a score be from what it says, with as few samples as these? A bootstrap of a fixed seed."""

import numpy as np
import torch
from torch import Tensor

from lightning_gcam.metrics.functional.mean import FromSums, _mean_compute

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
        >>> from lightning_gcam.metrics.functional.bootstrap import bootstrap_interval
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
