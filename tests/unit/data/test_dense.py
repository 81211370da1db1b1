"""A dense target is no mask: depth maps, second images, keypoints and poses; and what is a mask stays one."""

from __future__ import annotations

import warnings
from typing import Any

import hypothesis
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.transforms.functional import resize

from lightning_gcam import SaliencyBatch
from lightning_gcam.data import as_saliency_batch
from lightning_gcam.data.masks import is_dense
from lightning_gcam.utils.errors import InputError
from tests.support.pasting import pasted

N, SIZE = 4, 24
IMAGES = torch.rand(N, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 1])
SQUARES = torch.zeros(N, SIZE, SIZE, dtype=torch.bool)
for _row in range(N):
    SQUARES[_row, 4 : 12 + _row, 6 : 14 + _row] = True

BOUNDED = hypothesis.settings(max_examples=100, deadline=None, derandomize=True)


def settled(batch: Any) -> tuple[str, SaliencyBatch]:
    """What is said of a batch that is refused, and what the code in it makes of the batch."""
    with pytest.raises(InputError) as caught:
        as_saliency_batch(batch)
    return str(caught.value), as_saliency_batch(batch, pasted(str(caught.value)))


def ramp(*, low: float = 0.1, high: float = 1.0) -> Tensor:
    """A floor that runs away from the camera: a depth without one exact zero."""
    return torch.linspace(high, low, SIZE)[:, None].expand(N, SIZE, SIZE).clone()


# ------------------------------------------------------------------------------------------- what is no mask


def laser() -> Tensor:
    """A depth that is known at one point in twenty, and 0 elsewhere."""
    generator = torch.Generator().manual_seed(1)
    return ramp() * (torch.rand(N, SIZE, SIZE, generator=generator) < 0.05)


DENSE = {
    "depth": ramp(),
    "depth in metres": ramp(high=80.0),
    "depth in millimetres": (ramp() * 5000 + torch.arange(SIZE) * 7).to(torch.int32),
    "grey image": (IMAGES[:, 0] * 255).to(torch.uint8),
    "grey image in floats": (IMAGES[:, 0] * 255).round(),
    "rectified noise": torch.randn(N, SIZE, SIZE, generator=torch.Generator().manual_seed(2)).clamp(0, 1),
    "laser": laser(),
    "with holes": ramp() * (torch.arange(SIZE) > 4),
    "signed": IMAGES[:, 0] - 0.5,
}


@pytest.mark.parametrize("name", DENSE)
@pytest.mark.parametrize("channel", [False, True])
@pytest.mark.parametrize("named", [False, True])
def test_a_dense_target_becomes_no_mask(name: str, channel: bool, named: bool) -> None:
    dense = DENSE[name][:, None] if channel else DENSE[name]
    batch: Any = (IMAGES, dense, LABELS)
    if named:
        batch = {"image": IMAGES, "mask": dense, "label": LABELS}

    message, found = settled(batch)

    assert "neither classes nor an object's mask, but a dense target" in message
    assert found.masks is None
    assert torch.equal(found.images, IMAGES)
    assert torch.equal(found.labels, LABELS)


def test_a_second_image_is_no_mask() -> None:
    found = as_saliency_batch((IMAGES, 1 - IMAGES, LABELS))

    assert found.masks is None
    assert torch.equal(found.inputs["1"], 1 - IMAGES)
    assert torch.equal(found.labels, LABELS)


@pytest.mark.parametrize(
    "part",
    [
        torch.rand(N, 5, 2) * SIZE,
        torch.rand(N, 17, 3),
        torch.eye(4).expand(N, 4, 4),
        torch.eye(3).expand(N, 3, 3),
    ],
    ids=["keypoints", "keypoints with a visibility", "poses", "rotations"],
)
@pytest.mark.parametrize("named", [False, True])
def test_what_has_as_many_dimensions_as_masks_is_offered_as_none(part: Tensor, named: bool) -> None:
    message, found = settled({"image": IMAGES, "target": part} if named else (IMAGES, part))

    assert "masks=" not in message
    assert "docs/guides/batch.md#keypoints" in message or "they are no shares of the image either" in message
    assert found.masks is found.boxes is found.labels is None


def test_keypoints_named_as_a_mask_are_none() -> None:
    message, found = settled({"image": IMAGES, "mask": torch.rand(N, 5, 2) * SIZE})

    assert "masks=" not in message
    assert found.masks is None


@pytest.mark.parametrize(
    "measured",
    [torch.randn(N, 10), torch.rand(N, 10), torch.arange(40).reshape(N, 10)],
    ids=["any", "between 0 and 1", "whole"],
)
def test_measurements_become_no_classes(measured: Tensor) -> None:
    message, found = settled((IMAGES, measured))

    assert "labels=" not in message.split("\n")[-1]
    assert "docs/guides/batch.md#measurements" in message
    assert found.labels is None


def test_smoothed_marks_are_marks() -> None:
    marks = torch.eye(3)[LABELS] + torch.eye(3)[[1, 1, 1, 1]] > 0

    message, found = settled((IMAGES, marks * 0.9 + 0.05))

    assert "neither marks (0 and 1) nor shares" in message
    assert torch.equal(found.labels, marks)


def test_a_dense_suspect_is_no_region() -> None:
    with pytest.raises(InputError, match="`suspect` .* holds a number at every pixel: it must be a region"):
        as_saliency_batch({"image": IMAGES, "suspect": ramp()})


# ----------------------------------------------------------------------------------------- what stays a mask


