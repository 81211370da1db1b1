"""What labels mean."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from lightning_gcam.data import SaliencyBatch, as_saliency_batch
from lightning_gcam.utils.errors import InputError
from tests.support.pasting import pasted

IMAGES = torch.rand(3, 1, 6, 8, generator=torch.Generator().manual_seed(0))
NAMES = ["ant", "bee", "cat"]


def read(labels: Any, images: torch.Tensor = IMAGES, **options: Any) -> torch.Tensor:
    found = as_saliency_batch((images, labels), **options).labels
    assert found is not None
    return found


@pytest.mark.parametrize(
    "labels",
    [
        torch.tensor([2, 0, 1]),
        torch.tensor([[2], [0], [1]]),
        [2, 0, 1],
        np.array([2, 0, 1]),
        np.array([[2], [0], [1]], dtype=np.uint16),
        [torch.tensor(2), torch.tensor(0), torch.tensor(1)],
        [np.int32(2), np.int32(0), np.int32(1)],
        [torch.tensor([2]), torch.tensor([0]), torch.tensor([1])],
        ("cat", "ant", "bee"),
        np.array(["cat", "ant", "bee"]),
    ],
    ids=[
        "tensor",
        "column",
        "list",
        "numpy",
        "numpy column",
        "0-d",
        "numpy 0-d",
        "1-d",
        "words",
        "numpy words",
    ],
)
def test_classes_in_any_form(labels: Any) -> None:
    found = read(labels, class_names=NAMES)

    assert found.tolist() == [2, 0, 1]
    assert not found.is_floating_point()


@pytest.mark.parametrize("label", [torch.tensor(2), torch.tensor([2]), 2, np.int64(2), [2], "cat", ["cat"]])
def test_the_label_of_a_single_image(label: Any) -> None:
    assert read(label, IMAGES[:1], class_names=NAMES).tolist() == [2]


def test_yes_and_no_are_classes() -> None:
    found = read(torch.tensor([True, False, True]))

    assert found.dtype == torch.int64
    assert found.tolist() == [1, 0, 1]


def test_one_hot_and_multi_hot_stay_as_they_are() -> None:
    for marks in (torch.eye(3).long()[[2, 0, 1]], torch.tensor([[1, 1, 0], [0, 0, 0], [0, 1, 1]])):
        assert torch.equal(read(marks), marks)
        assert torch.equal(read(marks.tolist()), marks)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_shares_become_a_mark_at_the_largest(dtype: torch.dtype) -> None:
    """The class that the map explains and the caption names."""
    shares = torch.tensor([[0.05, 0.05, 0.9], [0.6, 0.4, 0.0], [0.3, 0.4, 0.3]]).to(dtype)

    found = read(shares)

    assert found.dtype == dtype
    assert found.tolist() == [[0, 0, 1], [1, 0, 0], [0, 1, 0]]


def test_measurements_stay_as_they_are() -> None:
    assert torch.equal(read(torch.tensor([3.5, -1.25, 40.0])), torch.tensor([3.5, -1.25, 40.0]))
    assert torch.equal(read(torch.tensor([[3.5], [-1.25], [40.0]])), torch.tensor([3.5, -1.25, 40.0]))
    assert torch.equal(read([3.5, -1.25, 40.0]), torch.tensor([3.5, -1.25, 40.0]))
    assert as_saliency_batch((IMAGES, [3.5, 1.0, 2.0])).has_measurements


def test_words_without_class_names_say_how_to_give_them() -> None:
    with pytest.raises(InputError, match=r'`labels` are names \("cat", \.\.\.\), and which logit') as caught:
        read(["cat", "ant", "cat"])

    names = pasted(str(caught.value), "class_names")
    assert names == ["ant", "cat"]
    assert read(["cat", "ant", "cat"], class_names=names).tolist() == [1, 0, 1]


def test_a_word_that_is_no_class_names_the_nearest() -> None:
    with pytest.raises(
        InputError, match='`labels` hold "be", which is not in `class_names`. Did you mean "bee"'
    ):
        read(["cat", "be", "cat"], class_names=NAMES)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.tensor([1, 2]), r"`labels` must be a tensor \(3,\) of classes.*got \(2,\) int64"),
        (torch.tensor([1.5, torch.inf, 2.0]), r"`labels` must be finite real numbers; got \(3,\) float32"),
        (torch.ones(3).to(torch.complex64), r"`labels` must be finite real numbers; got \(3,\) complex64"),
        (torch.tensor([[0, 3], [1, 2], [0, 1]]), r"`labels` \(3, 2\) int64 hold other numbers than 0 and 1"),
        (torch.rand(3, 2) + 1, r"`labels` \(3, 2\) float32 are neither marks \(0 and 1\) nor shares"),
        ([[1], [1, 2], [3]], r"`labels` must be a tensor \(3,\).*got list of length 3"),
        (
            [torch.tensor([1, 0, 0]), torch.tensor([0, 0, 1]), torch.tensor([0, 1, 0])],
            "3 tensors of 3 numbers",
        ),
    ],
    ids=["too few", "infinite", "complex", "several", "neither", "ragged", "rows or columns"],
)
def test_refused_with_an_adapter_that_works(labels: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        as_saliency_batch({"x": IMAGES, "y": labels})

    settled = as_saliency_batch({"x": IMAGES, "y": labels}, pasted(str(caught.value)))

    assert torch.equal(settled.images, IMAGES)


PICTURES = torch.rand(4, 3, 16, 16)


@pytest.mark.parametrize(
    ("batch", "expected"),
    [
        ((PICTURES, torch.rand(4, 5, 2)), True),
        ((PICTURES, torch.rand(4, 5, 8, 8)), True),
        ({"image": PICTURES, "label": torch.rand(4, 5, 8, 8)}, True),
        ({"image": PICTURES, "keypoints": torch.rand(4, 5, 2)}, True),
        ((PICTURES, 9 * torch.rand(4, 10)), True),
        ((PICTURES, torch.randint(2, 99, (4, 7))), True),
        ((PICTURES, torch.tensor([0, 1, 2, 0])), False),
        (
            (PICTURES, torch.tensor([0, 1, 2, 0]), torch.tensor([0, 1, 1, 0])),
            False,
        ),  # each could be the classes
        ({"image": PICTURES, "label": torch.tensor([0, 1, 2, 0]), "keypoints": torch.rand(4, 5, 2)}, False),
        (PICTURES, False),
    ],
    ids=[
        *("keypoints", "heat maps", "heat maps by name", "keypoints by name", "measurements", "tokens"),
        *("classes", "two columns", "classes beside keypoints", "images alone"),
    ],
)
def test_labels_that_are_no_classes_are_noted(batch: Any, expected: bool) -> None:
    said: list[str] = []
    found = as_saliency_batch(batch, on_unclear=said.append)
    assert found.no_classes is expected
    assert found.select([1, 2]).no_classes is expected
    assert SaliencyBatch.cat([found, found]).no_classes is expected
    assert SaliencyBatch(**found.state_dict()).no_classes is expected
    if expected:
        assert found.labels is found.masks is None
