"""What becomes of the model's confidence when only the salient pixels are left: one forward."""

from typing import Any

from torch import Tensor

from lightning_gcam.metrics.base import SampleScore
from lightning_gcam.metrics.functional.confidence import (
    _average_drop_update,
    _average_gain_update,
    _average_increase_update,
    _win_rate_update,
)
from lightning_gcam.metrics.functional.mean import PerSample
from lightning_gcam.metrics.functional.perturbed import Fill, check_fill
from lightning_gcam.metrics.question import Question


class _KeptConfidence(SampleScore):
    """Common to the scores over ``keep_salient``: which fill it takes, and how ``update`` is called."""

    requires: frozenset[str] = frozenset({"forwards"})
    cost: int = 1

    def __init__(self, fill: Fill = "zero", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_fill(fill)
        self.fill = fill
        self.question = Question("keep", fill)

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
        self.question = Question("keep", fill)

    def _score(self, after: Tensor, other: Tensor, blank: Tensor | None = None) -> PerSample:
        return _win_rate_update(after, other, blank)

    def update(self, after: Tensor, other: Tensor, blank: Tensor | None = None) -> None:
        """Add a batch of probabilities, both ``(N,)``, and perhaps which samples have a blank map."""
        self._add(self._score(after, other, blank))
