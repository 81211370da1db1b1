"""How fast does the confidence come, or go, as pixels are shown or taken away in the order of their saliency?"""

from torch import Tensor, trapezoid

from lightning_gcam._errors import InputError
from lightning_gcam.metrics.functional.mean import PerSample, mean_counted
from lightning_gcam.metrics.functional.probabilities import check_probabilities, scored


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

    The images are those of :func:`insertion_steps`; the area is by trapezoids, the steps at even distances. A
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

    The images are those of :func:`deletion_steps`; the area is by trapezoids, the steps at even distances. A
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
