"""The foot of the figure: one colour bar for all maps, and what the lines and the ring mean."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image, ImageDraw

from lightning_gcam.visual.layout import Layout
from lightning_gcam.visual.lines import OBJECT_COLOR, PEAK_COLOR, SUSPECT_COLOR, Color
from lightning_gcam.visual.overlay import overlay
from lightning_gcam.visual.text import Box, write

_BAR = (110, 10)  # width and height


def color_bar(cmap: str, alpha: float, width: int, height: int) -> Image.Image:
    """Draw saliency 0 to 1 as it looks over a mid-grey picture, since that is how it looks in the panels."""
    grey = torch.full((1, 3, height, width), 128, dtype=torch.uint8)
    ramp = torch.linspace(0, 1, width).expand(1, height, width)
    bar = overlay(grey, ramp, cmap, alpha)[0].permute(1, 2, 0)
    return Image.fromarray(np.ascontiguousarray(bar.numpy()))


def draw_legend(
    canvas: Image.Image, layout: Layout, color: Color, *, cmap: str, alpha: float, regions: tuple[bool, bool]
) -> None:
    """Draw the colour bar and the signs that occur; `regions`: is there an object, and a suspect region?"""
    bar, signs = layout.footer_boxes()
    _write_bar(canvas, bar, layout.note_size, color, color_bar(cmap, alpha, *_BAR))
    left = _write_sign(canvas, signs, layout.note_size, color, "peak")
    for name, present in zip(("object", "suspect region"), regions, strict=True):
        if present:
            left = _write_sign(canvas, (left, *signs[1:]), layout.note_size, color, name)


def _write_bar(canvas: Image.Image, box: Box, size: int, color: Color, bar: Image.Image) -> None:
    left = write(canvas, box, "0", size, color) + 6
    canvas.paste(bar, (left, (box[1] + box[3] - bar.height) // 2))
    words = (left + bar.width + 6, *box[1:])
    write(canvas, words, "each map's own maximum", size, color)


def _write_sign(canvas: Image.Image, box: Box, size: int, color: Color, name: str) -> int:
    """Draw one sign and its name from the left of `box`, and return where the next may begin."""
    draw = ImageDraw.Draw(canvas)
    left, middle = box[0], (box[1] + box[3]) // 2
    if name == "peak":
        draw.ellipse((left, middle - 5, left + 10, middle + 5), outline=PEAK_COLOR)
        length = 11
    else:
        dashes = [(0, 20)] if name == "object" else [(0, 6), (9, 15), (18, 20)]
        for start, end in dashes:
            line = (left + start, middle, left + end, middle)
            draw.line(line, fill=OBJECT_COLOR if name == "object" else SUSPECT_COLOR, width=2)
        length = 21
    return write(canvas, (left + length + 5, *box[1:]), name, size, color) + 18
