"""How much of the class's probability is left where only the salient pixels are kept."""

from typing import Any

import torch
from torch import Tensor

from lightning_gcam.metrics.base import SampleScore
from lightning_gcam.metrics.perturbation import Fill, Perturbation, check_fill
from lightning_gcam.metrics.samples import PerSample, mean_counted
from lightning_gcam.utils.errors import InputError


def check_probabilities(name: str, values: Tensor, like: Tensor | None = None, ndim: int = 1) -> Tensor:
    """Refuse what is not a floating tensor of probabilities, and give it as float32, without its graph.

    Args:
        name: The argument, for the message.
        values: ``(N,)``, or ``(N, K)`` where ``ndim`` is 2; NaN where there is none.
        like: Another one that it must be as long as.
        ndim: How many axes it has.

    Raises:
        InputError: Naming the argument.
    """
    shape = ("(N,)", "(N, K)")[ndim - 1]
    if not isinstance(values, Tensor) or not values.is_floating_point() or values.ndim != ndim:
        came = (
            f"{values.dtype} {tuple(values.shape)}" if isinstance(values, Tensor) else type(values).__name__
        )
        raise InputError(
            f"`{name}` must be floating probabilities {shape}, one of the explained class a sample, got {came}. "
            "They come from forwards; this score cannot be taken from maps and masks."
        )
    if like is not None and len(values) != len(like):
        raise InputError(f"`{name}` must hold {len(like)} samples, as many as the others, got {len(values)}.")
    values = values.detach().to(torch.float32)
    if ((values < 0) | (values > 1)).any():
        low, high = values.nan_to_num(0).aminmax()
        raise InputError(
            f"`{name}` must be probabilities in [0, 1], got values from {low:.3g} to {high:.3g}. "
            "Give a softmax or a sigmoid of the logits."
        )
    return values


def scored(values: Tensor, defined: Tensor, blank: Tensor | None) -> PerSample:
    """Put numbers beside which samples count: those that are defined, and whose map is not blank.

    Args:
        values: ``(N, *shape)`` float32.
        defined: ``(N,)`` bool.
        blank: ``(N,)`` bool, or ``None`` where no map is.

    Raises:
        InputError: If ``blank`` is not ``(N,)`` bool.
    """
    if blank is None:
        blank = torch.zeros_like(defined)
    if not isinstance(blank, Tensor) or blank.dtype != torch.bool or blank.shape != defined.shape:
        came = f"{blank.dtype} {tuple(blank.shape)}" if isinstance(blank, Tensor) else type(blank).__name__
        raise InputError(
            f"`blank` must be bool {tuple(defined.shape)}, True where a map is blank, got {came}."
        )
    blank = blank.to(defined.device)
    return PerSample(values, defined & ~blank, blank)


def _average_drop_update(before: Tensor, after: Tensor, blank: Tensor | None) -> PerSample:
    """Each sample's loss of confidence as a share of what there was to lose."""
    before, after = check_probabilities("before", before), check_probabilities("after", after, before)
    after = after.to(before.device)
    drop = (before - after).clamp(min=0) / before
    return scored(drop, (before > 0) & after.isfinite(), blank)


def average_drop(before: Tensor, after: Tensor, blank: Tensor | None = None) -> Tensor:
    """Average, over the samples, max(0, before - after) / before: the share of the confidence that is lost.

    ``after`` is the probability of the same class for the image of which only the salient pixels are left; see
    :func:`keep_salient`. Published tables give percent. A sample whose map is blank, whose probability was 0,
    or is NaN, is left out, where torch-cam scores a probability of 0 as no drop.

    Args:
        before: ``(N,)`` floating, probabilities of the explained class for the images.
        after: ``(N,)`` floating, the same for the images multiplied by their maps.
        blank: ``(N,)`` bool, True where the map is blank; none where it is left out.

    Returns:
        A float32 scalar in [0, 1], lower is better, on the device of ``before``; NaN if every sample was left
        out.

    Raises:
        ValueError: If these are not probabilities ``(N,)`` in [0, 1], or ``blank`` is not bool ``(N,)``.

    Example:
        >>> import torch
        >>> from lightning_gcam.metrics.functional import average_drop
        >>> average_drop(torch.tensor([0.8, 0.5]), torch.tensor([0.4, 0.6]))
        tensor(0.2500)

    Source:
        Chattopadhyay et al., "Grad-CAM++", 2018, arXiv 1710.11063 (section 4.1).
    """
    return mean_counted(_average_drop_update(before, after, blank))


