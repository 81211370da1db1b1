"""What a person sees is what the model was given."""

import pytest
import torch

from lightning_gcam.visual import check_normalize, shown_channels, to_display

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def pictures(channels=3, samples=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (samples, channels, 6, 5), generator=generator).to(torch.uint8)


def test_normalize_round_trip_recovers_the_picture():
    original = pictures()
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (MEAN, STD))
    shown = to_display((original / 255 - mean) / std, normalize=(MEAN, STD))
    assert (shown.int() - original.int()).abs().max() <= 1
    assert torch.equal(to_display((original / 255 - 0.5) / 0.5, normalize=(0.5, 0.5)), original)


def test_unit_range_and_uint8_are_kept():
    original = pictures()
    assert torch.equal(to_display(original), original)
    assert torch.equal(to_display(original, normalize=(MEAN, STD)), original)
    assert torch.equal(to_display(original / 255), original)
    dark = torch.full((1, 3, 2, 2), 0.2)
    assert to_display(dark).unique().tolist() == [51]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_every_float_dtype(dtype):
    original = pictures()
    shown = to_display((original / 255).to(dtype))
    assert (shown.int() - original.int()).abs().max() <= 1


def test_other_ranges_are_stretched_image_by_image():
    images = torch.stack([torch.tensor([-2.0, 0, 2]), torch.tensor([0.0, 5, 10])]).view(2, 1, 1, 3)
    assert to_display(images)[:, 0, 0].tolist() == [[0, 128, 255], [0, 128, 255]]


def test_one_scale_rule_for_the_whole_batch():
    images = torch.stack([torch.tensor([0.2, 0.4]), torch.tensor([-1.0, 1.0])]).view(2, 1, 1, 2)
    assert to_display(images)[0, 0, 0].tolist() == [0, 255]


def test_constant_image_is_mid_grey():
    assert to_display(torch.full((1, 3, 4, 4), 7.0)).unique().tolist() == [128]


def test_huge_values_do_not_overflow():
    images = torch.tensor([-3e38, 0.0, 3e38]).view(1, 1, 1, 3)
    assert to_display(images)[0, 0, 0].tolist() == [0, 128, 255]


def test_integers_and_booleans():
    assert to_display(torch.tensor([0, 500, 1000]).view(1, 1, 1, 3))[0, 1, 0].tolist() == [0, 128, 255]
    assert to_display(torch.tensor([True, False]).view(1, 1, 1, 2))[0, 1, 0].tolist() == [255, 0]


@pytest.mark.parametrize("normalize", [None, (0.5, 0.5)])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_not_finite_is_black_and_has_no_say_in_the_scale(bad, normalize):
    images = torch.tensor([-1.0, bad, 1.0]).view(1, 1, 1, 3)
    assert to_display(images, normalize)[0, 0, 0].tolist() == [0, 0, 255]
    assert to_display(torch.full((1, 3, 2, 2), bad), normalize).unique().tolist() == [0]


def test_channels_shown():
    many = pictures(channels=13)
    assert torch.equal(to_display(many), many[:, :3])
    two = pictures(channels=2)
    assert torch.equal(to_display(two), two[:, :1].expand(-1, 3, -1, -1))
    one = pictures(channels=1)
    assert torch.equal(to_display(one), one.expand(-1, 3, -1, -1))


def test_channels_in_words():
    words = [shown_channels(c) for c in (1, 2, 3, 4, 13)]
    assert words == [None, "channel 1 of 2", None, "channels 1-3 of 4", "channels 1-3 of 13"]


def test_normalize_takes_every_channel_before_three_are_shown():
    images = torch.zeros(1, 5, 1, 1)
    mean = (0.2, 0.4, 0.6, 0.8, 1.0)
    assert to_display(images, (mean, 1.0))[0, :, 0, 0].tolist() == [51, 102, 153]


def test_keeps_gradients_and_inference_out():
    images = torch.rand(1, 3, 2, 2, requires_grad=True)
    assert not to_display(images).requires_grad
    with torch.inference_mode():
        inside = to_display(torch.rand(1, 3, 2, 2) * 3)
    assert inside.shape == (1, 3, 2, 2)


def test_empty_batch():
    assert to_display(torch.zeros(0, 3, 4, 4)).shape == (0, 3, 4, 4)


def test_check_normalize_accepts():
    assert check_normalize((MEAN, STD), channels=3) == (MEAN, STD)
    assert check_normalize((0.5, 0.25)) == ((0.5,), (0.25,))
    assert check_normalize((torch.tensor([0.5, 0.25]), 2)) == ((0.5, 0.25), (2.0, 2.0))


@pytest.mark.parametrize(
    ("normalize", "channels", "match"),
    [
        (0.5, None, r"`normalize` must be a pair"),
        ((MEAN, STD, MEAN), None, r"`normalize` must be a pair"),
        (("a", "b"), None, r"`normalize` must be a pair"),
        (((), ()), None, r"`normalize` must be a pair"),
        ((float("nan"), 1.0), None, r"`normalize` must be a pair"),
        ((MEAN, (1, 0, 1)), None, r"every std above 0.*\(1.0, 0.0, 1.0\)"),
        ((MEAN, (1, 2)), None, r"3 means and 2 stds"),
        ((MEAN, STD), 4, r"for 3 channels, but the images have 4"),
    ],
)
def test_check_normalize_refuses(normalize, channels, match):
    with pytest.raises(ValueError, match=match):
        check_normalize(normalize, channels)


def test_to_display_refuses():
    with pytest.raises(ValueError, match=r"`images` must be \(N, C, H, W\).*\(3, 4, 4\)"):
        to_display(torch.zeros(3, 4, 4))
