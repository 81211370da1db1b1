"""Equal steps look equal, texts are legible, and the colours differ for readers with weak colour vision, too."""

import inspect

import numpy as np
import pytest
import torch
from skimage.color import rgb2lab

from lightning_gcam import visual
from lightning_gcam.visual import grid, overlay_change
from lightning_gcam.visual.overlay import color_table

# Machado, Oliveira, Fernandes, "A physiologically-based model for simulation of color vision deficiency", IEEE TVCG
# 15(6), 2009, severity 1.0, on linear RGB.
EYES = {
    "all cones": np.eye(3),
    "no long cones": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "no medium cones": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "no short cones": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}


def linear(pixels):
    unit = np.asarray(pixels, dtype=float) / 255
    return np.where(unit <= 0.04045, unit / 12.92, ((unit + 0.055) / 1.055) ** 2.4)


def seen(pixels, eyes):
    """CIELAB of sRGB pixels `(..., 3)`, as these eyes see them."""
    light = (linear(pixels) @ EYES[eyes].T).clip(0, 1)
    return rgb2lab(np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055))


def steps_in_lightness(name, eyes):
    return np.diff(seen(color_table(name).numpy()[::16], eyes)[:, 0])


def is_even(name, eyes):
    steps = steps_in_lightness(name, eyes)
    return bool(steps.min() > 2 and steps.max() < 10)


@pytest.mark.parametrize("eyes", EYES)
def test_the_default_map_is_even_in_lightness_for_all_eyes(eyes):
    assert is_even("inferno", eyes)
    assert not is_even("jet", eyes), "the measure itself: jet goes up and down again"


def test_no_default_is_another_map():
    defaults = [
        inspect.signature(getattr(visual, name)).parameters.get(argument)
        for name in visual.__all__
        if inspect.isfunction(getattr(visual, name))
        for argument in ("cmap", "name")
    ]
    given = [each.default for each in defaults if each is not None and isinstance(each.default, str)]
    assert len(given) >= 3 and set(given) == {"inferno"}


@pytest.mark.parametrize("eyes", EYES)
@pytest.mark.parametrize("level", [0, 128, 255])
def test_what_came_and_what_went_are_told_apart_and_weigh_alike(level, eyes):
    images = torch.full((1, 3, 1, 101), level, dtype=torch.uint8)
    drawn = overlay_change(images, torch.linspace(-1, 1, 101).view(1, 1, -1))[0, :, 0].T.numpy()
    lab = seen(drawn, eyes)
    went, came = lab[50::-1], lab[50:]
    apart = np.linalg.norm(went - came, axis=1)
    assert apart[0] == 0 and apart[10] > 20 and apart[50] > 70 and (np.diff(apart[::5]) > -3).all()
    assert np.abs(went[:, 0] - came[:, 0]).max() < 13
    for side in (went, came):
        assert (np.diff(side[:, 0]) > -0.6).all(), "more is never darker, up to rounding"


def luminance(color):
    return float(linear(color) @ [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("color", [grid.TEXT, grid.MUTED, grid.WRONG])
@pytest.mark.parametrize("ground", [grid.PAGE, grid.CARD])
def test_words_have_contrast_enough(color, ground):
    high, low = luminance(color) + 0.05, luminance(ground) + 0.05
    assert high / low >= 4.5  # WCAG 2.1, AA
