"""What stands where in the panels of volumes, videos and signals; and figures of such panels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

from lightning_gcam.visual.layout import PAD, Box, FigureBoxes, FigureLayout, cost, line_height

PLANES = ("axial", "coronal", "sagittal")
"""The planes across the first, the second and the third dimension of a volume."""

COLUMNS = {"peak": "at the peak", "object": "at the object", "projection": "projection"}
"""What a column of slices shows, and the words above it."""

LINE = 15
"""Height of the words above and below a slice."""

_MOST_FRAMES = 8
_GAP = 6


@dataclass(frozen=True)
class Tile:
    """A slice, a frame or a projection on a sheet.

    Args:
        axis: the spatial dimension that it lies across.
        shows: the slice "peak" or "object", a "projection", or a "frame".
        box: where it stands on the sheet.
    """

    axis: int
    shows: str
    box: Box

    @property
    def size(self) -> tuple[int, int]:
        """Height and width on the sheet."""
        left, top, right, bottom = self.box
        return bottom - top, right - left


@dataclass(frozen=True)
class Form:
    """What stands where on the sheet of a sample of three spatial dimensions.

    Args:
        size: of the samples, three numbers.
        sheet: height and width of the sheet.
        tiles: side by side and below each other.
    """

    size: tuple[int, ...]
    sheet: tuple[int, int]
    tiles: tuple[Tile, ...]

    @property
    def is_video(self) -> bool:
        """Whether the tiles are the frames of a strip."""
        return self.tiles[0].shows == "frame"


@lru_cache(maxsize=64)
def volume_form(size: tuple[int, ...], panels: int, has_object: bool) -> Form:
    """Place the slices of a volume: a row for each plane, a column for what a slice goes through.

    Args:
        size: of the volumes, three numbers.
        panels: how many there are in the figure; they are smaller where these are many.
        has_object: whether a column is needed for the object.

    Example:
        >>> [tile.shows for tile in volume_form((32, 64, 64), 2, False).tiles[:2]]
        ['peak', 'projection']
    """
    sides = _shown_sides(size, panels)
    columns = [each for each in COLUMNS if has_object or each != "object"]
    cell = max(sides[1], sides[2])
    tiles, top = [], LINE
    for axis in range(3):
        height, width = (side for dim, side in enumerate(sides) if dim != axis)
        for column, shows in enumerate(columns):
            left = _GAP + column * (cell + _GAP) + (cell - width) // 2
            tiles.append(Tile(axis, shows, (left, top, left + width, top + height)))
        top += height + LINE
    return Form(size, (top, len(columns) * (cell + _GAP) + _GAP), tuple(tiles))


@lru_cache(maxsize=64)
def video_form(size: tuple[int, ...], panels: int) -> Form:
    """Place the frames of a video side by side.

    Args:
        size: of the videos, three numbers.
        panels: how many there are in the figure; they are smaller where these are many.

    Example:
        >>> len(video_form((32, 64, 64), 2).tiles), len(video_form((3, 64, 64), 2).tiles)
        (8, 3)
    """
    height, width = _shown_sides(size[1:], panels)
    count = min(size[0], _MOST_FRAMES)
    lefts = [index * (width + _GAP) for index in range(count)]
    tiles = tuple(Tile(0, "frame", (left, 2, left + width, height + 2)) for left in lefts)
    return Form(size, (height + LINE + 3, lefts[-1] + width), tiles)


def stack_form(size: tuple[int, ...], count: int, most: int, is_video: bool) -> Form:
    """Place slices or frames below each other without a gap.

    Args:
        size: of the samples, three numbers.
        count: how many slices.
        most: pixels of the longer side of each; it is not enlarged.
        is_video: whether they are drawn as images are, and not windowed.

    Example:
        >>> stack_form((32, 128, 128), 12, 96, False).sheet
        (1152, 96)
    """
    scale = min(1.0, most / max(size[1:]))
    height, width = (max(round(side * scale), most // 3) for side in size[1:])
    boxes = [(0, index * height, width, (index + 1) * height) for index in range(count)]
    tiles = tuple(Tile(0, "frame" if is_video else "peak", box) for box in boxes)
    return Form(size, (count * height, width), tiles)


def _shown_sides(size: Sequence[int], panels: int) -> list[int]:
    """How many pixels each side takes: the longest fills a tile, and no other has less than a third of that."""
    most = 144 if panels <= 4 else 112 if panels <= 16 else 96
    return [max(round(side * most / max(size)), most // 3) for side in size]


MOST_CHANNELS = 4
_LANE = {1: 72, 2: 48, 3: 40, 4: 38}
BAR = 4
"""Height of the bar of a region; two pixels are left below it."""

_LEFT, _RIGHT, _TOP, _BAND, _AXIS = 44, 10, 2, 14, 18


@dataclass(frozen=True)
class CurveForm:
    """What stands where in the panel of a signal: the curves, a bar for each region, the band, the axis.

    Args:
        length: of the signals.
        channels: how many of them are drawn.
        width: of the panel.
        bars: for the object and the suspect region, as far as there are any.
        has_band: whether there is a map; the axis stands in the band's place otherwise.
    """

    length: int
    channels: int
    width: int
    bars: int = 0
    has_band: bool = True

    @property
    def lane(self) -> int:
        """Height of the curve of one channel."""
        return _LANE[self.channels]

    @property
    def plot(self) -> slice:
        """The rows of the curves."""
        return slice(_TOP, _TOP + self.channels * self.lane)

    @property
    def columns(self) -> slice:
        """The columns of curves and band."""
        return slice(_LEFT, self.width - _RIGHT)

    @property
    def across(self) -> int:
        """How many columns there are."""
        return self.width - _LEFT - _RIGHT

    @property
    def band(self) -> slice:
        """The rows of the band."""
        top = self.plot.stop + self.bars * (BAR + 2) + 3
        return slice(top, top + (_BAND if self.has_band else 0))

    @property
    def sheet(self) -> tuple[int, int]:
        """Height and width of the panel."""
        return self.band.start + _BAND + _AXIS, self.width


@lru_cache(maxsize=64)
def curve_form(length: int, channels: int, panels: int, bars: int) -> CurveForm:
    """Choose the size of a signal's panel.

    Args:
        length: of the signals.
        channels: how many they have.
        panels: how many there are in the figure; they are smaller where these are many.
        bars: how many kinds of regions are known.

    Example:
        >>> curve_form(187, 12, 16, 0).channels
        4
    """
    return CurveForm(length, min(channels, MOST_CHANNELS), 720 if panels <= 6 else 520, bars)


@dataclass(frozen=True)
class StackedLayout(FigureLayout):
    """Positions and sizes where the panels of a sample stand below each other, each under its heading and its note."""

    is_stacked = True

    @cached_property
    def card(self) -> tuple[int, int]:
        """Height and width of a card."""
        return line_height(self.caption_size) + self.panels * self._row + 2 * PAD, self.cell + 2 * PAD

    @property
    def _row(self) -> int:
        return line_height(self.note_size) + self.panel[0] + PAD // 2

    @cached_property
    def _heading_height(self) -> int:
        return PAD // 2

    def panel_box(self, sample: int, panel: int) -> Box:
        """Box of a panel, below its heading."""
        left, bottom = self._panel_left(sample % self.blocks, 0), self._line(sample, panel)[1]
        left += (self.cell - self.panel[1]) // 2
        return left, bottom, left + self.panel[1], bottom + self.panel[0]

    def heading_of(self, sample: int, panel: int) -> Box:
        """Box of the heading above a panel, on the left."""
        left = self._panel_left(sample % self.blocks, 0)
        return left, self._line(sample, panel)[0], left + self.cell // 2, self._line(sample, panel)[1]

    def note_box(self, sample: int, panel: int) -> Box:
        """Box of the note above a panel, on the right of its heading."""
        _, top, left, bottom = self.heading_of(sample, panel)
        return left, top, self._panel_left(sample % self.blocks, 0) + self.cell, bottom

    def blank_box(self, sample: int, panel: int) -> Box:
        """Box of a label, at the end of the line above a panel: in its middle it would hide a curve."""
        _, top, right, bottom = self.note_box(sample, panel)
        return right - 7 * self.caption_size, top, right, bottom

    def _line(self, sample: int, panel: int) -> tuple[int, int]:
        """Top and bottom of the line above a panel."""
        top = self.card_box(sample)[1] + PAD // 2 + line_height(self.caption_size) + panel * self._row
        return top, top + line_height(self.note_size)

    @cached_property
    def boxes(self) -> FigureBoxes:
        """All boxes at once; the headings are those of each sample's panels."""
        panels = range(self.panels)
        headings = [[self.heading_of(each, panel) for panel in panels] for each in range(self.samples)]
        return replace(super().boxes, headings=headings)


@lru_cache(maxsize=64)
def plan_sheets(
    samples: int, maps: int, panel: tuple[int, int], bars: int = 1, pictures: int = 1, stacked: bool = False
) -> FigureLayout:
    """Lay out panels of a given height and width, which are drawn as they are.

    Args:
        samples: one card each.
        maps: panels for maps and their changes.
        panel: height and width.
        bars: in the legend.
        pictures: panels before the maps'.
        stacked: whether the panels of a sample stand below each other.

    Example:
        >>> plan_sheets(4, 1, (120, 800), stacked=True).panel
        (120, 800)
    """
    kind = StackedLayout if stacked else FigureLayout
    layouts = [
        kind(samples, maps + pictures, panel, (1, 1), blocks, bars, pictures=pictures)
        for blocks in range(1, samples + 1)
    ]
    return min(layouts, key=cost)
