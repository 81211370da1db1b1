"""The base classes of the scores: sums over the samples that count, and the score made of them."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_gcam.metrics.perturbation import Perturbation
from lightning_gcam.metrics.samples import PerSample, _mean_compute, sum_counted

Values = Tensor | float | Sequence[Tensor | float] | None
"""What ``plot`` takes."""


class SampleScore(Metric):
    """A score made of sums over the samples that count; those left out are counted too, by their reason.

    A score is a subclass that computes, in `_score`, a sample's number (or row of numbers) and
    whether it counts, and in `_value` the score from the sums; left out, that is their mean. The states are
    sums, so neither the split into batches nor the number of processes changes a result. The inputs may be on
    any device: each sample's numbers are moved to the metric's own. The total is float64, which MPS does not
    have: there, leave the metric on the CPU, or call ``metric.set_dtype(torch.float32)`` before
    ``metric.to("mps")``.

    What ``update`` takes differs; ``requires`` lists it:

    - ``"mask"``: the object's mask, after the saliency.
    - ``"suspect"``: the suspect region, in the place of the mask.
    - ``"forwards"``: probabilities of perturbed images; the docstring says which.
    - ``"maps"``: the maps of perturbed images.
    - ``"earlier"``, ``"random"``, ``"other"``: maps of an earlier look, of the same model with random
      weights; what another method reaches.

    ``cost`` is how many forwards of the samples that takes beyond the look itself, and ``perturbation`` makes their
    images; ``None`` where no model is run. ``takes_boxes`` states that ``update`` takes each sample's boxes
    behind the mask, where there are some. Maps and masks are ``(N, *spatial)``, of one to three dimensions: ``(N, L)``
    of signals, ``(N, H, W)`` of images, ``(N, D, H, W)`` of volumes, ``(N, T, H, W)`` of videos.

    Args:
        shape: The shape of a sample's numbers; ``()`` for one number.
        kwargs: Passed on to `torchmetrics.Metric`.

    Example:
        >>> import torch
        >>> from lightning_gcam.metrics import SampleScore
        >>> from lightning_gcam.metrics.samples import PerSample
        >>> class Accuracy(SampleScore):
        ...     def _score(self, guesses, labels):
        ...         return PerSample((guesses == labels).float(), labels >= 0)
        >>> metric = Accuracy()
        >>> metric.update(torch.tensor([1, 0, 2]), torch.tensor([1, 1, -1]))
        >>> metric.compute(), metric.n, metric.left_out
        (tensor(0.5000), 2, 1)
    """

    is_differentiable: bool = False
    higher_is_better: bool | None = True
    full_state_update: bool = False
    plot_lower_bound: float | None = 0.0
    plot_upper_bound: float | None = 1.0
    requires: frozenset[str] = frozenset()
    takes_boxes: bool = False
    cost: int = 0
    perturbation: Perturbation | None = None

    total: Tensor
    n_scored: Tensor
    n_left_out: Tensor
    n_blank: Tensor
    n_no_mask: Tensor

    def __init__(self, shape: tuple[int, ...] = (), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("total", torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")
        for state in ("n_scored", "n_left_out", "n_blank", "n_no_mask"):
            self.add_state(state, torch.tensor(0, dtype=torch.int64), dist_reduce_fx="sum")

    @property
    def requires_mask(self) -> bool:
        """Whether ``update`` can only be called with a mask."""
        return "mask" in self.requires

    @property
    def n(self) -> int:
        """How many samples were scored, in this process."""
        return int(self.n_scored)

    @property
    def left_out(self) -> int:
        """How many samples were left out, in this process."""
        return int(self.n_left_out)

    @property
    def blank(self) -> int:
        """How many of those left out have a blank map, in this process."""
        return int(self.n_blank)

    @property
    def no_mask(self) -> int:
        """How many of those left out have an empty mask, in this process."""
        return int(self.n_no_mask)

    @abstractmethod
    def _score(self, *args: Any, **kwargs: Any) -> PerSample:
        """Return each sample's numbers, and which samples count."""

    _value = staticmethod(_mean_compute)
    """Compute the score ``(...)`` float32 from sums ``(..., *shape)`` over ``(...)`` samples; a subclass may define
    a method ``_value(self, total, n)``."""

    def per_sample(self, *args: Any, **kwargs: Any) -> PerSample:
        """Return each sample's numbers, for what ``update`` takes; no state is changed."""
        return self._score(*args, **kwargs)

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Add a batch."""
        self._add(self._score(*args, **kwargs))

    def compute(self) -> Tensor:
        """Return the score over the samples that count: a float32 scalar, NaN if there are none."""
        return self._value(self.total, self.n_scored)

    def plot(self, val: Values = None, ax: Any = None) -> Any:
        """Plot one value or a list of them.

        Args:
            val: What ``forward`` or ``compute`` returned, once or several times, as tensors or as floats, such
                as a column of ``SaliencyMonitor.history``; ``None`` plots ``compute()``.
            ax: The matplotlib axis to draw on; ``None`` makes a figure.

        Returns:
            The figure and the axis.

        Raises:
            ModuleNotFoundError: If matplotlib is not installed.
        """
        if val is None or isinstance(val, Tensor):
            return self._plot(val, ax)
        values = [val] if isinstance(val, float) else val
        return self._plot([torch.as_tensor(each) for each in values], ax)

    def _add(self, sample: PerSample) -> None:
        """Add a batch to the sums.

        Out of place: a state that was made under ``inference_mode`` cannot be changed in place outside of it.
        """
        device = self.total.device
        total, n, left_out = sum_counted(sample, device, self.total.dtype)
        self.total = self.total + total
        self.n_scored = self.n_scored + n
        self.n_left_out = self.n_left_out + left_out
        if sample.blank is not None:
            self.n_blank = self.n_blank + sample.blank.to(device).sum()
        if sample.no_mask is not None:
            self.n_no_mask = self.n_no_mask + sample.no_mask.to(device).sum()


class SampleMean(SampleScore):
    """Mean, over the samples that count, of one number that a map and its mask give.

    A score is a subclass that computes, in `_score`, a sample's number and whether it counts; see
    `SampleScore` for the rest.

    As input to ``forward`` and ``update`` the metric accepts:

    - ``saliency``: ``(N, *spatial)``, floating, at least 0.
    - ``mask``: ``(N, *spatial)`` bool, True on the object.

    As output of ``forward`` and ``compute`` it returns a float32 scalar, NaN if every sample was left out.

    Args:
        kwargs: Passed on to `SampleScore` and `torchmetrics.Metric`.

    Example:
        >>> import torch
        >>> from lightning_gcam.metrics import SampleMean
        >>> from lightning_gcam.metrics.samples import PerSample
        >>> class PeakHeight(SampleMean):
        ...     def _score(self, saliency, mask):
        ...         return PerSample(saliency.flatten(1).amax(dim=1), mask.flatten(1).any(dim=1))
        >>> metric = PeakHeight()
        >>> metric.update(torch.tensor([[[3.0]], [[5.0]]]), torch.tensor([[[True]], [[False]]]))
        >>> metric.compute(), metric.n, metric.left_out
        (tensor(3.), 1, 1)
    """

    requires: frozenset[str] = frozenset({"mask"})

    @abstractmethod
    def _score(self, saliency: Tensor, mask: Tensor) -> PerSample:
        """Return each sample's number, and which samples count."""

    def update(self, saliency: Tensor, mask: Tensor) -> None:
        """Add a batch of maps and masks, both ``(N, *spatial)``."""
        self._add(self._score(saliency, mask))


def needs_mask(metric: Metric) -> bool:
    """Return whether a metric can only be updated with a mask.

    Args:
        metric: Any metric. An attribute ``requires_mask`` states it; one without it is taken to
            need one.

    Example:
        >>> from lightning_gcam.metrics import BlankRate, PointingGame, needs_mask
        >>> needs_mask(PointingGame()), needs_mask(BlankRate())
        (True, False)
    """
    return bool(getattr(metric, "requires_mask", True))


def needs(metric: Metric) -> frozenset[str]:
    """Return what a metric's ``update`` takes beside the saliency maps; see `SampleScore` for the words.

    Args:
        metric: Any metric. An attribute ``requires`` states it; of one without it, ``needs_mask`` decides.

    Example:
        >>> from lightning_gcam.metrics import AverageDrop, PointingGame, needs
        >>> sorted(needs(PointingGame())), sorted(needs(AverageDrop()))
        (['mask'], ['forwards'])
    """
    requires: frozenset[str] | None = getattr(metric, "requires", None)
    if requires is None:
        requires = frozenset({"mask"})
    # A subclass of a score that needs a mask may state by `requires_mask` that it needs none.
    return requires if needs_mask(metric) else requires - {"mask"}
