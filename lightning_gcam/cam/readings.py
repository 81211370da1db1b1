"""Every way in which an output may be a grid over the image, for `evidence.py` to decide between them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from torch import Tensor

from lightning_gcam.cam.reshape import Layout, Reshape, find_patches, is_grid

MAX_SUFFIX_TOKENS = 2
"""Class and distillation tokens that may stand behind a sequence of patches."""


def readings(output: Tensor, batch: int, image_size: tuple[int, int]) -> Iterator[Layout]:
    """All readings of an output, the commonest first.

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
    """`(N, C, h, w)` in any order of its dimensions."""
    for channel in (rest[0], rest[2], rest[1]):
        first, second = (each for each in rest if each != channel)
        for rows, columns in ((first, second), (second, first)):
            order, grid = (batch, channel, rows, columns), (output.shape[rows], output.shape[columns])
            yield Layout(_in_words(order), grid, _permuted(order), batch, channel)


def _permuted(order: tuple[int, ...]) -> Reshape:
    return lambda tensor: tensor.permute(order)


def _in_words(order: tuple[int, ...]) -> str:
    if order in ((0, 1, 2, 3), (0, 3, 1, 2)):
        return "channels first" if order[1] == 1 else "channels last"
    letters = dict(zip(order, "NChw", strict=True))
    kind = {1: "channels first", 3: "channels last"}.get(order[1], "channels between")
    return f"{kind}, ({', '.join(letters[each] for each in range(4))})"


def _sequences(output: Tensor, batch: int, length: int, image_size: tuple[int, int]) -> Iterator[Layout]:
    """`(N, L, C)` in any order of its dimensions, for each grid that the cells may form."""
    cells, channel = output.shape[length], 3 - batch - length
    letters = {batch: "N", length: "L", channel: "C"}
    order = f"({', '.join(letters[each] for each in range(3))})"
    for form in dict.fromkeys(_forms(cells, image_size)):
        words = ["tokens" if length < channel else "channels first"]
        words += [f"{form.before} before the patches"] if form.before else []
        words += [f"{form.behind} behind the patches"] if form.behind else []
        words += [order] if order != "(N, L, C)" else []
        words += ["column by column"] if form.by_columns else []
        reshape = _folded((batch, channel, length), slice(form.before, cells - form.behind), form)
        yield Layout(", ".join(words), form.grid, reshape, batch, channel)


class Form(NamedTuple):
    """Tokens before the patches, tokens behind them, the grid, and whether it is filled column by column."""

    before: int
    behind: int
    grid: tuple[int, int]
    by_columns: bool = False


def _folded(order: tuple[int, ...], cells: slice, form: Form) -> Reshape:
    if form.by_columns:
        return lambda tensor: tensor.permute(order)[:, :, cells].unflatten(2, form.grid[::-1]).transpose(2, 3)
    return lambda tensor: tensor.permute(order)[:, :, cells].unflatten(2, form.grid)


def _forms(length: int, image_size: tuple[int, int]) -> Iterator[Form]:
    """The one that has the image's aspect ratio first; then others of as many patches; then any."""
    likely = find_patches(length, image_size)
    if likely is not None:
        beside, grid = likely
        yield Form(beside, 0, grid)
        for behind in range(1, min(beside, MAX_SUFFIX_TOKENS) + 1):
            yield Form(beside - behind, behind, grid)
        yield Form(beside, 0, grid, by_columns=True)
    for beside in sorted({0, 1, likely[0] if likely is not None else 0}):
        patches = length - beside
        for rows in (each for each in range(1, patches + 1) if patches % each == 0):
            grid = (rows, patches // rows)
            yield Form(beside, 0, grid)
            if 1 not in grid:
                yield Form(beside, 0, grid, by_columns=True)
