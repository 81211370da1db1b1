"""The foot of the figure: a colour bar for all maps, one for their changes, and what the lines and the ring mean."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from lightning_gcam.visual.brightness import Scale
from lightning_gcam.visual.layout import Layout
from lightning_gcam.visual.lines import OBJECT_COLOR, PEAK_COLOR, SUSPECT_COLOR, Color
from lightning_gcam.visual.overlay import overlay, overlay_change
from lightning_gcam.visual.panels import ALPHA, Heat
from lightning_gcam.visual.text import Box, write

_BAR = (110, 10)  # width and height

BRIGHTEST: dict[Scale, str] = {
    "own": "each map's own maximum",
    "shared": "this look's highest peak",
    "run": "the run's highest peak so far",
}
"""What stands at the bright end of the colour bar."""


def color_bar(cmap: str, alpha: float, width: int, height: int) -> Image.Image:
    """Draw saliency 0 to 1 as it looks over a mid-grey picture, since that is how it looks in the panels."""
    return _picture(overlay(_grey(width, height), _ramp(0, width, height), cmap, alpha))


def change_bar(alpha: float, width: int, height: int) -> Image.Image:
    """Draw a change from -1 to 1 as it looks over a mid-grey picture."""
    return _picture(overlay_change(_grey(width, height), _ramp(-1, width, height), alpha))


def draw_legend(
    canvas: Image.Image, layout: Layout, color: Color, *, heat: Heat, since: str, regions: tuple[bool, bool]
) -> None:
    """Draw the colour bars and the signs that occur; `regions`: is there an object, and a suspect region?"""
    bar, *rest, signs = layout.footer_boxes()
    words, size = BRIGHTEST[heat.scale], layout.note_size
    _write_bar(canvas, bar, size, color, "0", color_bar(heat.cmap, ALPHA, *_BAR), words)
    for box in rest:
        _write_bar(canvas, box, size, color, "less", change_bar(ALPHA, *_BAR), f"more than {since}")
    left = _write_sign(canvas, signs, size, color, "peak")
    for name, present in zip(("object", "suspect region"), regions, strict=True):
        if present:
            left = _write_sign(canvas, (left, *signs[1:]), size, color, name)


def _grey(width: int, height: int) -> Tensor:
    return torch.full((1, 3, height, width), 128, dtype=torch.uint8)


def _ramp(start: float, width: int, height: int) -> Tensor:
    return torch.linspace(start, 1, width).expand(1, height, width)


def _picture(drawn: Tensor) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(drawn[0].permute(1, 2, 0).numpy()))


def _write_bar(
    canvas: Image.Image, box: Box, size: int, color: Color, low: str, bar: Image.Image, high: str
) -> None:
    left = write(canvas, box, low, size, color) + 6
    canvas.paste(bar, (left, (box[1] + box[3] - bar.height) // 2))
    write(canvas, (left + bar.width + 6, *box[1:]), high, size, color)


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