def _average_increase_update(before: Tensor, after: Tensor, blank: Tensor | None) -> PerSample:
    """1 for each sample that is more confident with the salient pixels alone."""
    before, after = check_probabilities("before", before), check_probabilities("after", after, before)
    after = after.to(before.device)
    return scored((after > before).float(), before.isfinite() & after.isfinite(), blank)


def average_increase(before: Tensor, after: Tensor, blank: Tensor | None = None) -> Tensor:
    """Give the share of the samples whose confidence is higher with only the salient pixels left.

    Published tables give percent. A sample whose map is blank, or one of whose probabilities is NaN, is left
    out.

    Args:
        before: ``(N,)`` floating, probabilities of the explained class for the images.
        after: ``(N,)`` floating, the same for the images multiplied by their maps.
        blank: ``(N,)`` bool, True where the map is blank; none where it is left out.

    Returns:
        A float32 scalar in [0, 1], higher is better, on the device of ``before``; NaN if every sample was left
        out.

    Raises:
        ValueError: If these are not probabilities ``(N,)`` in [0, 1], or ``blank`` is not bool ``(N,)``.

    Example:
        >>> import torch
        >>> from lightning_gcam.metrics.functional import average_increase
        >>> average_increase(torch.tensor([0.8, 0.5]), torch.tensor([0.4, 0.6]))
        tensor(0.5000)

    Source:
        Chattopadhyay et al., "Grad-CAM++", 2018, arXiv 1710.11063 (section 4.1, increase in confidence).
    """
    return mean_counted(_average_increase_update(before, after, blank))


def _average_gain_update(before: Tensor, after: Tensor, blank: Tensor | None) -> PerSample:
    """Each sample's gain of confidence as a share of what there was to gain."""
    before, after = check_probabilities("before", before), check_probabilities("after", after, before)
    after = after.to(before.device)
    gain = (after - before).clamp(min=0) / (1 - before)
    return scored(gain, (before < 1) & after.isfinite(), blank)


def average_gain(before: Tensor, after: Tensor, blank: Tensor | None = None) -> Tensor:
    """Average, over the samples, max(0, after - before) / (1 - before): the share of the doubt that is lost.

    The counterpart of :func:`average_drop`, which a map of ones everywhere wins; this one it loses. Published
    tables give percent. A sample whose map is blank, whose probability was 1 already (as float32 rounds it),
    or is NaN, is left out.

    Args:
        before: ``(N,)`` floating, probabilities of the explained class for the images.
        after: ``(N,)`` floating, the same for the images multiplied by their maps.
        blank: ``(N,)`` bool, True where the map is blank; none where it is left out.

    Returns:
        A float32 scalar in [0, 1], higher is better, on the device of ``before``; NaN if every sample was left
        out.

    Raises:
        ValueError: If these are not probabilities ``(N,)`` in [0, 1], or ``blank`` is not bool ``(N,)``.

    Example:
        >>> import torch
        >>> from lightning_gcam.metrics.functional import average_gain
        >>> average_gain(torch.tensor([0.8, 0.5]), torch.tensor([0.4, 0.6]))
        tensor(0.1000)

    Source:
        Zhang et al., "Opti-CAM", 2023, arXiv 2301.07002 (average gain).
    """
    return mean_counted(_average_gain_update(before, after, blank))


def _win_rate_update(after: Tensor, other: Tensor, blank: Tensor | None) -> PerSample:
    """1 for each sample that keeps more confidence than with the other method's map, half for a tie."""
    after, other = check_probabilities("after", after), check_probabilities("other", other, after)
    other = other.to(after.device)
    wins = (after > other).float() + 0.5 * (after == other).float()
    return scored(wins, after.isfinite() & other.isfinite(), blank)


