"""Volumes and videos in two dimensions: which slices and frames, where the peak, the outline and the heat stand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_gcam.visual.drawing import OBJECT_COLOR, edge
from lightning_gcam.visual.forms import stack_form, video_form, volume_form
from lightning_gcam.visual.panels import CARD, Regions
from lightning_gcam.visual.planes import (
    fixed_view,
    lay_maps,
    lay_pictures,
    lay_slices,
    lines_in_tiles,
    peaks_of,
    plane_sheets,
    view_of,
)

SIZE = (8, 12, 16)


def spot(at: tuple[int, int, int], size: tuple[int, ...] = SIZE) -> Tensor:
    """One map that is 1 at a place, and lower around it."""
    grid = torch.stack(torch.meshgrid(*(torch.arange(side) for side in size), indexing="ij"))
    return (1 - 0.1 * (grid - torch.tensor(at)[:, None, None, None]).abs().sum(dim=0)).clamp(min=0)[None]


def cube(low: tuple[int, ...], high: tuple[int, ...], size: tuple[int, ...] = SIZE) -> Tensor:
    mask = torch.zeros(1, *size, dtype=torch.bool)
    mask[(0, *(slice(start, end) for start, end in zip(low, high, strict=True)))] = True
    return mask


def words_of(sheet: Any, sample: int = 0) -> list[str]:
    return [line.text for line in sheet.words[sample]]


def tiles_of(form: Any, shows: str) -> list[Any]:
    return [tile for tile in form.tiles if tile.shows == shows]


def inside(tile: Any, sheet: Tensor) -> Tensor:
    left, top, right, bottom = tile.box
    return sheet[..., top:bottom, left:right]


# ------------------------------------------------------------------------------------------------ volumes


def test_each_plane_shows_the_slice_through_the_peak_that_of_the_object_and_a_projection() -> None:
    form = volume_form(SIZE, 2, has_object=True)
    masks = cube((1, 2, 3), (3, 9, 6))
    (sheet,) = plane_sheets(form, torch.rand(1, 1, *SIZE), {}, Regions(masks), [], objects=masks)
    assert [(tile.axis, tile.shows) for tile in form.tiles] == [
        (axis, shows) for axis in range(3) for shows in ("peak", "object", "projection")
    ]
    found = plane_sheets(
        form, torch.rand(1, 1, *SIZE), {"cam": spot((5, 7, 2))}, Regions(masks), ["cam"], objects=masks
    )
    heads = ["at the peak", "at the object", "projection"]
    assert words_of(found[1]) == [
        *heads, "axial 6/8", "axial 2/8", "axial", "coronal 8/12", "coronal 3/12", "coronal",
        "sagittal 3/16", "sagittal 4/16", "sagittal",
    ]  # fmt: skip
    assert words_of(found[0]) == words_of(found[1]), "the image is cut as the first map is"
    assert words_of(sheet)[3] == "axial 5/8", "without a map it is cut in the middle"


def test_tiles_hold_what_the_slices_hold() -> None:
    form, values = volume_form(SIZE, 2, has_object=False), spot((5, 7, 2))
    view = view_of(form, values)
    sheet = lay_maps(values, form, view)
    for axis, index in enumerate((5, 7, 2)):
        (tile,) = (each for each in tiles_of(form, "peak") if each.axis == axis)
        (projected,) = (each for each in tiles_of(form, "projection") if each.axis == axis)
        slice_ = values[0].select(axis, index)
        rows = torch.arange(tile.size[0]) * slice_.shape[0] // tile.size[0]
        columns = torch.arange(tile.size[1]) * slice_.shape[1] // tile.size[1]
        assert torch.equal(inside(tile, sheet)[0], slice_[rows][:, columns])
        assert torch.equal(inside(projected, sheet)[0], values[0].amax(dim=axis)[rows][:, columns])


def test_the_ring_stands_around_the_peak_in_each_plane() -> None:
    form, at = volume_form(SIZE, 2, has_object=False), (5, 7, 2)
    (_, sheet) = plane_sheets(form, torch.rand(1, 1, *SIZE), {"cam": spot(at)}, Regions(), ["cam"])
    assert sheet.peaks is not None and sheet.saliency is not None and sheet.peaks.shape == (1, 3, 2)
    for row, column in sheet.peaks[0].round().long().tolist():
        assert sheet.saliency[0, row, column] == 1


def test_the_outline_lies_on_the_objects_edge() -> None:
    form = volume_form(SIZE, 2, has_object=False)
    low, high = (1, 2, 3), (7, 9, 12)
    view = view_of(form, spot((5, 7, 4)))
    ((line, color),) = lines_in_tiles(form, view, Regions(cube(low, high)))
    assert color == OBJECT_COLOR
    for tile in form.tiles:
        first, last = (dim for dim in range(3) if dim != tile.axis)
        scale = tile.size[0] / SIZE[first], tile.size[1] / SIZE[last]
        rows = torch.arange(tile.size[0])[:, None] // scale[0]
        columns = torch.arange(tile.size[1])[None] // scale[1]
        there = (rows >= low[first]) & (rows < high[first]) & (columns >= low[last]) & (columns < high[last])
        assert torch.equal(inside(tile, line)[0], edge(there))


@pytest.mark.parametrize("peak", [(5, 7, 4), (0, 0, 0), (7, 11, 15)])
def test_a_box_is_drawn_where_the_same_mask_is(peak: tuple[int, int, int]) -> None:
    form = volume_form((8, 8, 8), 2, has_object=False)
    view = view_of(form, spot(tuple(min(each, 7) for each in peak), (8, 8, 8)))  # type: ignore[arg-type]
    mask = cube((1, 2, 3), (7, 6, 5), (8, 8, 8))
    boxes = [torch.tensor([[3.0, 2.0, 1.0, 5.0, 6.0, 7.0]])]
    lines = [lines_in_tiles(form, view, Regions(*each))[0][0] for each in ((mask,), (None, boxes))]
    assert torch.equal(*lines)


def test_a_slice_that_would_be_shown_twice_is_left_out_and_so_is_an_object_that_is_not_there() -> None:
    form = volume_form(SIZE, 2, has_object=True)
    masks = torch.cat([cube((1, 2, 3), (2, 3, 4)), cube((0, 0, 0), (0, 0, 0))])
    maps = torch.cat([spot((1, 5, 3)), spot((1, 5, 3))])
    _, sheet = plane_sheets(
        form, torch.rand(2, 1, *SIZE), {"cam": maps}, Regions(masks), ["cam"], objects=masks
    )
    assert [word for word in words_of(sheet) if "same" in word] == ["the same slice"] * 2
    assert "coronal 3/12" in words_of(sheet) and words_of(sheet, 1).count("no object") == 3
    tile = tiles_of(form, "object")[0]
    assert sheet.heated is not None and not inside(tile, sheet.heated)[0].any()
    assert (inside(tile, sheet.pictures)[0].flatten(1) == torch.tensor(CARD)[:, None]).all()


def test_a_volume_is_windowed_by_its_percentiles_and_a_normalization_changes_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, 1, 20, 20, 20, generator=generator) * 200
    images[0, 0, 10, 10, 10] = 1e6
    form, view = stack_form((20, 20, 20), 20, 20, is_video=False), fixed_view(range(20), 2)
    shown = lay_pictures(images, form, view, None)
    low, high = torch.quantile(images[1].flatten(), torch.tensor([0.01, 0.99]))
    expected = ((images[1, 0] - low) / (high - low)).clamp(0, 1).mul(255).round().to(torch.uint8)
    assert (shown[1, 0].view(20, 20, 20).int() - expected.int()).abs().max() <= 1
    assert 90 < shown[0].float().mean() < 165, "one metal voxel darkens nothing"
    again = lay_pictures((images - 30) / 7, form, view, (30.0, 7.0))
    assert (again.int() - shown.int()).abs().max() <= 1


@pytest.mark.parametrize("value", [0.0, 3000.0, -1000.0])
def test_a_constant_volume_is_mid_grey_and_a_small_object_is_seen(value: float) -> None:
    images = torch.full((1, 1, 20, 20, 20), value)
    form, view = stack_form((20, 20, 20), 1, 20, is_video=False), fixed_view([10], 1)
    assert (lay_pictures(images, form, view, None).int() - 128).abs().max() <= 1
    images[0, 0, 10, 3, 4] = value + 1
    shown = lay_pictures(images, form, view, None)
    assert shown[0, 0, 3, 4] == 255 and shown[0, 0, 0, 0] == 0


def test_what_is_not_finite_is_black_and_hides_nothing() -> None:
    images = torch.rand(1, 1, 20, 20, 20)
    images[0, 0, 10, 0, 0], images[0, 0, 10, 19, 19] = torch.nan, torch.inf
    shown = lay_pictures(images, stack_form((20, 20, 20), 1, 20, is_video=False), fixed_view([10], 1), None)
    assert shown[0, 0, 0, 0] == 0 and shown[0, 0, 5:15, 5:15].float().std() > 30


# ------------------------------------------------------------------------------------------------ videos


def test_frames_stand_at_even_distances_and_the_peaks_is_among_them_and_marked() -> None:
    size = (32, 12, 12)
    form = video_form(size, 2)
    peaks = [0, 11, 17, 31]
    maps = torch.cat([spot((each, 4, 5), size) for each in peaks])
    view = view_of(form, maps)
    assert view.numbers.shape == (4, 8)
    for numbers, mark, peak in zip(view.numbers, view.marked, peaks, strict=True):
        assert numbers[mark] == peak
        assert (numbers.diff() > 0).all() and numbers.diff().max() <= 7
    _, sheet = plane_sheets(form, torch.rand(4, 3, *size), {"cam": maps}, Regions(), ["cam"])
    assert [word for word in words_of(sheet, 1) if "peak" in word] == ["peak 12/32"]
    frame = sheet.strokes[-1]
    rows, columns = frame.line % frame.pixels // form.sheet[1], frame.line % form.sheet[1]
    own = frame.line // frame.pixels == 1
    left, top, right, bottom = form.tiles[view.marked[1]].box
    assert (rows[own].min(), rows[own].max()) == (top - 1, bottom)
    assert (columns[own].min(), columns[own].max()) == (left - 1, right)
    assert sheet.peaks is not None
    row, column = sheet.peaks[1, 0].tolist()
    assert left <= column < right and top <= row < bottom


def test_a_blank_map_marks_no_frame() -> None:
    form, images = video_form((16, 12, 12), 2), torch.rand(1, 3, 16, 12, 12)
    _, sheet = plane_sheets(form, images, {"cam": torch.zeros(1, 16, 12, 12)}, Regions(), ["cam"])
    assert not any("peak" in word for word in words_of(sheet)) and not len(sheet.strokes[-1].line)


def test_a_short_video_shows_each_frame_once() -> None:
    form = video_form((3, 12, 12), 2)
    assert view_of(form, spot((1, 4, 5), (3, 12, 12))).numbers.tolist() == [[0, 1, 2]]


def test_frames_look_as_images_do() -> None:
    images = torch.randint(0, 256, (2, 3, 5, 20, 20), dtype=torch.uint8)
    form, view = stack_form((5, 20, 20), 5, 20, is_video=True), fixed_view(range(5), 2)
    whole = images.flatten(2, 3)
    assert torch.equal(lay_pictures(images, form, view, None), whole)
    floats = images / 255
    assert torch.equal(lay_pictures(floats, form, view, None), whole)
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)
    normal = (floats - torch.tensor(mean).view(3, 1, 1, 1)) / torch.tensor(std).view(3, 1, 1, 1)
    assert (lay_pictures(normal, form, view, (mean, std)).int() - whole.int()).abs().max() <= 1


def test_slices_of_several_versions_are_on_one_scale() -> None:
    volume = torch.rand(1, 6, 16, 16)
    shown = lay_slices([volume, volume + 2, volume], 3, is_video=False)
    assert shown.shape == (3, 3, 32, 32)
    assert torch.equal(shown[0, :, :, 2:-2], shown[2, :, :, 2:-2]), (
        "but for the seam where they are resized together"
    )
    assert shown[0].max() < shown[1].min()


def test_the_first_highest_place_is_the_peak_and_blank_maps_have_their_middle() -> None:
    maps = torch.cat([spot((5, 7, 2)), torch.zeros(1, *SIZE), torch.full((1, *SIZE), torch.nan)])
    peaks, blank = peaks_of(maps)
    assert peaks.tolist() == [[5, 7, 2], [4, 6, 8], [4, 6, 8]] and blank.tolist() == [False, True, True]
