"""What masks mean: an object, or a segmentation with a class in each pixel."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from lightning_gcam import SaliencyBatch
from lightning_gcam.data import as_saliency_batch
from lightning_gcam.utils.errors import InputError
from tests.support.pasting import pasted

IMAGES = torch.rand(2, 1, 3, 4, generator=torch.Generator().manual_seed(0))
# classes 1, 2 and 3, the background and void
NUMBERS = torch.tensor(
    [
        [[0, 1, 1, 255], [0, 1, 2, 2], [3, 0, 0, 255]],
        [[2, 2, 2, 2], [0, 0, 3, 3], [255, 255, 255, 255]],
    ]
)


def read(*annotation: Any) -> SaliencyBatch:
    return as_saliency_batch((IMAGES, *annotation))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int64, torch.float32])
@pytest.mark.parametrize("channel", [False, True])
def test_a_segmentation_becomes_the_object_of_the_label(dtype: torch.dtype, channel: bool) -> None:
    numbers = NUMBERS.to(dtype)

    found = read(torch.tensor([2, 3]), numbers[:, None] if channel else numbers)

    assert found.masks.int().tolist() == [
        [[0, 0, 0, 0], [0, 0, 1, 1], [0, 0, 0, 0]],
        [[0, 0, 0, 0], [0, 0, 1, 1], [0, 0, 0, 0]],
    ]
    assert found.labels.tolist() == [2, 3]


def test_a_segmentation_becomes_the_objects_of_all_marked_classes() -> None:
    found = read(torch.tensor([[0, 1, 1, 0], [0, 0, 1, 0]]), NUMBERS)

    assert found.masks.flatten(1).sum(dim=1).tolist() == [5, 4]
    assert torch.equal(
        found.masks, (NUMBERS == 2) | ((NUMBERS == 1) & torch.tensor([True, False])[:, None, None])
    )


@pytest.mark.parametrize("key", ["mask", "label", "labels", "target"])
def test_without_labels_the_largest_class_is_the_label(key: str) -> None:
    """Three pixels of class 1 in the first; four of class 2 in the second, and as many void."""
    found = as_saliency_batch({"image": IMAGES, key: NUMBERS})

    assert found.labels.tolist() == [1, 2]
    assert torch.equal(found.masks, torch.stack([NUMBERS[0] == 1, NUMBERS[1] == 2]))


def test_a_sample_that_shows_nothing_has_no_label() -> None:
    numbers = torch.stack([NUMBERS[0], torch.where(NUMBERS[1] == 255, 255, 0)])

    found = read(numbers)

    assert found.labels.tolist() == [1, -1]
    assert not found.masks[1].any()


def test_a_batch_that_shows_nothing_has_labels_all_the_same() -> None:
    """A stream of batches of which only some have labels would lose them all."""
    assert read(torch.zeros(2, 3, 4)).labels.tolist() == [-1, -1]


def test_many_classes_are_counted_too() -> None:
    found = read(NUMBERS * 1_000_003)

    assert found.labels.tolist() == [1_000_003, 2_000_006]
    assert found.masks.flatten(1).sum(dim=1).tolist() == [3, 4]


@pytest.mark.parametrize("value", [1, 255, 7])
def test_one_number_beside_the_background_is_the_object_whatever_the_label(value: int) -> None:
    object_ = NUMBERS == 2

    found = read(torch.tensor([0, 3]), object_ * value)

    assert torch.equal(found.masks, object_)
    assert found.labels.tolist() == [0, 3]


def test_void_is_no_object_where_there_is_another() -> None:
    assert torch.equal(read(torch.tensor([0, 0]), torch.where(NUMBERS > 2, NUMBERS, 0)).masks, NUMBERS == 3)


def test_black_and_white_without_labels_is_an_object_and_no_class_255() -> None:
    for mask in (NUMBERS == 2, (NUMBERS == 2) * 255):
        found = read(mask)
        assert found.labels is None
        assert torch.equal(found.masks, NUMBERS == 2)


def test_background_only_is_no_object() -> None:
    """A healthy sample has label 0 and an empty segmentation; the whole image is not its object."""
    numbers = torch.stack([NUMBERS[0], torch.zeros_like(NUMBERS[1]), NUMBERS[1]])

    found = as_saliency_batch((torch.rand(3, 1, 3, 4), torch.tensor([1, 0, 2]), numbers))

    assert found.masks.flatten(1).sum(dim=1).tolist() == [3, 0, 4]


def test_ignored_pixels_are_not_the_object_of_no_label() -> None:
    assert not read(torch.tensor([-1, 2]), torch.where(NUMBERS == 255, -1, NUMBERS)).masks[0].any()


@pytest.mark.parametrize(
    "masks",
    [
        (NUMBERS == 2)[..., None],
        list(NUMBERS == 2),
        [each[None] for each in NUMBERS == 2],
        [each.numpy() for each in NUMBERS == 2],
        ((NUMBERS == 2) * 0.25).half(),
        (NUMBERS == 2).to_sparse(),
        np.asarray((NUMBERS == 2).numpy(), order="F"),
    ],
    ids=["channel last", "list", "list with channels", "numpy", "soft", "sparse", "Fortran"],
)
def test_objects_in_any_form(masks: Any) -> None:
    assert torch.equal(as_saliency_batch({"x": IMAGES, "y": [0, 1], "mask": masks}).masks, NUMBERS == 2)


def test_the_mask_of_a_single_image() -> None:
    assert as_saliency_batch({"x": IMAGES[:1], "mask": NUMBERS[0] == 1}).masks.sum() == 3


@pytest.mark.parametrize(
    ("labels", "masks", "message"),
    [
        (
            torch.tensor([7, 8]),
            NUMBERS,
            r"`masks` \(2, 3, 4\) int64 hold the numbers 1, 2, 3, which are not the",
        ),
        (torch.tensor([1.5, 2.5]), NUMBERS, "which are not the labels'"),
        (torch.tensor([0, 1]), NUMBERS * 0.3, r"`masks` \(2, 3, 4\) float32 hold numbers that are not whole"),
        (None, (NUMBERS == 2) * 0.5, r"`masks` \(2, 3, 4\) float32 hold numbers that are not whole"),
        (torch.tensor([0, 1]), NUMBERS / 0.0, "NaN or infinity"),
        (
            torch.tensor([0, 1]),
            NUMBERS[:, :2],
            r"must have the size of the images, \(2, 3, 4\); got \(2, 2, 4\)",
        ),
        (
            torch.tensor([0, 1]),
            NUMBERS[:, None].expand(-1, 5, -1, -1),
            "Its 5 channels may be instances or classes",
        ),
        (
            torch.tensor([0, 1]),
            NUMBERS[:1],
            r"must have the size of the images, \(2, 3, 4\); got \(1, 3, 4\)",
        ),
    ],
    ids=["others", "measured", "a depth map", "no label", "infinite", "rows", "channels", "too few"],
)
def test_refused_with_an_adapter_that_works(labels: Any, masks: Any, message: str) -> None:
    batch = {"x": IMAGES, "y": labels, "mask": masks}
    with pytest.raises(InputError, match=message) as caught:
        as_saliency_batch(batch)

    assert torch.equal(as_saliency_batch(batch, pasted(str(caught.value))).images, IMAGES)


def test_most_samples_must_show_their_label() -> None:
    assert not read(torch.tensor([1, 9]), NUMBERS).masks[1].any()
    with pytest.raises(InputError, match="which are not the labels'"):
        as_saliency_batch((IMAGES[[0, 0, 0]], [1, 9, 9], NUMBERS[[0, 0, 0]]))