def win_rate(after: Tensor, other: Tensor, blank: Tensor | None = None) -> Tensor:
    """Give the share of the samples for which one method's map keeps more confidence than another's.

    A tie counts half for each, so the two methods' rates add up to 1, and 0.5 is chance. What the image itself
    scored cancels out of the comparison. A sample of which one map is blank, or one of whose probabilities is
    NaN, is left out.

    Args:
        after: ``(N,)`` floating, probabilities of the explained class for the images multiplied by their maps.
        other: ``(N,)`` floating, the same with the other method's maps.
        blank: ``(N,)`` bool, True where one of the two maps is blank; none where it is left out.

    Returns:
        A float32 scalar in [0, 1], on the device of ``after``; NaN if every sample was left out.

    Raises:
        ValueError: If these are not probabilities ``(N,)`` in [0, 1], or ``blank`` is not bool ``(N,)``.

    Example:
        >>> import torch
        >>> from lightning_gcam.metrics.functional import win_rate
        >>> win_rate(torch.tensor([0.8, 0.5, 0.1]), torch.tensor([0.4, 0.5, 0.2]))
        tensor(0.5000)

    Source:
        Chattopadhyay et al., "Grad-CAM++", 2018, arXiv 1710.11063 (section 4.1, win %).
    """
    return mean_counted(_win_rate_update(after, other, blank))


