"""Which dimension of an output counts the images, and where its cells lie: measured, not inferred from its shape.

One image is run together with two changes of it along each of its dimensions, in which the half at either end is
shuffled: the upper, lower, left and right one. The dimension that changes with the number of images is the batch's. Of
all possible layouts of an output (`readings`) the right one is that whose cells change with the half of the image in
which they lie. Layers mix positions, but each cell is changed the most by its own surroundings, in networks with random
weights, too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from lightning_gcam.cam.layouts import (
    Layout,
    Run,
    declares_channels_first,
    find_layout,
    fits,
    layout_by_shape,
    main_tensor,
)
from lightning_gcam.cam.readings import readings
from lightning_gcam.utils.dimensions import Size, describe_grid, size_of
from lightning_gcam.utils.lightning_compat import log_once

SURE = 0.9
"""A locality from which on no other layout is tried; one with the rows right and the columns not has 0.71, and more
by chance where there are few cells."""

FOUND = 0.75
"""The least locality of a layout that the shape alone would not suggest."""

MARGIN = 0.25
"""By how much another layout must be better than the one that the shape suggests, or most of the way to 1."""

CONFIRMED = 0.2
"""The least locality at which a layout is confirmed. A branch of an attention may have less, and the right layout."""

CELLS = 8
"""With fewer cells too many layouts look right by chance, but for one of the image's aspect ratio."""


@dataclass(frozen=True)
class ObservedShape:
    """The shape of an output for a number of images."""

    shape: torch.Size
    images: int


def fewest_images(images: Tensor) -> int:
    """How many `changed_images` it takes: the image, and two changes along each of its dimensions.

    Example:
        >>> fewest_images(torch.zeros(1, 3, 8, 8)), fewest_images(torch.zeros(1, 1, 187))
        (5, 3)
    """
    return 1 + 2 * (images.ndim - 2)


def changed_images(image: Tensor, count: int, changes: slice = slice(None)) -> Tensor:
    """An image `(1, C, *S)`, those changes of it, and the image again, as often as it takes to be `count`.

    The pixels of a half are replaced by others of the same image, so that what is a valid image stays one; one of a
    single colour is given noise.
    """
    size = size_of(image)
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(math.prod(size), generator=generator).to(image.device)
    other = image.flatten(2)[:, :, order].view_as(image)
    if torch.equal(other, image) and image.is_floating_point():
        noise = torch.randn(image.shape, generator=generator)
        other = image + noise.to(image.device, image.dtype)
    images = image.repeat(count, *[1] * (image.ndim - 1))
    for number, half in enumerate([*_halves(size)][changes], start=1):
        images[number][half] = other[0][half]
    return images


