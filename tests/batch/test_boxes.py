"""Boxes in any format and on any canvas become corners in pixels of the image."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torchvision import tv_tensors

from lightning_gcam._errors import InputError
from lightning_gcam.batch import as_saliency_batch
from tests.batch.pasting import pasted

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
