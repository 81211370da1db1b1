"""No saliency leaves the picture; more is never darker; the colours mean what the bar says."""

import pytest
import torch

from lightning_gcam.visual import dim, overlay, overlay_change


def pictures(samples=3, height=12, width=10):
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (samples, 3, height, width), generator=generator).to(torch.uint8)


@pytest.mark.parametrize("cmap", ["inferno", "viridis", "gray_r"])
def test_no_saliency_is_exactly_the_dimmed_picture(cmap):
    images = pictures()
    assert torch.equal(overlay(images, torch.zeros(3, 12, 10), cmap), dim(images))
    half = torch.zeros(3, 12, 10)
    half[:, :6] = 1
    assert torch.equal(overlay(images, half, cmap)[:, :, 6:], dim(images)[:, :, 6:])


def test_dimmed_is_grey_and_still_a_picture():
    images = pictures()
    red, green, blue = images.double().unbind(1)
    expected = 0.62 * (0.299 * red + 0.587 * green + 0.114 * blue)
    for channel in dim(images).double().unbind(1):
        assert (channel - expected).abs().max() <= 0.51


@pytest.mark.parametrize("level", [0, 60, 128, 255])
def test_more_saliency_is_never_darker(level):
    images = torch.full((1, 3, 1, 257), level, dtype=torch.uint8)
    red, green, blue = overlay(images, torch.linspace(0, 1, 257).view(1, 1, -1))[0, :, 0].double()
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    # three levels of 255: rounding, and where red reaches its limit
    assert (luma - luma.cummax(0).values).min() > -3


def test_full_saliency_on_black_is_the_top_of_the_map():
    images = torch.zeros(1, 3, 1, 1, dtype=torch.uint8)
    assert overlay(images, torch.ones(1, 1, 1)).flatten().tolist() == [252, 254, 164]


def test_the_picture_remains_under_the_heat():
    images = torch.tensor([0, 255], dtype=torch.uint8).expand(1, 3, 1, 2)
    dark, light = overlay(images, torch.full((1, 1, 2), 0.6)).double()[0, :, 0].sum(0)
    assert light - dark > 100


def test_a_batch_equals_its_samples():
    images, maps = pictures(), torch.rand(3, 12, 10)
    alone = [overlay(images[i : i + 1], maps[i : i + 1]) for i in range(3)]
    assert torch.equal(overlay(images, maps), torch.cat(alone))


def test_inputs_stay_as_they_are():
    images, maps = pictures(), torch.rand(3, 12, 10)
    before = images.clone(), maps.clone()
    overlay(images, maps)
    assert torch.equal(images, before[0]) and torch.equal(maps, before[1])


def test_not_finite_counts_as_none():
    images = pictures(1)
    assert torch.equal(overlay(images, torch.full((1, 12, 10), torch.nan)), dim(images))


def test_refusals():
    images, maps = pictures(), torch.zeros(3, 12, 10)
    with pytest.raises(ValueError, match=r"`images` must be uint8 \(N, 3, H, W\).*to_display"):
        overlay(images.float(), maps)
    with pytest.raises(ValueError, match=r"`maps` must be .*\(3, 12, 10\).*\(3, 10, 12\)"):
        overlay(images, maps.transpose(1, 2))
    with pytest.raises(ValueError, match=r"`alpha` must lie in \[0, 1\], but it is 2"):
        overlay(images, maps, alpha=2)
    with pytest.raises(ValueError, match=r"`cmap` \"jot\""):
        overlay(images, maps, cmap="jot")


def test_no_change_is_exactly_the_dimmed_picture():
    images = pictures()
    assert torch.equal(overlay_change(images, torch.zeros(3, 12, 10)), dim(images))
    assert torch.equal(overlay_change(images, torch.full((3, 12, 10), torch.nan)), dim(images))


def test_a_whole_change_on_black_is_the_colour_itself_and_half_of_it_half():
    black = torch.zeros(1, 3, 1, 4, dtype=torch.uint8)
    drawn = overlay_change(black, torch.tensor([[[1.0, -1.0, 0.5, -9.0]]]))[0, :, 0].T.tolist()
    assert drawn == [[255, 157, 60], [74, 168, 255], [128, 78, 30], [74, 168, 255]]


def test_changes_refuse():
    with pytest.raises(ValueError, match=r"`changes` must be .*\(3, 12, 10\).*\(3, 10, 12\)"):
        overlay_change(pictures(), torch.zeros(3, 10, 12))
    with pytest.raises(ValueError, match=r"`alpha` must lie in \[0, 1\], but it is -1"):
        overlay_change(pictures(), torch.zeros(3, 12, 10), alpha=-1)