def soft(by: int = 3) -> Tensor:
    """The squares as a resized mask has them: soft at the edges, exactly 0 away from them."""
    small = interpolate(SQUARES[:, None].float(), size=(SIZE // by, SIZE // by), mode="area")
    return interpolate(small, size=(SIZE, SIZE), mode="bilinear")[:, 0]


MASKS = {
    "bool": SQUARES,
    "numbers": SQUARES.long(),
    "in 8 bits": SQUARES.to(torch.uint8) * 255,
    "soft": soft(),
    "weak": SQUARES * 0.25,
    "half precision": soft().half(),
    "all": torch.ones(N, SIZE, SIZE),
    "none": torch.zeros(N, SIZE, SIZE),
}


@pytest.mark.parametrize("name", MASKS)
def test_a_mask_stays_a_mask(name: str) -> None:
    mask = MASKS[name]
    for batch in ((IMAGES, LABELS, mask), {"image": IMAGES, "label": LABELS, "mask": mask[:, None]}):
        assert torch.equal(as_saliency_batch(batch).masks, mask != 0)


@pytest.mark.parametrize("radius", [40, 170], ids=["small", "more than half of the image"])
@pytest.mark.parametrize("full", [1, 255])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_a_mask_that_was_resized_is_a_mask(radius: int, full: int, dtype: torch.dtype) -> None:
    """As torchvision resizes what a PIL mask becomes: the edge has a hundred shades, and sums that are not quite 1."""
    across = torch.arange(384) - 192
    disc = (across**2 + across[:, None] ** 2 < radius**2).to(dtype) * full
    mask = resize(disc[None], [224, 224], antialias=True).expand(N, 224, 224)
    images = torch.rand(N, 3, 224, 224)

    for batch in ((images, LABELS, mask), {"image": images, "label": LABELS, "mask": mask[:, None]}):
        assert torch.equal(as_saliency_batch(batch).masks, mask != 0)


def test_a_soft_mask_of_larger_numbers_is_settled_by_the_code() -> None:
    _, found = settled((IMAGES, LABELS, soft() * 255))

    assert torch.equal(found.masks, soft() != 0)


def test_a_mask_of_another_size_is_resized() -> None:
    found = as_saliency_batch((IMAGES, LABELS, SQUARES[:, ::2, ::2].long()))

    assert torch.equal(found.masks[:, ::2, ::2], SQUARES[:, ::2, ::2])


def test_a_segmentation_of_many_classes_stays_one() -> None:
    """Sixty areas in each image, of different classes."""
    generator = torch.Generator().manual_seed(0)
    areas = torch.randint(1, 61, (N, 8, 8), generator=generator)
    numbers = areas.repeat_interleave(8, dim=1).repeat_interleave(8, dim=2)
    labels = areas[:, 3, 3]

    found = as_saliency_batch((torch.rand(N, 3, 64, 64), labels, numbers))

    assert torch.equal(found.masks, numbers == labels[:, None, None])


# -------------------------------------------------------------------------------------------- any of either


@st.composite
def fields(draw: Any) -> Tensor:
    """A dense field of floats: noise or waves of any scale, offset and size, of which up to a quarter is exactly 0."""
    n, height, width = draw(st.integers(1, 4)), draw(st.integers(8, 40)), draw(st.integers(8, 40))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 999)))
    coarse = draw(st.sampled_from([1, 2, 5]))
    values = torch.rand(n, 1, -(-height // coarse), -(-width // coarse), generator=generator)
    values = interpolate(values, size=(height, width), mode="bilinear")[:, 0]
    values = values.clamp(min=0.001) * draw(st.sampled_from([1.0, 1.0, 0.3, 40.0])) + draw(
        st.sampled_from([0.0, 0.0, -0.5])
    )
    holes = draw(st.integers(0, height // 4))
    values[:, :holes] = 0
    return values.to(draw(st.sampled_from([torch.float32, torch.float64])))


@BOUNDED
@given(fields(), st.sampled_from(["order", "mask", "label first", "channel"]))
def test_no_dense_field_ever_becomes_a_mask(field: Tensor, way: str) -> None:
    n, height, width = field.shape
    images, labels = torch.rand(n, 3, height, width), torch.zeros(n, dtype=torch.long)
    batch = {
        "order": (images, field, labels),
        "mask": {"image": images, "mask": field, "label": labels},
        "label first": (images, labels, field),
        "channel": (images, labels, field[:, None]),
    }[way]

    _, found = settled(batch)

    assert found.masks is None
    assert torch.equal(found.labels, labels)


@st.composite
def objects(draw: Any) -> Tensor:
    """A blurred rectangle in each image that covers at most a third of it."""
    n, size = draw(st.integers(1, 4)), draw(st.integers(16, 48))
    mask = torch.zeros(n, 1, size, size)
    for row in range(n):
        height, width = draw(st.integers(2, size // 3)), draw(st.integers(2, size // 3))
        top, left = draw(st.integers(0, size - height)), draw(st.integers(0, size - width))
        mask[row, 0, top : top + height, left : left + width] = 1
    if draw(st.booleans()):
        mask = torch.nn.functional.avg_pool2d(mask, 3, stride=1, padding=1)
    return mask[:, 0] * draw(st.sampled_from([1.0, 0.5]))


@BOUNDED
@given(objects())
def test_every_soft_object_stays_a_mask(mask: Tensor) -> None:
    images = torch.rand(len(mask), 3, *mask.shape[1:])

    found = as_saliency_batch((images, torch.zeros(len(mask), dtype=torch.long), mask))

    assert torch.equal(found.masks, mask != 0)
    assert not is_dense(mask)


# --------------------------------------------------------------------------------------- hostile and harmful


def test_a_name_whose_repr_is_no_code_is_not_run() -> None:
    class Key:
        def __repr__(self) -> str:
            return "print('run')"

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        message, found = settled({Key(): LABELS, "view": IMAGES})
    assert "print" not in message.split("\n")[-1]
    assert found.labels is None
