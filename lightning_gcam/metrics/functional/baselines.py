"""Maps that know nothing of the model, to stand beside those that should."""

import torch
from torch import Tensor

from lightning_gcam._errors import InputError

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
