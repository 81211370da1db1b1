"""Pictures of saliency: pure tensors in, uint8 out."""

from lightning_gcam.visual.colormap import check_colormap, colormap
from lightning_gcam.visual.display import Normalize, check_normalize, shown_channels, to_display
from lightning_gcam.visual.grid import render_grid
from lightning_gcam.visual.lines import mark_peaks, outline
from lightning_gcam.visual.overlay import dim, overlay

__all__ = [
    "Normalize",
    "check_colormap",
    "check_normalize",
    "colormap",
    "dim",
    "mark_peaks",
    "outline",
    "overlay",
    "render_grid",
    "shown_channels",
    "to_display",
]
