"""Draw columns of panels: a picture of each sample, the heat of a map over it, and what came and went since before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from lightning_gcam.visual.drawing import (
    OBJECT_COLOR,
    PREDICTED_COLOR,
    SUSPECT_COLOR,
    Line,
    Strokes,
    box_edges,
    dash,
    draw_rings,
    draw_strokes,
    edge,
    stroke,
)
from lightning_gcam.visual.images import Color, Scale, change_of, pack, shrink_images, to_unit
from lightning_gcam.visual.layout import FigureLayout
from lightning_gcam.visual.overlay import (
    enlarge,
    heat_pixels,
    overlay_change,
    peak_centers,
    shrink_maps,
    shrink_saliency,
)

ALPHA = 0.8
"""How far the picture fades beneath full saliency."""

PAGE: Color = (18, 20, 25)
CARD: Color = (33, 36, 44)
TEXT: Color = (236, 238, 242)
MUTED: Color = (172, 178, 190)
WRONG: Color = (255, 138, 101)
_RING = 7.0  # its radius on a sheet of several parts


@dataclass(frozen=True)
class Regions:
    """The object's masks and boxes and the suspect region of the samples, drawn as lines; any of them may be missing.

    Args:
        masks: `(N, H, W)` bool: the object.
        boxes: N tensors `(M, 4)`, xyxy in pixels of the image: the object.
        suspect: `(H, W)` or `(N, H, W)` bool: a region that should not matter.
        predicted: N tensors `(M, 4)`, xyxy in pixels of the image: where the model finds the object.
    """

    masks: Tensor | None = None
    boxes: Sequence[Tensor] | None = None
    suspect: Tensor | None = None
    predicted: Sequence[Tensor] | None = None


@dataclass(frozen=True)
class HeatStyle:
    """How maps are drawn: their scale, their colours, and whether their change is shown.

    Args:
        scale: which value is the brightest.
        tops: for "run", each map's greatest value at the looks before.
        shows_change: whether a second panel beside each map shows what came and what went.
        cmap: one of matplotlib's colour maps.
        blank: the word for a blank map.
    """

    scale: Scale = "own"
    tops: Mapping[str, float] | None = None
    shows_change: bool = False
    cmap: str = "inferno"
    blank: str = "blank"

    @property
    def columns(self) -> int:
        """The number of panels for each map."""
        return 2 if self.shows_change else 1


@dataclass(frozen=True)
class Sheet:
    """What one column of panels shows of all samples, in two dimensions and on the CPU.

    Args:
        name: of the map, or of the picture.
        heading: above the column.
        pictures: `(N, 3, h, w)`, uint8.
        strokes: the outlines, at the size of the panel.
        saliency: `(N, h, w)`, at least 0; None for a picture alone.
        before: that of an earlier look, if there was one.
        tops_before: `(N,)`, each earlier map's maximum, where parts of it are not in `before`.
        heated: `(h, w)` bool, where heat is drawn; the picture stays as it is elsewhere. Everywhere if left out.
        peaks: `(N, K, 2)`, row and column of each ring in the panel; around the highest pixel if left out.
        words: for each sample the lines that are written into its panel, in pixels of the panel.
    """

    name: str
    heading: str
    pictures: Tensor
    strokes: Strokes = ()
    saliency: Tensor | None = None
    before: Tensor | None = None
    tops_before: Tensor | None = None
    heated: Tensor | None = None
    peaks: Tensor | None = None
    words: Sequence[Sequence[Line]] = ()


@dataclass(frozen=True)
class Panel:
    """One column of the figure: packed pixels `(N, h, w)`, and for each sample a label over its panel, or none."""

    pixels: Tensor
    labels: list[str]
    heading: str = ""
    words: Sequence[Sequence[Line]] = field(default=())


def flat_sheets(
    images: Tensor,
    maps: Mapping[str, Tensor],
    regions: Regions,
    layout: FigureLayout,
    headings: Sequence[str],
    before: Mapping[str, Tensor] | None = None,
    beside: Mapping[str, Tensor] | None = None,
) -> list[Sheet]:
    """Shrink pictures of two dimensions and their maps to the size they are shown, for a column each.

    Args:
        images: `(N, 3, H, W)`, uint8.
        maps: `(N, H, W)`, by name.
        regions: what is outlined.
        layout: where the panels stand.
        headings: one for each map.
        before: the maps of an earlier look.
        beside: further pictures `(N, 3, H, W)` of the samples, by their heading.
    """
    strokes = [stroke(line, color) for line, color in region_lines(regions, layout, images)]
    first = Sheet("image", "image", shrink_images(images, *layout.work).cpu(), strokes)
    others = (
        Sheet(name, name, shrink_images(each, *layout.work).cpu()) for name, each in (beside or {}).items()
    )
    sheets = [first, *others]
    for heading, (name, values) in zip(headings, maps.items(), strict=True):
        then = shrink_saliency(before[name], *layout.work) if before and name in before else None
        now = shrink_saliency(values, *layout.work)
        sheets.append(replace(first, name=name, heading=heading, saliency=now, before=then))
    return sheets


def draw_sheet(sheet: Sheet, layout: FigureLayout, heat: HeatStyle) -> list[Panel]:
    """Draw a column: the picture, or a map's heat and, if wanted, its change."""
    if sheet.saliency is None:
        pixels = draw_strokes(enlarge(pack(sheet.pictures), layout.factors), sheet.strokes)
        return [Panel(pixels, [""] * len(pixels), sheet.heading, sheet.words)]
    panels = [_heatmap_panel(sheet, sheet.saliency, layout, heat)]
    return [*panels, _change_panel(sheet, sheet.saliency, layout, heat)] if heat.shows_change else panels


