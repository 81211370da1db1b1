"""The common base of the scores: a mean over the samples that count, kept as sums."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_gcam.metrics.functional.mean import PerSample, _mean_compute, sum_counted


class SampleMean(Metric):
    """Mean of one number a sample, over the samples that count; those left out are counted too.

    A score is a subclass that says, in :meth:`_score`, what a sample's number is and whether it counts. The
    states are sums, so neither the split into batches nor the number of processes changes a result. The maps
    may be on any device: each sample's number is moved to the metric's own. The total is float64, which MPS
    does not have: there, leave the metric on the CPU, or call ``metric.set_dtype(torch.float32)`` before
    ``metric.to("mps")``.

    As input to ``forward`` and ``update`` the metric accepts:

        - ``saliency``: ``(N, H, W)``, floating, at least 0.
        - ``mask``: ``(N, H, W)`` bool, True on the object.

    As output of ``forward`` and ``compute`` it returns a float32 scalar, NaN if every sample was left out.

    Args:
        kwargs: Passed on to :class:`torchmetrics.Metric`.

    Example:
        >>> import torch
        >>> from lightning_gcam.metrics import SampleMean
        >>> from lightning_gcam.metrics.functional.mean import PerSample
        >>> class PeakHeight(SampleMean):
        ...     def _score(self, saliency, mask):
        ...         return PerSample(saliency.amax(dim=(1, 2)), mask.any(dim=2).any(dim=1))
        >>> metric = PeakHeight()
        >>> metric.update(torch.tensor([[[3.0]], [[5.0]]]), torch.tensor([[[True]], [[False]]]))
        >>> metric.compute(), metric.n, metric.left_out
        (tensor(3.), 1, 1)
    """

    is_differentiable: bool = False
    higher_is_better: bool | None = True
    full_state_update: bool = False
    plot_lower_bound: float | None = 0.0
    plot_upper_bound: float | None = 1.0
    requires_mask: bool = True

    total: Tensor
    n_scored: Tensor
    n_left_out: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("total", torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("n_scored", torch.tensor(0, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("n_left_out", torch.tensor(0, dtype=torch.int64), dist_reduce_fx="sum")

    @property
    def n(self) -> int:
        """How many samples were scored, in this process."""
        return int(self.n_scored)

    @property
    def left_out(self) -> int:
        """How many samples were left out, in this process."""
        return int(self.n_left_out)

    @abstractmethod
    def _score(self, saliency: Tensor, mask: Tensor) -> PerSample:
        """Give each sample its number, and say which samples count."""

    def update(self, saliency: Tensor, mask: Tensor) -> None:
        """Add a batch of maps and masks, both ``(N, H, W)``."""
        self._add(self._score(saliency, mask))

    def compute(self) -> Tensor:
        """Return the mean over the samples that count: a float32 scalar, NaN if there are none."""
        return _mean_compute(self.total, self.n_scored)

    def plot(self, val: Tensor | Sequence[Tensor] | None = None, ax: Any = None) -> Any:
        """Plot one value or a list of them.

        Args:
            val: What ``forward`` or ``compute`` returned, once or several times; ``None`` plots
                ``compute()``.
            ax: The matplotlib axis to draw on; ``None`` makes a figure.

        Returns:
            The figure and the axis.

        Raises:
            ModuleNotFoundError: If matplotlib is not installed.
        """
        return self._plot(val, ax)

    def _add(self, sample: PerSample) -> None:
        """Add a batch to the sums.

        Out of place: a state that was made under ``inference_mode`` cannot be changed in place outside of it.
        """
        total, n, left_out = sum_counted(sample, self.total.device, self.total.dtype)
        self.total = self.total + total
        self.n_scored = self.n_scored + n
        self.n_left_out = self.n_left_out + left_out
