"""Layouts of layers' outputs, by the layer's kind and the output's shape, and their views as `(N, C, h, w)`."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable, Iterator, MutableMapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.utils import _pytree as pytree

Reshape = Callable[[Tensor], Tensor]
"""From a layer's output to `(N, C, h, w)`, by views only, so that gradients are read the same way."""

MAX_PREFIX_TOKENS = 8
"""Class, distillation and register tokens that may stand before a sequence of patches."""


@dataclass(frozen=True)
class Layout:
    """The layout of one output: its grid, and the view that makes it `(N, C, h, w)`.

    Args:
        kind: in words, for messages.
        grid: rows and columns.
        reshape: the view that makes it `(N, C, h, w)`.
        batch: which dimension of the output counts the images.
        channel: which one holds the channels.
        is_sure: whether the layer's kind determines it, so that no evidence is needed.
        locality: how well the cells follow the image, from -1 to 1 (see `lightning_gcam.cam.layout_evidence`); None
            where it was not measured.
    """

    kind: str
    grid: tuple[int, int]
    reshape: Reshape
    batch: int = 0
    channel: int = 1
    is_sure: bool = False
    locality: float | None = None


def find_layout(
    output: Tensor,
    image_size: tuple[int, int],
    batch_size: int | None = None,
    module: nn.Module | None = None,
) -> Layout | None:
    """The likely layout of an output as a grid over an image of `image_size` (H, W); None where it is no grid.

    It follows from the shape and the kind of the layer. Several layouts may fit a shape: `layout_evidence` decides.

    Args:
        output: what a layer returned, `(N, ...)`, or `(L, N, C)` where tokens come first.
        image_size: height and width of the images, in pixels; the grid must have their aspect ratio.
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
    batch = 0 if batch_size is None or len(output) == batch_size else 1
    if batch_size is not None and (output.ndim <= batch or output.shape[batch] != batch_size):
        return None
    return layout_by_shape(output, batch, image_size, module)


def layout_by_shape(
    output: Tensor, batch: int, image_size: tuple[int, int], module: nn.Module | None = None
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
        return _declared(output, image_size) if is_telling and output.ndim == 4 else None
    return replace(found, is_sure=is_telling and only_channels_first(output, image_size))


def only_channels_first(output: Tensor, image_size: tuple[int, int]) -> bool:
    """Whether the shape fits channels first, and not channels last."""
    return _channels_first(output, image_size) is not None and _channels_last(output, image_size) is None


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


def _declared(output: Tensor, image_size: tuple[int, int]) -> Layout | None:
    """The layout of a layer that gives `(N, C, h, w)` or `(N, C, L)` by its kind, at any aspect ratio."""
    if output.ndim == 4:
        grid = (output.shape[2], output.shape[3])
        is_sure = fits(grid, image_size, slack=2.0)
        layout = Layout("channels first", grid, lambda tensor: tensor, is_sure=is_sure)
        return layout if is_grid(grid, image_size) else None
    if output.ndim != 3:
        return None
    length = output.shape[2]
    grids = _grids_of(length, image_size)
    exact = [grid for grid in grids if _is_exact(grid, image_size)]
    grid = next(iter(exact or grids), (1, length))
    if not is_grid(grid, image_size):
        return None
    is_sure = 1 in image_size
    return Layout(
        "channels first, (N, C, L)", grid, lambda tensor: tensor.unflatten(2, grid), is_sure=is_sure
    )


def is_grid(grid: tuple[int, int], image_size: tuple[int, int]) -> bool:
    """Whether there is more than one cell, and none finer than a pixel but for what padding adds at the border."""
    (rows, columns), (height, width) = grid, image_size
    return rows * columns > 1 and rows <= height + 2 and columns <= width + 2


def _channels_first(output: Tensor, image_size: tuple[int, int]) -> Layout | None:
    """The layout `(N, C, h, w)`, where the shape fits it."""
    if output.ndim != 4 or not fits(grid := (output.shape[2], output.shape[3]), image_size, slack=2.0):
        return None
    return Layout("channels first", grid, lambda tensor: tensor)


def _channels_last(output: Tensor, image_size: tuple[int, int]) -> Layout | None:
    """The layout `(N, h, w, C)`, where the shape fits it."""
    if output.ndim != 4 or not fits(grid := (output.shape[1], output.shape[2]), image_size, slack=2.0):
        return None
    return Layout("channels last", grid, lambda tensor: tensor.permute(0, 3, 1, 2), channel=3)


def _tokens(output: Tensor, image_size: tuple[int, int]) -> Layout | None:
    """The layout `(N, L, C)`: up to eight prefix tokens, then one token a patch, row by row."""
    if output.ndim != 3 or (found := find_patches(output.shape[1], image_size)) is None:
        return None
    prefix, grid = found
    return Layout(_tokens_in_words(prefix), grid, _tokens_to_grid(prefix, grid), channel=2)


def _tokens_first(output: Tensor, image_size: tuple[int, int]) -> Layout | None:
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


def _tokens_to_grid(prefix: int, grid: tuple[int, int]) -> Reshape:
    """The view of tokens `(N, L, C)` without their prefix as `(N, C, h, w)`."""
    return lambda tensor: tensor[:, prefix:].transpose(1, 2).reshape(len(tensor), -1, *grid)


LAYOUTS = (_channels_first, _channels_last, _tokens)
"""The functions that infer a layout from a shape, in order; the first that fits is taken."""


def find_patches(length: int, image_size: tuple[int, int]) -> tuple[int, tuple[int, int]] | None:
    """The number of tokens before the patches of a sequence, and the grid of the patches.

    Several may fit (4 x 5 patches behind 4 tokens, or 4 x 6). One with exactly the image's aspect ratio goes
    first, then one whose patches may be squares, then the one with fewest tokens before it.
    """
    readings = [
        (prefix, grid)
        for prefix in range(MAX_PREFIX_TOKENS + 1)
        for grid in _grids_of(length - prefix, image_size)
    ]
    if not readings:
        return None
    return min(
        readings, key=lambda each: (not _is_exact(each[1], image_size), not _is_square(each[1], image_size))
    )


def _grids_of(patches: int, image_size: tuple[int, int]) -> list[tuple[int, int]]:
    """The grids of `patches` patches that have nearly the image's aspect ratio."""
    rows = math.sqrt(max(patches, 0) * image_size[0] / image_size[1])
    grids = [
        (each, patches // each) for each in {math.floor(rows), math.ceil(rows)} if each and not patches % each
    ]
    return [grid for grid in grids if fits(grid, image_size, slack=1.0)]


def _is_exact(grid: tuple[int, int], image_size: tuple[int, int]) -> bool:
    """Whether a grid has exactly the image's aspect ratio."""
    return grid[0] * image_size[1] == grid[1] * image_size[0]


def _is_square(grid: tuple[int, int], image_size: tuple[int, int]) -> bool:
    """Whether square patches, and pixels left over at the border, give this grid."""
    (rows, columns), (height, width) = grid, image_size
    sides = range(height // (rows + 1), height // rows + 1)
    return any(side and height // side == rows and width // side == columns for side in sides)


def fits(grid: tuple[int, int], image_size: tuple[int, int], slack: float) -> bool:
    """Whether `grid` covers the image evenly: more than one cell, none finer than a pixel, the same aspect ratio.

    `slack` is in cells: strided layers round at the border.
    """
    (rows, columns), (height, width) = grid, image_size
    if rows * columns < 2 or rows > height + slack or columns > width + slack:
        return False
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


MAX_SUFFIX_TOKENS = 2
"""Class and distillation tokens that may stand behind a sequence of patches."""


def readings(output: Tensor, batch: int, image_size: tuple[int, int]) -> Iterator[Layout]:
    """All possible layouts of an output, the commonest first.

    Args:
        output: of three or four dimensions.
        batch: which of them counts the images.
        image_size: height and width of the images, in pixels; no cell is finer than a pixel.

    Example:
        >>> import torch
        >>> [each.kind for each in readings(torch.zeros(2, 3, 5, 7), 0, (64, 64))][:3]
        ['channels first', 'channels first, (N, C, w, h)', 'channels last']
    """
    rest = [each for each in range(output.ndim) if each != batch]
    if output.ndim == 4:
        found = _planes(output, batch, rest)
    elif output.ndim == 3:
        found = (each for length in reversed(rest) for each in _sequences(output, batch, length, image_size))
    else:
        return
    yield from (each for each in found if is_grid(each.grid, image_size))


def _planes(output: Tensor, batch: int, rest: list[int]) -> Iterator[Layout]:
    """The layouts of four dimensions: `(N, C, h, w)` in any order."""
    for channel in (rest[0], rest[2], rest[1]):
        first, second = (each for each in rest if each != channel)
        for rows, columns in ((first, second), (second, first)):
            order, grid = (batch, channel, rows, columns), (output.shape[rows], output.shape[columns])
            yield Layout(_in_words(order), grid, _permuted(order), batch, channel)


def _permuted(order: tuple[int, ...]) -> Reshape:
    """The view with the dimensions in another order."""
    return lambda tensor: tensor.permute(order)


def _in_words(order: tuple[int, ...]) -> str:
    """The kind of a layout with its dimensions in this order, in words."""
    if order in ((0, 1, 2, 3), (0, 3, 1, 2)):
        return "channels first" if order[1] == 1 else "channels last"
    letters = dict(zip(order, "NChw", strict=True))
    kind = {1: "channels first", 3: "channels last"}.get(order[1], "channels between")
    return f"{kind}, ({', '.join(letters[each] for each in range(4))})"


def _sequences(output: Tensor, batch: int, length: int, image_size: tuple[int, int]) -> Iterator[Layout]:
    """The layouts of three dimensions: `(N, L, C)` in any order, for each grid that the cells may form."""
    cells, channel = output.shape[length], 3 - batch - length
    letters = {batch: "N", length: "L", channel: "C"}
    order = f"({', '.join(letters[each] for each in range(3))})"
    for form in dict.fromkeys(_token_grids(cells, image_size)):
        parts = ["tokens" if length < channel else "channels first"]
        parts += [f"{form.before} before the patches"] if form.before else []
        parts += [f"{form.behind} behind the patches"] if form.behind else []
        parts += [order] if order != "(N, L, C)" else []
        parts += ["column by column"] if form.by_columns else []
        reshape = _unfold_tokens((batch, channel, length), slice(form.before, cells - form.behind), form)
        yield Layout(", ".join(parts), form.grid, reshape, batch, channel)


class TokenGrid(NamedTuple):
    """A grid of tokens: those before and behind it, its size, and whether it is filled column by column."""

    before: int
    behind: int
    grid: tuple[int, int]
    by_columns: bool = False


def _unfold_tokens(order: tuple[int, ...], cells: slice, form: TokenGrid) -> Reshape:
    """The view of a sequence as a grid of tokens `(N, C, h, w)`."""
    if form.by_columns:
        return lambda tensor: tensor.permute(order)[:, :, cells].unflatten(2, form.grid[::-1]).transpose(2, 3)
    return lambda tensor: tensor.permute(order)[:, :, cells].unflatten(2, form.grid)


def _token_grids(length: int, image_size: tuple[int, int]) -> Iterator[TokenGrid]:
    """The grids that a sequence may form: those of the image's aspect ratio first, then any."""
    likely = find_patches(length, image_size)
    if likely is not None:
        beside, grid = likely
        yield TokenGrid(beside, 0, grid)
        for behind in range(1, min(beside, MAX_SUFFIX_TOKENS) + 1):
            yield TokenGrid(beside - behind, behind, grid)
        yield TokenGrid(beside, 0, grid, by_columns=True)
    for beside in sorted({0, 1, likely[0] if likely is not None else 0}):
        patches = length - beside
        for rows in (each for each in range(1, patches + 1) if patches % each == 0):
            grid = (rows, patches // rows)
            yield TokenGrid(beside, 0, grid)
            if 1 not in grid:
                yield TokenGrid(beside, 0, grid, by_columns=True)


def is_even(gradients: Tensor) -> bool:
    """Whether every channel's gradient `(N, C, h, w)` is the same at all positions, and not simply zero.

    Example:
        >>> import torch
        >>> is_even(torch.ones(1, 2, 3, 3)), is_even(torch.zeros(1, 2, 3, 3)), is_even(torch.eye(3)[None, None])
        (True, False, False)
    """
    largest = gradients.abs().amax()
    spread = (gradients - gradients.mean(dim=(2, 3), keepdim=True)).abs().amax()
    return bool((largest > 0) & (spread <= 1e-5 * largest))
