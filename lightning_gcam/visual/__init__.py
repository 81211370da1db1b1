"""Drawing saliency: tensors in, uint8 pictures out."""

from lightning_gcam.visual.drawing import mark_peaks, outline
from lightning_gcam.visual.grid import PanelTexts, render_grid, render_row
from lightning_gcam.visual.images import (
    Figure,
    Normalize,
    check_normalize,
    check_scale,
    shown_channels,
    to_display,
)
from lightning_gcam.visual.overlay import check_colormap, colormap, dim, overlay, overlay_change

__all__ = [
    "Figure",
    "Normalize",
    "PanelTexts",
    "check_colormap",
    "check_normalize",
    "check_scale",
    "colormap",
    "dim",
    "mark_peaks",
    "outline",
    "overlay",
    "overlay_change",
    "render_grid",
    "render_row",
    "shown_channels",
    "to_display",
]
