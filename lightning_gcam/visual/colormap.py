"""Numbers in [0, 1] to colours, through a look-up table, on the device the numbers are on."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lightning_gcam._errors import InputError, did_you_mean

_ENTRIES = 256


def colormap(values: Tensor, name: str = "inferno") -> Tensor:
    """Colour every value, exactly as matplotlib does.

    The default is perceptually even: equal steps in the value look like equal steps in the picture.

    Args:
        values: `(...)`, float in [0, 1], any device. What lies outside is clamped; NaN counts as 0.
        name: The name of one of matplotlib's colour maps.

    Returns:
        `(..., 3)`, uint8 RGB, on the device of `values`.

    Raises:
        InputError: If matplotlib knows no colour map called `name`.

    Example:
        >>> import torch
        >>> colormap(torch.tensor([0.0, 1.0])).tolist()
        [[0, 0, 3], [252, 254, 164]]
    """
    return look_up(values, color_table(name))


def color_table(name: str) -> Tensor:
    """All the colours of a map, `(256, 3)` uint8, on the CPU."""
    # a copy at every call: what is cached must not be changed, nor made under somebody's inference_mode
    return torch.from_numpy(_table(name).copy())


def look_up(values: Tensor, table: Tensor) -> Tensor:
    """Colour `(...)` floats in [0, 1] from a `(256, 3)` table: `(..., 3)`, on the device of `values`."""
    index = values.detach().float().nan_to_num(0).mul(_ENTRIES).clamp(0, _ENTRIES - 1).int()
    return table.to(values.device).index_select(0, index.flatten()).view(*values.shape, 3)


def check_colormap(name: str) -> str:
    """Return `name` if matplotlib has a colour map of that name, so that a typing error is found early.

    Raises:
        InputError: If it has none, with the nearest names it does have.

    Example:
        >>> check_colormap("viridis")
        'viridis'
    """
    from matplotlib import colormaps

    if name not in colormaps:
        hint = did_you_mean(str(name), colormaps)
        raise InputError(f'`cmap` "{name}" is not a colour map of matplotlib. {hint}')
    return name


@lru_cache(maxsize=16)
def _table(name: str) -> npt.NDArray[np.uint8]:
    """The `(256, 3)` colours of one map; through linspace, since a qualitative map has fewer entries."""
    from matplotlib import colormaps

    colours = colormaps[check_colormap(name)](np.linspace(0, 1, _ENTRIES), bytes=True)
    return np.array(colours[:, :3], dtype=np.uint8)
