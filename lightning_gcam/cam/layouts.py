"""Layouts of layers' outputs, by the layer's kind and the output's shape, and their views as `(N, C, *grid)`."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable, Iterator, MutableMapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree as pytree

from lightning_gcam.utils.dimensions import Size, positions_of

Reshape = Callable[[Tensor], Tensor]
"""From a layer's output to `(N, C, *grid)`, by views only, so that gradients are read the same way."""

Run = Callable[[Tensor], Any]
"""From images to the output of the model."""

MAX_PREFIX_TOKENS = 8
"""Class, distillation and register tokens that may stand before a sequence of patches."""

MAX_PREFIX_OF_SIGNALS = 2
"""The same along a signal, where nothing about a number of tokens shows which of them are patches."""


@dataclass(frozen=True)
class Layout:
    """The layout of one output: its grid, and the view that makes it `(N, C, *grid)`.

    Args:
        kind: in words, for messages.
        grid: its cells along each dimension of the images: rows and columns.
        reshape: the view that makes it `(N, C, *grid)`.
        batch: which dimension of the output counts the images.
        channel: which one holds the channels.
        is_sure: whether the layer's kind determines it, so that no evidence is needed.
        locality: how well the cells follow the image, from -1 to 1 (see `lightning_gcam.cam.layout_evidence`); None
            where it was not measured.
        frames: how many rows of the output belong to an image: its frames or slices, folded into the batch.
    """

    kind: str
    grid: Size
    reshape: Reshape
    batch: int = 0
    channel: int = 1
    is_sure: bool = False
    locality: float | None = None
    frames: int = 1


def find_layout(
    output: Tensor,
    image_size: Size,
    batch_size: int | None = None,
    module: nn.Module | None = None,
) -> Layout | None:
    """The likely layout of an output as a grid over an image of `image_size`; None where it is no grid.

    It follows from the shape and the kind of the layer. Several layouts may fit a shape: `layout_evidence` decides.

    Args:
        output: what a layer returned, `(N, ...)`, or `(L, N, C)` where tokens come first.
        image_size: (H, W) of the images in pixels, (L,) of signals, (D, H, W) of volumes; the grid must have the
            aspect ratio of their last two dimensions.
        batch_size: N, the number of images. With it, windows of an image are not taken for images: blocks that attend
            inside of windows return `(N * windows, ...)` from their parts, often shifted, and whole grids at their end.
        module: the layer. A convolution, a pool or a norm of torch gives channels first, at any aspect ratio; so does a
            block that holds some, or a nonlinearity, where its output can be nothing else.

    Example:
        >>> import torch
        >>> find_layout(torch.zeros(2, 64, 7, 7), (224, 224)).kind
        'channels first'
        >>> find_layout(torch.zeros(2, 197, 192), (224, 224)).grid
        (14, 14)
        >>> find_layout(torch.zeros(2, 1000), (224, 224)) is None
        True
    """
    if batch_size is not None and (frames := _frames(output, image_size, batch_size, module)) is not None:
        return frames
    batch = 0 if batch_size is None or len(output) == batch_size else 1
    if batch_size is not None and (output.ndim <= batch or output.shape[batch] != batch_size):
        return None
    return layout_by_shape(output, batch, image_size, module)


def layout_by_shape(
    output: Tensor, batch: int, image_size: Size, module: nn.Module | None = None
) -> Layout | None:
    """As `find_layout`, for a known dimension that counts the images."""
    if not output.is_floating_point():
        return None
    if batch == 1:
        return _tokens_first(output, image_size)
    if batch:
        return None
    if module is not None and declares_channels_first(module):
        return _declared(output, image_size)
    found = next((found for read in LAYOUTS if (found := read(output, image_size)) is not None), None)
    if module is None or (found is not None and found.kind != "channels first"):
        return found
    is_telling = type(module).__module__ == nn.ReLU.__module__ or any(
        map(declares_channels_first, module.modules())
    )
    if found is None:  # what pools along one axis only has another aspect than the image
        return _declared(output, image_size) if is_telling and _is_full(output, image_size) else None
    return replace(found, is_sure=is_telling and only_channels_first(output, image_size))


