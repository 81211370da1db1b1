"""What a uniform map and a Gaussian in the middle, which know nothing of the model, score on the same masks."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_gcam.metrics.registry import needs, resolve_scores
from lightning_gcam.utils.errors import InputError

CENTRE_SIGMA = 1 / 4
"""The standard deviation of the centre map, as a share of each side."""


def uniform_map(size: tuple[int, int], device: torch.device | str = "cpu") -> Tensor:
    """Return a map that is 1 everywhere: ``(H, W)`` float32.

    Args:
        size: Height and width.
        device: Where it goes.

    Raises:
        ValueError: If ``size`` is not two positive integers.

    Example:
        >>> from lightning_gcam.metrics.functional import uniform_map
        >>> uniform_map((1, 3))
        tensor([[1., 1., 1.]])
    """
    _check_size(size)
    return torch.ones(size, device=device)


def centre_map(size: tuple[int, int], device: torch.device | str = "cpu") -> Tensor:
    """Return a Gaussian in the middle, its standard deviation a quarter of each side: ``(H, W)`` float32.

    Photographers put objects in the middle, so that this map, which sees no image, does well on many data sets:
    its centre alone hits 69.6% of the objects of VOC07 in the pointing game.

    Args:
        size: Height and width.
        device: Where it goes.

    Raises:
        ValueError: If ``size`` is not two positive integers.

    Example:
        >>> from lightning_gcam.metrics.functional import centre_map
        >>> centre_map((1, 3))
        tensor([[0.4111, 1.0000, 0.4111]])

    Source:
        Fong et al., 2019, arXiv 1910.08485 (TorchRay; the pointing game's centre baseline).
    """
    _check_size(size)
    rows, columns = (
        torch.exp(-0.5 * ((torch.arange(side, device=device) - (side - 1) / 2) / (CENTRE_SIGMA * side)) ** 2)
        for side in size
    )
    return rows[:, None] * columns


def _check_size(size: tuple[int, int]) -> None:
    """Refuse what is not a height and a width."""
    if len(size) != 2 or not all(isinstance(side, int) and side > 0 for side in size):
        raise InputError(f"`size` must be a height and a width in pixels, got {size!r}.")


BASELINES = {"uniform": uniform_map, "centre": centre_map}
"""The baselines by name: from a size to a map."""


def baseline_scores(
    mask: Tensor,
    scores: str | Metric | Sequence[str | Metric] | Mapping[str, Metric] | None = None,
    boxes: Sequence[Tensor] | None = None,
) -> dict[str, dict[str, float]]:
    """Score a uniform map and a Gaussian in the middle on the same masks: what takes no model at all.

    Args:
        mask: ``(N, H, W)`` bool, True on the object.
        scores: As in :func:`resolve_scores`; those that need something else than a mask, or none, are passed
            over.
        boxes: N tensors ``(M, 4)``, each sample's objects one by one, for the scores that match them by
            themselves (:class:`MaxBoxAccuracy`); such take the box around the mask where they are left out.

    Returns:
        ``{"uniform": {score: value}, "centre": {score: value}}``; a score that does not exist (no sample has a
        mask) is not in it.

    Raises:
        TypeError: If ``mask`` is not bool.
        ValueError: If its shape is not ``(N, H, W)``.

    Example:
        >>> import torch
        >>> from lightning_gcam.metrics import baseline_scores
        >>> mask = torch.zeros(1, 4, 4, dtype=torch.bool)
        >>> mask[:, :2] = True
        >>> baseline_scores(mask, ["energy", "pointing_game"])["uniform"]
        {'energy': 0.5, 'energy_chance': 0.5, 'pointing_game': 0.5}
    """
    found: dict[str, dict[str, float]] = {}
    for baseline, make in BASELINES.items():
        saliency = make((mask.shape[-2], mask.shape[-1]), mask.device).expand(mask.shape)
        found[baseline] = {}
        for name, metric in resolve_scores(scores).items():
            if needs(metric) != {"mask"}:
                continue
            metric._to_sync = False  # every process scores the same masks
            metric.update(saliency, mask, *with_boxes(metric, boxes))
            value = float(metric.compute())
            if math.isfinite(value):
                found[baseline][name] = value
    return found


def with_boxes(metric: Metric, boxes: Sequence[Tensor] | None) -> tuple[Sequence[Tensor], ...]:
    """What a metric's ``update`` takes behind the mask: the boxes, where it takes them and there are some.

    Args:
        metric: Any metric. It says so itself by an attribute ``takes_boxes``.
        boxes: N tensors ``(M, 4)``, or ``None``.

    Example:
        >>> import torch
        >>> from lightning_gcam.metrics import MaxBoxAccuracy, PointingGame
        >>> boxes = [torch.tensor([[0.0, 0.0, 2.0, 2.0]])]
        >>> len(with_boxes(MaxBoxAccuracy(), boxes)), len(with_boxes(PointingGame(), boxes))
        (1, 0)
    """
    return (boxes,) if boxes is not None and getattr(metric, "takes_boxes", False) else ()
