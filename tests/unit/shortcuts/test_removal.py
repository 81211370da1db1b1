"""Removed regions: nothing of the object is left, nothing else is changed."""

from __future__ import annotations

import pytest
import torch

from lightning_gcam.shortcuts.regions import region_around, with_rim
from lightning_gcam.shortcuts.removal import boxes_of, remove_regions

NAMES = ("blur", "mean", "neighbours")


def square(
    n: int = 2, size: int = 24, top: int = 8, left: int = 8, height: int = 6, width: int = 6
) -> torch.Tensor:
    masks = torch.zeros(n, size, size, dtype=torch.bool)
    masks[:, top : top + height, left : left + width] = True
    return masks


# ------------------------------------------------------------------------------------------------- regions


def test_the_box_of_each_region_by_hand():
    regions = torch.zeros(3, 4, 6, dtype=torch.bool)
    regions[0, 1, 2] = regions[0, 3, 4] = True
    regions[1] = True
    assert boxes_of(regions).tolist() == [[2, 1, 5, 4], [0, 0, 6, 4], [0, 0, 0, 0]]


@pytest.mark.parametrize(("height", "width"), [(8, 2), (2, 8), (8, 8)])
def test_objects_of_the_same_longer_side_leave_the_same_region(height, width):
    """A narrow object must not leave a narrow hole."""
    masks = torch.zeros(1, 40, 40, dtype=torch.bool)
    masks[0, 20 - height // 2 : 20 + height // 2, 20 - width // 2 : 20 + width // 2] = True
    assert boxes_of(region_around(masks)).tolist() == [[15, 15, 25, 25]]


def test_two_outlines_of_one_size_leave_the_same_region():
    one, other = square(1), square(1)
    other[0, 9:13, 9:13] = False  # a ring
    assert torch.equal(region_around(one), region_around(other))


def test_at_the_edge_the_region_is_moved_and_not_cut():
    masks = square(1, top=0, left=20, height=4, width=4)
    assert boxes_of(region_around(masks)).tolist() == [[18, 0, 24, 6]]


def test_a_square_that_would_take_nearly_all_gives_way_to_the_box():
    masks = square(1, top=10, left=2, height=4, width=20)
    left, top, right, bottom = boxes_of(region_around(masks))[0].tolist()
    assert (left, right) == (0, 24)
    assert (top, bottom) == (7, 17)


def test_an_empty_mask_has_an_empty_region():
    masks = square(2)
    masks[1] = False
    assert not region_around(masks)[1].any()
    assert region_around(masks)[0].any()


def test_the_rim_is_one_pixel_on_a_small_image_and_grows_with_it():
    assert boxes_of(with_rim(square(1))).tolist() == [[7, 7, 15, 15]]
    assert boxes_of(with_rim(square(1, size=256, top=100, left=100))).tolist() == [[96, 96, 110, 110]]


# ------------------------------------------------------------------------------------------------- removal


def test_mean_and_neighbours_by_hand():
    images = torch.tensor([[[[2.0, 9.0, 9.0, 4.0, 5.0, 7.0]]]])
    region = torch.tensor([[[False, True, True, False, False, False]]])
    assert remove_regions(images, region, "mean").flatten().tolist() == [2, 4.5, 4.5, 4, 5, 7]
    # from the right, where there is the most room, mirrored: 5 4 | 4 5 7
    assert remove_regions(images, region, "neighbours").flatten().tolist() == [2, 5, 4, 4, 5, 7]


def test_a_short_strip_is_mirrored_to_and_fro():
    images = torch.arange(6.0).reshape(1, 1, 1, 6)
    region = torch.tensor([[[True, True, True, True, False, False]]])
    assert remove_regions(images, region, "neighbours").flatten().tolist() == [4, 5, 5, 4, 4, 5]


def test_blur_by_hand():
    """One removed pixel: sigma is 1, so the two next to it weigh exp(-1/2), the two behind them exp(-2)."""
    images = torch.tensor([[[[1.0, 3.0, 99.0, 5.0, 11.0]]]])
    region = torch.tensor([[[False, False, True, False, False]]])
    near, far = torch.tensor(-0.5).exp(), torch.tensor(-2.0).exp()
    expected = (far * 1 + near * 3 + near * 5 + far * 11) / (2 * near + 2 * far)
    assert remove_regions(images, region, "blur").flatten()[2] == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("removal", NAMES)
def test_nothing_of_the_region_is_left(removal):
    """Two images that differ inside only are the same afterwards: also their colour is gone."""
    images, masks = torch.rand(2, 3, 24, 24), square()
    others = torch.where(masks[:, None], torch.rand(2, 3, 24, 24) + 5, images)
    assert torch.equal(remove_regions(images, masks, removal), remove_regions(others, masks, removal))


@pytest.mark.parametrize("removal", [*NAMES, lambda images, regions: images + 7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.uint8])
def test_outside_nothing_is_changed_and_the_dtype_is_kept(removal, dtype):
    images = (torch.rand(2, 5, 24, 24) * 200).to(dtype)
    before, masks = images.clone(), square()
    made = remove_regions(images, masks, removal)
    outside = ~masks[:, None].expand_as(images)
    assert made.dtype == dtype
    assert torch.equal(made[outside], images[outside])
    assert not torch.equal(made, images)
    assert torch.equal(images, before)


@pytest.mark.parametrize("removal", NAMES)
def test_what_fills_a_region_lies_between_what_is_around(removal):
    images = torch.rand(2, 3, 24, 24)
    assert remove_regions(images, square(), removal).min() >= 0
    assert remove_regions(images, square(), removal).max() <= 1 + 1e-6


@pytest.mark.parametrize("removal", NAMES)
def test_a_batch_is_its_samples_one_by_one(removal):
    images, masks = torch.rand(3, 2, 24, 24), square(3)
    masks[1] = square(1, top=2, height=3)[0]
    masks[2] = False
    one_by_one = [remove_regions(images[i : i + 1], masks[i : i + 1], removal) for i in range(3)]
    assert torch.allclose(remove_regions(images, masks, removal), torch.cat(one_by_one), atol=1e-6)
    assert torch.equal(remove_regions(images, masks, removal)[2], images[2])


@pytest.mark.parametrize("removal", NAMES)
def test_a_region_of_any_shape(removal):
    """A frame has no strip beside it; all but one pixel, no more than that to fill from."""
    images, frame = torch.rand(1, 1, 12, 12), torch.ones(1, 12, 12, dtype=torch.bool)
    frame[0, 3:9, 3:9] = False
    almost = torch.ones(1, 12, 12, dtype=torch.bool)
    almost[0, 4, 4] = False
    assert remove_regions(images, frame, removal).isfinite().all()
    made = remove_regions(images, almost, removal)
    assert torch.allclose(made, images[0, 0, 4, 4].expand_as(made))


def test_whole_numbers_are_rounded_and_clamped():
    images = torch.tensor([[[[1, 0, 2]]]], dtype=torch.uint8)
    region = torch.tensor([[[False, True, False]]])
    assert remove_regions(images, region, "mean").flatten().tolist() == [1, 2, 2]
    too_bright = remove_regions(images, region, lambda images, regions: images.float() + 300)
    assert too_bright.flatten().tolist() == [1, 255, 2]


def test_an_unknown_removal_and_a_wrong_shape_are_refused():
    images, masks = torch.rand(2, 1, 24, 24), square()
    with pytest.raises(ValueError, match='`removal` "blurr" is not known. Did you mean "blur"?'):
        remove_regions(images, masks, "blurr")
    with pytest.raises(
        ValueError, match=r"`removal` must give images of the shape \(2, 1, 24, 24\); got \(2, 1\)"
    ):
        remove_regions(images, masks, lambda images, regions: images[..., 0, 0])


def test_where_the_region_is_all_there_is_the_mean_of_nothing_is_zero():
    images = torch.full((1, 2, 4, 4), 5.0)
    assert torch.equal(remove_regions(images, torch.ones(1, 4, 4, dtype=torch.bool), "mean"), images * 0)
