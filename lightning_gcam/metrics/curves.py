"""Areas under the class's probability while pixels are inserted or deleted in the order of their saliency."""

from typing import Any, Literal

import torch
from torch import Tensor, trapezoid

from lightning_gcam.metrics.base import SampleScore, Values
from lightning_gcam.metrics.perturbation import Fill, Perturbation, check_fill, check_probabilities, scored
from lightning_gcam.metrics.samples import PerSample, mean_counted, sum_counted
from lightning_gcam.utils.errors import InputError, check_whole


def _curve_auc_update(curves: Tensor, blank: Tensor | None) -> PerSample:
    """Area under each curve, its steps at even distances from 0 to 1."""
    curves = check_probabilities("curves", curves, ndim=2)
    steps = curves.shape[1] - 1
    if steps < 1:
        raise InputError(
            f"`curves` must be (N, steps + 1) with at least one step, got {tuple(curves.shape)}. "
            "A curve has a value before the first step and one after each."
        )
    return scored(trapezoid(curves, dx=1 / steps, dim=1), curves.isfinite().all(dim=1), blank)


def insertion_auc(curves: Tensor, blank: Tensor | None = None) -> Tensor:
    """Average the area under the curve of the confidence, as the most salient pixels come first.

    The images are those of `insertion_steps`; the area is by trapezoids, the steps at even distances. A
    sample whose map is blank, or whose curve has a NaN, is left out.

    Args:
        curves: ``(N, steps + 1)`` floating, probabilities of the explained class, from no pixel to all.
        blank: ``(N,)`` bool, True where the map is blank; none where it is left out.

    Returns:
        A float32 scalar in [0, 1], higher is better, on the device of ``curves``; NaN if every sample was left
        out.

    Raises:
        ValueError: If ``curves`` are not probabilities ``(N, steps + 1)``, or ``blank`` is not bool ``(N,)``.

    Example:
        >>> import torch
        >>> from lightning_gcam.metrics.functional import insertion_auc
        >>> insertion_auc(torch.tensor([[0.0, 0.8, 0.8], [0.0, 0.0, 0.8]]))
        tensor(0.4000)

    Source:
        Petsiuk et al., "RISE", 2018, arXiv 1806.07421 (section 4.1).
    """
    return mean_counted(_curve_auc_update(curves, blank))


def deletion_auc(curves: Tensor, blank: Tensor | None = None) -> Tensor:
    """Average the area under the curve of the confidence, as the most salient pixels go first.

    The images are those of `deletion_steps`; the area is by trapezoids, the steps at even distances. A
    sample whose map is blank, or whose curve has a NaN, is left out.

    Args:
        curves: ``(N, steps + 1)`` floating, probabilities of the explained class, from the whole image to none.
        blank: ``(N,)`` bool, True where the map is blank; none where it is left out.

    Returns:
        A float32 scalar in [0, 1], lower is better, on the device of ``curves``; NaN if every sample was left
        out.

    Raises:
        ValueError: If ``curves`` are not probabilities ``(N, steps + 1)``, or ``blank`` is not bool ``(N,)``.

    Example:
        >>> import torch
        >>> from lightning_gcam.metrics.functional import deletion_auc
        >>> deletion_auc(torch.tensor([[0.8, 0.0, 0.0], [0.8, 0.8, 0.0]]))
        tensor(0.4000)

    Source:
        Petsiuk et al., "RISE", 2018, arXiv 1806.07421 (section 4.1).
    """
    return mean_counted(_curve_auc_update(curves, blank))


