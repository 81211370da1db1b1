"""Does the saliency stay at the same places while the objects move?"""

from typing import Any

from torch import Tensor

from lightning_gcam.metrics.base import SampleMean
from lightning_gcam.metrics.functional.mean import PerSample
from lightning_gcam.metrics.functional.position import (
    CELLS,
    _positional_concentration_compute,
    _positional_concentration_update,
)


class PositionalConcentration(SampleMean):
    """How much fewer places the saliency takes, over all samples, than the objects do: 1 - H(P) / H(Q).

    P is the mean over the samples of S / sum(S), and Q of M / |M|, on a grid of 8 x 8 cells; H is the entropy.
    0: the saliency spreads over as many places as the objects; below 0: over more; 1: all of it lies in one
    cell in every sample. A model that always looks at the same place is suspicious where the objects are not
    always there. Few samples with sharp maps cannot fill many cells, and score somewhat above 0 by that alone.
    A sample whose map is blank (all zero, or not finite) or whose mask is empty is left out, and counted in
    ``left_out``.

    As input to ``forward`` and ``update`` the metric accepts ``saliency`` ``(N, H, W)``, floating, at least
    0, and ``mask`` ``(N, H, W)`` bool. ``compute`` returns a float32 scalar of at most 1, NaN if every sample
    was left out, or all objects lie in one and the same cell.

    Args:
        kwargs: Passed on to :class:`torchmetrics.Metric`.

    Raises:
        TypeError: In ``update``, if ``saliency`` is not floating or ``mask`` is not bool.
        ValueError: In ``update``, if the shapes are not both ``(N, H, W)``, or ``saliency`` has negative
            values.

    Example:
        >>> import torch
        >>> from lightning_gcam.metrics import PositionalConcentration
        >>> left, right = torch.eye(2)[:, None, :]
        >>> PositionalConcentration()(torch.stack([left, left]), torch.stack([left, right]).bool())
        tensor(1.)
    """

    higher_is_better: bool | None = False
    plot_lower_bound: float | None = None

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(shape=(2, CELLS**2), **kwargs)

    def _score(self, saliency: Tensor, mask: Tensor) -> PerSample:
        return _positional_concentration_update(saliency, mask)

    def _value(self, total: Tensor, n: Tensor) -> Tensor:
        return _positional_concentration_compute(total, n)
