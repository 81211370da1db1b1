"""Boxes in any format and on any canvas become corners in pixels of the image."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torchvision import tv_tensors

from lightning_gcam.data import as_saliency_batch
from lightning_gcam.data import boxes as reading
from lightning_gcam.utils.errors import InputError
from tests.support.pasting import pasted

IMAGES = torch.rand(2, 1, 6, 8, generator=torch.Generator().manual_seed(0))
CORNERS = [[1.0, 2.0, 4.0, 6.0]]
WRITTEN = {
    "XYXY": [1, 2, 4, 6],
    "XYWH": [1, 2, 3, 4],
    "CXCYWH": [2.5, 4, 3, 4],
    "XYWHR": [1, 2, 3, 4, 0],
    "CXCYWHR": [2.5, 4, 3, 4, 0],
    "XYXYXYXY": [1, 2, 4, 2, 4, 6, 1, 6],
}
FORMATS = [name for name in WRITTEN if hasattr(tv_tensors.BoundingBoxFormat, name)]


def read(boxes: Any, images: torch.Tensor = IMAGES) -> list[Any]:
    found = as_saliency_batch({"image": images, "boxes": boxes}).boxes
    assert found is not None
    assert {type(each) for each in found} == {torch.Tensor}
    return [each.tolist() for each in found]


def wrapped(name: str, canvas: tuple[int, int] = (6, 8), count: int = 1) -> Any:
    rows = torch.tensor([WRITTEN[name]] * count, dtype=torch.float32)
    return tv_tensors.BoundingBoxes(rows, format=name, canvas_size=canvas)


@pytest.mark.parametrize("name", FORMATS)
def test_every_format(name: str) -> None:
    assert read([wrapped(name), wrapped(name)]) == [CORNERS, CORNERS]
    assert read(wrapped(name, count=2)) == [CORNERS, CORNERS]
    assert as_saliency_batch((IMAGES, [wrapped(name)] * 2)).boxes[0].tolist() == CORNERS


@pytest.mark.parametrize("name", FORMATS)
def test_another_canvas_is_scaled(name: str) -> None:
    """Twice as high and half as wide as the image."""
    assert read([wrapped(name, canvas=(12, 4))] * 2) == [[[2.0, 1.0, 8.0, 3.0]]] * 2


def test_a_rotated_box_becomes_its_outline() -> None:
    if "CXCYWHR" not in FORMATS:
        pytest.skip("this torchvision has no rotated boxes")
    box = tv_tensors.BoundingBoxes([[4.0, 3.0, 4.0, 2.0, 90.0]], format="CXCYWHR", canvas_size=(6, 8))

    (found,) = as_saliency_batch({"image": IMAGES[:1], "boxes": box}).boxes

    assert torch.allclose(found, torch.tensor([[3.0, 1.0, 5.0, 5.0]]), atol=1e-4)


def test_whole_numbers_are_scaled_as_numbers() -> None:
    box = tv_tensors.BoundingBoxes(torch.tensor([[1, 1, 2, 3]]), format="XYXY", canvas_size=(3, 4))

    assert read([box, box]) == [[[2.0, 2.0, 4.0, 6.0]]] * 2


@pytest.mark.parametrize(
    "boxes",
    [
        torch.tensor([[1.0, 2, 4, 6]] * 2),
        torch.tensor([[[1.0, 2, 4, 6]]] * 2),
        [[[1, 2, 4, 6]], [[1, 2, 4, 6]]],
        [(1, 2, 4, 6), (1, 2, 4, 6)],
        [torch.tensor([[1, 2, 4, 6]]), torch.tensor([1, 2, 4, 6])],
    ],
    ids=["one each", "several each", "nested lists", "tuples", "mixed"],
)
def test_plain_numbers_are_corners(boxes: Any) -> None:
    assert read(boxes) == [CORNERS, CORNERS]


def test_several_and_none() -> None:
    assert read([[[1, 2, 4, 6], [0, 0, 8, 6]], []]) == [[[1, 2, 4, 6], [0, 0, 8, 6]], []]
    assert read([torch.zeros(0), torch.zeros(0, 4)]) == [[], []]


def test_a_broken_box_among_others_holds_nothing() -> None:
    """As x, y, width and height, the others would not fit into the image."""
    boxes = [[[1, 2, 4, 6], [5, 3, 2, 2]], [[float("nan")] * 4, [4, 0, 8, 1]]]

    found = as_saliency_batch({"image": IMAGES, "boxes": boxes})

    assert found.object_masks.flatten(1).sum(dim=1).tolist() == [12, 4]


def test_the_boxes_of_a_single_image() -> None:
    two = torch.tensor([[1, 2, 4, 6], [0, 0, 8, 6]])

    assert read(two, IMAGES[:1]) == read([two], IMAGES[:1]) == [two.tolist()]
    assert read(wrapped("XYWH", count=2), IMAGES[:1]) == [CORNERS * 2]


@pytest.mark.parametrize(
    ("boxes", "message", "settled"),
    [
        ([[[5, 4, 3, 2]], [[1, 2, 3, 4]]], "Are they x, y, width, height", [[[5, 4, 8, 6]], [[1, 2, 4, 6]]]),
        ([[[0.25, 0.5, 1.0, 1.0]], []], "Are they shares of width and height", [[[2, 3, 8, 6]], []]),
        ([torch.ones(1, 4) > 0, torch.ones(1, 4) > 0], r"must be numbers of pixels; got \(1, 4\) bool", None),
        ([[[1, 2, 4]], [[1, 2, 4]]], r"`boxes\[0\]` must be a tensor \(M, 4\)", None),
        ([[[1, 2, 4, 6]]], r"`boxes` must be a list of 2 tensors \(M, 4\).*got list of length 1", None),
        ("boxes.json", r"`boxes` must be a list of 2 tensors \(M, 4\)", None),
    ],
    ids=["xywh", "shares", "bool", "three numbers", "too few", "path"],
)
def test_refused_with_an_adapter_that_works(boxes: Any, message: str, settled: Any) -> None:
    batch = {"image": IMAGES, "boxes": boxes}
    with pytest.raises(InputError, match=message) as caught:
        as_saliency_batch(batch)

    found = as_saliency_batch(batch, pasted(str(caught.value)))

    assert torch.equal(found.images, IMAGES)
    assert settled is None or [each.tolist() for each in found.boxes] == settled


def test_four_of_four_may_be_rows_or_columns() -> None:
    images, columns = (
        torch.rand(4, 1, 6, 8),
        [torch.tensor([1, 1, 0, 0]), torch.zeros(4), torch.full((4,), 5), torch.full((4,), 3)],
    )
    with pytest.raises(InputError, match="4 tensors of 4 numbers: a box for each sample, or") as caught:
        as_saliency_batch({"image": images, "boxes": columns})

    found = as_saliency_batch({"image": images, "boxes": columns}, pasted(str(caught.value)))

    assert [each.tolist() for each in found.boxes[1:3]] == [[[1, 0, 5, 3]], [[0, 0, 5, 3]]]


# ---------------------------------------------------------------------------------- formats by name and by form


INSIDE = torch.tensor(
    [[1.0, 2.0, 3.0, 4.0], [2.5, 4.0, 3.0, 4.0]]
)  # as x, y, w, h, and as cx, cy, w, h, of CORNERS
SHARES = torch.tensor([8.0, 6.0, 8.0, 6.0])


@pytest.mark.parametrize(
    "key", ["boxes_xywh", "bbox_xywh", "bboxes_coco", "XYWH", "boxes_cxcywh", "bbox_yolo", "cxcywh"]
)
@pytest.mark.parametrize("shares", [False, True])
@pytest.mark.parametrize("way", ["one each", "several each", "list", "target", "samples"])
def test_the_name_says_the_format(key: str, shares: bool, way: str) -> None:
    box = INSIDE[0] if key.lower().endswith(("_xywh", "coco")) or key == "XYWH" else INSIDE[1]
    box = box / SHARES if shares else box
    batch: Any = {"image": IMAGES, key: box.expand(2, 4)}
    if way == "several each":
        batch[key] = box.expand(2, 1, 4)
    if way == "list":
        batch[key] = [box[None], box.tolist()]
    if way == "target":
        batch = (IMAGES, [{key: box[None], "labels": torch.tensor([1])}] * 2)
    if way == "samples":
        batch = [{"image": image, key: box} for image in IMAGES]

    found = as_saliency_batch(batch).boxes

    for each in found:
        torch.testing.assert_close(each, torch.tensor(CORNERS), atol=1e-4, rtol=0)


def test_whole_numbers_stay_whole_where_the_name_says_the_format() -> None:
    assert as_saliency_batch({"image": IMAGES, "bbox_xywh": torch.tensor([[1, 2, 3, 4]] * 2)}).boxes[
        0
    ].tolist() == [[1, 2, 4, 6]]


@pytest.mark.parametrize("beside", ["category_id", "category", "iscrowd"])
def test_a_bbox_as_coco_has_it(beside: str) -> None:
    """It is x, y, width, height there; where the numbers can be corners as well it is not guessed."""
    annotation = {"image": IMAGES, beside: torch.tensor([1, 0])}
    as_extent = as_saliency_batch(
        {**annotation, "bbox": torch.tensor([[5.0, 4.0, 2.0, 1.0], [1.0, 2.0, 3.0, 4.0]])}
    )
    as_corners = as_saliency_batch(
        {**annotation, "bbox": torch.tensor([[5.0, 4.0, 8.0, 6.0], [1.0, 2.0, 3.0, 4.0]])}
    )

    assert [each.tolist() for each in as_extent.boxes] == [[[5, 4, 7, 5]], [[1, 2, 4, 6]]]
    assert [each.tolist() for each in as_corners.boxes] == [[[5, 4, 8, 6]], [[1, 2, 3, 4]]]
    both = {**annotation, "bbox": torch.tensor([[1.0, 2.0, 3.0, 4.0]] * 2)}
    with pytest.raises(InputError, match="could be x, y, width, height as well as x1, y1, x2, y2") as caught:
        as_saliency_batch(both)
    assert as_saliency_batch(both, pasted(str(caught.value))).boxes[0].tolist() == CORNERS


def test_a_name_that_the_numbers_deny_is_refused() -> None:
    batch = {"image": IMAGES, "bbox_xywh": torch.tensor([[5.0, 1.0, 8.0, 6.0]] * 2)}
    with pytest.raises(
        InputError, match="`boxes` are x, y, width, height by their name, which their numbers cannot"
    ) as caught:
        as_saliency_batch(batch)
    assert as_saliency_batch(batch, pasted(str(caught.value))).boxes[0].tolist() == [[5, 1, 8, 6]]


@pytest.mark.parametrize(
    ("box", "words", "corners"),
    [
        ([0.5, 0.5, 0.4, 0.9], "Then they can be cx, cy, width, height.", [2.4, 0.3, 5.6, 5.7]),
        ([0.1, 0.2, 0.9, 0.6], "Then they can be x1, y1, x2, y2", [0.8, 1.2, 7.2, 3.6]),
        ([0.0, 0.0, 0.9, 0.01], "Then they can be x1, y1, x2, y2", [0, 0, 7.2, 0.06]),
        ([0.05, 0.5, 0.9, 0.4], "Then they can be x, y, width, height.", [0.4, 3, 7.6, 5.4]),
    ],
)
def test_shares_are_seen_before_what_is_upside_down(
    box: list[float], words: str, corners: list[float]
) -> None:
    batch = {"image": IMAGES, "boxes": torch.tensor([box] * 2)}
    with pytest.raises(InputError, match="Are they shares of width and height") as caught:
        as_saliency_batch(batch)

    assert words in str(caught.value)
    found = as_saliency_batch(batch, pasted(str(caught.value)))
    torch.testing.assert_close(found.boxes[0], torch.tensor([corners]), atol=1e-5, rtol=0)


def test_centres_that_are_upside_down_are_told_as_such() -> None:
    batch = {"image": IMAGES, "boxes": torch.tensor([[6.0, 3.0, 4.0, 6.0], [4.0, 5.0, 6.0, 2.0]])}
    with pytest.raises(InputError, match=r"Are they cx, cy, width, height\?") as caught:
        as_saliency_batch(batch)

    found = as_saliency_batch(batch, pasted(str(caught.value)))
    assert [each.tolist() for each in found.boxes] == [[[4, 0, 8, 6]], [[1, 4, 7, 6]]]


def test_boxes_whose_format_a_name_says_are_not_shown_as_corners_where_something_else_is_refused() -> None:
    batch = {
        "image": IMAGES,
        "bbox_xywh": torch.tensor([[1.0, 2.0, 3.0, 4.0]] * 2),
        "mask": torch.rand(2, 6, 8),
    }
    with pytest.raises(InputError, match="a dense target") as caught:
        as_saliency_batch(batch)
    assert as_saliency_batch(batch, pasted(str(caught.value))).boxes is None


@pytest.mark.parametrize("name", reading.FORMATS)
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.float32, torch.float64])
def test_the_corners_are_those_of_the_code_to_copy(name: str, dtype: torch.dtype) -> None:
    """torchvision converts; the code that an error offers for the same numbers does not need it."""
    boxes = (torch.rand(50, 4, generator=torch.Generator().manual_seed(0)) * 90 + 2).to(dtype)

    (found,) = reading._corners_in_pixels([boxes], name, (1, 100, 100))

    expected = eval(reading.FORMATS[name], {"torch": torch, "each": boxes})
    assert found.dtype == expected.dtype
    assert torch.equal(found, expected)
