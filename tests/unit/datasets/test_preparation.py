"""What a model takes: the square, the scale, and masks and boxes that stay on their object."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import functional as tv_functional

from lightning_gcam.data.saliency_batch import boxes_to_masks
from lightning_gcam.datasets.base import IMAGENET_MEAN, IMAGENET_STD, Preparation
from lightning_gcam.datasets.rows import Annotation


def test_channels_are_scaled_and_normalized() -> None:
    image = Preparation(4)(Image.new("RGB", (60, 40), (255, 0, 51)), Annotation())["image"]
    expected = [(1 - 0.485) / 0.229, (0 - 0.456) / 0.224, (0.2 - 0.406) / 0.225]
    torch.testing.assert_close(image.mean(dim=(1, 2)), torch.tensor(expected))
    assert type(image) is torch.Tensor
    assert image.dtype == torch.float32


def test_the_image_is_what_torchvisions_older_functions_make_of_it() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    ours = Preparation(24)(Image.fromarray(pixels), Annotation())["image"]
    whole = torch.from_numpy(pixels).permute(2, 0, 1)
    theirs = tv_functional.resize(whole.float() / 255, [24, 24], antialias=True)
    theirs = tv_functional.normalize(theirs, IMAGENET_MEAN, IMAGENET_STD)
    level = 1 / 255 / min(IMAGENET_STD)  # ours is rounded to whole levels of grey, theirs is not
    torch.testing.assert_close(ours, theirs, atol=1.01 * level, rtol=0)
    assert (ours - theirs).abs().mean() < 0.3 * level


def test_nothing_is_added_that_the_annotation_lacks() -> None:
    assert Preparation(4)(Image.new("RGB", (8, 8)), Annotation()).keys() == {"image"}


def test_no_boxes_stay_no_boxes() -> None:
    sample = Preparation(4)(Image.new("RGB", (8, 8)), Annotation(boxes=torch.zeros(0, 4)))
    assert sample["boxes"].shape == (0, 4)


@pytest.mark.parametrize("box", [(3, 5, 44, 31), (1, 0, 60, 7), (17, 12, 18, 40), (0, 0, 60, 40)])
@pytest.mark.parametrize("size", [16, 20, 224])
def test_mask_and_box_of_an_object_stay_the_same_pixels(box: tuple[int, int, int, int], size: int) -> None:
    """Both are read at the pixels' centres, so they agree to the pixel, enlarged or reduced."""
    boxes = torch.tensor([box], dtype=torch.float32)
    mask = boxes_to_masks(boxes, (40, 60)).any(dim=0)
    sample = Preparation(size)(Image.new("RGB", (60, 40)), Annotation(boxes, mask))
    assert sample["mask"].equal(boxes_to_masks(sample["boxes"], (size, size)).any(dim=0))


def test_the_mask_lies_on_its_object() -> None:
    """A white object on black: what is brighter than half, after bilinear resizing, is the mask."""
    mask = torch.zeros(375, 500, dtype=torch.bool)
    mask[101:202, 103:304] = True
    picture = Image.fromarray((mask[..., None].expand(-1, -1, 3) * 255).to(torch.uint8).numpy())
    sample = Preparation(224)(picture, Annotation(mask=mask))
    bright = (sample["image"] * torch.tensor(IMAGENET_STD)[:, None, None]).mean(dim=0)
    bright = bright + torch.tensor(IMAGENET_MEAN).mean() > 0.5
    assert (bright & sample["mask"]).sum() / (bright | sample["mask"]).sum() > 0.99
