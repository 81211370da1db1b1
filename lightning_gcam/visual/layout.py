"""Positions and sizes of everything in the picture of a look, and cutting out each sample's part."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from lightning_gcam.utils.errors import InputError

Box: TypeAlias = tuple[int, int, int, int]
"""Left, top, right and bottom, in pixels of the picture; right and bottom are the first ones outside."""

MARGIN = 16
PAD = 8  # within a card
_PANEL_GAP = 6  # between panels
_CARD_GAP = 12  # between cards
_ASPECT = 1.55  # between 4:3 and 16:9
_SMALLEST_WIDTH = 340  # the legend needs as much
_SMALLEST_SIDE = 32  # the least side of a panel
_CELL = 128  # the narrowest that holds a method's name
_WIDE_CELL = 176  # the narrowest that holds two rates


@dataclass(frozen=True)
class FigureBoxes:
    """The boxes of everything in a figure; those of panels are lists of one for each panel, in a list of the samples.

    Args:
        size: width and height of the figure.
        title: of the title.
        headings: for each column of cards, one above each of its panels.
        cards: one for each sample.
        captions: one for each sample.
        panels: of the pictures.
        notes: under the panels.
        labels: in the middle of the panels.
        footer: of the colour bars, and last, of the explained symbols.
        title_size: font size of the title.
        caption_size: font size of captions and labels.
        note_size: font size of notes, headings and the legend.
    """

    size: tuple[int, int]
    title: Box
    headings: list[list[Box]]
    cards: list[Box]
    captions: list[Box]
    panels: list[list[Box]]
    notes: list[list[Box]]
    labels: list[list[Box]]
    footer: list[Box]
    title_size: int
    caption_size: int
    note_size: int


@dataclass(frozen=True)
class FigureLayout:
    """Positions and sizes in pixels; a sample is a card: a caption, its panels side by side, and their notes."""

    samples: int
    panels: int  # in a card: the image, one for each map, and perhaps one for its change
    work: tuple[int, int]  # (h, w) that the panels are computed at
    factors: tuple[int, int]  # and the whole factors they are then enlarged by, down and across
    blocks: int  # cards side by side
    bars: int = 1  # colour bars in the legend
    heading_lines: int = 1
    narrowest: int = _CELL  # width of a cell at least
    pictures: int = 1  # panels before the maps'

    is_stacked = False
    """Whether panels stand below each other, each with its own heading."""

    @cached_property
    def panel(self) -> tuple[int, int]:
        """Height and width of a panel."""
        return self.work[0] * self.factors[0], self.work[1] * self.factors[1]

    @cached_property
    def cell(self) -> int:
        """Width that a panel and the text under it share."""
        return max(self.panel[1], self.narrowest)

    @cached_property
    def caption_size(self) -> int:
        """Font size of the line above a sample."""
        return min(max(round(self.cell / 15), 12), 15)

    @cached_property
    def note_size(self) -> int:
        """Font size of the notes, the headings and the legend."""
        return min(max(round(self.cell / 17), 11), 13)

    @cached_property
    def title_size(self) -> int:
        """Font size of the title, larger in a wide figure, which is usually displayed smaller."""
        return min(max(round(self.width / 64), 14), 22)

    @cached_property
    def line_width(self) -> int:
        """Width of outlines: two pixels in a wide figure, which is usually displayed smaller."""
        return 2 if self.width > 1600 else 1

    @cached_property
    def card(self) -> tuple[int, int]:
        """Height and width of a card."""
        text = line_height(self.caption_size) + line_height(self.note_size)
        width = self.panels * self.cell + (self.panels - 1) * _PANEL_GAP
        return self.panel[0] + text + 2 * PAD, width + 2 * PAD

    @cached_property
    def width(self) -> int:
        """Width of the whole figure."""
        cards = self.blocks * self.card[1] + (self.blocks - 1) * _CARD_GAP
        return max(cards + 2 * MARGIN, _SMALLEST_WIDTH)

    @cached_property
    def height(self) -> int:
        """Height of the whole figure."""
        rows = math.ceil(self.samples / self.blocks)
        return self.header + rows * (self.card[0] + _CARD_GAP) + self.footer

    @cached_property
    def header(self) -> int:
        """Height down to the first card."""
        return MARGIN + line_height(self.title_size) + self._heading_height

    @cached_property
    def footer(self) -> int:
        """Height of the legend, in as many lines as it needs."""
        lines = math.ceil((self.bars + 1) / self._parts_per_line)
        return lines * line_height(self.note_size) + MARGIN

    def title_box(self) -> Box:
        """Box of the title, across the whole figure."""
        return MARGIN, MARGIN // 2, self.width - MARGIN, MARGIN // 2 + line_height(self.title_size)

    def heading_box(self, block: int, panel: int) -> Box:
        """Box of a heading, above column `panel` of the cards in column `block`."""
        left = self._panel_left(block, panel)
        return left, self.header - self._heading_height - 2, left + self.cell, self.header - 2

    def detail_box(self, panel: int, line: int) -> Box:
        """Box of one line of a heading, 0 for the first one, in the first column of cards."""
        left, top, right, _ = self.heading_box(0, panel)
        first, further = line_height(self.caption_size), line_height(self.note_size)
        above = first + (line - 1) * further if line else 0
        return left, top + above, right, top + above + (further if line else first)

    def card_box(self, sample: int) -> Box:
        """Box of a sample's card; cards are ordered from left to right, then down."""
        row, block = divmod(sample, self.blocks)
        left = MARGIN + block * (self.card[1] + _CARD_GAP)
        top = self.header + row * (self.card[0] + _CARD_GAP)
        return left, top, left + self.card[1], top + self.card[0]

    def caption_box(self, sample: int) -> Box:
        """Box of the caption, above the sample's panels."""
        left, top, right, _ = self.card_box(sample)
        return left + PAD, top + PAD // 2, right - PAD, top + PAD // 2 + line_height(self.caption_size)

    def panel_box(self, sample: int, panel: int) -> Box:
        """Box of a panel, in the middle of its cell."""
        height, width = self.panel
        left = self._panel_left(sample % self.blocks, panel) + (self.cell - width) // 2
        top = self.card_box(sample)[1] + PAD + line_height(self.caption_size)
        return left, top, left + width, top + height

    def note_box(self, sample: int, panel: int) -> Box:
        """Box of the note under one panel."""
        left = self._panel_left(sample % self.blocks, panel)
        bottom = self.card_box(sample)[3] - PAD // 2
        return left, bottom - line_height(self.note_size), left + self.cell, bottom

    def blank_box(self, sample: int, panel: int) -> Box:
        """Box of a label in the middle of a panel; in place of its note where the panel is too small."""
        left, top, right, bottom = self.panel_box(sample, panel)
        tall, wide = line_height(self.caption_size), 7 * self.caption_size
        if bottom - top < tall or right - left < wide:
            return self.note_box(sample, panel)
        left, top = (left + right - wide) // 2, (top + bottom - tall) // 2
        return left, top, left + wide, top + tall

    def footer_boxes(self) -> list[Box]:
        """Boxes of the colour bars, and last, of the explained symbols."""
        line, top, boxes = line_height(self.note_size), self.height - self.footer + 4, []
        for index in range(self.bars + 1):
            row, place = divmod(index, self._parts_per_line)
            left, is_last = (
                MARGIN + place * _SMALLEST_WIDTH,
                index == self.bars or place + 1 == self._parts_per_line,
            )
            right = self.width - MARGIN if is_last else left + _SMALLEST_WIDTH
            boxes.append((left, top + row * line, right, top + (row + 1) * line))
        return boxes

    @cached_property
    def boxes(self) -> FigureBoxes:
        """All boxes at once."""
        samples, panels = range(self.samples), range(self.panels)
        blocks = range(min(self.blocks, self.samples))
        return FigureBoxes(
            size=(self.width, self.height),
            title=self.title_box(),
            headings=[[self.heading_box(block, panel) for panel in panels] for block in blocks],
            cards=[self.card_box(sample) for sample in samples],
            captions=[self.caption_box(sample) for sample in samples],
            panels=[[self.panel_box(sample, panel) for panel in panels] for sample in samples],
            notes=[[self.note_box(sample, panel) for panel in panels] for sample in samples],
            labels=[[self.blank_box(sample, panel) for panel in panels] for sample in samples],
            footer=self.footer_boxes(),
            title_size=self.title_size,
            caption_size=self.caption_size,
            note_size=self.note_size,
        )

    @cached_property
    def _heading_height(self) -> int:
        return line_height(self.caption_size) + (self.heading_lines - 1) * line_height(self.note_size)

    @cached_property
    def _parts_per_line(self) -> int:
        """How many parts of the legend fit side by side."""
        return max(1, self.width // _SMALLEST_WIDTH)

    def _panel_left(self, block: int, panel: int) -> int:
        card = MARGIN + block * (self.card[1] + _CARD_GAP)
        return card + PAD + panel * (self.cell + _PANEL_GAP)


@lru_cache(maxsize=64)
def plan(samples: int, maps: int, height: int, width: int, bars: int = 1, pictures: int = 1) -> FigureLayout:
    """Lay out `samples` images of `height` x `width` with `maps` panels beside each, and `bars` colour bars below.

    Args:
        samples: one card each.
        maps: panels for maps and their changes.
        height: of the images.
        width: of the images.
        bars: in the legend.
        pictures: panels before the maps'.

    Cards stand side by side so that the figure comes closest to a screen's proportions. The same one is returned at
    every look.

    Example:
        >>> plan(16, 1, 224, 224).blocks
        4
    """
    panels = maps + pictures
    work, factors = _panel_size(height, width, samples * panels)
    layouts = [
        FigureLayout(samples, panels, work, factors, blocks, bars, pictures=pictures)
        for blocks in range(1, samples + 1)
    ]
    return min(layouts, key=cost)


def plan_row(panels: int, height: int, width: int, details: int, parts: int) -> FigureLayout:
    """Lay out one card of `panels` pictures of `height` x `width`.

    Args:
        panels: side by side.
        height: of each image.
        width: of each image.
        details: lines under the headings.
        parts: of the legend.

    Example:
        >>> plan_row(7, 224, 224, details=1, parts=3).panel
        (224, 224)
    """
    work, factors = _panel_size(height, width, panels)
    return FigureLayout(1, panels, work, factors, 1, parts - 1, 1 + details, _WIDE_CELL)


def cost(layout: FigureLayout) -> float:
    """Rate a layout: its distance from a screen's proportions, and how much of its last row is empty."""
    rows = math.ceil(layout.samples / layout.blocks)
    empty = rows * layout.blocks / layout.samples - 1
    return abs(math.log(layout.width / layout.height / _ASPECT)) + 0.5 * empty


def _panel_size(height: int, width: int, panels: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Choose the size to compute a panel at and the whole factors to enlarge it by: larger with fewer panels.

    A side of a few pixels is not shrunk, and stretched until something can be seen in it: an image of 60 x 1 would be a
    line otherwise.
    """
    longest = max(height, width)
    least = 224 if panels <= 8 else 160 if panels <= 24 else 128
    most = 224 if panels <= 48 else 160
    too_large = most * 8 // 7  # 224 -> 256: what is nearly right is left as it is
    if longest > too_large:
        scale = most / longest
        work = (_shrunk_side(height, scale), _shrunk_side(width, scale))
        return work, (_stretch_factor(work[0], 1), _stretch_factor(work[1], 1))
    factor = max(1, math.ceil(least / longest))
    if factor > 1 and longest * factor > too_large and longest * (factor - 1) >= 112:
        factor -= 1
    return (height, width), (_stretch_factor(height, factor), _stretch_factor(width, factor))


def _shrunk_side(side: int, scale: float) -> int:
    return max(round(side * scale), min(side, _SMALLEST_SIDE))


def _stretch_factor(side: int, factor: int) -> int:
    return max(factor, math.ceil(_SMALLEST_SIDE / side))


def line_height(size: int) -> int:
    """Height of a line of text."""
    return round(size * 1.6)


Picture = npt.NDArray[np.uint8]


def cut_samples(figure: Picture, layout: FigureLayout) -> list[Picture]:
    """Cut out each sample's card, with the columns' headings above it.

    Args:
        figure: `(H, W, 3)`, uint8, as `render_grid` draws it.
        layout: where everything stands in it.

    Returns:
        A picture `(h, w, 3)` for each sample, all of one size.

    Raises:
        InputError: If the figure was drawn by another layout.

    Example:
        >>> from lightning_gcam.visual.layout import plan
        >>> layout = plan(2, 1, 28, 28)
        >>> figure = np.zeros((layout.height, layout.width, 3), dtype=np.uint8)
        >>> len(cut_samples(figure, layout))
        2
    """
    _check_size(layout, figure)
    cards = []
    for sample in range(layout.samples):
        left, top, right, bottom = layout.card_box(sample)
        card = _cut(figure, (left, top, right, bottom))
        if not layout.is_stacked:
            _, above, _, below = layout.heading_box(sample % layout.blocks, 0)
            card = np.concatenate([_cut(figure, (left, above, right, below)), card])
        cards.append(card)
    return cards


def cut_panels(figure: Picture, layout: FigureLayout) -> list[list[Picture]]:
    """Cut out each sample's panels: its picture, then a heatmap for each map.

    Args:
        figure: `(H, W, 3)`, uint8, as `render_grid` draws it.
        layout: where everything stands in it.

    Returns:
        For each sample a picture `(h, w, 3)` for each panel.

    Raises:
        InputError: If the figure was drawn by another layout.
    """
    _check_size(layout, figure)
    return [
        [_cut(figure, layout.panel_box(sample, panel)) for panel in range(layout.panels)]
        for sample in range(layout.samples)
    ]


def moved(box: Box, by: Box) -> Box:
    """Move a box from the coordinates of a panel to those of the figure, of which `by` is the panel's box."""
    return box[0] + by[0], box[1] + by[1], box[2] + by[0], box[3] + by[1]


def _cut(figure: Picture, box: Box) -> Picture:
    left, top, right, bottom = box
    return figure[top:bottom, left:right]


def _check_size(layout: FigureLayout, figure: Picture) -> None:
    if figure.shape[:2] != (layout.height, layout.width):
        raise InputError(
            f"`layout` is of a figure of {layout.height} x {layout.width} pixels, but `figure` has "
            f"{figure.shape[0]} x {figure.shape[1]}. Give the layout that it was drawn by."
        )