class _CurveAUC(SampleScore):
    """Common to both: the number of steps of a curve, what fills the pixels, how ``update`` is called, and the plot."""

    requires: frozenset[str] = frozenset({"forwards"})

    kind: Literal["insert", "delete"]
    pixels: str

    curve_total: Tensor

    def __init__(self, steps: int, fill: Fill, **kwargs: Any) -> None:
        check_whole("steps", steps)
        check_fill(fill)
        super().__init__(**kwargs)
        self.steps, self.fill = steps, fill
        self.cost = steps + 1
        self.perturbation = Perturbation(self.kind, fill, steps)
        self.add_state("curve_total", torch.zeros(steps + 1, dtype=torch.float64), dist_reduce_fx="sum")

    @property
    def curve(self) -> Tensor:
        """The mean curve ``(steps + 1,)`` float32 of the samples that count, in this process; NaN without any.

        The area under it is what ``compute`` gives.
        """
        return self._value(self.curve_total, self.n_scored)

    def _score(self, curves: Tensor, blank: Tensor | None = None) -> PerSample:
        sample = _curve_auc_update(curves, blank)
        if curves.shape[1] != self.steps + 1:
            raise InputError(
                f"`curves` must be (N, {self.steps + 1}), a value before the first of {self.steps} steps and one "
                f"after each, got {tuple(curves.shape)}. Set `steps`, or make the images with as many."
            )
        return sample

    def update(self, curves: Tensor, blank: Tensor | None = None) -> None:
        """Add a batch of curves ``(N, steps + 1)``, and perhaps which samples' maps are blank."""
        sample = self._score(curves, blank)
        self._add(sample)
        rows = PerSample(curves.detach(), sample.counted)
        total, _, _ = sum_counted(rows, self.curve_total.device, self.curve_total.dtype)
        self.curve_total = self.curve_total + total

    def plot(self, val: Values = None, ax: Any = None) -> Any:
        """Plot the mean curve over the share of the pixels, or values of the score over steps.

        Args:
            val: What ``forward`` or ``compute`` returned, once or several times, as tensors or floats; ``None`` plots
                ``curve``.
            ax: The matplotlib axis to draw on; ``None`` makes a figure.

        Returns:
            The figure and the axis.
        """
        if val is not None:
            return super().plot(val, ax)
        from matplotlib import pyplot

        figure, axis = pyplot.subplots() if ax is None else (ax.get_figure(), ax)
        share, curve = [step / self.steps for step in range(self.steps + 1)], self.curve.cpu().numpy()
        axis.plot(share, curve, marker=".")
        axis.fill_between(share, curve, alpha=0.2)
        axis.set(xlim=(0, 1), ylim=(0, 1), xlabel=f"share of the pixels {self.pixels}, most salient first")
        axis.set_ylabel("mean probability of the explained class")
        area = float(self._value(self.total, self.n_scored))
        axis.set_title(f"{type(self).__name__}: area {area:.3f}, n = {self.n}")
        return figure, axis


class InsertionAUC(_CurveAUC):
    """Mean area under the curve of the confidence, as the most salient pixels come first.

    The images are those of `insertion_steps` with this metric's
    ``steps`` and ``fill``; the area is by trapezoids. A sample whose map is blank, or whose curve has a NaN,
    is left out, and counted in ``left_out``.

    As input to ``forward`` and ``update`` the metric accepts ``curves`` ``(N, steps + 1)``, floating
    probabilities of the explained class from no pixel to all, and ``blank`` ``(N,)`` bool. ``compute``
    returns a float32 scalar in [0, 1], NaN if every sample was left out.

    Args:
        steps: How many steps; ``cost`` is one forward more.
        fill: What stands where no pixel is shown; the metric only carries it, for whoever makes the images.
        kwargs: Passed on to `torchmetrics.Metric`.

    Raises:
        ValueError: If ``steps`` is not a positive integer, or ``fill`` is not known; in ``update``, if these
            are not probabilities ``(N, steps + 1)`` in [0, 1], or ``blank`` is not bool ``(N,)``.

    Example:
        >>> import torch
        >>> from lightning_gcam.metrics import InsertionAUC
        >>> InsertionAUC(steps=2)(torch.tensor([[0.0, 0.8, 0.8], [0.0, 0.0, 0.8]]))
        tensor(0.4000)

    Source:
        Petsiuk et al., "RISE", 2018, arXiv 1806.07421 (section 4.1).
    """

    kind: Literal["insert", "delete"] = "insert"
    pixels: str = "shown"

    def __init__(self, steps: int = 20, fill: Fill = "blur", **kwargs: Any) -> None:
        super().__init__(steps, fill, **kwargs)


class DeletionAUC(_CurveAUC):
    """Mean area under the curve of the confidence, as the most salient pixels go first.

    The images are those of `deletion_steps` with this metric's
    ``steps`` and ``fill``; the area is by trapezoids. A sample whose map is blank, or whose curve has a NaN,
    is left out, and counted in ``left_out``.

    As input to ``forward`` and ``update`` the metric accepts ``curves`` ``(N, steps + 1)``, floating
    probabilities of the explained class from the whole image to none of it, and ``blank`` ``(N,)`` bool.
    ``compute`` returns a float32 scalar in [0, 1], NaN if every sample was left out.

    Args:
        steps: How many steps; ``cost`` is one forward more.
        fill: What stands where a pixel is gone; the metric only carries it, for whoever makes the images.
        kwargs: Passed on to `torchmetrics.Metric`.

    Raises:
        ValueError: If ``steps`` is not a positive integer, or ``fill`` is not known; in ``update``, if these
            are not probabilities ``(N, steps + 1)`` in [0, 1], or ``blank`` is not bool ``(N,)``.

    Example:
        >>> import torch
        >>> from lightning_gcam.metrics import DeletionAUC
        >>> DeletionAUC(steps=2)(torch.tensor([[0.8, 0.0, 0.0], [0.8, 0.8, 0.0]]))
        tensor(0.4000)

    Source:
        Petsiuk et al., "RISE", 2018, arXiv 1806.07421 (section 4.1).
    """

    higher_is_better: bool | None = False
    kind: Literal["insert", "delete"] = "delete"
    pixels: str = "taken away"

    def __init__(self, steps: int = 20, fill: Fill = "zero", **kwargs: Any) -> None:
        super().__init__(steps, fill, **kwargs)
