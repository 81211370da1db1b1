"""How much of the class's probability is left where only the salient pixels are kept; alone, and in ADCC."""

from typing import Any

import torch
from torch import Tensor

from lightning_gcam.metrics.base import SampleScore
from lightning_gcam.metrics.perturbation import Fill, Perturbation, check_fill, check_probabilities, scored
from lightning_gcam.metrics.samples import PerSample, mean_counted
from lightning_gcam.metrics.similarity import _coherency_update
from lightning_gcam.metrics.sparsity import _complexity_update
from lightning_gcam.utils.errors import InputError


def _average_drop_update(before: Tensor, after: Tensor, blank: Tensor | None) -> PerSample:
    """Each sample's loss of confidence as a share of what there was to lose."""
    before, after = check_probabilities("before", before), check_probabilities("after", after, before)
    after = after.to(before.device)
    drop = (before - after).clamp(min=0) / before
    return scored(drop, (before > 0) & after.isfinite(), blank)


def average_drop(before: Tensor, after: Tensor, blank: Tensor | None = None) -> Tensor:
    """Average, over the samples, max(0, before - after) / before: the share of the confidence that is lost.

    ``after`` is the probability of the same class for the image of which only the salient pixels are left; see
    `keep_salient`. Published tables give percent. A sample whose map is blank, whose probability was 0,
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

    The counterpart of `average_drop`, which a map of ones everywhere wins; this one it loses. Published
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
    `keep_salient(images, maps, fill)`. Published tables
    give percent. A sample whose map is blank, whose probability was 0, or is NaN, is left out, and counted in
    ``left_out``.

    As input to ``forward`` and ``update`` the metric accepts ``before`` and ``after``, ``(N,)`` floating
    probabilities of the explained class, and ``blank`` ``(N,)`` bool. ``compute`` returns a float32 scalar in
    [0, 1], NaN if every sample was left out.

    Args:
        fill: What ``after`` was taken with; the metric only carries it, for whoever makes the images.
        kwargs: Passed on to `torchmetrics.Metric`.

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
        kwargs: Passed on to `torchmetrics.Metric`.

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

    The counterpart of `AverageDrop`, which a map of ones everywhere wins; this one it loses. Published
    tables give percent. A sample whose map is blank, whose probability was 1 already (as float32 rounds it),
    or is NaN, is left out, and counted in ``left_out``.

    As input to ``forward`` and ``update`` the metric accepts ``before`` and ``after``, ``(N,)`` floating
    probabilities of the explained class, and ``blank`` ``(N,)`` bool. ``compute`` returns a float32 scalar in
    [0, 1], NaN if every sample was left out.

    Args:
        fill: What ``after`` was taken with; the metric only carries it, for whoever makes the images.
        kwargs: Passed on to `torchmetrics.Metric`.

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
        kwargs: Passed on to `torchmetrics.Metric`.

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


def _adcc_update(saliency: Tensor, kept: Tensor, before: Tensor, after: Tensor) -> PerSample:
    """Harmonic mean of each sample's coherency, simplicity and rest of confidence."""
    coherent, simple = _coherency_update(saliency, kept), _complexity_update(saliency)
    drop = _average_drop_update(before, after, coherent.blank)
    if len(drop.values) != len(saliency):
        raise InputError(
            f"`before` must hold {len(saliency)} samples, as many as `saliency`, got {len(before)}."
        )
    device = saliency.device
    parts = torch.stack([coherent.values, 1 - simple.values, 1 - drop.values.to(device)])
    # 3 abc / (ab + bc + ca): the harmonic mean, which is 0 where one of the three is.
    pairs = parts[0] * parts[1] + parts[1] * parts[2] + parts[2] * parts[0]
    values = torch.where(parts.prod(dim=0) > 0, 3 * parts.prod(dim=0) / pairs, 0.0)
    return coherent._replace(values=values, counted=coherent.counted & drop.counted.to(device))


def adcc(saliency: Tensor, kept: Tensor, before: Tensor, after: Tensor) -> Tensor:
    """Average the harmonic mean of coherency, 1 - complexity and 1 - drop, taken sample by sample.

    3 / (1/coherency + 1/(1 - complexity) + 1/(1 - drop)), which is 0 where one of the three is: a map must be
    coherent **and** simple **and** enough. A sample that one of the parts leaves out is left out.

    Args:
        saliency: ``(N, *spatial)``, floating, at least 0, the maps of the images.
        kept: ``(N, *spatial)``, the maps of ``keep_salient(images, saliency)``, of the same classes.
        before: ``(N,)`` floating, probabilities of the explained class for the images.
        after: ``(N,)`` floating, the same for ``keep_salient(images, saliency)``.

    Returns:
        A float32 scalar in [0, 1], higher is better, on the saliency's device; NaN if every sample was left out.

    Raises:
        TypeError: If ``saliency`` is not floating.
        ValueError: If shapes do not fit, a map has negative values, or these are not probabilities in [0, 1].

    Example:
        >>> import torch
        >>> from lightning_gcam.metrics.functional import adcc
        >>> saliency = torch.tensor([[[1.0, 0.0]]])
        >>> adcc(saliency, saliency, torch.tensor([0.8]), torch.tensor([0.8]))
        tensor(0.7500)

    Source:
        Poppi et al., 2021, arXiv 2104.10252.
    """
    return mean_counted(_adcc_update(saliency, kept, before, after))


class ADCC(SampleScore):
    """Mean over the samples of the harmonic mean of coherency, 1 - complexity and 1 - average drop.

    0 where one of the three is: a map must be coherent **and** simple **and** enough. A sample that one of the
    parts leaves out is left out, and counted in ``left_out``.

    As input to ``forward`` and ``update`` the metric accepts ``saliency`` and ``kept``, both ``(N, *spatial)``,
    floating, at least 0: the maps of the images, and those of
    `keep_salient(images, saliency)`; and ``before`` and
    ``after``, ``(N,)`` floating, the probabilities of the explained class for both. One pass over the kept
    images gives ``kept`` and ``after``. ``compute`` returns a float32 scalar in [0, 1], NaN if every sample
    was left out.

    Args:
        kwargs: Passed on to `torchmetrics.Metric`.

    Raises:
        TypeError: In ``update``, if ``saliency`` is not floating.
        ValueError: In ``update``, if shapes do not fit, a map has negative values, or these are not
            probabilities in [0, 1].

    Example:
        >>> import torch
        >>> from lightning_gcam.metrics import ADCC
        >>> saliency = torch.tensor([[[1.0, 0.0]]])
        >>> ADCC()(saliency, saliency, torch.tensor([0.8]), torch.tensor([0.8]))
        tensor(0.7500)

    Source:
        Poppi et al., "Revisiting The Evaluation of Class Activation Mapping for Explainability", 2021, arXiv
        2104.10252.
    """

    requires: frozenset[str] = frozenset({"forwards", "maps"})
    cost: int = 1
    perturbation: Perturbation | None = Perturbation("keep", "zero")

    def _score(self, saliency: Tensor, kept: Tensor, before: Tensor, after: Tensor) -> PerSample:
        return _adcc_update(saliency, kept, before, after)

    def update(self, saliency: Tensor, kept: Tensor, before: Tensor, after: Tensor) -> None:
        """Add a batch: maps and maps of the kept images ``(N, *spatial)``, and the probabilities of both ``(N,)``."""
        self._add(self._score(saliency, kept, before, after))
