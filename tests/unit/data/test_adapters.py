"""`as_saliency_batch`: every layout that is understood, and what is said of one that is not."""

from __future__ import annotations

from collections import OrderedDict, UserDict, namedtuple
from dataclasses import make_dataclass
from typing import Any

import pytest
import torch
from torch.utils.data import default_collate
from torchvision import tv_tensors

from lightning_gcam import SaliencyBatch
from lightning_gcam.data import as_saliency_batch
from lightning_gcam.data.fields import KEYS
from lightning_gcam.utils.errors import InputError
from tests.support.pasting import pasted

N, H, W = 3, 6, 8
IMAGES = torch.rand(N, 2, H, W, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([2, 0, 1])
MASKS = torch.zeros(N, H, W, dtype=torch.bool)
for _row in range(N):  # in another place in each, so that no sample is mistaken for another
    MASKS[_row, 1:3, 2 + _row : 5 + _row] = True
BOXES = [torch.tensor([[2.0 + row, 1.0, 5.0 + row, 3.0]]) for row in range(N)]

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


@pytest.mark.parametrize("key", [*KEYS["images"], "Image", "X"])
def test_the_usual_keys_of_images(key: str) -> None:
    assert as_saliency_batch({key: IMAGES}).images is IMAGES


@pytest.mark.parametrize("key", [*KEYS["labels"], "Label"])
def test_the_usual_keys_of_labels(key: str) -> None:
    assert torch.equal(as_saliency_batch({"image": IMAGES, key: LABELS}).labels, LABELS)


@pytest.mark.parametrize("key", KEYS["masks"])
def test_the_usual_keys_of_masks(key: str) -> None:
    batch = as_saliency_batch(OrderedDict({"image": IMAGES, key: MASKS[:, None].float()}))

    assert torch.equal(batch.masks, MASKS)


@pytest.mark.parametrize("key", KEYS["boxes"])
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


# ------------------------------------------------------------------------------------------- structures


NAMED = {"image": IMAGES, "label": LABELS, "mask": MASKS}


@pytest.mark.parametrize(
    "batch",
    [
        UserDict(NAMED),
        make_dataclass("Sample", list(NAMED))(**NAMED),
        namedtuple("Sample", list(NAMED))(**NAMED),
        {"image": IMAGES, "target": {"label": LABELS, "mask": MASKS}},
        {"image": IMAGES, "label": LABELS, "annotation": {"mask": MASKS, "label": LABELS + 1}},
        (IMAGES, {"labels": LABELS, "masks": MASKS}),
        (IMAGES, MASKS, LABELS),
        (LABELS, IMAGES, None, MASKS),
        (IMAGES, LABELS, MASKS, {"path": ["a", "b", "c"], "size": LABELS}),
        {"data": (IMAGES, LABELS, MASKS), "meta": {"epoch": 3}},
        [{"image": IMAGES, "label": LABELS, "mask": MASKS}],
        [({"image": IMAGES, "label": LABELS, "mask": MASKS}), "validation", 3],
        [
            {"image": image, "label": label, "mask": mask}
            for image, label, mask in zip(IMAGES, LABELS, MASKS, strict=True)
        ],
        [(image, int(label), mask) for image, label, mask in zip(IMAGES, LABELS, MASKS, strict=True)],
        (list(IMAGES), LABELS, list(MASKS)),
        [tuple(IMAGES), tuple(LABELS.tolist()), tuple(MASKS)],
        {"image": IMAGES.numpy(), "label": LABELS.numpy(), "mask": MASKS.numpy()},
        (tv_tensors.Image(IMAGES), LABELS, tv_tensors.Mask(MASKS)),
        {**NAMED, "x": IMAGES, "y": None, "path": "a.png", 7: LABELS + 1},
        {**NAMED, "class_name": ["a", "b", "c"], "class": ["a", "b", "c"], "pixel_mask": LABELS},
        {"image": IMAGES + 1, "pixel_values": IMAGES, "label": LABELS, "mask": MASKS},
    ],
    ids=[
        *("UserDict", "dataclass", "named tuple", "nested", "nested, the outer one counts"),
        *(
            "tuple and dict",
            "another order",
            "None between",
            "unknown names behind",
            "inside",
            "alone in a list",
            "beside words",
        ),
        *("dicts one by one", "tuples one by one", "lists", "lists of tuples", "numpy", "tv_tensors"),
        *("the same twice", "words beside numbers", "raw images beside"),
    ],
)
def test_structures(batch: Any) -> None:
    found = as_saliency_batch(batch)

    assert type(found.images) is type(found.masks) is torch.Tensor
    assert torch.equal(found.images, IMAGES)
    assert torch.equal(found.labels, LABELS)
    assert torch.equal(found.masks, MASKS)


def test_what_a_hugging_face_processor_gives() -> None:
    features = pytest.importorskip("transformers.feature_extraction_utils")

    found = as_saliency_batch(features.BatchFeature({"pixel_values": IMAGES, "labels": LABELS}))

    assert torch.equal(found.images, IMAGES)
    assert torch.equal(found.labels, LABELS)


def test_two_samples_and_two_columns_are_told_apart_by_their_shapes() -> None:
    samples = [(image, mask[None]) for image, mask in zip(IMAGES[:2], MASKS[:2], strict=True)]

    for batch in (samples, list(zip(*samples, strict=True))):
        found = as_saliency_batch(batch)
        assert torch.equal(found.images, IMAGES[:2])
        assert torch.equal(found.masks, MASKS[:2])


def test_words_behind_labels_are_names() -> None:
    assert as_saliency_batch((IMAGES, LABELS, ("a", "b", "c"))).names == ["a", "b", "c"]
    assert as_saliency_batch({"image": IMAGES, "file_name": "all.zip"}).names is None
    assert as_saliency_batch({"image": IMAGES, "file_name": ["a", "b"]}).names is None
    assert as_saliency_batch({"image": IMAGES, "name": [7, 8, 9]}).names == ["7", "8", "9"]


def test_what_torch_collates_from_lists_of_numbers() -> None:
    boxes, marks = [(1, 2, 4, 5), (0, 1, 7, 3), (2, 2, 3, 6)], [[1, 0, 0, 1], [0, 1, 0, 0], [1, 1, 0, 0]]
    rows = zip(IMAGES, boxes, marks, strict=True)
    samples = [{"image": image, "bbox": box, "y": mark} for image, box, mark in rows]

    found = as_saliency_batch(default_collate(samples))

    assert found.labels.tolist() == marks
    assert [each.tolist() for each in found.boxes] == [[list(box)] for box in boxes]


def test_a_region_and_groups_in_any_form() -> None:
    suspect, groups = MASKS.to(torch.uint8)[:, None] * 255, LABELS[:, None]

    found = as_saliency_batch({"x": IMAGES, "suspect": suspect, "groups": groups.numpy()})

    assert torch.equal(found.suspect, MASKS)
    assert torch.equal(found.groups, LABELS)


# ------------------------------------------------------------------------------- what is not clear is refused


@pytest.mark.parametrize(
    ("batch", "came"),
    [
        ({"view": IMAGES}, r"dict \{'view': Tensor \(3, 2, 6, 8\) float32\}"),
        ((IMAGES, LABELS, MASKS, LABELS), r"tuple \(Tensor .*, Tensor .*, Tensor \(3, 6, 8\) bool, Tensor"),
        ((IMAGES, LABELS, "a path"), "Not every part of it is known"),
        ((IMAGES, LABELS, LABELS), r"tuple \(Tensor \(3, 2, 6, 8\) float32, Tensor \(3,\) int64, Tensor"),
        ({"a": (IMAGES, LABELS), "b": (IMAGES, LABELS)}, r"dict \{'a': tuple .* 2 parts of it could each be"),
        ({"image": IMAGES, "x": IMAGES + 1}, "'image' and 'x' could each be the images, and they differ"),
        ({"image": IMAGES, "y": LABELS, "target": LABELS + 1}, "'y' and 'target' could each be the labels"),
        ((IMAGES, torch.rand(N, 6, 8)), "numbers that are not whole: neither classes nor an object's mask"),
        (
            [(IMAGES[0], IMAGES[1]), (IMAGES[1], IMAGES[2])],
            "a list of samples, or a list of images and a list",
        ),
        (
            (torch.rand(N, 2, 3, 4), torch.tensor([[0, 0, 2, 2]] * 3).expand(N, 3, 4)),
            "could be masks as well as",
        ),
    ],
    ids=[
        *("keys", "four parts", "a word", "an index behind", "two batches", "two images", "two labels"),
        *("a depth map", "samples or columns", "masks or boxes"),
    ],
)
def test_a_layout_that_is_not_understood(batch: Any, came: str) -> None:
    with pytest.raises(InputError, match=rf"The batch could not be read: .*{came}") as caught:
        as_saliency_batch(batch)

    assert "Pass `adapter=`" in str(caught.value)
    assert as_saliency_batch(batch, pasted(str(caught.value))).images.ndim == 4


@pytest.mark.parametrize(
    ("batch", "came"),
    [
        ("text", "str"),
        (None, "NoneType"),
        ((), r"tuple \(\)"),
        ({"image": None}, r"dict \{'image': NoneType\}"),
    ],
    ids=["str", "None", "empty", "no image"],
)
def test_without_images_no_code_is_shown_that_would_not_work(batch: Any, came: str) -> None:
    with pytest.raises(InputError, match=rf"The batch could not be read: {came}. Pass `adapter=`") as caught:
        as_saliency_batch(batch)

    assert "lambda" not in str(caught.value)
    assert "no example would work here, docs/guides/batch.md has some" in str(caught.value)


@pytest.mark.parametrize(
    ("batch", "message", "field"),
    [
        (
            (IMAGES, LABELS, MASKS[:, ::2]),
            r"`masks` must have the size of the images.*got \(3, 3, 8\) bool",
            "masks",
        ),
        (
            {"image": IMAGES, "mask": MASKS[:, None, ::2]},
            r"`masks` must have the size of the images",
            "masks",
        ),
        ((IMAGES[0], LABELS), r"`images` must be .*got \(2, 6, 8\)", None),
        ((IMAGES[:, 0], LABELS), r"`images` must be .*got \(3, 6, 8\)", "labels"),
        (
            (torch.rand(N, 28, 28, 1), LABELS),
            r"`images` \(3, 28, 28, 1\) float32 seem to have.*last",
            "labels",
        ),
        (([*IMAGES[:2], IMAGES[2, :, :5]], LABELS), r"several sizes: \(2, 6, 8\), \(2, 5, 8\)", "labels"),
        ((IMAGES, LABELS[:2]), r"`labels` must be a tensor \(3,\)", None),
        ({"image": IMAGES, "boxes": [torch.rand(4, 5)] * 3}, r"`boxes\[0\]` must be a tensor \(M, 4\)", None),
        ({"image": IMAGES, "mask": "a path"}, r"`masks` must have the size of the images.*got str", None),
        (
            {"image": IMAGES, "group": ["a", "b", "c"]},
            r"`groups` must be an integer tensor \(3,\); got list",
            None,
        ),
        ({"image": IMAGES, "suspect": LABELS}, r"`suspect` must be bool of shape \(6, 8\)", None),
    ],
    ids=[
        *("mask size", "mask size in a dict", "one image", "no channel", "channels last", "sizes"),
        *("labels", "boxes", "path", "groups", "suspect"),
    ],
)
def test_a_part_that_does_not_fit_is_named(batch: Any, message: str, field: str | None) -> None:
    with pytest.raises(InputError, match=message) as caught:
        as_saliency_batch(batch)

    settled = as_saliency_batch(batch, pasted(str(caught.value)))

    assert settled.images.ndim == 4
    assert field is None or getattr(settled, field) is not None


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({"image": [1, 2]}, r"`images` must be a tensor \(N, C, H, W\), .*; got list"),
        ((IMAGES[:0], LABELS[:0]), "`images` holds no sample"),
        ((IMAGES[..., :0], LABELS), r"at least one channel and one pixel; got \(3, 2, 6, 0\)"),
        ((IMAGES.to(torch.complex64), LABELS), "`images` must be real numbers.*complex64"),
    ],
    ids=["list", "no sample", "no pixel", "complex"],
)
def test_images_that_no_adapter_could_save(batch: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        as_saliency_batch(batch)


def test_a_segmentation_of_another_size_keeps_its_classes() -> None:
    segmentation = torch.tensor([[0, 2], [1, 0]]).expand(N, 2, 2)
    batch = {"image": IMAGES, "label": torch.tensor([2, 1, 2]), "mask": segmentation}
    with pytest.raises(InputError, match="Resize them first") as caught:
        as_saliency_batch(batch)

    found = as_saliency_batch(batch, pasted(str(caught.value)))

    assert found.labels.tolist() == [2, 1, 2]
    assert found.masks[0].nonzero().min(dim=0).values.tolist() == [0, 4]  # rows 0 to 2, columns 4 to 7
    assert found.masks.flatten(1).sum(dim=1).tolist() == [12, 12, 12]


def test_what_an_adapter_gives_is_said_to_be_its() -> None:
    with pytest.raises(
        InputError, match=r"could not be read: dict \{.*This is what `adapter` gave; let it give"
    ):
        as_saliency_batch((IMAGES, LABELS), adapter=lambda batch: {"view": batch[0]})


class Broken(dict[str, Any]):
    """A container that raises when it is looked into."""

    def keys(self) -> Any:
        raise RuntimeError("the file is closed")


def test_a_container_that_raises_is_refused_with_its_reason() -> None:
    with pytest.raises(
        InputError, match="could not be read: Broken, which raised RuntimeError: the file is closed"
    ):
        as_saliency_batch(Broken(image=IMAGES))
