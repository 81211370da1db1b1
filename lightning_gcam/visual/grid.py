"""The figure of one look: every sample's picture beside its saliency maps, in words and colours.

The layout does not depend on what the maps show: flip between the figures of two looks to compare them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from lightning_gcam.visual.checks import check_figure, check_pictures, check_words
from lightning_gcam.visual.colormap import check_colormap
from lightning_gcam.visual.layout import Layout, plan
from lightning_gcam.visual.legend import draw_legend
from lightning_gcam.visual.lines import (
    OBJECT_COLOR,
    SUSPECT_COLOR,
    Color,
    box_edges,
    dash,
    draw_line,
    edge,
    mark_peaks,
)
from lightning_gcam.visual.overlay import overlay
from lightning_gcam.visual.scale import enlarge, peak_centers, shrink_images, shrink_maps
from lightning_gcam.visual.text import Box, write

_PAGE: Color = (18, 20, 25)
_CARD: Color = (33, 36, 44)
_TEXT: Color = (236, 238, 242)
_QUIET: Color = (172, 178, 190)
_WRONG: Color = (255, 138, 101)
_ALPHA = 0.8


@dataclass(frozen=True)
class Regions:
    """What is known of the samples, drawn as lines; all of it may be missing.

    Args:
        masks: `(N, H, W)` bool: the object.
        boxes: N tensors `(M, 4)`, xyxy in pixels of the image: the object.
        suspect: `(H, W)` or `(N, H, W)` bool: a region that should not matter.
    """

    masks: Tensor | None = None
    boxes: Sequence[Tensor] | None = None
    suspect: Tensor | None = None


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
) -> npt.NDArray[np.uint8]:
    """Draw one figure: a card for each sample with its caption, its picture and one heatmap for each method.

    Each map is scaled to its own maximum, so its raw peak belongs in its note. A blank map shows the dimmed
    picture and the word "blank", never a colour. Where things stand depends on N, the number of maps and the
    size of the images only.

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
    regions = Regions(masks, boxes, suspect)
    layout = plan(len(images), len(maps), *images.shape[2:])
    panels, blank = _panels(images.detach(), list(maps.values()), regions, layout, check_colormap(cmap))
    canvas = _canvas(panels, layout, correct)
    _write_words(canvas, layout, captions, correct, headings or list(maps), title)
    _write_notes(canvas, layout, list(maps), notes or {}, blank, blank_text)
    present = (masks is not None or boxes is not None, suspect is not None)
    draw_legend(canvas, layout, _QUIET, cmap=cmap, alpha=_ALPHA, regions=present)
    return np.array(canvas)


def _panels(
    images: Tensor, maps: Sequence[Tensor], regions: Regions, layout: Layout, cmap: str
) -> tuple[Tensor, list[list[bool]]]:
    """All panels, `(N, 1 + maps, h, w, 3)` uint8 on the images' device, and which maps are blank."""
    small = shrink_images(images, *layout.work)
    lines = region_lines(regions, layout, images)
    panels, blanks = [_drawn(enlarge(small, layout.factor), lines)], []
    for values in maps:
        saliency, blank = _to_own_maximum(values.detach().to(images.device))
        heat = enlarge(overlay(small, shrink_maps(saliency, *layout.work), cmap, _ALPHA), layout.factor)
        centers = peak_centers(saliency, *layout.panel)
        panels.append(mark_peaks(_drawn(heat, lines, blank), centers, ~blank))
        blanks.append(blank)
    pixels = torch.stack([p.permute(0, 2, 3, 1) for p in panels], 1)
    return pixels, torch.stack(blanks, 1).tolist() if blanks else []


def _to_own_maximum(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Each map divided by its own maximum, and which maps have none."""
    finite = maps.float().nan_to_num(0, 0, 0).clamp(min=0)
    top = finite.amax((1, 2), keepdim=True)
    blank = top < torch.finfo(torch.float32).tiny
    return (finite / top).where(~blank, 0), blank.flatten()


def region_lines(regions: Regions, layout: Layout, images: Tensor) -> list[tuple[Tensor, Color]]:
    """Every known region as a line `(N, h, w)`; the suspect one last, as it may be small."""
    lines, width = [], layout.line_width
    if regions.masks is not None:
        lines.append((edge(_shown(regions.masks, layout, images.device), width), OBJECT_COLOR))
    if regions.boxes is not None:
        size = (images.shape[2], images.shape[3])
        lines.append((box_edges(regions.boxes, size, layout.panel, images.device, width), OBJECT_COLOR))
    if regions.suspect is not None:
        lines.append((dash(edge(_shown(regions.suspect, layout, images.device), width)), SUSPECT_COLOR))
    return lines


def _drawn(pictures: Tensor, lines: Sequence[tuple[Tensor, Color]], blank: Tensor | None = None) -> Tensor:
    """The pictures with the lines over them, but for the blank ones: those show no colour at all."""
    for line, color in lines:
        pictures = draw_line(pictures, line if blank is None else line & ~blank[:, None, None], color)
    return pictures


def _shown(masks: Tensor, layout: Layout, device: torch.device) -> Tensor:
    return enlarge(shrink_maps(masks.to(device).bool(), *layout.work), layout.factor)


def _canvas(panels: Tensor, layout: Layout, correct: Sequence[bool | None] | None) -> Image.Image:
    """The page with its cards and panels; here the pixels leave the device, all at once."""
    canvas = Image.new("RGB", (layout.width, layout.height), _PAGE)
    draw = ImageDraw.Draw(canvas)
    for sample, row in enumerate(panels.cpu().numpy()):
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


def _write_notes(
    canvas: Image.Image,
    layout: Layout,
    maps: Sequence[str],
    notes: Mapping[str, Sequence[str]],
    blank: Sequence[Sequence[bool]],
    blank_text: str,
) -> None:
    for index, name in enumerate(maps):
        for sample in range(layout.samples):
            box = layout.note_box(sample, index + 1)
            if name in notes:
                write(canvas, box, notes[name][sample], layout.note_size, _QUIET, center=True)
            if blank[sample][index]:
                _write_plate(canvas, layout.blank_box(sample, index + 1), blank_text, layout.caption_size)


def _write_plate(canvas: Image.Image, box: Box, text: str, size: int) -> None:
    """A word on a dark plate: it is read over any picture."""
    ImageDraw.Draw(canvas).rectangle((box[0], box[1], box[2] - 1, box[3] - 1), fill=_PAGE)
    write(canvas, box, text, size, _TEXT, bold=True, center=True)
