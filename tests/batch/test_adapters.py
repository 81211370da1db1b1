"""`as_saliency_batch`: every layout that is understood, and what is said of one that is not."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from typing import Any

import pytest
import torch

from lightning_gcam import SaliencyBatch
from lightning_gcam._errors import InputError
from lightning_gcam.batch import as_saliency_batch

N, H, W = 3, 6, 8
IMAGES = torch.rand(N, 2, H, W, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([2, 0, 1])
MASKS = torch.zeros(N, H, W, dtype=torch.bool)
MASKS[:, 1:3, 2:5] = True
BOXES = [torch.tensor([[2.0, 1.0, 5.0, 3.0]]) for _ in range(N)]

Pair = namedtuple("Pair", ["images", "labels"])


def test_a_saliency_batch_is_itself() -> None:
    batch = SaliencyBatch(IMAGES)

    assert as_saliency_batch(batch) is batch


def test_images_alone() -> None:
    assert as_saliency_batch(IMAGES).images is IMAGES
    assert as_saliency_batch([IMAGES]).labels is None


@pytest.mark.parametrize("kind", [tuple, list, lambda parts: Pair(*parts)])
def test_images_and_labels(kind: Any) -> None:
    batch = as_saliency_batch(kind([IMAGES, LABELS]))

    assert batch.images is IMAGES
    assert torch.equal(batch.labels, LABELS)
    assert batch.masks is batch.boxes is None


@pytest.mark.parametrize(
    "masks",
    [MASKS, MASKS[:, None], MASKS.to(torch.uint8) * 255, MASKS.float()[:, None], MASKS.long() * 3],
    ids=["bool", "one channel", "uint8", "float with a channel", "class numbers"],
)
def test_images_labels_and_masks(masks: torch.Tensor) -> None:
    batch = as_saliency_batch((IMAGES, LABELS, masks))

    assert batch.masks.dtype == torch.bool
    assert torch.equal(batch.masks, MASKS)
    assert batch.boxes is None


@pytest.mark.parametrize(
    "boxes",
    [BOXES, tuple(BOXES), torch.cat(BOXES), torch.stack(BOXES), [each[0] for each in BOXES]],
    ids=["list", "tuple", "one each", "several each", "list of single ones"],
)
def test_images_labels_and_boxes(boxes: Any) -> None:
    batch = as_saliency_batch((IMAGES, LABELS, boxes))

    assert batch.masks is None
    assert isinstance(batch.boxes, list)
    assert all(torch.equal(found, expected) for found, expected in zip(batch.boxes, BOXES, strict=True))
    assert torch.equal(batch.object_masks, MASKS)


@pytest.mark.parametrize("key", ["images", "image", "pixel_values", "x", "inputs", "input", "img", "imgs"])
def test_the_usual_keys_of_images(key: str) -> None:
    assert as_saliency_batch({key: IMAGES}).images is IMAGES


@pytest.mark.parametrize("key", ["labels", "label", "targets", "target", "y"])
def test_the_usual_keys_of_labels(key: str) -> None:
    assert torch.equal(as_saliency_batch({"image": IMAGES, key: LABELS}).labels, LABELS)


@pytest.mark.parametrize("key", ["masks", "mask", "segmentation"])
def test_the_usual_keys_of_masks(key: str) -> None:
    batch = as_saliency_batch(OrderedDict({"image": IMAGES, key: MASKS[:, None].float()}))

    assert torch.equal(batch.masks, MASKS)


@pytest.mark.parametrize("key", ["boxes", "box", "bboxes", "bbox"])
def test_the_usual_keys_of_boxes(key: str) -> None:
    assert torch.equal(as_saliency_batch({"image": IMAGES, key: torch.cat(BOXES)}).boxes[1], BOXES[1])


def test_the_other_fields_of_a_mapping() -> None:
    groups, suspect = torch.tensor([0, 1, 0]), torch.zeros(H, W, dtype=torch.bool)

    batch = as_saliency_batch(
        {"x": IMAGES, "group": groups, "suspect": suspect, "name": ("a", "b", "c"), "index": LABELS}
    )

    assert torch.equal(batch.groups, groups)
    assert torch.equal(batch.suspect, suspect)
    assert batch.names == ["a", "b", "c"]


def test_a_column_of_labels_is_a_vector() -> None:
    assert as_saliency_batch((IMAGES, LABELS[:, None])).labels.tolist() == [2, 0, 1]


def test_multi_hot_labels_stay() -> None:
    multi_hot = torch.eye(4)[LABELS]

    assert torch.equal(as_saliency_batch((IMAGES, multi_hot)).labels, multi_hot)


def test_a_list_of_classes() -> None:
    assert torch.equal(as_saliency_batch({"image": IMAGES, "label": [2, 0, 1]}).labels, LABELS)


def test_an_adapter_is_asked_first() -> None:
    batch = as_saliency_batch(
        {"view": IMAGES, "class": LABELS}, adapter=lambda batch: (batch["view"], batch["class"], MASKS)
    )

    assert torch.equal(batch.labels, LABELS)
    assert torch.equal(batch.masks, MASKS)


def test_an_adapter_may_give_a_saliency_batch() -> None:
    expected = SaliencyBatch(IMAGES)

    assert as_saliency_batch("anything", adapter=lambda batch: expected) is expected


def test_an_adapter_that_fails_is_named_with_what_it_got() -> None:
    with pytest.raises(
        InputError, match=r"`adapter` failed on the batch dict \{'view': Tensor.*KeyError: 'x'"
    ):
        as_saliency_batch({"view": IMAGES}, adapter=lambda batch: batch["x"])


@pytest.mark.parametrize(
    ("batch", "came"),
    [
        ("text", "str"),
        (None, "NoneType"),
        ({"view": IMAGES}, r"dict \{'view': Tensor \(3, 2, 6, 8\) float32\}"),
        ((), r"tuple \(\)"),
        ([[IMAGES, IMAGES], LABELS], r"list \(list \(Tensor .*\), Tensor \(3,\) int64\)"),
        ((IMAGES, LABELS, MASKS, LABELS), r"tuple \(Tensor .*, Tensor .*, Tensor \(3, 6, 8\) bool, Tensor"),
        ((IMAGES, LABELS, LABELS), r"tuple \(Tensor .*, Tensor \(3,\) int64, Tensor \(3,\) int64\)"),
        ((IMAGES.numpy(), LABELS), r"tuple \(ndarray, Tensor \(3,\) int64\)"),
    ],
    ids=["str", "None", "keys", "empty", "two views", "four parts", "an index behind", "numpy"],
)
def test_a_layout_that_is_not_understood(batch: Any, came: str) -> None:
    with pytest.raises(InputError, match=rf"The batch could not be read: {came}") as caught:
        as_saliency_batch(batch)
    assert "adapter=lambda batch: SaliencyBatch(images=batch[0], labels=batch[1])" in str(caught.value)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ((IMAGES, LABELS, MASKS[:, ::2]), r"`masks` must have the size of the images.*got \(3, 3, 8\) bool"),
        ({"image": IMAGES, "mask": MASKS[:, None, ::2]}, r"`masks` must have the size of the images"),
        ((IMAGES[0], LABELS), r"`images` must be 4-D.*got \(2, 6, 8\)"),
        ((IMAGES, LABELS[:2]), r"`labels` must be a tensor \(3,\)"),
        ((IMAGES, ["cat", "dog", "cat"]), r"`labels` must be a tensor \(3,\).*got list of length 3"),
        ({"image": [1, 2]}, r"`images` must be a tensor \(N, C, H, W\); got list"),
        ({"image": IMAGES, "boxes": [torch.rand(4, 5)] * 3}, r"`boxes\[0\]` must be a tensor \(M, 4\)"),
        ({"image": IMAGES, "mask": "a path"}, r"`masks` must have the size of the images.*got str"),
    ],
    ids=["mask size", "mask size in a dict", "3-D", "labels", "label names", "list", "boxes", "path"],
)
def test_a_part_that_does_not_fit_is_named(batch: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        as_saliency_batch(batch)
