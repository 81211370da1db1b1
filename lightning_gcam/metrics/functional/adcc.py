"""ADCC and its parts: is a map coherent, simple, and enough for the model?"""

import torch
from torch import Tensor

from lightning_gcam._errors import InputError
from lightning_gcam.metrics.functional.confidence import _average_drop_update
from lightning_gcam.metrics.functional.inputs import check_saliency, find_blank
from lightning_gcam.metrics.functional.mean import PerSample, mean_counted
from lightning_gcam.metrics.functional.similarity import _pair, pearson


def _coherency_update(saliency: Tensor, kept: Tensor) -> PerSample:
    """(1 + Pearson's correlation) / 2 of each map and that of the kept image; 0 where the latter is blank."""
    check_saliency(saliency)
    _, blank = find_blank(saliency)
    saliency, kept, _ = _pair(saliency, kept, "kept")
    first, second = (maps / maps.amax(dim=(1, 2), keepdim=True) for maps in (saliency, kept))
    values, defined = pearson(first.flatten(1), second.flatten(1))
    gone = (kept == 0).flatten(1).all(dim=1)
    values = torch.where(gone, 0.0, (1 + values) / 2)
    return PerSample(values, ~blank & (defined | gone), blank)


def coherency(saliency: Tensor, kept: Tensor) -> Tensor:
    """Average how much each map is like the map of the image of which only the salient pixels are left.

    (1 + r) / 2, with Pearson's correlation r over the pixels of the two maps: a map that holds all that the
    model looks at is found again. 0.5 is no correlation. Where the second map is blank, nothing was found
    again, and the sample scores 0, as in the authors' code. A sample whose own map is blank (all zero, or not
    finite), or one of whose maps is the same everywhere, is left out.

    Args:
        saliency: ``(N, H, W)``, floating, at least 0, the maps of the images.
        kept: ``(N, H, W)``, the maps of ``keep_salient(images, saliency)``, of the same classes.

    Returns:
        A float32 scalar in [0, 1], higher is better, on the saliency's device; NaN if every sample was left out.

    Raises:
        TypeError: If ``saliency`` is not floating.
        ValueError: If the shapes are not both ``(N, H, W)``, or a map has negative values.

    Example:
        >>> import torch
        >>> from lightning_gcam.metrics.functional import coherency
        >>> coherency(torch.tensor([[[1.0, 2.0, 3.0]]]), torch.tensor([[[2.0, 4.0, 6.0]]]))
        tensor(1.)

    Source:
        Poppi et al., "Revisiting The Evaluation of Class Activation Mapping for Explainability", 2021, arXiv
        2104.10252.
    """
    return mean_counted(_coherency_update(saliency, kept))


def _complexity_update(saliency: Tensor) -> PerSample:
    """Mean of each map, scaled by its peak."""
    check_saliency(saliency)
    saliency, blank = find_blank(saliency)
    scaled = saliency / saliency.amax(dim=(1, 2), keepdim=True)
    return PerSample(scaled.mean(dim=(1, 2)), ~blank, blank)


def complexity(saliency: Tensor) -> Tensor:
    """Average the mean of the maps' pixels, each map scaled by its peak: 1 for a uniform map, 1/(HW) for a pixel.

    A sample whose map is blank (all zero, or not finite) is left out.

    Args:
        saliency: ``(N, H, W)``, floating, at least 0, of any scale.

    Returns:
        A float32 scalar in (0, 1], lower is better, on the saliency's device; NaN if every sample was left out.

    Raises:
        TypeError: If ``saliency`` is not floating.
        ValueError: If its shape is not ``(N, H, W)``, or it has negative values.

    Example:
        >>> import torch
        >>> from lightning_gcam.metrics.functional import complexity
        >>> complexity(torch.tensor([[[4.0, 2.0], [0.0, 0.0]]]))
        tensor(0.3750)

    Source:
        Poppi et al., 2021, arXiv 2104.10252 (the L1 norm, as a share of the number of pixels).
    """
    return mean_counted(_complexity_update(saliency))


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
        saliency: ``(N, H, W)``, floating, at least 0, the maps of the images.
        kept: ``(N, H, W)``, the maps of ``keep_salient(images, saliency)``, of the same classes.
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