def _frames(output: Tensor, image_size: Size, batch_size: int, module: nn.Module | None) -> Layout | None:
    """The layout `(N * T, C, *grid)` of frames or slices folded into the batch, sample by sample; None of any other."""
    frames, *plane = image_size
    if len(plane) < 2 or frames < 2 or len(output) != frames * batch_size:
        return None
    of_one = layout_by_shape(output, 0, tuple(plane), module)
    if of_one is None or not of_one.is_sure:
        return None
    return replace(
        of_one,
        kind=f"{of_one.kind}, frame by frame",
        grid=(frames, *of_one.grid),
        reshape=lambda tensor: of_one.reshape(tensor).unflatten(0, (-1, frames)).transpose(1, 2),
        frames=frames,
    )


def _is_full(output: Tensor, image_size: Size) -> bool:
    """Whether an output has as many dimensions as the images."""
    return output.ndim == 2 + len(image_size)


def only_channels_first(output: Tensor, image_size: Size) -> bool:
    """Whether the shape fits channels first, and not channels last, or of a volume not with cubes as cells."""
    first, last = _channels_first(output, image_size), _channels_last(output, image_size)
    if first is None or last is None:
        return first is not None
    is_exact = [_is_exact(each.grid, image_size) for each in (first, last)]
    return len(image_size) == 3 and is_exact == [True, False]


_DECLARING = tuple(
    f"torch.nn.modules.{file}"
    for file in ("conv", "batchnorm", "instancenorm", "pooling", "upsampling", "padding", "pixelshuffle")
)
_DECLARING_TOO = (nn.GroupNorm, nn.Dropout1d, nn.Dropout2d, nn.ChannelShuffle, nn.LocalResponseNorm)


def declares_channels_first(module: nn.Module) -> bool:
    """Whether the layer is one of torch's own that take and give `(N, C, ...)`, and nothing else.

    Example:
        >>> declares_channels_first(nn.Conv1d(1, 1, 1)), declares_channels_first(nn.Linear(1, 1))
        (True, False)
    """
    return isinstance(module, _DECLARING_TOO) or any(
        each.__module__ in _DECLARING for each in type(module).__mro__
    )


def _declared(output: Tensor, image_size: Size) -> Layout | None:
    """The layout of a layer that gives `(N, C, *grid)` or `(N, C, L)` by its kind, at any aspect ratio."""
    if _is_full(output, image_size):
        grid = tuple(output.shape[2:])
        is_sure = fits(grid, image_size, slack=2.0)
        layout = Layout("channels first", grid, lambda tensor: tensor, is_sure=is_sure)
        return layout if is_grid(grid, image_size) else None
    if output.ndim != 3:
        return None
    length = output.shape[2]
    grids = grids_of(length, image_size)
    exact = [grid for grid in grids if _is_exact(grid, image_size)]
    grid = next(iter(exact or grids), (*[1] * (len(image_size) - 1), length))
    if not is_grid(grid, image_size):
        return None
    is_sure = sum(side > 1 for side in image_size) < 2
    return Layout(
        "channels first, (N, C, L)", grid, lambda tensor: tensor.unflatten(2, grid), is_sure=is_sure
    )


def is_grid(grid: Size, image_size: Size) -> bool:
    """Whether there is more than one cell, and none finer than a pixel but for what padding adds at the border."""
    return math.prod(grid) > 1 and all(
        cells <= side + 2 for cells, side in zip(grid, image_size, strict=True)
    )


def _channels_first(output: Tensor, image_size: Size) -> Layout | None:
    """The layout `(N, C, *grid)`, where the shape fits it."""
    if not _is_full(output, image_size) or not fits(grid := tuple(output.shape[2:]), image_size, slack=2.0):
        return None
    return Layout("channels first", grid, lambda tensor: tensor)


