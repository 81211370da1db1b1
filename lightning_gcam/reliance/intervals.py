"""How sure a share is, and a difference of two, with as few samples as a look has; and what guessing reaches."""

from __future__ import annotations

from math import sqrt

from torch import Tensor

_Z = 1.959964
"""Of a normal distribution, 95% lie within so many standard deviations."""

Interval = tuple[float, float]


def wilson_interval(successes: int, n: int) -> Interval | None:
    """The interval of 95% of a share: unlike the plain one it is right for few samples, and for none or all of them.

    Args:
        successes: how many of the samples.
        n: the samples; without any there is no interval.

    Example:
        >>> [round(end, 3) for end in wilson_interval(16, 16)], [round(end, 3) for end in wilson_interval(8, 16)]
        ([0.806, 1.0], [0.28, 0.72])

    Source: Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22(158), 1927.
    """
    if n == 0:
        return None
    share, scale = successes / n, 1 + _Z**2 / n
    centre = (share + _Z**2 / (2 * n)) / scale
    reach = _Z / scale * sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2))
    return max(centre - reach, 0.0), min(centre + reach, 1.0)


def difference_interval(first: int, second: int, n: int) -> Interval | None:
    """The interval of 95% of the difference of two shares of the same samples, made of the intervals of both.

    It takes the two as if they were of different samples, and is too wide, if anything, where they go together.

    Args:
        first: how many of the samples; their share is what the other's is taken from.
        second: how many of the samples.
        n: the samples; without any there is no interval.

    Example:
        >>> [round(end, 3) for end in difference_interval(0, 0, 16)]
        [-0.194, 0.194]

    Source: Newcombe, "Improved confidence intervals for the difference between binomial proportions based on paired
    data", Statistics in Medicine 17(22), 1998, method 10 with a correlation of 0.
    """
    one, other = wilson_interval(first, n), wilson_interval(second, n)
    if one is None or other is None:
        return None
    p, q = first / n, second / n
    below = sqrt((p - one[0]) ** 2 + (other[1] - q) ** 2)
    above = sqrt((one[1] - p) ** 2 + (q - other[0]) ** 2)
    return max(p - q - below, -1.0), min(p - q + above, 1.0)


def chance_level(labels: Tensor, num_logits: int) -> float:
    """The accuracy of a guess on these samples: one class out of K, or always the commonest one, whichever is more.

    Args:
        labels: `(n,)` classes, or `(n, K)` marks, of the samples that count.
        num_logits: K; a single logit stands for two classes.

    Example:
        >>> import torch
        >>> chance_level(torch.tensor([0, 1, 1, 2]), 10), chance_level(torch.tensor([0, 1]), 1)
        (0.5, 0.5)
    """
    guess = 1 / max(num_logits, 2)
    if not len(labels):
        return guess
    if labels.ndim == 2:
        return float((labels > 0).double().mean(dim=0).max())
    return max(guess, float(labels.bincount().max()) / len(labels))