def _halves(size: Size) -> Iterator[tuple[slice, ...]]:
    """The channels and positions of the first and the last half along each dimension: the upper, lower, left, right."""
    for axis, side in enumerate(size, start=1):
        before = (slice(None),) * axis
        yield (*before, slice(0, side // 2))
        yield (*before, slice(side - side // 2, None))


def batch_dimension(one: ObservedShape, other: ObservedShape) -> int | None:
    """The only dimension that changes with the number of images; None where none does, or more than one.

    Example:
        >>> batch_dimension(ObservedShape(torch.Size([16, 16, 8]), 16), ObservedShape(torch.Size([16, 5, 8]), 5))
        1
    """
    if len(one.shape) != len(other.shape):
        return None
    moved = [
        each for each, (left, right) in enumerate(zip(one.shape, other.shape, strict=True)) if left != right
    ]
    is_one = len(moved) == 1 and (one.shape[moved[0]], other.shape[moved[0]]) == (one.images, other.images)
    return moved[0] if is_one else None


def locality(movement: Tensor) -> float | None:
    """How well the cells of a grid follow the image: 1 where only their own halves change them, about 0 by chance.

    Args:
        movement: `(2 * dimensions, *grid)`, how much each cell is changed by a change of the first and of the last half
            along each dimension: the upper, lower, left and right one.

    Returns:
        The correlation of each cell's share of change with its position; None where nothing changes.

    Example:
        >>> top, left = torch.tensor([[1.0, 1.0], [0.0, 0.0]]), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
        >>> movement = torch.stack([top, 1 - top, left, 1 - left])
        >>> locality(movement), locality(movement.transpose(1, 2)), locality(torch.zeros(4, 2, 2))
        (1.0, 0.0, None)
    """
    moved = movement.double().cpu().numpy()  # grids are small: torch would take most of its time to start
    product, measured, ideal = 0.0, 0.0, 0.0
    for axis, cells in enumerate(moved.shape[1:]):
        pair = moved[2 * axis : 2 * axis + 2]
        share = np.moveaxis(np.broadcast_to(_share(cells), np.moveaxis(pair[0], axis, -1).shape), -1, axis)
        both = pair.sum(axis=0)
        moves = both > 0
        if not moves.any():
            continue
        found, target = pair[0][moves] / both[moves], share[moves]
        found, target = found - found.mean(), target - target.mean()
        product += float(found @ target)
        measured += float(found @ found)
        ideal += float(target @ target)
    return product / math.sqrt(measured * ideal) if measured * ideal > 0 else None


def _share(cells: int) -> Any:
    """The part of each of `cells` cells in a row that lies in the first half."""
    return (cells / 2 - np.arange(cells)).clip(0, 1)


def layout_by_evidence(
    output: Tensor, batch: int, moved: Sequence[Tensor], image_size: Size, module: nn.Module
) -> Layout | None:
    """The layout of an output, measured by how it changes with `changed_images`.

    Args:
        output: that for some of the images.
        batch: which of its dimensions counts the images.
        moved: for each dimension how much the output changes with each change, its mean over that dimension.
        image_size: of the images, in pixels.
        module: the layer, whose kind may determine the layout.

    Returns:
        The layout with its locality, which is None where it could not be measured; None where it is no grid.
    """
    likely = layout_by_shape(output, batch, image_size, module)
    if not bool(moved[0].isfinite().all() and moved[0].any()):
        return likely
    likely = _with_locality(likely, moved) if likely is not None else None
    own = likely.locality if likely is not None else None
    if likely is not None and (own or 0.0) >= SURE and math.prod(likely.grid) >= CELLS:
        return likely
    others = [each for each in readings(output, batch, image_size) if _has_enough_cells(each, image_size)]
    seen = [_with_locality(each, moved) for each in others]
    best = max(seen, key=lambda each: each.locality or 0.0, default=None)
    if best is not None and (best.locality or 0.0) >= _least_locality(own):
        return best
    if output.ndim == 3 and len(image_size) > 1 and declares_channels_first(module):
        return None  # a convolution over channels or over tokens: what it has in a row are no positions
    return likely


def _least_locality(own: float | None) -> float:
    """The locality that another layout must have, where the one that the shape suggests has `own`."""
    if own is None:
        return FOUND
    return max(FOUND, own + max(min(MARGIN, 0.8 * (1 - own)), 0.01))


def _has_enough_cells(layout: Layout, image_size: Size) -> bool:
    """Whether a grid has so many cells that its locality is unlikely to be high by chance."""
    cells = math.prod(layout.grid)
    return cells >= CELLS or (cells >= CELLS // 2 and fits(layout.grid, image_size, slack=1.0))


def _with_locality(layout: Layout, moved: Sequence[Tensor]) -> Layout:
    """A layout with its locality, measured on the changes `moved`; each is the mean over one dimension."""
    return replace(layout, locality=locality(layout.reshape(moved[layout.channel])[:, 0]))


# ------------------------------------------------------------------------------------------ the forward


def measure_layouts(
    run: Run, image: Tensor, observed: Mapping[nn.Module, Mapping[int, ObservedShape]], n: int
) -> dict[nn.Module, dict[int, Layout | None]]:
    """Measure the layouts of some layers' outputs by one forward of `changed_images`; for volumes by one a change.

    Args:
        run: the model.
        image: `(1, C, *S)`.
        observed: for each layer the shapes of its calls' outputs, by their number, for `n` images.
        n: another number of images is run than this.

    Returns:
        For each layer and call the layout, as in `layout_by_evidence`; calls that did not happen again are missing.
    """
    found: dict[nn.Module, dict[int, Layout | None]] = {module: {} for module in observed}
    by_shape: dict[torch.Size, Layout] = {}
    moved: dict[tuple[nn.Module, int], list[Tensor]] = {}
    size, together = size_of(image), fewest_images(image) - 1 if image.ndim < 5 else 1
    parts = range(0, fewest_images(image) - 1, together)

    def collect(module: nn.Module, call: int, tensor: Tensor, first: int) -> None:
        if (before := observed[module].get(call)) is None:
            return
        layout = by_shape.get(tensor.shape)
        batch = batch_dimension(before, ObservedShape(tensor.shape, count))
        if layout is None and batch is not None:
            own = _movement(tensor, batch, together)
            known = moved.get((module, call))
            pairs = zip(known, own, strict=True) if known is not None else ((each,) for each in own)
            moved[module, call] = [torch.cat(each, dim=batch) for each in pairs]
            if first != parts[-1]:
                return
            layout = layout_by_evidence(tensor, batch, moved.pop((module, call)), size, module)
        found[module][call] = layout
        if layout is not None and (layout.locality or 0.0) >= FOUND and len(set(tensor.shape)) == tensor.ndim:
            by_shape[tensor.shape] = layout  # a branch that mixes positions lies as the stream it is added to

    count = 1 + together + (n == 1 + together)
    for first in parts:
        changed = changed_images(image, count, slice(first, first + together))
        with torch.no_grad(), _outputs_collected(observed, partial(collect, first=first)):
            run(changed)
    return found


def _movement(output: Tensor, batch: int, changes: int) -> list[Tensor]:
    """How much an output changes with each of the changes, its mean over each of its dimensions."""
    moved = (output.narrow(batch, 1, changes) - output.narrow(batch, 0, 1)).detach().float().abs()
    return [moved.mean(dim=channel, keepdim=True).cpu() for channel in range(output.ndim)]


@contextmanager
def _outputs_collected(
    modules: Iterable[nn.Module], collect: Callable[[nn.Module, int, Tensor], None]
) -> Iterator[None]:
    """Call `collect(module, call, tensor)` for each floating-point output of some modules, inside."""
    calls = dict.fromkeys(modules, 0)

    def keep(module: nn.Module, _: Any, output: Any) -> None:
        tensor = main_tensor(output)
        if tensor is not None and tensor.is_floating_point():
            collect(module, calls[module], tensor)
            calls[module] += 1

    with ExitStack() as stack:
        for module in calls:
            stack.callback(module.register_forward_hook(keep).remove)
        yield


# ------------------------------------------------------------------------------------ one layer, once


_Remembered = tuple[Size, torch.Size, Layout]
"""The size of the images, the shape of an output for some of them, and its layout."""

_REMEMBERED: WeakKeyDictionary[nn.Module, list[_Remembered]] = WeakKeyDictionary()
"""The measured layouts of each layer, so that a training pays for them once."""


def remember_layout(layer: nn.Module, shape: torch.Size, image_size: Size, layout: Layout) -> None:
    """Remember the layout of a layer's output, for any number of images of this size."""
    known = _REMEMBERED.setdefault(layer, [])
    if remembered_layout(layer, shape, image_size, shape[layout.batch]) is None:
        known.append((image_size, shape, layout))


def remembered_layout(layer: nn.Module, shape: torch.Size, image_size: Size, n: int) -> Layout | None:
    """The remembered layout of an output of this shape for `n` images of this size; None where there is none."""
    for size, known, layout in _REMEMBERED.get(layer, ()):
        if size == image_size and shape == (*known[: layout.batch], n, *known[layout.batch + 1 :]):
            return layout
    return None


def layout_of(layer: nn.Module, call: int, output: Tensor, images: Tensor, run: Run) -> Layout | None:
    """The layout of a layer's output: by its kind, or measured in one more forward, the first time.

    Args:
        layer: the module.
        call: which of its calls returned the output, from 0.
        output: what it returned.
        images: `(N, C, *S)`, for which it returned it.
        run: the model.

    Returns:
        None where it is no grid, or where more than one dimension may count the images and none was measured to.
    """
    size, n = size_of(images), len(images)
    layout = find_layout(output, size, n, layer)
    if layout is not None and layout.is_sure:
        return layout if layout.frames == 1 else _in_order_of_frames(layout, layer, call, output, images, run)
    if (known := remembered_layout(layer, output.shape, size, n)) is not None:
        return known
    try:
        found = measure_layouts(run, images[:1].detach(), {layer: {call: ObservedShape(output.shape, n)}}, n)
    except Exception:
        # the user's forward takes no other number of images, or memory has no room for them: the shape has to do
        layout, is_final = layout if output.shape.count(n) == 1 else None, True
    else:
        layout = found[layer].get(call, layout)
        is_final = layout is not None and layout.locality is not None
    if layout is not None and is_final:
        log_unconfirmed(f"The output of {type(layer).__name__}, {tuple(output.shape)},", layout)
        remember_layout(layer, output.shape, size, layout)
    return layout


def _in_order_of_frames(
    layout: Layout, layer: nn.Module, call: int, output: Tensor, images: Tensor, run: Run
) -> Layout:
    """A layout of frames in the batch, image by image or frame by frame: seen in one forward of copies of an image.

    Of another number than there are images, as in `measure_layouts`: these may have other inputs of their own.
    """
    size, copied = size_of(images), dict[int, Tensor]()
    copies = 3 if len(images) == 2 else 2
    if (known := remembered_layout(layer, output.shape, size, len(output))) is not None:
        return known
    collect = _outputs_collected([layer], lambda _, number, tensor: copied.update({number: tensor}))
    with (
        suppress(Exception),
        torch.no_grad(),
        collect,
    ):  # a forward that takes no other number folds them the usual way
        run(torch.cat([images[:1].detach()] * copies))
    if (rows := copied.get(call)) is not None and len(rows) == copies * layout.frames:
        by_image = (rows[: layout.frames] - rows[-layout.frames :]).abs().sum()
        if by_image > (rows[::copies] - rows[1::copies]).abs().sum():
            in_order, frames = layout.reshape, layout.frames
            layout = replace(
                layout,
                reshape=lambda tensor: in_order(
                    tensor.unflatten(0, (frames, -1)).transpose(0, 1).flatten(0, 1)
                ),
            )
    remember_layout(layer, output.shape, size, layout)
    return layout


def log_unconfirmed(what: str, layout: Layout) -> None:
    """Log once a layout that was inferred from the shape alone.

    Args:
        what: the output, in words.
        layout: of it.
    """
    if (layout.locality or 0.0) >= CONFIRMED:
        return
    log_once(
        f"{what} is read as a {describe_grid(layout.grid)}, {layout.kind}, by its shape alone: "
        f"{unconfirmed_reason(layout)}. If that is wrong, pass `reshape_transform=`, or name another `target_layer`."
    )


def unconfirmed_reason(layout: Layout) -> str:
    """Why a layout is not confirmed, in words."""
    if layout.locality is None:
        return "nothing could be seen of where its cells lie"
    return "its cells do not follow the halves of the image, as those of a layer that mixes all positions need not"


def measure_and_remember(layers: Iterable[nn.Module], images: Tensor, run: Run) -> None:
    """Measure and remember the layouts of some layers' outputs, by two forwards; by none where all are known.

    Args:
        layers: those whose kind determines the layout are passed over.
        images: `(N, C, *S)`; the first is used.
        run: the model.
    """
    unknown = [each for each in layers if not declares_channels_first(each) and each not in _REMEMBERED]
    if not unknown:
        return
    observed: dict[nn.Module, dict[int, ObservedShape]] = {each: {} for each in unknown}
    shapes: dict[tuple[nn.Module, int], torch.Size] = {}

    def collect(layer: nn.Module, call: int, output: Tensor) -> None:
        observed[layer][call], shapes[layer, call] = ObservedShape(output.shape, 1), output.shape

    image, size = images[:1].detach(), size_of(images)
    try:
        with torch.no_grad(), _outputs_collected(unknown, collect):
            run(image.clone())
        found = measure_layouts(run, image, observed, 1)
    except Exception:  # as above
        return
    for layer, calls in found.items():
        for call, layout in calls.items():
            if layout is not None and layout.locality is not None:
                remember_layout(layer, shapes[layer, call], size, layout)