def _channels_last(output: Tensor, image_size: Size) -> Layout | None:
    """The layout `(N, *grid, C)`, where the shape fits it; along signals these are tokens."""
    if len(image_size) == 1:
        return _tokens(output, image_size)
    last = output.ndim - 1
    if not _is_full(output, image_size) or not fits(
        grid := tuple(output.shape[1:last]), image_size, slack=2.0
    ):
        return None
    return Layout("channels last", grid, lambda tensor: tensor.movedim(last, 1), channel=last)


def _tokens(output: Tensor, image_size: Size) -> Layout | None:
    """The layout `(N, L, C)`: up to eight prefix tokens, then one token a patch, row by row."""
    if output.ndim != 3 or (found := find_patches(output.shape[1], image_size)) is None:
        return None
    prefix, grid = found
    return Layout(_tokens_in_words(prefix), grid, _tokens_to_grid(prefix, grid), channel=2)


def _tokens_first(output: Tensor, image_size: Size) -> Layout | None:
    """The layout `(L, N, C)`, which `nn.MultiheadAttention` uses by default."""
    if output.ndim != 3 or (found := find_patches(len(output), image_size)) is None:
        return None
    prefix, grid = found
    to_grid = _tokens_to_grid(prefix, grid)
    return Layout(
        f"{_tokens_in_words(prefix)}, (L, N, C)", grid, lambda tensor: to_grid(tensor.transpose(0, 1)), 1, 2
    )


def _tokens_in_words(prefix: int) -> str:
    """The kind of a layout with this many tokens before the patches, in words."""
    return f"tokens, {prefix} before the patches" if prefix else "tokens"


def _tokens_to_grid(prefix: int, grid: Size) -> Reshape:
    """The view of tokens `(N, L, C)` without their prefix as `(N, C, *grid)`."""
    return lambda tensor: tensor[:, prefix:].transpose(1, 2).reshape(len(tensor), -1, *grid)


LAYOUTS = (_channels_first, _channels_last, _tokens)
"""The functions that infer a layout from a shape, in order; the first that fits is taken."""


def find_patches(length: int, image_size: Size) -> tuple[int, Size] | None:
    """The number of tokens before the patches of a sequence, and the grid of the patches.

    Several may fit (4 x 5 patches behind 4 tokens, or 4 x 6). One with exactly the image's aspect ratio goes
    first, then one whose patches may be squares, then the one with fewest tokens before it. Along a signal any number
    of patches fits; one that divides its length goes first.
    """
    most = MAX_PREFIX_TOKENS if len(image_size) > 1 else MAX_PREFIX_OF_SIGNALS
    readings = [
        (prefix, grid) for prefix in range(most + 1) for grid in grids_of(length - prefix, image_size)
    ]
    if not readings:
        return None
    return min(
        readings, key=lambda each: (not _is_exact(each[1], image_size), not _is_square(each[1], image_size))
    )


def grids_of(patches: int, image_size: Size) -> list[Size]:
    """The grids of `patches` patches that have nearly the aspect ratio of the last two dimensions of the image."""
    return [grid for grid in _factors(patches, image_size) if fits(grid, image_size, slack=1.0)]


