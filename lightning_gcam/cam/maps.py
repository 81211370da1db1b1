"""Saliency maps at the images' size, scaled to [0, 1], from the activations and gradients of one pass."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from lightning_gcam.cam.capture import Captured
from lightning_gcam.cam.registry import AnyMethod, ModelMethod
from lightning_gcam.utils.dimensions import Size, for_each, letters_of, resize
from lightning_gcam.utils.errors import InputError, raise_for_user_function

ScaledMaps = dict[str, tuple[Tensor, Tensor]]
"""Maps `(N, *S)` in [0, 1] and their raw peaks `(N,)`, by name."""


def full_precision(images: Tensor) -> AbstractContextManager[object]:
    """Without autocast, which would round the weighted sums."""
    return torch.autocast(images.device.type, enabled=False)


def scaled_maps(
    methods: dict[str, AnyMethod], captured: Captured, raw_maps: dict[str, Tensor], size: Size
) -> ScaledMaps:
    """The map of each method at one layer, at the images' size and scaled to [0, 1], with its maximum before scaling.

    Args:
        methods: by the maps' names.
        captured: the layer's activations and gradients.
        raw_maps: those of the methods that run the model again, see `maps_of_model_methods`.
        size: of the images.

    Raises:
        InputError: where a callable of the user's gives something else than one map a sample.
    """
    finite = _finite(captured)
    maps: ScaledMaps = {}
    for name, method in methods.items():
        if isinstance(method, ModelMethod):
            raw = _checked(name, raw_maps[name], (len(finite), *[None] * len(size)))
            raw = torch.where(for_each(captured.score.is_of_something, raw), raw, 0.0)
        else:
            expected = (len(finite), *captured.activations.shape[2:])
            try:
                found = method(captured.activations, captured.gradients)
            except Exception as error:
                raise_for_user_function("methods", captured.activations, error)
            raw = _checked(name, found, expected)
        is_of_layer = raw.shape[1:] == captured.activations.shape[2:]
        maps[name] = scale_map(raw, size, finite, captured.covered if is_of_layer else None)
    return maps


def _checked(name: str, result: Any, expected: tuple[int | None, ...]) -> Tensor:
    """A method's map, rectified (a callable of the user's may give negative values)."""
    if not isinstance(result, Tensor) or not _fits(tuple(result.shape), expected):
        came = tuple(result.shape) if isinstance(result, Tensor) else type(result).__name__
        rows, *grid = expected
        letters = letters_of(len(grid), "N")
        size = expected if None not in grid else letters_of(len(grid), str(rows))
        raise InputError(
            f'`methods` "{name}" must give {letters} = {size}; got {came}. Sum over the channels, say.'
        )
    return result.detach().float().relu()


def _fits(shape: tuple[int, ...], expected: tuple[int | None, ...]) -> bool:
    """Whether a shape is the expected one; None stands for any length but 0."""
    if len(shape) != len(expected):
        return False
    return all(
        length == want if want is not None else length for length, want in zip(shape, expected, strict=True)
    )


def _finite(captured: Captured) -> Tensor:
    """Whether each sample's activations and gradients are; a map does not always show it: ReLU makes -inf a zero."""
    both = torch.isfinite(captured.activations) & torch.isfinite(captured.gradients)
    return both.flatten(1).all(dim=1)


def scale_map(raw: Tensor, size: Size, finite: Tensor, covered: Size | None = None) -> tuple[Tensor, Tensor]:
    """Maps at the images' size in [0, 1], and each one's maximum before scaling; what is not finite is blank."""
    peaks = raw.flatten(1).amax(dim=1)
    finite = finite & torch.isfinite(raw).flatten(1).all(dim=1)
    peaks = torch.where(finite, peaks, torch.nan)
    alive = finite & (peaks > 0)
    divisor = torch.where(alive, peaks, 1.0)
    unit = torch.where(for_each(alive, raw), raw, 0.0) / for_each(divisor, raw)
    resized = resize(unit[:, None], size, covered)[:, 0]
    largest = for_each(resized.flatten(1).amax(dim=1), resized)
    return (resized / torch.where(largest > 0, largest, 1.0)).clamp(0, 1), peaks
