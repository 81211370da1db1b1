"""The colours are matplotlib's."""

import matplotlib
import numpy as np
import pytest
import torch

from lightning_gcam.visual import check_colormap, colormap


@pytest.mark.parametrize("name", ["inferno", "viridis", "magma", "gray", "tab10", "cividis"])
def test_equals_matplotlib(name):
    values = np.linspace(0, 1, 256, dtype=np.float32)
    expected = matplotlib.colormaps[name](values, bytes=True)[:, :3]
    assert np.array_equal(colormap(torch.from_numpy(values), name).numpy(), expected)


def test_default_is_even_in_lightness():
    red, green, blue = colormap(torch.linspace(0, 1, 256)).double().unbind(-1)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    assert (luma.diff() > -1).all() and luma[-1] - luma[0] > 200


def test_keeps_the_shape_and_clamps():
    values = torch.tensor([[-1.0, 2.0, torch.nan]], requires_grad=True)
    coloured = colormap(values, "gray")
    assert coloured.shape == (1, 3, 3) and coloured[0, :, 0].tolist() == [0, 255, 0]


def test_what_comes_back_is_not_the_cache():
    first = colormap(torch.zeros(4))
    first.fill_(77)
    assert colormap(torch.zeros(1)).tolist() == [[0, 0, 3]]


def test_unknown_name_says_the_nearest():
    with pytest.raises(ValueError, match=r'`cmap` "infreno" is not.*"inferno"'):
        colormap(torch.zeros(1), "infreno")
    with pytest.raises(ValueError, match="Known: "):
        check_colormap("zzzzzzzz")
