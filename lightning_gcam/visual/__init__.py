"""Pictures of saliency: pure tensors in, uint8 out."""

from lightning_gcam.visual.brightness import check_scale
from lightning_gcam.visual.colormap import check_colormap, colormap
from lightning_gcam.visual.display import Normalize, check_normalize, shown_channels, to_display
from lightning_gcam.visual.figure import Figure
from lightning_gcam.visual.grid import render_grid
from lightning_gcam.visual.lines import mark_peaks, outline
from lightning_gcam.visual.overlay import dim, overlay, overlay_change

__all__ = [
    "Figure",
    "Normalize",
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
    "shown_channels",
    "to_display",
]
