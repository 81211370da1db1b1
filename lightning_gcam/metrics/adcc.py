"""ADCC and its parts: average drop, coherency and complexity."""

import torch
from torch import Tensor

from lightning_gcam.metrics.base import SampleScore
from lightning_gcam.metrics.faithfulness import _average_drop_update
from lightning_gcam.metrics.perturbation import Perturbation
from lightning_gcam.metrics.samples import PerSample, check_saliency, find_blank, mean_counted
from lightning_gcam.metrics.similarity import _pair, pearson
from lightning_gcam.utils.errors import InputError


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


class Coherency(SampleScore):
    """How much each map is like the map of the image of which only the salient pixels are left: mean (1 + r) / 2.

    r is Pearson's correlation over the pixels of the two maps; 0.5 is no correlation. Where the second map is
    blank, the sample scores 0. A sample whose own map is blank (all zero, or not finite), or one of whose maps
    is the same everywhere, is left out, and counted in ``left_out``.

    As input to ``forward`` and ``update`` the metric accepts ``saliency`` and ``kept``, both ``(N, H, W)``,
    floating, at least 0: the maps of the images, and those of
    :func:`keep_salient(images, saliency) <lightning_gcam.metrics.functional.keep_salient>`. ``compute``
    returns a float32 scalar in [0, 1], NaN if every sample was left out.

    Args:
        kwargs: Passed on to :class:`torchmetrics.Metric`.

    Raises:
        TypeError: In ``update``, if ``saliency`` is not floating.
        ValueError: In ``update``, if the shapes are not both ``(N, H, W)``, or a map has negative values.

    Example:
        >>> import torch
        >>> from lightning_gcam.metrics import Coherency
        >>> Coherency()(torch.tensor([[[1.0, 2.0, 3.0]]]), torch.tensor([[[2.0, 4.0, 6.0]]]))
        tensor(1.)

    Source:
        Poppi et al., 2021, arXiv 2104.10252.
    """

    requires: frozenset[str] = frozenset({"maps"})
    cost: int = 1
    perturbation: Perturbation | None = Perturbation("keep", "zero")

    def _score(self, saliency: Tensor, kept: Tensor) -> PerSample:
        return _coherency_update(saliency, kept)

    def update(self, saliency: Tensor, kept: Tensor) -> None:
        """Add a batch of maps, and of the maps of the kept images, both ``(N, H, W)``."""
        self._add(self._score(saliency, kept))


class Complexity(SampleScore):
    """Mean of the maps' pixels, each map scaled by its peak: 1 for a uniform map, 1/(HW) for a single pixel.

    A sample whose map is blank (all zero, or not finite) is left out, and counted in ``left_out``.

    As input to ``forward`` and ``update`` the metric accepts ``saliency`` ``(N, H, W)``, floating, at least
    0, and a ``mask`` that it does not look at. ``compute`` returns a float32 scalar in (0, 1], NaN if every
    sample was left out.

    Args:
        kwargs: Passed on to :class:`torchmetrics.Metric`.

    Raises:
        TypeError: In ``update``, if ``saliency`` is not floating.
        ValueError: In ``update``, if its shape is not ``(N, H, W)``, or it has negative values.

    Example:
        >>> import torch
        >>> from lightning_gcam.metrics import Complexity
        >>> Complexity()(torch.tensor([[[4.0, 2.0], [0.0, 0.0]]]))
        tensor(0.3750)

    Source:
        Poppi et al., 2021, arXiv 2104.10252 (the L1 norm, as a share of the number of pixels).
    """

    higher_is_better: bool | None = False

    def _score(self, saliency: Tensor, mask: Tensor | None = None) -> PerSample:
        return _complexity_update(saliency)

    def update(self, saliency: Tensor, mask: Tensor | None = None) -> None:
        """Add a batch of maps ``(N, H, W)``; the mask is taken so that all scores can be called alike."""
        self._add(self._score(saliency))


class ADCC(SampleScore):
    """Mean over the samples of the harmonic mean of coherency, 1 - complexity and 1 - average drop.

    0 where one of the three is: a map must be coherent **and** simple **and** enough. A sample that one of the
    parts leaves out is left out, and counted in ``left_out``.

    As input to ``forward`` and ``update`` the metric accepts ``saliency`` and ``kept``, both ``(N, H, W)``,
    floating, at least 0: the maps of the images, and those of
    :func:`keep_salient(images, saliency) <lightning_gcam.metrics.functional.keep_salient>`; and ``before`` and
    ``after``, ``(N,)`` floating, the probabilities of the explained class for both. One pass over the kept
    images gives ``kept`` and ``after``. ``compute`` returns a float32 scalar in [0, 1], NaN if every sample
    was left out.

    Args:
        kwargs: Passed on to :class:`torchmetrics.Metric`.

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
        """Add a batch: maps and maps of the kept images ``(N, H, W)``, and the probabilities of both ``(N,)``."""
        self._add(self._score(saliency, kept, before, after))