def region_lines(regions: Regions, layout: FigureLayout, images: Tensor) -> list[tuple[Tensor, Color]]:
    """Return the outline of each region, `(N, h, w)` bool on the CPU, and its colour; the suspect one comes last."""
    lines, width, size = [], layout.line_width, (images.shape[2], images.shape[3])

    def around(boxes: Sequence[Tensor]) -> Tensor:
        return box_edges(boxes, size, layout.panel, torch.device("cpu"), width)

    if regions.masks is not None:
        lines.append((edge(_enlarged_masks(regions.masks, layout), width), OBJECT_COLOR))
    if regions.boxes is not None:
        lines.append((around(regions.boxes), OBJECT_COLOR))
    if regions.predicted is not None:
        lines.append((dash(around(regions.predicted)), PREDICTED_COLOR))
    if regions.suspect is not None:
        lines.append((dash(edge(_enlarged_masks(regions.suspect, layout), width)), SUSPECT_COLOR))
    return lines


def _heatmap_panel(sheet: Sheet, values: Tensor, layout: FigureLayout, heat: HeatStyle) -> Panel:
    saliency, blank = to_unit(values, heat.scale, (heat.tops or {}).get(sheet.name, 0.0))
    warm = _around(sheet, heat_pixels(sheet.pictures, saliency, heat.cmap, ALPHA))
    pixels = draw_strokes(enlarge(warm, layout.factors), sheet.strokes, ~blank)
    if sheet.peaks is None:
        pixels = draw_rings(pixels, peak_centers(saliency, *layout.panel), ~blank)
    else:
        for ring in sheet.peaks.unbind(1):
            pixels = draw_rings(pixels, ring, ~blank, radius=_RING)
    labels = [heat.blank if each else "" for each in blank.tolist()]
    return Panel(pixels, labels, sheet.heading, sheet.words)


def _change_panel(sheet: Sheet, values: Tensor, layout: FigureLayout, heat: HeatStyle) -> Panel:
    """Draw where saliency increased and decreased; where there is no earlier map, the dimmed picture with a label."""
    before = values if sheet.before is None else sheet.before
    change, blank, was_blank = change_of(values, before, sheet.tops_before)
    pixels = enlarge(_around(sheet, pack(overlay_change(sheet.pictures, change, ALPHA))), layout.factors)
    if sheet.before is None:
        return Panel(pixels, ["first look"] * len(values), "change", sheet.words)
    labels = [
        heat.blank if now else f"was {heat.blank}" if then else ""
        for now, then in zip(blank.tolist(), was_blank.tolist(), strict=True)
    ]
    pixels = draw_strokes(pixels, sheet.strokes, ~(blank | was_blank))
    return Panel(pixels, labels, "change", sheet.words)


def _around(sheet: Sheet, pixels: Tensor) -> Tensor:
    """The pixels where heat is drawn, and the untouched picture around them."""
    return pixels if sheet.heated is None else pixels.where(sheet.heated, pack(sheet.pictures))


def _enlarged_masks(masks: Tensor, layout: FigureLayout) -> Tensor:
    return enlarge(shrink_maps(masks.bool(), *layout.work).cpu(), layout.factors)
