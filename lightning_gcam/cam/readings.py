"""All layouts that an output may have, beside the likely one: `layout_evidence` measures which of them it is."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations
from typing import NamedTuple

from torch import Tensor

from lightning_gcam.cam.layouts import Layout, Reshape, find_patches, grids_of, is_grid
from lightning_gcam.utils.dimensions import Size

MAX_SUFFIX_TOKENS = 2
"""Class and distillation tokens that may stand behind a sequence of patches."""


def readings(output: Tensor, batch: int, image_size: Size) -> Iterator[Layout]:
    """All possible layouts of an output, the commonest first.

    Args:
        output: with as many dimensions as the images, or three.
        batch: which of them counts the images.
        image_size: of the images, in pixels; no cell is finer than a pixel.

    Example:
        >>> import torch
        >>> [each.kind for each in readings(torch.zeros(2, 3, 5, 7), 0, (64, 64))][:3]
        ['channels first', 'channels first, (N, C, w, h)', 'channels last']
    """
    rest = [each for each in range(output.ndim) if each != batch]
    found: Iterator[Layout]
    if output.ndim == 3:
        found = (each for length in reversed(rest) for each in _sequences(output, batch, length, image_size))
    elif output.ndim == 2 + len(image_size):
        found = _planes(output, batch, rest)
    else:
        return
    yield from (each for each in found if is_grid(each.grid, image_size))


def _planes(output: Tensor, batch: int, rest: list[int]) -> Iterator[Layout]:
    """The layouts with a dimension for each of the images': over a plane in any order, over a volume in its own."""
    for channel in (rest[0], *reversed(rest[1:])):
        cells = [each for each in rest if each != channel]
        for grid in permutations(cells) if len(cells) == 2 else (tuple(cells),):
            order = (batch, channel, *grid)
            sides = tuple(output.shape[each] for each in grid)
            yield Layout(_in_words(order), sides, _permuted(order), batch, channel)


def _permuted(order: tuple[int, ...]) -> Reshape:
    """The view with the dimensions in another order."""
    return lambda tensor: tensor.permute(order)


def _in_words(order: tuple[int, ...]) -> str:
    """The kind of a layout with its dimensions in this order, in words."""
    last = len(order) - 1
    if order in (tuple(range(last + 1)), (0, last, *range(1, last))):
        return "channels first" if order[1] == 1 else "channels last"
    letters = dict(zip(order, "NChw" if last == 3 else "NCdhw", strict=True))
    kind = {1: "channels first", last: "channels last"}.get(order[1], "channels between")
    return f"{kind}, ({', '.join(letters[each] for each in range(last + 1))})"


def _sequences(output: Tensor, batch: int, length: int, image_size: Size) -> Iterator[Layout]:
    """The layouts of three dimensions: `(N, L, C)` in any order, for each grid that the cells may form."""
    cells, channel = output.shape[length], 3 - batch - length
    letters = {batch: "N", length: "L", channel: "C"}
    order = f"({', '.join(letters[each] for each in range(3))})"
    natural = ("(N, L, C)", "(N, C, L)") if len(image_size) == 1 else ("(N, L, C)",)
    for form in dict.fromkeys(_token_grids(cells, image_size)):
        parts = ["tokens" if length < channel else "channels first"]
        parts += [f"{form.before} before the patches"] if form.before else []
        parts += [f"{form.behind} behind the patches"] if form.behind else []
        parts += [order] if order not in natural else []
        parts += ["column by column"] if form.by_columns else []
        reshape = _unfold_tokens((batch, channel, length), slice(form.before, cells - form.behind), form)
        yield Layout(", ".join(parts), form.grid, reshape, batch, channel)


class TokenGrid(NamedTuple):
    """A grid of tokens: those before and behind it, its size, and whether it is filled column by column."""

    before: int
    behind: int
    grid: Size
    by_columns: bool = False


def _unfold_tokens(order: tuple[int, ...], cells: slice, form: TokenGrid) -> Reshape:
    """The view of a sequence as a grid of tokens `(N, C, *grid)`."""
    if form.by_columns:
        return lambda tensor: tensor.permute(order)[:, :, cells].unflatten(2, form.grid[::-1]).transpose(2, 3)
    return lambda tensor: tensor.permute(order)[:, :, cells].unflatten(2, form.grid)


def _token_grids(length: int, image_size: Size) -> Iterator[TokenGrid]:
    """The grids that a sequence may form: those of the image's aspect ratio first, then any."""
    likely = find_patches(length, image_size)
    is_flat = len(image_size) == 2
    if likely is not None:
        beside, grid = likely
        yield TokenGrid(beside, 0, grid)
        for behind in range(1, min(beside, MAX_SUFFIX_TOKENS) + 1):
            yield TokenGrid(beside - behind, behind, grid)
        if is_flat:
            yield TokenGrid(beside, 0, grid, by_columns=True)
    for beside in sorted({0, 1, likely[0] if likely is not None else 0}):
        for grid in _any_grids(length - beside, image_size):
            yield TokenGrid(beside, 0, grid)
            if is_flat and 1 not in grid:
                yield TokenGrid(beside, 0, grid, by_columns=True)


def _any_grids(patches: int, image_size: Size) -> list[Size]:
    """The grids of so many patches: over an image at any aspect ratio, over a volume at that of its slices."""
    if len(image_size) != 2:
        return grids_of(patches, image_size)
    return [(rows, patches // rows) for rows in range(1, patches + 1) if patches % rows == 0]
