"""What every score does first: check its inputs, and find the samples that count."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_gcam.metrics.functional.mean import PerSample


class Scorable(NamedTuple):
    """A checked batch: maps and masks on one device, and which samples count."""

    saliency: Tensor
    """``(N, H, W)`` float32, finite, at least 0; all zero where the map is blank."""
    mask: Tensor
    """``(N, H, W)`` bool, on the saliency's device."""
    counted: Tensor
    """``(N,)`` bool; False where the map is blank or the mask is empty."""
    blank: Tensor
    """``(N,)`` bool: the map is blank."""
    no_mask: Tensor
    """``(N,)`` bool: the map is not blank, but the mask is empty."""

    def scored(self, values: Tensor) -> PerSample:
        """Put ``values``, one number or one row per sample, beside which samples count, and why others do not."""
        return PerSample(values, self.counted, self.blank, self.no_mask)


def prepare(saliency: Tensor, mask: Tensor) -> Scorable:
    """Check a batch and make it ready to be scored.

    Args:
        saliency: ``(N, H, W)``, floating, at least 0.
        mask: ``(N, H, W)`` bool, True on the object.

    Raises:
        TypeError: If an argument is not a tensor of the expected dtype.
        ValueError: If a shape does not fit, or a saliency is negative.
    """
    check_saliency(saliency)
    check_mask(mask, saliency)
    saliency, blank = find_blank(saliency)
    mask = mask.to(saliency.device)
    filled = mask.flatten(1).any(dim=1)
    return Scorable(saliency, mask, ~blank & filled, blank, ~blank & ~filled)


def find_blank(saliency: Tensor) -> tuple[Tensor, Tensor]:
    """Say which maps have nothing to score, all zero or not finite, and make these all zero.

    Args:
        saliency: ``(N, H, W)``, floating, at least 0.

    Returns:
        The maps, ``(N, H, W)`` float32; and which of them are blank, ``(N,)`` bool.

    Raises:
        ValueError: If a finite map has a negative value.
    """
    # float32 and never float64: MPS has none.
    saliency = saliency.detach().to(torch.float32)
    finite = saliency.isfinite().flatten(1).all(dim=1)
    saliency = torch.where(finite[:, None, None], saliency, 0.0)
    if (saliency < 0).any():
        raise ValueError(
            f"`saliency` must be at least 0, got a minimum of {saliency.min().item():.3g}. "
            "Rectify it first: `saliency.clamp(min=0)`."
        )
    return saliency, (saliency == 0).flatten(1).all(dim=1)


def check_saliency(saliency: Tensor) -> None:
    """Refuse what is not a floating ``(N, H, W)`` tensor with at least one pixel.

    Raises:
        TypeError: If it is not a floating tensor.
        ValueError: If its shape is not ``(N, H, W)``.
    """
    if not isinstance(saliency, Tensor):
        raise TypeError(f"`saliency` must be a tensor (N, H, W), got {type(saliency).__name__}.")
    if not saliency.is_floating_point():
        raise TypeError(f"`saliency` must be floating, got {saliency.dtype}. Convert it: `saliency.float()`.")
    if saliency.ndim != 3 or 0 in saliency.shape[1:]:
        raise ValueError(
            f"`saliency` must have the shape (N, H, W), got {tuple(saliency.shape)}. "
            "One map per sample: leave the channels out, keep the batch."
        )


def check_mask(mask: Tensor, saliency: Tensor) -> None:
    """Refuse a mask that is not bool or not on the saliency's grid.

    Raises:
        TypeError: If it is not a bool tensor.
        ValueError: If its shape is not that of the saliency.
    """
    if not isinstance(mask, Tensor):
        raise TypeError(f"`mask` must be a bool tensor (N, H, W), got {type(mask).__name__}.")
    if mask.dtype != torch.bool:
        raise TypeError(
            f"`mask` must be bool, True on the object, got {mask.dtype}. Convert it: `mask.bool()`."
        )
    if mask.shape != saliency.shape:
        raise ValueError(
            f"`mask` must have the shape of `saliency` {tuple(saliency.shape)}, got {tuple(mask.shape)}. "
            "Bring both to one grid, one mask per sample."
        )


def check_threshold(threshold: float) -> None:
    """Refuse a threshold outside (0, 1].

    Raises:
        ValueError: If it is not a finite number in (0, 1].
    """
    if not isinstance(threshold, (int, float)) or not 0 < threshold <= 1:
        raise ValueError(
            f"`threshold` must be a number in (0, 1], a share of the map's peak, got {threshold!r}. "
            "0.3 is the default."
        )


def check_tolerance(tolerance: float) -> None:
    """Refuse a tolerance that is negative or not finite.

    Raises:
        ValueError: If it is not a finite number of at least 0.
    """
    if not isinstance(tolerance, (int, float)) or not math.isfinite(tolerance) or tolerance < 0:
        raise ValueError(
            f"`tolerance` must be a finite number of pixels, at least 0, got {tolerance!r}. "
            "0 asks for the peak inside the mask itself."
        )
