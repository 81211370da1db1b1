"""Let a network go on with other activations than a layer gave."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from lightning_gcam._errors import InputError
from lightning_gcam.cam.capture import Place
from lightning_gcam.cam.reshape import Reshape, main_tensor, with_main_tensor


@contextmanager
def replaced(place: Place, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Inside, the network goes on with changed activations at `place`; tokens before the patches stay as they are.

    Args:
        place: the layer, which of its calls, and how its output is read.
        change: from the activations `(B, C, h, w)` float32 to others of the same shape.

    Raises:
        InputError: where the layer's output cannot be put together again from `(B, C, h, w)`.

    Example:
        >>> from torch import nn
        >>> model = nn.Sequential(nn.ReLU(), nn.Flatten())
        >>> with replaced(Place(model[0], 0, lambda output: output), lambda activations: activations + 1):
        ...     model(torch.tensor([[[[-1.0, 2.0]]]]))
        tensor([[1., 3.]])
    """
    calls = 0

    def replace(_: Any, __: Any, output: Any) -> Any:
        nonlocal calls
        tensor = main_tensor(output)
        if tensor is None or not tensor.is_floating_point():
            return None
        calls += 1
        if calls != place.call + 1:
            return None
        return with_main_tensor(output, _with_grid(tensor, place.reshape, change))

    hook = place.layer.register_forward_hook(replace)
    try:
        yield
    finally:
        hook.remove()


def _with_grid(output: Tensor, reshape: Reshape, change: Callable[[Tensor], Tensor]) -> Tensor:
    """The output with the cells of its grid changed, found by where the reshape takes each number from."""
    flat, grid = output.reshape(-1), reshape(output)
    places = reshape(torch.arange(output.numel(), device=output.device).view(output.shape)).reshape(-1)
    if places.is_floating_point() or not _same(flat[places], grid.reshape(-1)):
        raise InputError(
            "`methods` that replace the layer's activations (ablation_cam) need a `reshape_transform` that only picks "
            "and reorders the numbers of the layer's output, so that they can be put back; yours computes new ones. "
            "Leave these methods out, or name a `target_layer` whose output is a grid."
        )
    changed = flat.clone()
    changed[places] = change(grid.float()).to(output.dtype).reshape(-1)
    return changed.view(output.shape)


def _same(left: Tensor, right: Tensor) -> bool:
    """Equality in which a NaN equals itself."""
    return left.shape == right.shape and bool(((left == right) | left.isnan()).all())
