"""Which dimension of an output counts the images, and where its cells lie: seen, and not guessed from its shape.

One image is run together with four changes of it, in which its upper, lower, left or right half is shuffled. The
dimension that moves with the number of images is the batch's. Of all readings of an output (`readings.py`) the right
one is that whose cells move with the half of the image in which they lie. Layers mix positions, but each cell is moved
the most by its own surroundings, in networks with random weights, too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from lightning_gcam.cam.layouts import (
    Layout,
    declares_channels_first,
    find_layout,
    fits,
    layout_by_shape,
    main_tensor,
    readings,
)
from lightning_gcam.utils.lightning_compat import rank_zero_info

CHANGES = 4
"""The image with its upper, its lower, its left and its right half shuffled."""

SURE = 0.9
"""A locality from which on no other reading is tried; one with the rows right and the columns not has 0.71, and more
by chance where there are few cells."""

FOUND = 0.75
"""The least locality of a reading that the shape alone would not suggest."""

MARGIN = 0.25
"""By how much another reading must be better than the one that the shape suggests, or most of the way to 1."""

CONFIRMED = 0.2
"""The least locality at which a reading counts as seen. A branch of an attention may have less, and be read rightly."""

CELLS = 8
"""Of fewer cells too many readings look right by chance, but for one of the image's aspect ratio."""


@dataclass(frozen=True)
class Seen:
    """The shape that an output had for a number of images."""

    shape: torch.Size
    images: int


def changed_images(image: Tensor, count: int) -> Tensor:
    """An image `(1, C, H, W)`, its four changes, and the image again, as often as it takes to be `count`.

    The pixels of a half are replaced by others of the same image, so that what is a valid image stays one; one of a
    single colour is given noise.
    """
    height, width = image.shape[-2:]
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(height * width, generator=generator).to(image.device)
    other = image.flatten(2)[:, :, order].view_as(image)
    if torch.equal(other, image) and image.is_floating_point():
        noise = torch.randn(image.shape, generator=generator)
        other = image + noise.to(image.device, image.dtype)
    images = image.repeat(count, 1, 1, 1)
    for number, (rows, columns) in enumerate(_halves(height, width), start=1):
        images[number, :, rows, columns] = other[0, :, rows, columns]
    return images


