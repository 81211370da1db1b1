"""The panels of a figure: pictures, heatmaps and changes with their lines, for all samples at once, on their device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_gcam.visual.brightness import Scale, change_of, to_unit
from lightning_gcam.visual.layout import Layout
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
from lightning_gcam.visual.overlay import overlay, overlay_change
from lightning_gcam.visual.scale import enlarge, peak_centers, shrink_images, shrink_maps

ALPHA = 0.8
"""How far the picture fades beneath full saliency."""


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


@dataclass(frozen=True)
class Heat:
    """How maps are drawn.

    Args:
        scale: which value is the brightest.
        tops: for "run", each map's greatest value at the looks before.
        before: the maps of the look before; None where no change is shown, and no entry where there is none.
        cmap: one of matplotlib's colour maps.
        blank: the word for a blank map.
    """

    scale: Scale = "own"
    tops: Mapping[str, float] | None = None
    before: Mapping[str, Tensor] | None = None
    cmap: str = "inferno"
    blank: str = "blank"

    @property
    def columns(self) -> int:
        """How many panels each map takes."""
        return 1 if self.before is None else 2


@dataclass(frozen=True)
class Panel:
    """One column of the figure: `(N, 3, h, w)` uint8, and for each sample the word in place of what cannot be shown."""

    pixels: Tensor
    words: list[str]


def draw_panels(
    images: Tensor, maps: Mapping[str, Tensor], regions: Regions, layout: Layout, heat: Heat
) -> list[Panel]:
    """The picture, and for each map its heatmap and perhaps its change."""
    small = shrink_images(images, *layout.work)
    lines = region_lines(regions, layout, images)
    panels = [Panel(_drawn(enlarge(small, layout.factors), lines), [""] * len(images))]
    for name, values in maps.items():
        values = values.detach().to(images.device)
        panels.append(_heatmap(name, small, values, lines, layout, heat))
        if heat.before is not None:
            panels.append(_change(small, values, heat.before.get(name), lines, layout, heat))
    return panels


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


Lines = Sequence[tuple[Tensor, Color]]


def _heatmap(name: str, small: Tensor, values: Tensor, lines: Lines, layout: Layout, heat: Heat) -> Panel:
    saliency, blank = to_unit(values, heat.scale, (heat.tops or {}).get(name, 0.0))
    warm = enlarge(overlay(small, shrink_maps(saliency, *layout.work), heat.cmap, ALPHA), layout.factors)
    centers = peak_centers(saliency, *layout.panel)
    pixels = mark_peaks(_drawn(warm, lines, blank), centers, ~blank)
    return Panel(pixels, [heat.blank if each else "" for each in blank.tolist()])


def _change(
    small: Tensor, values: Tensor, before: Tensor | None, lines: Lines, layout: Layout, heat: Heat
) -> Panel:
    """What came and what went; where that cannot be told, the dimmed picture and why."""
    change, blank, was_blank = change_of(values, values if before is None else before)
    came, went = (shrink_maps(part, *layout.work) for part in (change.clamp(min=0), -change.clamp(max=0)))
    signed = torch.where(came >= went, came, -went)
    pixels = enlarge(overlay_change(small, signed, ALPHA), layout.factors)
    if before is None:
        return Panel(pixels, ["first look"] * len(values))
    words = [
        heat.blank if now else f"was {heat.blank}" if then else ""
        for now, then in zip(blank.tolist(), was_blank.tolist(), strict=True)
    ]
    return Panel(_drawn(pixels, lines, blank | was_blank), words)


def _drawn(pictures: Tensor, lines: Lines, blank: Tensor | None = None) -> Tensor:
    """The pictures with the lines over them, but for the blank ones: those show no colour at all."""
    for line, color in lines:
        pictures = draw_line(pictures, line if blank is None else line & ~blank[:, None, None], color)
    return pictures


def _shown(masks: Tensor, layout: Layout, device: torch.device) -> Tensor:
    return enlarge(shrink_maps(masks.to(device).bool(), *layout.work), layout.factors)
