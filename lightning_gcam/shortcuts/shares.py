"""Shares of right predictions, their intervals and exact bounds, and the accuracy of a guess."""

from __future__ import annotations

from functools import cache
from math import exp, lgamma, log, sqrt

from torch import Tensor


def right_shares(guesses: Tensor, labels: Tensor) -> Tensor:
    """The share of each sample's predictions that are right, `(N,)` float64: 0 or 1 where it is of one class.

    Args:
        guesses: `(N,)` classes or `(N, K)` marks.
        labels: `(N,)` classes or `(N, K)` marks.

    Example:
        >>> import torch
        >>> right_shares(torch.tensor([0, 2]), torch.tensor([0, 1])).tolist()
        [1.0, 0.0]
        >>> marks = torch.tensor([[True, False], [True, True]])
        >>> right_shares(torch.tensor([0, 0]), marks).tolist(), right_shares(marks.flip(0), marks).tolist()
        ([1.0, 1.0], [0.5, 0.5])
    """
    if guesses.ndim == 2:
        return (guesses == labels).double().mean(dim=1)
    right = labels.gather(1, guesses[:, None])[:, 0] if labels.ndim == 2 else labels == guesses
    return right.double()


_Z = 1.959964
"""Of a normal distribution, 95% lie within so many standard deviations."""

Interval = tuple[float, float]


def wilson_interval(successes: float, n: float) -> Interval | None:
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


def mean_share_interval(shares: Tensor, parts: int) -> Interval | None:
    """The interval of 95% of a mean of shares, each of the same number of parts that are right or wrong together.

    It is Wilson's with as many trials as the spread between the samples is worth: between one a sample, where its parts
    go together, and all parts, where they do not.

    Args:
        shares: `(n,)` of each sample's parts, those that are right.
        parts: how many each sample has.

    Example:
        >>> import torch
        >>> [round(end, 3) for end in mean_share_interval(torch.tensor([1.0, 0.0, 1.0, 0.0]), 2)]
        [0.15, 0.85]

    Source: Korn and Graubard, "Confidence intervals for proportions with small expected number of positive counts
    estimated from survey data", Survey Methodology 24(2), 1998: the effective number of trials.
    """
    n = len(shares)
    if n == 0:
        return None
    shares = shares.double()
    mean, spread = float(shares.mean()), float(shares.var(correction=1)) if n > 1 else 0.0
    trials = mean * (1 - mean) * n / spread if spread > 0 else n * parts if n > 1 else n
    trials = min(max(trials, n), n * parts)
    return wilson_interval(mean * trials, trials)


def bounds_of(share: float, interval: Interval, beyond: float) -> Interval:
    """The lower and the upper bound of a share; the true one is beyond either with this probability at most.

    They are exact for any number of samples. Wilson's interval is right on average: of 16 samples with a true share of
    1/8, it lies above in 4% instead of 2.5%. The number of trials is read from Wilson's interval.

    Args:
        share: measured.
        interval: its interval of 95%, as `wilson_interval` or `mean_share_interval` gives it.
        beyond: the probability.

    Example:
        >>> [round(end, 3) for end in bounds_of(0.5, wilson_interval(8, 16), 0.025)]
        [0.247, 0.753]
        >>> [round(end, 3) for end in bounds_of(1.0, wilson_interval(16, 16), 0.025)]  # 0.025 ** (1 / 16)
        [0.794, 1.0]

    Source: Clopper and Pearson, "The use of confidence or fiducial limits illustrated in the case of the binomial",
    Biometrika 26(4), 1934; with an effective number of trials, Korn and Graubard, 1998, as above.
    """
    low, high = interval
    end = low if share > 0 else high
    if share == end:
        return interval
    trials = _Z**2 * end * (1 - end) / (share - end) ** 2  # Wilson's interval solved for n
    return _exact_bounds(round(share * trials, 6), round(trials, 6), beyond)


@cache
def _exact_bounds(successes: float, trials: float, beyond: float) -> Interval:
    failures = trials - successes
    low = _beta_quantile(successes, failures + 1, beyond) if successes > 0 else 0.0
    high = 1 - _beta_quantile(failures, successes + 1, beyond) if failures > 0 else 1.0
    return low, high


def _beta_quantile(a: float, b: float, probability: float) -> float:
    """The number below which a beta distribution has this probability, to the tenth digit: bisected."""
    low, high = 0.0, 1.0
    while high - low > 1e-10:
        middle = (low + high) / 2
        low, high = (middle, high) if _beta_below(a, b, middle) < probability else (low, middle)
    return low


def _beta_below(a: float, b: float, x: float) -> float:
    """The probability that a beta distribution has below x: the continued fraction of the incomplete beta function.

    Source: "NIST Digital Library of Mathematical Functions", 8.17.22; evaluated as Lentz does.
    """
    if x > (a + 1) / (a + b + 2):
        return 1 - _beta_below(b, a, 1 - x)
    front = exp(a * log(x) + b * log(1 - x) + lgamma(a + b) - lgamma(a) - lgamma(b)) / a
    c, d = 1.0, 1 / (1 - (a + b) * x / (a + 1))
    fraction, change, m = d, 0.0, 0
    while abs(change - 1) > 1e-12:
        m += 1
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        change = 1.0
        for term in (even, odd):
            d, c = 1 / (1 + term * d), 1 + term / c
            change *= c * d
        fraction *= change
    return front * fraction


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
        labels: `(n,)` classes, or `(n, K)` with one mark a row, of the samples that count.
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


def chance_of_marks(marks: Tensor) -> tuple[float, float]:
    """The accuracy of a guess where a sample may be of several classes: of the labels, and of whole samples.

    The first guesses for each label what most samples have, the second for all samples the commonest row.

    Args:
        marks: `(n, K)` bool, of the samples that count.

    Example:
        >>> import torch
        >>> chance_of_marks(torch.tensor([[True, False], [True, True], [False, False], [True, False]]))
        (0.75, 0.5)
    """
    if not len(marks):
        return 0.5, 0.5 ** marks.shape[1]
    share = marks.double().mean(dim=0)
    _, counts = marks.unique(dim=0, return_counts=True)
    return float(share.maximum(1 - share).mean()), float(counts.max()) / len(marks)
