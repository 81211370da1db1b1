"""The colour bars show what the panels show."""

import numpy as np
import pytest
import torch

from lightning_gcam.visual import colormap, dim, overlay, overlay_change, render_grid
from lightning_gcam.visual.grid import ALPHA, change_bar, color_bar
from lightning_gcam.visual.layout import plan

GREY = torch.full((1, 3, 1, 1), 128, dtype=torch.uint8)


def pixel(drawn):
    return drawn.flatten().tolist()


@pytest.mark.parametrize("cmap", ["inferno", "viridis"])
def test_the_bar_runs_from_the_dimmed_picture_to_the_heat_of_one(cmap):
    bar = np.array(color_bar(cmap, ALPHA, 101, 3))
    assert bar.shape == (3, 101, 3) and (bar == bar[:1]).all()
    for at in (0, 25, 50, 100):
        assert bar[0, at].tolist() == pixel(overlay(GREY, torch.full((1, 1, 1), at / 100), cmap, ALPHA))
    assert bar[0, 0].tolist() == pixel(dim(GREY))
    assert bar[0, 100].min() >= colormap(torch.tensor(1.0), cmap).min()


def test_the_bar_of_changes_runs_from_what_went_over_nothing_to_what_came():
    bar = np.array(change_bar(ALPHA, 101, 3))
    for at in (0, 25, 50, 100):
        assert bar[0, at].tolist() == pixel(overlay_change(GREY, torch.full((1, 1, 1), at / 50 - 1), ALPHA))
    assert bar[0, 50].tolist() == pixel(dim(GREY))
    assert bar[0, 0, 2] > bar[0, 0, 0] and bar[0, 100, 0] > bar[0, 100, 2], "blue went, orange came"


@pytest.mark.parametrize("before", [None, {}])
def test_the_bars_stand_in_the_figure(before):
    images = torch.zeros(2, 3, 40, 40, dtype=torch.uint8)
    figure = render_grid(images, {"a": torch.ones(2, 40, 40)}, captions=["", ""], before=before)
    columns = 1 if before is None else 2
    boxes = plan(2, columns, 40, 40, bars=columns).footer_boxes()[:-1]
    bars = [color_bar("inferno", ALPHA, 110, 10), change_bar(ALPHA, 110, 10)][:columns]
    for bar, (left, top, right, bottom) in zip(bars, boxes, strict=True):
        shown, pixels = figure[top:bottom, left:right], np.array(bar)
        windows = np.lib.stride_tricks.sliding_window_view(shown, pixels.shape)
        assert (windows == pixels).all((-1, -2, -3)).any()