def _halves(height: int, width: int) -> list[tuple[slice, slice]]:
    all_ = slice(None)
    return [
        (slice(0, height // 2), all_),
        (slice(height - height // 2, None), all_),
        (all_, slice(0, width // 2)),
        (all_, slice(width - width // 2, None)),
    ]


def batch_dimension(one: Seen, other: Seen) -> int | None:
    """The only dimension that moves with the number of images; None where none does, or more than one.

    Example:
        >>> batch_dimension(Seen(torch.Size([16, 16, 8]), 16), Seen(torch.Size([16, 5, 8]), 5))
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
    """How well the cells of a grid follow the image: 1 where each is moved by its own halves only, about 0 by chance.

    Args:
        movement: `(4, h, w)`, how much each cell is moved by a change of the upper, lower, left and right half.

    Returns:
        The correlation of each cell's share of movement with where it lies; None where nothing moves.

    Example:
        >>> top, left = torch.tensor([[1.0, 1.0], [0.0, 0.0]]), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
        >>> movement = torch.stack([top, 1 - top, left, 1 - left])
        >>> locality(movement), locality(movement.transpose(1, 2)), locality(torch.zeros(4, 2, 2))
        (1.0, 0.0, None)
    """
    moved = movement.double().cpu().numpy()  # grids are small: torch would take most of its time to start
    rows, columns = moved.shape[1:]
    expected = _share(rows)[:, None].repeat(columns, axis=1), _share(columns)[None].repeat(rows, axis=0)
    product, measured, ideal = 0.0, 0.0, 0.0
    for pair, share in zip((moved[:2], moved[2:]), expected, strict=True):
        both = pair.sum(axis=0)
        moves = both > 0
        if not moves.any():
            continue
        found, wanted = pair[0][moves] / both[moves], share[moves]
        found, wanted = found - found.mean(), wanted - wanted.mean()
        product += float(found @ wanted)
        measured += float(found @ found)
        ideal += float(wanted @ wanted)
    return product / math.sqrt(measured * ideal) if measured * ideal > 0 else None


def _share(cells: int) -> Any:
    """Which part of each of so many cells lies in the first half."""
    return (cells / 2 - np.arange(cells)).clip(0, 1)


def judge(
    before: Seen, output: Tensor, image_size: tuple[int, int], module: nn.Module, count: int
) -> Layout | None:
    """Read an output by what it gave for `changed_images`.

    Args:
        before: its shape for another number of images.
        output: for the changed images.
        image_size: height and width of the images, in pixels.
        module: the layer, whose kind may say something.
        count: how many changed images there were.

    Returns:
        The layout with its locality, which is None where nothing could be told; None where it is no grid.
    """
    batch = batch_dimension(before, Seen(output.shape, count))
    if batch is None:
        return None
    likely = layout_by_shape(output, batch, image_size, module)
    moved = (output.narrow(batch, 1, CHANGES) - output.narrow(batch, 0, 1)).detach().float().abs()
    if not bool(moved.isfinite().all() and moved.any()):
        return likely
    reduced = [moved.mean(dim=channel, keepdim=True).cpu() for channel in range(output.ndim)]
    likely = _with_locality(likely, reduced) if likely is not None else None
    own = likely.locality if likely is not None else None
    if likely is not None and (own or 0.0) >= SURE and math.prod(likely.grid) >= CELLS:
        return likely
    others = [each for each in readings(output, batch, image_size) if _is_telling(each, image_size)]
    seen = [_with_locality(each, reduced) for each in others]
    best = max(seen, key=lambda each: each.locality or 0.0, default=None)
    if best is not None and (best.locality or 0.0) >= _least(own):
        return best
    if output.ndim == 3 and declares_channels_first(module):
        return None  # a convolution over channels or over tokens: what it has in a row are no positions
    return likely


def _least(own: float | None) -> float:
    """The locality that another reading must have, where that which the shape suggests has `own`."""
    if own is None:
        return FOUND
    return max(FOUND, own + max(min(MARGIN, 0.8 * (1 - own)), 0.01))


def _is_telling(layout: Layout, image_size: tuple[int, int]) -> bool:
    cells = math.prod(layout.grid)
    return cells >= CELLS or (cells >= CELLS // 2 and fits(layout.grid, image_size, slack=1.0))


def _with_locality(layout: Layout, moved: Sequence[Tensor]) -> Layout:
    """As seen in the movement, which is the mean over one dimension in each of `moved`."""
    return replace(layout, locality=locality(layout.reshape(moved[layout.channel])[:, 0]))


# ------------------------------------------------------------------------------------------ the forward


Run = Callable[[Tensor], Any]
"""From images to whatever the model gives for them."""


def layouts_seen(
    run: Run, image: Tensor, seen: Mapping[nn.Module, Mapping[int, Seen]], count: int
) -> dict[nn.Module, dict[int, Layout | None]]:
    """Run the model on `changed_images`, and read the outputs of some of its layers.

    Args:
        run: the model.
        image: `(1, C, H, W)`.
        seen: for each layer the shapes that its calls, by their number, gave for another number of images.
        count: how many images to run, five or more, and not as many as there were before.

    Returns:
        For each layer and call the layout as in `judge`; what did not run again is missing.
    """
    found: dict[nn.Module, dict[int, Layout | None]] = {module: {} for module in seen}
    by_shape: dict[torch.Size, Layout] = {}
    size = (image.shape[-2], image.shape[-1])

    def note(module: nn.Module, call: int, tensor: Tensor) -> None:
        if (before := seen[module].get(call)) is None:
            return
        layout = by_shape.get(tensor.shape) or judge(before, tensor, size, module, count)
        found[module][call] = layout
        if layout is not None and (layout.locality or 0.0) >= FOUND and len(set(tensor.shape)) == tensor.ndim:
            by_shape[tensor.shape] = layout  # a branch that mixes positions lies as the stream it is added to

    with torch.no_grad(), _watched(seen, note):
        run(changed_images(image, count))
    return found


@contextmanager
def _watched(modules: Iterable[nn.Module], note: Callable[[nn.Module, int, Tensor], None]) -> Iterator[None]:
    """Hand each floating output of some modules to `note`, with the number of the call."""
    calls = dict.fromkeys(modules, 0)

    def keep(module: nn.Module, _: Any, output: Any) -> None:
        tensor = main_tensor(output)
        if tensor is not None and tensor.is_floating_point():
            note(module, calls[module], tensor)
            calls[module] += 1

    with ExitStack() as stack:
        for module in calls:
            stack.callback(module.register_forward_hook(keep).remove)
        yield


# ------------------------------------------------------------------------------------ one layer, once


_Known = tuple[tuple[int, int], torch.Size, Layout]
"""For images of that size an output of that shape, but for the number of images, is read so."""

_KNOWN: WeakKeyDictionary[nn.Module, list[_Known]] = WeakKeyDictionary()
"""What was seen of each layer, so that a training pays for it once."""


def remember(layer: nn.Module, shape: torch.Size, image_size: tuple[int, int], layout: Layout) -> None:
    """Keep how a layer's output is read, for any number of images of this size."""
    known = _KNOWN.setdefault(layer, [])
    if recalled(layer, shape, image_size, shape[layout.batch]) is None:
        known.append((image_size, shape, layout))


def recalled(layer: nn.Module, shape: torch.Size, image_size: tuple[int, int], n: int) -> Layout | None:
    """How an output of this shape for `n` images of this size is read, where that was seen before."""
    for size, known, layout in _KNOWN.get(layer, ()):
        if size == image_size and shape == (*known[: layout.batch], n, *known[layout.batch + 1 :]):
            return layout
    return None


def layout_of(layer: nn.Module, call: int, output: Tensor, images: Tensor, run: Run) -> Layout | None:
    """How a layer's output is laid out: as its kind says, or as is seen in one more forward, the first time.

    Args:
        layer: the module.
        call: which of its calls gave the output, from 0.
        output: what it gave.
        images: `(N, C, H, W)`, for which it gave it.
        run: the model.

    Returns:
        None where it is no grid, or where more than one dimension may count the images and none could be seen to.
    """
    size, n = (images.shape[-2], images.shape[-1]), len(images)
    layout = find_layout(output, size, n, layer)
    if layout is not None and layout.is_sure:
        return layout
    if (known := recalled(layer, output.shape, size, n)) is not None:
        return known
    count = CHANGES + 1 if n != CHANGES + 1 else CHANGES + 2
    try:
        found = layouts_seen(run, images[:1].detach(), {layer: {call: Seen(output.shape, n)}}, count)
    except Exception:
        # the user's forward takes no other number of images, or memory has no room for them: the shape has to do
        layout, is_final = layout if output.shape.count(n) == 1 else None, True
    else:
        layout = found[layer].get(call, layout)
        is_final = layout is not None and layout.locality is not None
    if layout is not None and is_final:
        _say(layer, output, layout)
        remember(layer, output.shape, size, layout)
    return layout


def _say(layer: nn.Module, output: Tensor, layout: Layout) -> None:
    if (layout.locality or 0.0) < CONFIRMED:
        rank_zero_info(
            f"The output of {type(layer).__name__}, {tuple(output.shape)}, is read as a {layout.grid[0]} x "
            f"{layout.grid[1]} grid, {layout.kind}, by its shape alone: {unseen(layout)}. If that is wrong, pass "
            "`reshape_transform=`."
        )


def unseen(layout: Layout) -> str:
    """What is said of a reading that evidence does not confirm."""
    if layout.locality is None:
        return "nothing could be seen of where its cells lie"
    return "its cells do not follow the halves of the image, as those of a layer that mixes all positions need not"


def see(layers: Iterable[nn.Module], images: Tensor, run: Run) -> None:
    """Remember how the outputs of some layers are laid out, by two forwards; nothing is run where all is known.

    Args:
        layers: those whose kind says it are passed over.
        images: `(N, C, H, W)`; the first is used.
        run: the model.
    """
    unknown = [each for each in layers if not declares_channels_first(each) and each not in _KNOWN]
    if not unknown:
        return
    seen: dict[nn.Module, dict[int, Seen]] = {each: {} for each in unknown}
    shapes: dict[tuple[nn.Module, int], torch.Size] = {}

    def note(layer: nn.Module, call: int, output: Tensor) -> None:
        seen[layer][call], shapes[layer, call] = Seen(output.shape, 1), output.shape

    image, size = images[:1].detach(), (images.shape[-2], images.shape[-1])
    try:
        with torch.no_grad(), _watched(unknown, note):
            run(image.clone())
        found = layouts_seen(run, image, seen, CHANGES + 1)
    except Exception:  # as above
        return
    for layer, calls in found.items():
        for call, layout in calls.items():
            if layout is not None and layout.locality is not None:
                remember(layer, shapes[layer, call], size, layout)
