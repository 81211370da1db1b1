"""The figure of one look: every sample's picture beside its saliency maps, in words and colours.

The layout does not depend on what the maps show: flip between the figures of two looks to compare them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from lightning_gcam.visual.brightness import Scale, check_scale
from lightning_gcam.visual.checks import check_before, check_figure, check_pictures, check_words
from lightning_gcam.visual.colormap import check_colormap
from lightning_gcam.visual.layout import Layout, plan
from lightning_gcam.visual.legend import draw_legend
from lightning_gcam.visual.lines import Color
from lightning_gcam.visual.panels import Heat, Panel, Regions, draw_panels
from lightning_gcam.visual.text import Box, write

_PAGE: Color = (18, 20, 25)
_CARD: Color = (33, 36, 44)
_TEXT: Color = (236, 238, 242)
_QUIET: Color = (172, 178, 190)
_WRONG: Color = (255, 138, 101)


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
) -> npt.NDArray[np.uint8]:
    """Draw one figure: a card for each sample with its caption, its picture and one heatmap for each method.

    Each map is scaled to its own maximum, so its raw peak belongs in its note; or all of them to one scale, of which
    the legend tells. A blank map shows the dimmed picture and the word "blank", never a colour. Where things stand
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
            map scaled to its own maximum. A map without an entry has no earlier one, which the column says.
        since: When that was, for the legend.

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
    check_figure(images, maps, masks, boxes, suspect)
    check_words(len(images), maps, captions, correct, headings, notes)
    check_before(images, maps, before)
    heat = Heat(check_scale(scale), tops, before, check_colormap(cmap), blank_text)
    regions = Regions(masks, boxes, suspect)
    height, width = images.shape[2:]
    layout = plan(len(images), heat.columns * len(maps), height, width, bars=heat.columns)
    panels = draw_panels(images.detach(), maps, regions, layout, heat)
    canvas = _canvas(panels, layout, correct)
    _write_words(canvas, layout, captions, correct, _headings(headings or list(maps), heat), title)
    _write_notes(canvas, layout, list(maps), notes or {}, heat)
    _write_plates(canvas, layout, panels)
    present = (masks is not None or boxes is not None, suspect is not None)
    draw_legend(canvas, layout, _QUIET, heat=heat, since=since, regions=present)
    return np.array(canvas)


def _canvas(panels: Sequence[Panel], layout: Layout, correct: Sequence[bool | None] | None) -> Image.Image:
    """The page with its cards and panels; here the pixels leave the device, all at once."""
    canvas = Image.new("RGB", (layout.width, layout.height), _PAGE)
    draw = ImageDraw.Draw(canvas)
    pixels = torch.stack([each.pixels.permute(0, 2, 3, 1) for each in panels], 1).cpu().numpy()
    for sample, row in enumerate(pixels):
        left, top, right, bottom = layout.card_box(sample)
        draw.rectangle((left, top, right - 1, bottom - 1), fill=_CARD)
        if _is_wrong(correct, sample):
            draw.rectangle((left, top, left + 2, bottom - 1), fill=_WRONG)
        for index, panel in enumerate(row):
            canvas.paste(Image.fromarray(panel), layout.panel_box(sample, index)[:2])
    return canvas


def _is_wrong(correct: Sequence[bool | None] | None, sample: int) -> bool:
    # not `is False`: a numpy or torch bool says it too
    return correct is not None and correct[sample] is not None and not correct[sample]


def _write_words(
    canvas: Image.Image,
    layout: Layout,
    captions: Sequence[str],
    correct: Sequence[bool | None] | None,
    headings: Sequence[str],
    title: str,
) -> None:
    write(canvas, layout.title_box(), title, layout.title_size, _TEXT, bold=True)
    for block in range(min(layout.blocks, layout.samples)):
        for panel, heading in enumerate(("image", *headings)):
            box = layout.heading_box(block, panel)
            write(canvas, box, heading, layout.note_size, _QUIET, bold=True, center=True)
    for sample, caption in enumerate(captions):
        # a sign beside the colour, for whoever cannot tell the colours apart
        wrong = _is_wrong(correct, sample)
        words, color = (f"× {caption}", _WRONG) if wrong else (caption, _TEXT)
        write(canvas, layout.caption_box(sample), words, layout.caption_size, color)


def _headings(names: Sequence[str], heat: Heat) -> list[str]:
    return [word for name in names for word in (name, "change")[: heat.columns]]


def _write_notes(
    canvas: Image.Image, layout: Layout, maps: Sequence[str], notes: Mapping[str, Sequence[str]], heat: Heat
) -> None:
    for index, name in enumerate(maps):
        for sample, note in enumerate(notes.get(name, ())):
            box = layout.note_box(sample, 1 + index * heat.columns)
            write(canvas, box, note, layout.note_size, _QUIET, center=True)


def _write_plates(canvas: Image.Image, layout: Layout, panels: Sequence[Panel]) -> None:
    for index, panel in enumerate(panels):
        for sample, word in enumerate(panel.words):
            if word:
                _write_plate(canvas, layout.blank_box(sample, index), word, layout.caption_size)


def _write_plate(canvas: Image.Image, box: Box, text: str, size: int) -> None:
    """A word on a dark plate: it is read over any picture."""
    ImageDraw.Draw(canvas).rectangle((box[0], box[1], box[2] - 1, box[3] - 1), fill=_PAGE)
    write(canvas, box, text, size, _TEXT, bold=True, center=True)
