"""One to three spatial dimensions: signals `(N, C, L)`, images `(N, C, H, W)`, volumes and videos `(N, C, D, H, W)`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from torch import Tensor, nn

Size = tuple[int, ...]
"""The length of each spatial dimension: of images in pixels, or of a layer's grid in cells."""

MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}
"""The interpolation of `torch.nn.functional.interpolate` by the number of spatial dimensions."""

_LETTERS = {1: "l", 2: "h, w", 3: "d, h, w"}


def size_of(images: Tensor) -> Size:
    """The length of each spatial dimension of `(N, C, *S)`.

    Example:
        >>> import torch
        >>> size_of(torch.zeros(2, 1, 187)), size_of(torch.zeros(2, 3, 16, 32, 32))
        ((187,), (16, 32, 32))
    """
    return tuple(images.shape[2:])


def positions_of(tensor: Tensor) -> tuple[int, ...]:
    """The numbers of the spatial dimensions of `(N, C, *grid)`, to reduce over.

    Example:
        >>> import torch
        >>> positions_of(torch.zeros(2, 1, 4, 4, 4))
        (2, 3, 4)
    """
    return tuple(range(2, tensor.ndim))


def pixels_of(maps: Tensor) -> tuple[int, ...]:
    """The numbers of all dimensions but the first, that of the samples, to reduce over.

    Example:
        >>> import torch
        >>> pixels_of(torch.zeros(2, 16, 16))
        (1, 2)
    """
    return tuple(range(1, maps.ndim))


def pool_of(kind: Literal["max", "adaptive_max", "adaptive_avg"], dims: int) -> Callable[..., Tensor]:
    """The pooling function of torch for so many spatial dimensions.

    Example:
        >>> import torch
        >>> pool_of("max", 1)(torch.tensor([[1.0, 5.0, 2.0, 3.0]]), 2)
        tensor([[5., 3.]])
    """
    pool: Callable[..., Tensor] = getattr(nn.functional, f"{kind}_pool{dims}d")
    return pool


def for_each(values: Tensor, like: Tensor) -> Tensor:
    """The values with dimensions of length 1 behind, as many as it takes to be broadcast over `like`.

    Example:
        >>> import torch
        >>> for_each(torch.zeros(2), torch.zeros(2, 4, 4)).shape
        torch.Size([2, 1, 1])
    """
    return values.reshape(*values.shape, *[1] * (like.ndim - values.ndim))


def resize(tensor: Tensor, size: Size, covered: Size | None = None) -> Tensor:
    """Resize `(N, C, *grid)` linearly, bilinearly or trilinearly to `(N, C, *size)`.

    Args:
        tensor: `(N, C, *grid)`.
        size: of the result.
        covered: the size of what the grid lies over, where that begins with what is wanted and goes on behind it.

    Example:
        >>> import torch
        >>> grid = torch.tensor([[[0.0, 4.0]]])
        >>> resize(grid, (4,)), resize(grid, (3,), covered=(4,))
        (tensor([[[0., 1., 3., 4.]]]), tensor([[[0., 1., 3.]]]))
    """
    whole = nn.functional.interpolate(tensor, covered or size, mode=MODES[len(size)], align_corners=False)
    begins: tuple[Any, ...] = (..., *map(slice, size))
    return whole if covered is None else whole[begins]


def describe_grid(grid: Size) -> str:
    """A grid in words.

    Example:
        >>> describe_grid((7, 7)), describe_grid((23,))
        ('7 x 7 grid', 'grid of 23 cells')
    """
    return f"{' x '.join(map(str, grid))} grid" if len(grid) > 1 else f"grid of {grid[0]} cells"


def letters_of(dims: int, before: str = "N, C") -> str:
    """The shape of a grid of so many dimensions, in letters.

    Example:
        >>> letters_of(2), letters_of(1, "N")
        ('(N, C, h, w)', '(N, l)')
    """
    return f"({before}, {_LETTERS[dims]})"
