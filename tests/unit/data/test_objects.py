"""Detection targets: the label is the class of the largest object; mask and boxes are those of that class."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torchvision import tv_tensors

from lightning_gcam import SaliencyBatch
from lightning_gcam.data import as_saliency_batch
from lightning_gcam.utils.errors import InputError
from tests.support.pasting import pasted

IMAGES = torch.rand(2, 3, 4, 6, generator=torch.Generator().manual_seed(0))
# areas 4, 6, 2 and 1; the box of the last one is the largest
BOXES = torch.tensor([[0.0, 0.0, 2.0, 2.0], [3.0, 0.0, 6.0, 2.0], [0.0, 2.0, 2.0, 3.0], [0.0, 0.0, 6.0, 4.0]])
MASKS = torch.zeros(4, 4, 6, dtype=torch.uint8)
for index, (rows, columns) in enumerate(
    [((0, 2), (0, 2)), ((0, 2), (3, 6)), ((2, 3), (0, 2)), ((3, 4), (5, 6))]
):
    MASKS[index, slice(*rows), slice(*columns)] = 1
LABELS = torch.tensor([8, 5, 5, 8])
NONE = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long), "masks": torch.zeros(0, 4, 6)}


def read(*targets: dict[str, Any], **options: Any) -> SaliencyBatch:
    return as_saliency_batch((list(IMAGES[: len(targets)]), list(targets)), **options)


def test_the_largest_mask_decides() -> None:
    """Six pixels of class 5 beside four of class 8, though one box of class 8 is the whole image."""
    found = read(
        {"boxes": BOXES, "labels": LABELS, "masks": MASKS, "image_id": 7, "iscrowd": torch.zeros(4)}, NONE
    )

    assert torch.equal(found.images, IMAGES)
    assert found.labels.tolist() == [5, -1]
    assert found.masks[0].int().tolist() == [
        [0, 0, 0, 1, 1, 1],
        [0, 0, 0, 1, 1, 1],
        [1, 1, 0, 0, 0, 0],
        [0] * 6,
    ]
    assert not found.masks[1].any()
    assert [each.tolist() for each in found.boxes] == [BOXES[1:3].tolist(), []]


def test_without_masks_the_largest_box_decides() -> None:
    found = read({"boxes": BOXES, "labels": LABELS})

    assert found.labels.tolist() == [8]
    assert found.masks is None
    assert found.boxes[0].tolist() == BOXES[[0, 3]].tolist()


def test_a_broken_box_is_not_the_largest() -> None:
    broken = torch.tensor([[5.0, 3.0, 0.0, 0.0], [float("nan")] * 4, [0.0, 0.0, 6.0, 2.0]])

    assert read({"boxes": broken, "labels": torch.tensor([1, 2, 3])}).labels.tolist() == [3]


def test_without_labels_all_objects_count() -> None:
    found = read({"boxes": BOXES[:2]}, {"boxes": BOXES[2:]})

    assert found.labels is None
    assert [len(each) for each in found.boxes] == [2, 2]


def test_of_equal_ones_the_first_decides() -> None:
    assert read({"boxes": BOXES[[0, 0]], "labels": torch.tensor([3, 1])}).labels.tolist() == [3]


@pytest.mark.parametrize(
    "target",
    [
        {"boxes": BOXES.numpy(), "labels": LABELS.tolist(), "masks": tv_tensors.Mask(MASKS)},
        {"bboxes": BOXES.tolist(), "category_ids": np.array([8, 5, 5, 8]), "mask": MASKS[:, None].float()},
        {
            "boxes": tv_tensors.BoundingBoxes(BOXES * 2, format="XYXY", canvas_size=(8, 12)),
            "labels": ["d", "c", "c", "d"],
            "masks": MASKS.bool(),
        },
    ],
    ids=["arrays", "other names", "words and a canvas"],
)
def test_targets_in_any_form(target: dict[str, Any]) -> None:
    found = read(target, class_names=["_"] * 5 + ["c", "_", "_", "d"])

    assert found.labels.tolist() == [5]
    assert found.boxes[0].tolist() == BOXES[1:3].tolist()
    assert found.masks.sum() == 8


def test_shares_of_the_image_as_hugging_face_has_them() -> None:
    """DETR's `class_labels` stand beside centre, width and height as shares."""
    corners, size = BOXES[:2], torch.tensor([6.0, 4.0])
    boxes = torch.cat(
        [(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]], dim=1
    ) / size.repeat(2)
    batch = {
        "pixel_values": IMAGES,
        "pixel_mask": torch.ones(2, 4, 6),
        "labels": [
            {"class_labels": LABELS[:2], "boxes": boxes, "size": torch.tensor([4, 6])},
            {"class_labels": LABELS[:0], "boxes": BOXES[:0]},
        ],
    }

    found = as_saliency_batch(batch)

    assert found.labels.tolist() == [5, -1]
    assert torch.allclose(found.boxes[0], BOXES[1:2])
    assert found.boxes[1].shape == (0, 4)


