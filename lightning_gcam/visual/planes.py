"""Volumes and videos in two dimensions: slices in three planes with projections, or a strip of frames, on one sheet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_gcam.visual.drawing import (
    OBJECT_COLOR,
    PEAK_COLOR,
    SUSPECT_COLOR,
    Line,
    Strokes,
    box_edges,
    dash,
    edge,
    stroke,
)
from lightning_gcam.visual.forms import COLUMNS, LINE, PLANES, Form, Tile
from lightning_gcam.visual.images import Color, Normalize, are_finite, check_normalize, to_display
from lightning_gcam.visual.overlay import shrink_maps
from lightning_gcam.visual.panels import CARD, MUTED, TEXT, Regions, Sheet


@dataclass(frozen=True)
class View:
    """Which slices of the samples a sheet shows.

    Args:
        numbers: `(N, tiles)`, the place of each tile along its axis; of no meaning for projections.
        shown: `(N, tiles)` bool; what is not shown stays empty.
        peaks: `(N, 3)`, the place of each sample's peak; in the middle where there is none.
        marked: `(N,)`, the tile of a strip that has the peak; one behind the last where there is none.
    """

    numbers: Tensor
    shown: Tensor
    peaks: Tensor
    marked: Tensor


def view_of(form: Form, values: Tensor, objects: Tensor | None = None) -> View:
    """Choose the slices through the peak of each map, and those with most of the object; or the frames of a strip.

    Args:
        form: of the sheet.
        values: `(N, *S)`, the maps.
        objects: `(N, *S)` bool.

    Returns:
        The slices, on the CPU.
    """
    peaks, is_blank = peaks_of(values)
    if form.is_video:
        return _frames(form, peaks, is_blank)
    numbers = torch.stack([peaks[:, tile.axis] for tile in form.tiles], dim=1)
    shown = torch.ones_like(numbers, dtype=torch.bool)
    if objects is not None:
        is_there = objects.flatten(1).any(dim=1).cpu()
        most = [each.argmax(dim=1).cpu() for each in _sums_of_slices(objects)]
        for index, tile in enumerate(form.tiles):
            if tile.shows == "object":
                shown[:, index] = is_there & (most[tile.axis] != numbers[:, index])
                numbers[:, index] = most[tile.axis].where(is_there, -1)
    return View(numbers, shown, peaks, torch.zeros(len(peaks), dtype=torch.long))


def _sums_of_slices(masks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """How many voxels of each slice across the first, the second and the third dimension are in the mask."""
    rows, columns = (masks.sum(dim=dim, dtype=torch.int32) for dim in (3, 1))
    return rows.sum(dim=2), rows.sum(dim=1), columns.sum(dim=1)


def fixed_view(numbers: Sequence[int], samples: int) -> View:
    """Show the same slices of all samples, none of which is marked."""
    places = torch.tensor(list(numbers)).expand(samples, -1)
    nowhere = torch.full((samples,), len(numbers))
    return View(places, torch.ones_like(places, dtype=torch.bool), places.new_zeros(samples, 3), nowhere)


def peaks_of(values: Tensor) -> tuple[Tensor, Tensor]:
    """Each map's first highest place `(N, 3)`, on the CPU; the middle where the map is blank, and which are, `(N,)`."""
    flat = _finite(values).flatten(1)
    top, index = (each.cpu() for each in flat.max(dim=1))
    places = torch.stack(torch.unravel_index(index, values.shape[1:]), dim=1)
    middle = torch.tensor([side // 2 for side in values.shape[1:]])
    return places.where(top[:, None] > 0, middle), top <= 0


def _frames(form: Form, peaks: Tensor, is_blank: Tensor) -> View:
    """Frames at even distances, the nearest of which gives its place to the peak's."""
    count, rows = len(form.tiles), torch.arange(len(peaks))
    even = torch.linspace(0, form.size[0] - 1, count).round().long()
    numbers = even.expand(len(peaks), -1).clone()
    marked = (numbers - peaks[:, :1]).abs().argmin(dim=1)
    numbers[rows, marked] = peaks[:, 0]
    marked[is_blank] = count
    return View(numbers, torch.ones_like(numbers, dtype=torch.bool), peaks, marked)


def _cut(values: Tensor, tile: Tile, numbers: Tensor) -> Tensor:
    """Each sample's slice `(N, ..., a, b)` of `(N, ..., *S)`; of a projection the highest, of images the mean."""
    first = values.ndim - 3
    across = values.detach().movedim(first + tile.axis, 1)
    if tile.shows != "projection":
        rows = torch.arange(len(values), device=values.device)
        return across[rows, numbers.to(values.device)]
    if first == 2:
        return across.mean(dim=1, dtype=torch.float32)
    return across.any(dim=1) if values.dtype == torch.bool else across.amax(dim=1)


def _finite(maps: Tensor) -> Tensor:
    """The maps; what is not finite counts as 0."""
    return maps.detach() if are_finite(maps.detach()) else maps.detach().nan_to_num(0, 0, 0)


def _paste(flat: Sequence[Tensor], form: Form, ground: Tensor) -> Tensor:
    """Put tiles `(N, ..., a * b)` into sheets `(N, ..., h, w)` filled with `ground`."""
    sheets = ground.expand(*flat[0].shape[:-1], *form.sheet).clone()
    for tile, values in zip(form.tiles, flat, strict=True):
        left, top, right, bottom = tile.box
        sheets[..., top:bottom, left:right] = values.unflatten(-1, tile.size)
    return sheets


def _split(values: list[Tensor]) -> tuple[Tensor, ...]:
    """Copy tiles `(N, ..., a, b)` to the CPU at once: `(N, ..., a * b)` each."""
    flat = [each.flatten(-2) for each in values]
    return torch.split(torch.cat(flat, dim=-1).cpu(), [each.shape[-1] for each in flat], dim=-1)


def lay_maps(values: Tensor, form: Form, view: View) -> Tensor:
    """Lay maps or masks `(N, *S)` on sheets `(N, h, w)`, on the CPU; each pixel has the highest value it stands for."""
    flat = _split(_map_tiles(values, form, view))
    return _paste(flat, form, flat[0].new_zeros(()))


def _map_tiles(values: Tensor, form: Form, view: View) -> list[Tensor]:
    """The tiles `(N, h, w)` of maps or masks, each pixel repeated where they are enlarged."""
    tiles = []
    for index, tile in enumerate(form.tiles):
        cut = _cut(values, tile, view.numbers[:, index])
        small = shrink_maps(cut, *(min(*pair) for pair in zip(tile.size, cut.shape[-2:], strict=True)))
        for dim, side in enumerate(tile.size, start=1):
            place = torch.arange(side, device=small.device) * small.shape[dim] // side
            small = small.index_select(dim, place)
        tiles.append(small * view.shown[:, index, None, None].to(small.device))
    return tiles


def lay_pictures(images: Tensor, form: Form, view: View, normalize: Normalize | None) -> Tensor:
    """Draw images `(N, C, *S)` as sheets `(N, 3, h, w)` uint8, on the CPU.

    Each channel of a volume is windowed by its 1st to 99th percentile, that of a projection by its own; the frames of a
    video are drawn as images are, on one scale.
    """
    shown = images[:, : 1 if images.shape[1] < 3 else 3]
    if normalize is not None:
        mean, std = check_normalize(normalize, channels=images.shape[1])
        normalize = mean[: shown.shape[1]], std[: shown.shape[1]]
    window = None if form.is_video else _window(shown)
    tiles = []
    for index, tile in enumerate(form.tiles):
        cut = _cut(shown, tile, view.numbers[:, index]).float()
        if window is not None:  # which undoes any normalization
            low, high = window if tile.shows != "projection" else _window(cut)
            cut = ((cut - low) / (high - low)).clamp_(0, 1)
        tiles.append(F.interpolate(cut, tile.size, mode="bilinear", antialias=True))
    if form.is_video and images.dtype == torch.uint8:
        tiles = [each.round_().clamp_(0, 255).to(torch.uint8) for each in tiles]
    flat = _split(tiles)
    whole = to_display(torch.cat(flat, dim=-1)[:, :, None], normalize if form.is_video else None)[:, :, 0]
    ground = torch.tensor(CARD, dtype=torch.uint8).view(3, 1, 1)
    seen = view.shown[:, None, :, None].unbind(2)
    parts = whole.split([each.shape[-1] for each in flat], dim=-1)
    return _paste([each.where(s, ground[..., 0]) for each, s in zip(parts, seen, strict=True)], form, ground)


_FONT_SIZE = 11
_ENOUGH = 1 << 14
"""So many values give a percentile to a tenth of a percent."""


def _window(images: Tensor) -> tuple[Tensor, Tensor]:
    """The 1st and the 99th percentile of each channel `(N, C, ...)`, as `(N, C, 1, 1)`; the ends where these are one.

    They are taken of every so many values, and of finite ones.
    """
    flat = images.detach().flatten(2)
    # an odd stride: an even one would meet the same few columns in every row
    some = flat[..., :: max(1, flat.shape[-1] // _ENOUGH) | 1].float()
    some = some.where(some.isfinite(), torch.nan)
    ends = torch.tensor([0.01, 0.99], device=some.device)
    # one sample after the other: all of many are more than the function takes
    low, high = torch.stack([torch.nanquantile(each, ends, dim=-1) for each in some], dim=1)
    narrow = ~(high > low)
    if bool(narrow.any()):
        finite = flat.float().nan_to_num(0, 0, 0)
        low, high = low.where(~narrow, finite.amin(dim=-1)), high.where(~narrow, finite.amax(dim=-1))
    spread = (high <= low)[..., None, None] / 2  # one value everywhere becomes mid grey
    return low[..., None, None] - spread, high[..., None, None] + spread


def lay_slices(
    images: Sequence[Tensor], number: int, *, is_video: bool, normalize: Normalize | None = None
) -> Tensor:
    """Draw one slice or frame of several volumes or videos on one scale.

    Args:
        images: each `(C, *S)`, all of one shape.
        number: of the slice, across the first dimension.
        is_video: whether they are drawn as images are, and not windowed.
        normalize: undone for display.

    Returns:
        `(M, 3, h, w)`, uint8, on the CPU.
    """
    count, (height, width) = len(images), (images[0].shape[-2], images[0].shape[-1])
    scale = min(1.0, 224 / max(height, width))
    height, width = max(round(height * scale), 32), max(round(width * scale), 32)
    whole = torch.cat(list(images), dim=-1)[None]
    tile = Tile(0, "frame" if is_video else "peak", (0, 0, count * width, height))
    form = Form(tuple(whole.shape[2:]), tile.size, (tile,))
    return torch.cat(lay_pictures(whole, form, fixed_view([number], 1), normalize).chunk(count, dim=3))


def plane_sheets(
    form: Form,
    images: Tensor,
    maps: Mapping[str, Tensor],
    regions: Regions,
    headings: Sequence[str],
    *,
    objects: Tensor | None = None,
    normalize: Normalize | None = None,
    line_width: int = 1,
    before: Mapping[str, Tensor] | None = None,
    beside: Mapping[str, Tensor] | None = None,
) -> list[Sheet]:
    """Lay volumes or videos and their maps on sheets: those of the images are cut as the first map's are.

    Args:
        form: of the sheets.
        images: `(N, C, *S)`, as the model takes them.
        maps: `(N, *S)`, by name.
        regions: what is outlined.
        headings: one for each map.
        objects: `(N, *S)` bool, the object in pixels, for the slice with most of it.
        normalize: undone for display.
        line_width: of outlines.
        before: the maps of an earlier look.
        beside: further images of the samples, by their heading.
    """
    nothing = {} if maps else {"": images.new_zeros(len(images), *form.size)}
    maps, before = ({name: _finite(each) for name, each in (some or {}).items()} for some in (maps, before))
    views = {name: view_of(form, values, objects) for name, values in (maps or nothing).items()}

    def sheet_of(name: str, shown: Tensor, view: View, regions: Regions) -> Sheet:
        pictures = lay_pictures(shown, form, view, normalize)
        return Sheet(
            name, name, pictures, _strokes(form, view, regions, line_width), words=_words(form, view)
        )

    first_name, first_view = next(iter(views.items()))
    first = sheet_of("image", images, first_view, regions)
    others = [sheet_of(name, each, first_view, Regions()) for name, each in (beside or {}).items()]
    sheets = [first, *others]
    for heading, (name, values) in zip(headings, maps.items(), strict=True):
        view, then = views[name], before.get(name)
        base = first if name == first_name else sheet_of(name, images, view, regions)
        sheets.append(
            replace(
                base,
                name=name,
                heading=heading,
                saliency=lay_maps(values, form, view),
                before=None if then is None else lay_maps(then, form, view),
                tops_before=None if then is None else then.flatten(1).amax(dim=1).cpu(),
                heated=_paste([part.flatten(1) for part in _full(form, view)], form, torch.tensor(False)),
                peaks=_rings(form, view),
            )
        )
    return sheets


def _full(form: Form, view: View) -> list[Tensor]:
    """For each tile `(N, a, b)` bool: whether it is shown."""
    return [view.shown[:, index, None, None].expand(-1, *tile.size) for index, tile in enumerate(form.tiles)]


def _rings(form: Form, view: View) -> Tensor:
    """Where the rings stand: around the peak in each slice through it, or in its frame. `(N, K, 2)`, row and column."""
    found = []
    for tile in form.tiles if not form.is_video else form.tiles[:1]:
        if tile.shows in ("peak", "frame"):
            place = torch.stack([view.peaks[:, dim] for dim in range(3) if dim != tile.axis], dim=1)
            sides = torch.tensor([side for dim, side in enumerate(form.size) if dim != tile.axis])
            corner = torch.tensor([tile.box[1], tile.box[0]])
            found.append((place + 0.5) * torch.tensor(tile.size) / sides - 0.5 + corner)
    rings = torch.stack(found, dim=1)
    if form.is_video:
        rings[..., 1] += torch.tensor([*(tile.box[0] for tile in form.tiles), 0])[view.marked][:, None]
    return rings


def lines_in_tiles(form: Form, view: View, regions: Regions, width: int = 1) -> list[tuple[Tensor, Color]]:
    """Return the outline of each region in each tile, `(N, h, w)` bool on the CPU, and its colour."""
    lines = []
    if regions.masks is not None:
        lines.append((_lay_edges(regions.masks, form, view, width), OBJECT_COLOR))
    if regions.boxes is not None:
        lines.append((_lay_boxes(regions.boxes, form, view, width), OBJECT_COLOR))
    if regions.suspect is not None:
        suspect = regions.suspect.expand(len(view.numbers), *form.size)
        lines.append((dash(_lay_edges(suspect, form, view, width)), SUSPECT_COLOR))
    return lines


def _lay_edges(masks: Tensor, form: Form, view: View, width: int) -> Tensor:
    """The edge of masks `(N, *S)` within each tile, `(N, h, w)` bool."""
    tiles = [edge(each, width) for each in _map_tiles(masks.bool(), form, view)]
    return _paste(_split(tiles), form, torch.tensor(False))


def _strokes(form: Form, view: View, regions: Regions, width: int) -> Strokes:
    """The outlines of the regions in each tile, and a frame around the marked one of a strip."""
    strokes = [stroke(line, color) for line, color in lines_in_tiles(form, view, regions, width)]
    if form.is_video:
        lines = torch.zeros(len(form.tiles) + 1, *form.sheet, dtype=torch.bool)
        for line, tile in zip(lines, form.tiles, strict=False):
            left, top, right, bottom = tile.box
            line[top - 1 : bottom + 1, max(left - 1, 0) : right + 1] = True
        strokes.append(stroke(edge(lines)[view.marked], PEAK_COLOR))
    return strokes


def _lay_boxes(boxes: Sequence[Tensor], form: Form, view: View, width: int) -> Tensor:
    """The edges of boxes `(M, 6)` in each tile that they reach, `(N, h, w)` bool."""
    found = [each.detach().float().cpu().reshape(-1, 6) for each in boxes]
    tiles = []
    for index, tile in enumerate(form.tiles):
        first, last = (dim for dim in range(3) if dim != tile.axis)
        size = form.size[first], form.size[last]
        cut = []
        for corners, number, shown in zip(found, view.numbers[:, index], view.shown[:, index], strict=True):
            # x lies along the last dimension
            low, high = corners[:, :3].flip(1), corners[:, 3:].flip(1)
            is_met = (low[:, tile.axis] < number + 1) & (high[:, tile.axis] > number)
            if tile.shows == "projection":
                is_met = torch.ones_like(is_met)
            flat = torch.stack([low[:, last], low[:, first], high[:, last], high[:, first]], dim=1)
            cut.append(flat[is_met & shown])
        tiles.append(box_edges(cut, size, tile.size, torch.device("cpu"), width).flatten(1))
    return _paste(tiles, form, torch.tensor(False))


def _words(form: Form, view: View) -> list[list[Line]]:
    """The number of each slice or frame, counted from 1, and over a volume what the slices go through."""
    top_row = [] if form.is_video else [tile for tile in form.tiles if tile.axis == 0]
    heads = [_line(tile, tile.box[1] - LINE, COLUMNS[tile.shows], TEXT) for tile in top_row]
    rows = zip(view.numbers.tolist(), view.shown.tolist(), view.marked.tolist(), strict=True)
    return [heads + _labels(form, *row) for row in rows]


def _labels(form: Form, numbers: Sequence[int], shown: Sequence[bool], marked: int) -> list[Line]:
    """The line below each tile of one sample, or in the middle of one that is empty."""
    lines = []
    for index, (tile, number, is_shown) in enumerate(zip(form.tiles, numbers, shown, strict=True)):
        top, name, of = tile.box[3], PLANES[tile.axis], f"{number + 1}/{form.size[tile.axis]}"
        if tile.shows == "frame":
            is_marked = index == marked
            lines.append(_line(tile, top, f"peak {of}" if is_marked else of, TEXT if is_marked else MUTED))
        elif is_shown:
            lines.append(_line(tile, top, name if tile.shows == "projection" else f"{name} {of}", MUTED))
        else:
            words = "no object" if number < 0 else "the same slice"
            lines.append(_line(tile, (tile.box[1] + top - LINE) // 2, words, MUTED))
    return lines


def _line(tile: Tile, top: int, text: str, color: tuple[int, int, int]) -> Line:
    return Line((tile.box[0], top, tile.box[2], top + LINE), text, _FONT_SIZE, color, center=True)