class _KeptConfidence(SampleScore):
    """Common to the scores over ``keep_salient``: which fill it takes, and how ``update`` is called."""

    requires: frozenset[str] = frozenset({"forwards"})
    cost: int = 1

    def __init__(self, fill: Fill = "zero", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_fill(fill)
        self.fill = fill
        self.perturbation = Perturbation("keep", fill)

    def update(self, before: Tensor, after: Tensor, blank: Tensor | None = None) -> None:
        """Add a batch of probabilities, both ``(N,)``, and perhaps which samples' maps are blank."""
        self._add(self._score(before, after, blank))


class AverageDrop(_KeptConfidence):
    """Mean, over the samples, of max(0, before - after) / before: the share of the confidence that is lost.

    ``after`` is the probability of the same class for
    :func:`keep_salient(images, maps, fill) <lightning_gcam.metrics.functional.keep_salient>`. Published tables
    give percent. A sample whose map is blank, whose probability was 0, or is NaN, is left out, and counted in
    ``left_out``.

    As input to ``forward`` and ``update`` the metric accepts ``before`` and ``after``, ``(N,)`` floating
    probabilities of the explained class, and ``blank`` ``(N,)`` bool. ``compute`` returns a float32 scalar in
    [0, 1], NaN if every sample was left out.

    Args:
        fill: What ``after`` was taken with; the metric only carries it, for whoever makes the images.
        kwargs: Passed on to :class:`torchmetrics.Metric`.

    Raises:
        ValueError: If ``fill`` is not known; in ``update``, if these are not probabilities ``(N,)`` in [0, 1],
            or ``blank`` is not bool ``(N,)``.

    Example:
        >>> import torch
        >>> from lightning_gcam.metrics import AverageDrop
        >>> AverageDrop()(torch.tensor([0.8, 0.5]), torch.tensor([0.4, 0.6]))
        tensor(0.2500)

    Source:
        Chattopadhyay et al., "Grad-CAM++", 2018, arXiv 1710.11063 (section 4.1).
    """

    higher_is_better: bool | None = False

    def _score(self, before: Tensor, after: Tensor, blank: Tensor | None = None) -> PerSample:
        return _average_drop_update(before, after, blank)


class AverageIncrease(_KeptConfidence):
    """Share of the samples whose confidence is higher with only the salient pixels left.

    Published tables give percent. A sample whose map is blank, or one of whose probabilities is NaN, is left
    out, and counted in ``left_out``.

    As input to ``forward`` and ``update`` the metric accepts ``before`` and ``after``, ``(N,)`` floating
    probabilities of the explained class, and ``blank`` ``(N,)`` bool. ``compute`` returns a float32 scalar in
    [0, 1], NaN if every sample was left out.

    Args:
        fill: What ``after`` was taken with; the metric only carries it, for whoever makes the images.
        kwargs: Passed on to :class:`torchmetrics.Metric`.

    Raises:
        ValueError: If ``fill`` is not known; in ``update``, if these are not probabilities ``(N,)`` in [0, 1],
            or ``blank`` is not bool ``(N,)``.

    Example:
        >>> import torch
        >>> from lightning_gcam.metrics import AverageIncrease
        >>> AverageIncrease()(torch.tensor([0.8, 0.5]), torch.tensor([0.4, 0.6]))
        tensor(0.5000)

    Source:
        Chattopadhyay et al., "Grad-CAM++", 2018, arXiv 1710.11063 (section 4.1, increase in confidence).
    """

    def _score(self, before: Tensor, after: Tensor, blank: Tensor | None = None) -> PerSample:
        return _average_increase_update(before, after, blank)


class AverageGain(_KeptConfidence):
    """Mean, over the samples, of max(0, after - before) / (1 - before): the share of the doubt that is lost.

    The counterpart of :class:`AverageDrop`, which a map of ones everywhere wins; this one it loses. Published
    tables give percent. A sample whose map is blank, whose probability was 1 already (as float32 rounds it),
    or is NaN, is left out, and counted in ``left_out``.

    As input to ``forward`` and ``update`` the metric accepts ``before`` and ``after``, ``(N,)`` floating
    probabilities of the explained class, and ``blank`` ``(N,)`` bool. ``compute`` returns a float32 scalar in
    [0, 1], NaN if every sample was left out.

    Args:
        fill: What ``after`` was taken with; the metric only carries it, for whoever makes the images.
        kwargs: Passed on to :class:`torchmetrics.Metric`.

    Raises:
        ValueError: If ``fill`` is not known; in ``update``, if these are not probabilities ``(N,)`` in [0, 1],
            or ``blank`` is not bool ``(N,)``.

    Example:
        >>> import torch
        >>> from lightning_gcam.metrics import AverageGain
        >>> AverageGain()(torch.tensor([0.8, 0.5]), torch.tensor([0.4, 0.6]))
        tensor(0.1000)

    Source:
        Zhang et al., "Opti-CAM", 2023, arXiv 2301.07002 (average gain).
    """

    def _score(self, before: Tensor, after: Tensor, blank: Tensor | None = None) -> PerSample:
        return _average_gain_update(before, after, blank)


class WinRate(SampleScore):
    """Share of the samples for which one method's map keeps more confidence than another's; 0.5 is chance.

    A tie counts half for each, so the two methods' rates add up to 1. A sample of which one map is blank, or
    one of whose probabilities is NaN, is left out, and counted in ``left_out``.

    As input to ``forward`` and ``update`` the metric accepts ``after`` and ``other``, ``(N,)`` floating
    probabilities of the explained class for the images multiplied by the one and the other method's maps, and
    ``blank`` ``(N,)`` bool. ``compute`` returns a float32 scalar in [0, 1], NaN if every sample was left out.

    Args:
        fill: What both were taken with; the metric only carries it, for whoever makes the images.
        kwargs: Passed on to :class:`torchmetrics.Metric`.

    Raises:
        ValueError: If ``fill`` is not known; in ``update``, if these are not probabilities ``(N,)`` in [0, 1],
            or ``blank`` is not bool ``(N,)``.

    Example:
        >>> import torch
        >>> from lightning_gcam.metrics import WinRate
        >>> WinRate()(torch.tensor([0.8, 0.5, 0.1]), torch.tensor([0.4, 0.5, 0.2]))
        tensor(0.5000)

    Source:
        Chattopadhyay et al., "Grad-CAM++", 2018, arXiv 1710.11063 (section 4.1, win %).
    """

    requires: frozenset[str] = frozenset({"forwards", "other"})
    cost: int = 2

    def __init__(self, fill: Fill = "zero", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_fill(fill)
        self.fill = fill
        self.perturbation = Perturbation("keep", fill)

    def _score(self, after: Tensor, other: Tensor, blank: Tensor | None = None) -> PerSample:
        return _win_rate_update(after, other, blank)

    def update(self, after: Tensor, other: Tensor, blank: Tensor | None = None) -> None:
        """Add a batch of probabilities, both ``(N,)``, and perhaps which samples have a blank map."""
        self._add(self._score(after, other, blank))