def test_columns_as_mask2former_and_torchgeo_have_them() -> None:
    former = as_saliency_batch(
        {
            "pixel_values": IMAGES,
            "mask_labels": [MASKS.float(), MASKS[:1].float()],
            "class_labels": [LABELS, LABELS[:1]],
        }
    )
    geo = as_saliency_batch({"image": IMAGES, "label": [LABELS, LABELS[:1]], "bbox_xyxy": [BOXES, BOXES[:1]]})
    table = as_saliency_batch({"image": IMAGES, "label": LABELS.expand(2, 4), "boxes": BOXES.expand(2, 4, 4)})

    assert former.labels.tolist() == [5, 8]
    assert former.masks.flatten(1).sum(dim=1).tolist() == [8, 4]
    assert geo.labels.tolist() == [8, 8]
    assert [len(each) for each in geo.boxes] == [2, 1]
    assert table.labels.tolist() == [8, 8]


def test_one_label_for_each_image_in_the_target() -> None:
    found = read({"labels": 4, "boxes": BOXES[0]}, {"labels": torch.tensor(2), "boxes": BOXES[:2]})

    assert found.labels.tolist() == [4, 2]
    assert [len(each) for each in found.boxes] == [1, 2]


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ([{"boxes": BOXES, "labels": LABELS[:3]}], "An image has 4 and 3 boxes, masks or labels"),
        (
            [{"boxes": BOXES, "labels": LABELS, "masks": MASKS[:, :2]}],
            r"must be \(M, 4, 6\); got \(4, 2, 6\)",
        ),
        ([{"boxes": BOXES, "labels": LABELS * 0.3}], r"must be classes \(M,\); got \(4,\) float32"),
        ([{"boxes": BOXES, "labels": LABELS}, {"boxes": BOXES}], "Only some of the images have labels"),
        ([{"labels": LABELS}], "several classes, and nothing says how large they are"),
        ([{"boxes": torch.tensor([[3, 2, 1, 1]]), "labels": LABELS[:1]}], "x1 <= x2"),
    ],
    ids=["counts", "mask size", "no classes", "some labels", "no areas", "corners"],
)
def test_refused_with_an_adapter_that_works(targets: list[Any], message: str) -> None:
    batch = (IMAGES[: len(targets)], targets)
    with pytest.raises(InputError, match=message) as caught:
        as_saliency_batch(batch)

    assert torch.equal(as_saliency_batch(batch, pasted(str(caught.value))).images, batch[0])


def test_as_many_targets_as_images() -> None:
    with pytest.raises(InputError, match="There are 1 detection targets for 2 images"):
        as_saliency_batch({"image": IMAGES, "target": [NONE]})


def test_marks_or_classes_of_boxes() -> None:
    with pytest.raises(InputError, match="could be marks of classes, or the class of each box"):
        as_saliency_batch({"image": IMAGES, "label": torch.ones(2, 4).long(), "boxes": BOXES.expand(2, 4, 4)})
