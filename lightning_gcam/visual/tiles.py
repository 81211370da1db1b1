"""What belongs to one sample, cut out of the figure: it is drawn once, whoever shows a part of it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lightning_gcam._errors import InputError
from lightning_gcam.visual.layout import Layout
from lightning_gcam.visual.text import Box

Picture = npt.NDArray[np.uint8]


def cut_samples(figure: Picture, layout: Layout) -> list[Picture]:
    """Cut out each sample's card, with the columns' headings above it.

    Args:
        figure: `(H, W, 3)`, uint8, as `render_grid` draws it.
        layout: where everything stands in it.

    Returns:
        A picture `(h, w, 3)` for each sample, all of one size.

    Raises:
        InputError: If the figure was drawn by another layout.

    Example:
        >>> from lightning_gcam.visual.layout import plan
        >>> layout = plan(2, 1, 28, 28)
        >>> figure = np.zeros((layout.height, layout.width, 3), dtype=np.uint8)
        >>> len(cut_samples(figure, layout))
        2
    """
    _check_drawn_by(layout, figure)
    cards = []
    for sample in range(layout.samples):
        left, top, right, bottom = layout.card_box(sample)
        _, above, _, below = layout.heading_box(sample % layout.blocks, 0)
        card = _cut(figure, (left, top, right, bottom))
        cards.append(np.concatenate([_cut(figure, (left, above, right, below)), card]))
    return cards


def cut_panels(figure: Picture, layout: Layout) -> list[list[Picture]]:
    """Cut out each sample's panels: its picture, then a heatmap for each map.

    Args:
        figure: `(H, W, 3)`, uint8, as `render_grid` draws it.
        layout: where everything stands in it.

    Returns:
        For each sample a picture `(h, w, 3)` for each panel.

    Raises:
        InputError: If the figure was drawn by another layout.
    """
    _check_drawn_by(layout, figure)
    return [
        [_cut(figure, layout.panel_box(sample, panel)) for panel in range(layout.panels)]
        for sample in range(layout.samples)
    ]


def _cut(figure: Picture, box: Box) -> Picture:
    left, top, right, bottom = box
    return figure[top:bottom, left:right]


def _check_drawn_by(layout: Layout, figure: Picture) -> None:
    if figure.shape[:2] != (layout.height, layout.width):
        raise InputError(
            f"`layout` is of a figure of {layout.height} x {layout.width} pixels, but `figure` has "
            f"{figure.shape[0]} x {figure.shape[1]}. Give the layout that it was drawn by."
        )
