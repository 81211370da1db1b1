"""Draw figures: a card for each sample with its panels and a legend, or one row of pictures with words around them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw
from torch import Tensor

from lightning_gcam.visual.drawing import Line, draw_bar, draw_signs, write_lines
from lightning_gcam.visual.images import (
    Color,
    Scale,
    check_before,
    check_count,
    check_figure,
    check_pictures,
    check_scale,
    check_texts,
    pack,
    shrink_images,
)
from lightning_gcam.visual.layout import FigureBoxes, FigureLayout, moved, plan, plan_row
from lightning_gcam.visual.overlay import change_bar, check_colormap, color_bar, enlarge
from lightning_gcam.visual.panels import (
    ALPHA,
    CARD,
    MUTED,
    PAGE,
    TEXT,
    WRONG,
    HeatStyle,
    Panel,
    Regions,
    Sheet,
    draw_sheet,
    flat_sheets,
)

_BAR = (110, 10)  # width and height

BRIGHTEST: dict[Scale, str] = {
    "own": "each map's own maximum",
    "shared": "this look's highest peak",
    "run": "the run's highest peak so far",
}
"""The text at the bright end of the colour bar, by scale."""


def draw_legend(
    canvas: Image.Image,
    boxes: FigureBoxes,
    color: Color,
    *,
    heat: HeatStyle,
    since: str,
    regions: Sequence[str],
) -> None:
    """Draw the colour bars and the symbols that occur; `regions`: the names of what is outlined."""
    bar, *rest, signs = boxes.footer
    words, size = BRIGHTEST[heat.scale], boxes.note_size
    draw_bar(canvas, bar, size, color, "0", color_bar(heat.cmap, ALPHA, *_BAR), words)
    for box in rest:
        draw_bar(canvas, box, size, color, "less", change_bar(ALPHA, *_BAR), f"more than {since}")
    draw_signs(canvas, signs, size, color, ["peak", *regions])


def render_grid(
    images: Tensor,
    maps: Mapping[str, Tensor],
    *,
    captions: Sequence[str],
    correct: Sequence[bool | None] | None = None,
    headings: Sequence[str] | None = None,
    notes: Mapping[str, Sequence[str]] | None = None,
    masks: Tensor | None = None,
    boxes: Sequence[Tensor] | None = None,
    suspect: Tensor | None = None,
    title: str = "",
    cmap: str = "inferno",
    blank_text: str = "blank",
    scale: Scale = "own",
    tops: Mapping[str, float] | None = None,
    before: Mapping[str, Tensor] | None = None,
    since: str = "at the look before",
    beside: Mapping[str, Tensor] | None = None,
) -> npt.NDArray[np.uint8]:
    """Draw one figure: a card for each sample with its caption, its picture and one heatmap for each method.

    Each map is scaled to its own maximum, so its raw peak belongs in its note; or all of them to one scale, of which
    the legend explains. A blank map shows the dimmed picture and the word "blank", never a colour. Where things stand
    depends on N, the number of maps, the size of the images and whether changes are shown, on nothing else.

    Args:
        images: `(N, 3, H, W)`, uint8, any device: see `to_display`.
        maps: For each method its maps `(N, H, W)`, float and at least 0; what is not finite counts as 0.
        captions: One line for each sample.
        correct: For each sample whether the prediction is right; False marks the caption, None leaves it.
        headings: One for each map, instead of the keys of `maps`.
        notes: For some or all of the maps, one short line for each sample, shown under its heatmap.
        masks: `(N, H, W)`, bool: the object, outlined.
        boxes: N tensors `(M, 4)`, xyxy in pixels of the image: the object, outlined.
        suspect: `(H, W)` or `(N, H, W)`, bool: a region that should not matter, outlined with dashes.
        title: The line above it all.
        cmap: The name of one of matplotlib's colour maps.
        blank_text: The word in place of a blank map.
        scale: What is drawn the brightest: "own", each map's own maximum; "shared", the greatest value of the map's
            column; "run", the greater of that and the column's `tops`.
        tops: For some or all of the maps, the greatest value at earlier looks.
        before: The maps of an earlier look, for a further column beside each map: what came and what went since, each
            map scaled to its own maximum. A map without an entry has no earlier one, and the column has a note of that.
        since: When that was, for the legend.
        beside: Further pictures `(N, 3, H, W)` of the samples by their headings, shown beside the images.

    Returns:
        `(H', W', 3)`, a uint8 numpy array.

    Raises:
        InputError: If a shape or a length does not fit the images, or there is no such colour map.

    Example:
        >>> import torch
        >>> images = torch.zeros(2, 3, 28, 28, dtype=torch.uint8)
        >>> figure = render_grid(images, {"grad_cam": torch.rand(2, 28, 28)}, captions=["true 7", "true 3"])
        >>> figure.shape[2], figure.dtype
        (3, dtype('uint8'))
    """
    check_pictures(images)
    if suspect is not None and suspect.ndim == 2:
        suspect = suspect.expand(len(images), -1, -1)
    check_figure(images, maps, masks, boxes, suspect, beside)
    check_texts(len(images), maps, captions, correct, headings, notes)
    check_before(images, maps, before)
    heat = HeatStyle(check_scale(scale), tops, before is not None, check_colormap(cmap), blank_text)
    pictures = 1 + len(beside or {})
    layout = plan(len(images), heat.columns * len(maps), *images.shape[2:], heat.columns, pictures)
    regions = Regions(masks, boxes, suspect)
    sheets = flat_sheets(images.detach(), maps, regions, layout, headings or list(maps), before, beside)
    shown = FigureTexts(title, captions, notes or {}, correct, since)
    present = {"object": masks is not None or boxes is not None, "suspect region": suspect is not None}
    return render_sheets(sheets, layout, shown, heat, [name for name, there in present.items() if there])


class FigureTexts(NamedTuple):
    """The words of a figure.

    Args:
        title: The line above it all.
        captions: One line for each sample.
        notes: For some or all of the maps, a line for each sample.
        correct: For each sample whether the prediction is right; None where that is not known.
        since: When the earlier look was, for the legend.
    """

    title: str
    captions: Sequence[str]
    notes: Mapping[str, Sequence[str]]
    correct: Sequence[bool | None] | None = None
    since: str = "at the look before"


def render_sheets(
    sheets: Sequence[Sheet],
    layout: FigureLayout,
    texts: FigureTexts,
    heat: HeatStyle,
    regions: Sequence[str],
) -> npt.NDArray[np.uint8]:
    """Draw one figure of columns that are two-dimensional already: a card for each sample.

    Args:
        sheets: The columns: pictures, then maps.
        layout: Where everything stands.
        texts: The words around the panels.
        heat: How maps are drawn.
        regions: The names of what is outlined, for the legend.

    Returns:
        `(H', W', 3)`, a uint8 numpy array.
    """
    places, correct = layout.boxes, texts.correct
    panels = [panel for each in sheets for panel in draw_sheet(each, layout, heat)]
    is_wrong = [_is_wrong(each) for each in correct] if correct is not None else [False] * layout.samples
    canvas = _canvas(panels, layout, places, is_wrong)
    lines = [Line(places.title, texts.title, places.title_size, TEXT, bold=True)]
    lines += _headings(layout, panels)
    lines += _captions(places, texts.captions, is_wrong)
    lines += _notes(layout, [each.name for each in sheets if each.saliency is not None], texts.notes, heat)
    write_lines(canvas, _words(places, panels))
    write_lines(canvas, [*lines, *_labels(canvas, places, panels)])
    draw_legend(canvas, places, MUTED, heat=heat, since=texts.since, regions=regions)
    return np.array(canvas)


class PanelTexts(NamedTuple):
    """The words around a picture of a row.

    Attributes:
        heading: above it.
        details: lines under the heading.
        note: below it.
        is_marked: whether a frame around it and a sign before the note make it stand out.
    """

    heading: str
    details: Sequence[str] = ()
    note: str = ""
    is_marked: bool = False


def render_row(
    images: Tensor,
    texts: Sequence[PanelTexts],
    *,
    title: str = "",
    caption: str = "",
    correct: bool | None = None,
    legend: Sequence[str] = ("",),
) -> npt.NDArray[np.uint8]:
    """Draw one card with pictures side by side, each with words above and below it.

    Args:
        images: `(P, 3, H, W)`, uint8, any device: see `to_display`.
        texts: One for each picture.
        title: The line above it all.
        caption: The line above the pictures.
        correct: Whether the prediction that the caption names is right; None where that is not known.
        legend: What is explained below, side by side.

    Returns:
        `(H', W', 3)`, a uint8 numpy array.

    Raises:
        InputError: If the images are no pictures, or have not as many texts.

    Example:
        >>> import torch
        >>> images = torch.zeros(2, 3, 28, 28, dtype=torch.uint8)
        >>> texts = [PanelTexts("image"), PanelTexts("border", ["follows 0.94"], "follows: 7", is_marked=True)]
        >>> render_row(images, texts).shape
        (417, 502, 3)
    """
    check_figure(images, {}, None, None, None)
    check_count(texts, len(images), "texts", "picture")
    details = max(len(each.details) for each in texts)
    layout = plan_row(len(images), images.shape[2], images.shape[3], details, len(legend))
    places, wrong = layout.boxes, [_is_wrong(correct)]
    small = enlarge(pack(shrink_images(images.detach(), *layout.work).cpu()), layout.factors)
    canvas = _canvas([Panel(each[None], [""]) for each in small], layout, places, wrong)
    lines = [Line(places.title, title, places.title_size, TEXT, bold=True)]
    lines += _captions(places, [caption], wrong)
    for index, each in enumerate(texts):
        heading = layout.detail_box(index, 0)
        lines.append(Line(heading, each.heading, places.caption_size, TEXT, bold=True, center=True))
        lines += [
            Line(layout.detail_box(index, number), detail, places.note_size, MUTED, center=True)
            for number, detail in enumerate(each.details, start=1)
        ]
        lines.append(_row_note(canvas, places, index, each))
    footer = zip(places.footer, legend, strict=True)
    lines += [Line(box, words, places.note_size, MUTED) for box, words in footer]
    write_lines(canvas, lines)
    return np.array(canvas)


def _row_note(canvas: Image.Image, boxes: FigureBoxes, index: int, texts: PanelTexts) -> Line:
    """The line under a picture; a frame around the picture, and a sign, mark it without colour, too."""
    color, note = (WRONG, f"» {texts.note}") if texts.is_marked else (TEXT, texts.note)
    if texts.is_marked:
        left, top, right, bottom = boxes.panels[0][index]
        ImageDraw.Draw(canvas).rectangle((left - 2, top - 2, right + 1, bottom + 1), outline=WRONG, width=2)
    return Line(boxes.notes[0][index], note, boxes.note_size, color, bold=texts.is_marked, center=True)


def _canvas(
    panels: Sequence[Panel], layout: FigureLayout, boxes: FigureBoxes, is_wrong: Sequence[bool]
) -> Image.Image:
    """Create the picture with its cards and panels."""
    canvas = Image.new("RGB", boxes.size, PAGE)
    pixels = [each.pixels.numpy().astype("<i4", copy=False) for each in panels]
    for sample, (card, places, wrong) in enumerate(zip(boxes.cards, boxes.panels, is_wrong, strict=True)):
        canvas.paste(CARD, card)
        if wrong:
            canvas.paste(WRONG, (card[0], card[1], card[0] + 3, card[3]))
        for panel, (left, top, right, bottom) in zip(pixels, places, strict=True):
            size = right - left, bottom - top
            shown = Image.frombuffer("RGB", size, panel[sample], "raw", "RGBX", 0, 1)
            canvas.paste(shown, (left, top))
    return canvas


def _is_wrong(correct: bool | None) -> bool:
    # not `is False`: a numpy or torch bool says it too
    return correct is not None and not correct


def _headings(layout: FigureLayout, panels: Sequence[Panel]) -> list[Line]:
    """A heading for each column of panels, in each column of cards; or for each panel."""
    boxes, center = layout.boxes, not layout.is_stacked
    return [
        Line(box, panel.heading, boxes.note_size, MUTED, bold=True, center=center)
        for block in boxes.headings
        for box, panel in zip(block, panels, strict=True)
    ]


def _captions(boxes: FigureBoxes, captions: Sequence[str], is_wrong: Sequence[bool]) -> list[Line]:
    """The line above each sample; a sign beside the colour marks wrong predictions without colour, too."""
    return [
        Line(box, f"× {caption}" if wrong else caption, boxes.caption_size, WRONG if wrong else TEXT)
        for box, caption, wrong in zip(boxes.captions, captions, is_wrong, strict=True)
    ]


def _notes(
    layout: FigureLayout, maps: Sequence[str], notes: Mapping[str, Sequence[str]], heat: HeatStyle
) -> list[Line]:
    """The line under each heatmap."""
    boxes, center = layout.boxes, not layout.is_stacked
    return [
        Line(
            boxes.notes[sample][layout.pictures + index * heat.columns],
            note,
            boxes.note_size,
            MUTED,
            center=center,
        )
        for index, name in enumerate(maps)
        for sample, note in enumerate(notes.get(name, ()))
    ]


def _words(boxes: FigureBoxes, panels: Sequence[Panel]) -> list[Line]:
    """The lines within the panels."""
    return [
        line._replace(box=moved(line.box, boxes.panels[sample][index]))
        for index, panel in enumerate(panels)
        for sample, lines in enumerate(panel.words)
        for line in lines
    ]


def _labels(canvas: Image.Image, boxes: FigureBoxes, panels: Sequence[Panel]) -> list[Line]:
    """The labels in the panels; a dark rectangle is drawn for each, so that it is readable over any picture."""
    lines, draw = [], ImageDraw.Draw(canvas)
    for index, panel in enumerate(panels):
        for sample, word in enumerate(panel.labels):
            if word:
                box = boxes.labels[sample][index]
                draw.rectangle((box[0], box[1], box[2] - 1, box[3] - 1), fill=PAGE)
                lines.append(Line(box, word, boxes.caption_size, TEXT, bold=True, center=True))
    return lines
