"""How many maps have nothing in them to score?"""

import torch
from torch import Tensor

from lightning_gcam.metrics.functional.inputs import check_saliency, find_blank
from lightning_gcam.metrics.functional.mean import PerSample, mean_counted


def _blank_rate_update(saliency: Tensor) -> PerSample:
    """1 for each blank map, 0 for each other; every sample counts."""
    check_saliency(saliency)
    _, blank = find_blank(saliency)
    return PerSample(blank.float(), torch.ones_like(blank))


def blank_rate(saliency: Tensor) -> Tensor:
    """Return the share of samples whose map is blank: all zero, or not finite.

    Every sample counts. Such maps happen (a zero-initialised head before the first step, a class with no
    evidence), and every other score leaves them out, so this one says how much of the batch the others speak
    for.

    Args:
        saliency: ``(N, H, W)``, floating, at least 0, of any scale.

    Returns:
        A float32 scalar in [0, 1], on the saliency's device; NaN if there is no sample.

    Raises:
        TypeError: If ``saliency`` is not floating.
        ValueError: If its shape is not ``(N, H, W)``, or it has negative values.

    Example:
        >>> import torch
        >>> from lightning_gcam.metrics.functional import blank_rate
        >>> blank_rate(torch.tensor([[[0.0, 0.0]], [[0.0, 1.0]]]))
        tensor(0.5000)
    """
    return mean_counted(_blank_rate_update(saliency))