def _factors(patches: int, image_size: Size) -> list[Size]:
    """The ways to lay so many patches along the dimensions of an image, the last two by its aspect ratio."""
    if len(image_size) == 1:
        return [(patches,)]
    if len(image_size) == 2:
        rows = math.sqrt(max(patches, 0) * image_size[0] / image_size[1])
        return [
            (each, patches // each)
            for each in {math.floor(rows), math.ceil(rows)}
            if each and not patches % each
        ]
    slices = [each for each in range(min(patches, image_size[0] + 1), 0, -1) if not patches % each]
    return [(each, *plane) for each in slices for plane in _factors(patches // each, image_size[1:])]


def _is_exact(grid: Size, image_size: Size) -> bool:
    """Whether a grid has exactly the image's aspect ratio; along a signal, whether its patches are of one length."""
    sides = list(zip(grid, image_size, strict=True))
    if len(sides) == 1:
        return not image_size[0] % grid[0]
    return all(one[0] * other[1] == other[0] * one[1] for one, other in pairwise(sides))


def _is_square(grid: Size, image_size: Size) -> bool:
    """Whether patches as long in each of the last two dimensions, and pixels left over, give this grid."""
    sides = list(zip(grid, image_size, strict=True))[-2:]
    first_cells, first = sides[0]
    patches = range(first // (first_cells + 1), first // first_cells + 1)
    return len(sides) > 1 and any(
        patch and all(side // patch == cells for cells, side in sides) for patch in patches
    )


def fits(grid: Size, image_size: Size, slack: float) -> bool:
    """Whether `grid` covers the image evenly: more than one cell, none finer than a pixel, the same aspect ratio.

    `slack` is in cells: strided layers round at the border. The aspect ratio is that of the last two dimensions: the
    frames of a video and the slices of a volume may be taken together in other steps.
    """
    sides = list(zip(grid, image_size, strict=True))
    if math.prod(grid) < 2 or any(cells > side + slack for cells, side in sides):
        return False
    if len(sides) == 1:
        return True
    (rows, height), (columns, width) = sides[-2:]
    return abs(rows - columns * height / width) < slack or abs(columns - rows * width / height) < slack


def main_tensor(output: Any) -> Tensor | None:
    """The tensor of a layer's output: itself, or the first floating-point tensor of 3-D or more inside it."""
    if isinstance(output, Tensor):
        return output
    return next(
        (
            leaf
            for leaf in leaves_of(output)
            if isinstance(leaf, Tensor) and leaf.is_floating_point() and leaf.ndim > 2
        ),
        None,
    )


def with_main_tensor(output: Any, tensor: Tensor) -> Any:
    """Replace the `main_tensor` of an output; containers are copied and keep their type."""
    if isinstance(output, Tensor):
        return tensor
    main = main_tensor(output)
    return _mapped(output, lambda leaf: tensor if leaf is main else leaf)


def leaves_of(output: Any) -> Iterator[Any]:
    """The leaves of nested tuples, lists, dicts, named tuples, registered classes and dataclasses, in order."""
    for leaf in pytree.tree_leaves(output):
        parts = _parts(leaf)
        if parts is None:
            yield leaf
        else:
            for part in parts.values():
                yield from leaves_of(part)


def _mapped(output: Any, function: Callable[[Any], Any]) -> Any:
    """A copy of `output` with `function` applied to each of its leaves."""
    leaves, spec = pytree.tree_flatten(output)
    return pytree.tree_unflatten([_mapped_leaf(leaf, function) for leaf in leaves], spec)


def _mapped_leaf(leaf: Any, function: Callable[[Any], Any]) -> Any:
    """A leaf of torch's trees with `function` applied to it, or to the leaves that it holds all the same."""
    parts = _parts(leaf)
    if parts is None:
        return function(leaf)
    new = copy.copy(leaf)
    for name, part in parts.items():
        if isinstance(new, MutableMapping):
            new[name] = _mapped(part, function)
        else:
            object.__setattr__(new, name, _mapped(part, function))  # the dataclass may be frozen
    return new


def _parts(leaf: Any) -> dict[Any, Any] | None:
    """The parts of a dataclass or of a class derived from dict, which are leaves for torch; None for other leaves."""
    if isinstance(leaf, MutableMapping):
        return dict(leaf)
    if dataclasses.is_dataclass(leaf) and not isinstance(leaf, type):
        names = [field.name for field in dataclasses.fields(leaf)]
        return {name: getattr(leaf, name) for name in names if hasattr(leaf, name)}
    return None


def is_even(gradients: Tensor) -> bool:
    """Whether every channel's gradient `(N, C, *grid)` is the same at all positions, and not simply zero.

    Example:
        >>> import torch
        >>> is_even(torch.ones(1, 2, 3, 3)), is_even(torch.zeros(1, 2, 3, 3)), is_even(torch.eye(3)[None, None])
        (True, False, False)
    """
    largest = gradients.abs().amax()
    spread = (gradients - gradients.mean(dim=positions_of(gradients), keepdim=True)).abs().amax()
    return bool((largest > 0) & (spread <= 1e-5 * largest))
