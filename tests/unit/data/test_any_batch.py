"""Thousands of structures are thrown at the adapters: each is read rightly, or refused clearly; nothing else."""

from __future__ import annotations

import warnings
from collections import namedtuple
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torchvision import tv_tensors

from lightning_gcam import SaliencyBatch
from lightning_gcam.data import as_saliency_batch
from lightning_gcam.data.fields import KEYS
from lightning_gcam.utils.errors import InputError
from tests.support.batch_layouts import NAMES, Ducks, Truth, delivered, truths
from tests.support.pasting import pasted

THOUSANDS = hypothesis.settings(max_examples=1500, suppress_health_check=list(hypothesis.HealthCheck))


@THOUSANDS
@given(delivered())
def test_what_is_clear_is_read_as_it_is(case: tuple[Any, Truth]) -> None:
    batch, truth = case

    assert truth.is_told_by(as_saliency_batch(batch, class_names=NAMES))


# --------------------------------------------------------------------------------- one thing about it is wrong


def _nan(values: Tensor) -> Tensor:
    return values.double() * torch.nan


WRONG: dict[str, list[Callable[[Any], Any]]] = {
    "images": [
        lambda images: images[:, 0],
        lambda images: images[:0],
        lambda images: images[..., :0],
        lambda images: images.to(torch.complex64),
        lambda images: "images/*.png",
        lambda images: [images[0], images[0][:, 1:], *images[2:]],
    ],
    "labels": [
        lambda labels: torch.cat([labels, labels[:1]]),
        lambda labels: _nan(labels),
        lambda labels: labels[:, None] + torch.arange(2, 5),
        lambda labels: torch.rand(len(labels), 3) + 1,
        lambda labels: labels.to(torch.complex64),
        lambda labels: [list(range(2, row + 4)) for row in range(len(labels))],
        lambda labels: [None] * len(labels),
        lambda labels: [10**30] * len(labels),
    ],
    "masks": [
        lambda masks: masks[:, 2:],
        lambda masks: masks[:, None, ::2].float(),
        lambda masks: torch.cat([masks, masks]),
        lambda masks: _nan(masks),
        lambda masks: masks * 3.7,
        lambda masks: masks[:, None].expand(-1, 3, -1, -1),
        lambda masks: [masks[0], *masks[1:], masks[0]],
        lambda masks: masks.long() * 90 + torch.arange(masks.shape[-1]) + 50,
        lambda masks: object(),
        lambda masks: masks.to(torch.complex64),
    ],
    "boxes": [  # one that is upside down holds nothing; where all fit as x, y, width, height, they may be
        lambda boxes: [torch.cat([each[:, 2:] - 1, each[:, :2] * 0 + 1], dim=1) for each in boxes],
        lambda boxes: [each / 100 for each in boxes],
        lambda boxes: [each[:, :3] for each in boxes],
        lambda boxes: [*boxes, boxes[0]],
        lambda boxes: [None for _ in boxes],
        lambda boxes: torch.stack(boxes)[:, 0].to(torch.complex64),
    ],
}
"""For each field, what makes it one that nobody could read."""


@st.composite
def spoiled(draw: Any) -> tuple[Any, Tensor | None]:
    """A batch of which one part is wrong, and its images, where these are not it."""
    truth = draw(truths(d=2))
    parts = {name: value for name, value in vars(truth).items() if value is not None}
    field = draw(st.sampled_from(list(parts)))
    parts[field] = draw(st.sampled_from(WRONG[field]))(parts[field])
    batch = parts if draw(st.booleans()) else tuple(parts.values())
    return batch, None if field == "images" else truth.images


@THOUSANDS
@given(spoiled())
def test_what_is_wrong_is_refused_and_what_is_said_of_it_works(case: tuple[Any, Tensor | None]) -> None:
    batch, images = case

    with pytest.raises(InputError) as caught:
        as_saliency_batch(batch)

    assert caught.value.__cause__ is None
    message = str(caught.value)
    assert images is None or "The batch could not be read: " in message
    if images is not None:
        assert torch.equal(as_saliency_batch(batch, pasted(message)).images, images)
    elif "\n    adapter=" in message:
        assert as_saliency_batch(batch, pasted(message)).images.ndim == 4


# ----------------------------------------------------------------------------------- nothing about it is right

Pair = namedtuple("Pair", ["first", "second"])


@dataclass
class Two:
    """A dataclass whose names mean something."""

    image: Any
    label: Any


SHAPES = st.lists(st.integers(0, 5), max_size=5).map(tuple)
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.uint8, torch.bool, torch.complex64)


@st.composite
def arrays(draw: Any) -> Any:
    """A tensor or an array of any shape, of ones, zeros, NaN or anything else."""
    shape = draw(SHAPES)
    made = [
        *(torch.zeros(shape), torch.ones(shape), torch.full(shape, torch.nan), torch.full(shape, -1.0)),
        torch.rand(shape) * 9,
    ]
    tensor = draw(st.sampled_from(made)).to(draw(st.sampled_from(DTYPES)))
    ways = [lambda: tensor, lambda: tensor, lambda: tensor.to_sparse() if tensor.ndim else tensor]
    if tensor.dtype != torch.bfloat16:
        ways += [
            tensor.numpy,
            lambda: np.broadcast_to(tensor.numpy(), shape),
            lambda: tensor.numpy().astype(str),
        ]
    if 2 <= tensor.ndim <= 4:
        ways += [lambda: tv_tensors.Image(tensor), lambda: tv_tensors.Mask(tensor)]
    if tensor.ndim == 2 and shape[1] == 4:
        ways += [lambda: tv_tensors.BoundingBoxes(tensor, format="CXCYWH", canvas_size=(5, 5))]  # type: ignore[call-overload]
    return draw(st.sampled_from(ways))()


def nested_tensor() -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is a prototype
        return torch.nested.nested_tensor([torch.ones(3, 4, 4), torch.ones(3, 5, 5)])


JUNK = st.one_of(
    arrays(),
    arrays(),
    st.sampled_from(
        [
            *(None, True, 0, -1, 3.5, float("nan"), 10**30, "cat", "", b"cat", ..., int, len, torch.float32),
            *(
                {1, 2},
                range(3),
                np.float32(2),
                np.datetime64("2020-01-01"),
                np.array([None, [1]], dtype=object),
            ),
            nested_tensor(),
        ]
    ),
)
KEY = st.one_of(
    st.sampled_from([key for keys in KEYS.values() for key in keys]), st.integers(0, 3), st.text(max_size=2)
)
STRUCTURES = st.recursive(
    JUNK,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(KEY, inner, max_size=4),
        st.dictionaries(KEY, inner, max_size=3).map(Ducks),
        st.builds(Pair, inner, inner),
        st.builds(Two, inner, inner),
    ),
    max_leaves=8,
)


@THOUSANDS
@given(STRUCTURES)
def test_anything_at_all_is_read_or_refused(batch: Any) -> None:
    found = outcome(batch)

    if isinstance(found, InputError):
        assert found.__cause__ is None
    else:
        images = found.images.transpose(1, 2) if found.frames_first else found.images
        assert fingerprint(images) in set(map(fingerprint, everything_in(batch)))
        assert found.labels is None or len(found.labels) == len(found)


def outcome(batch: Any) -> SaliencyBatch | InputError:
    try:
        return as_saliency_batch(batch)
    except InputError as error:
        return error


def everything_in(batch: Any) -> Iterator[Any]:
    """Each part, however deep, and each column of a list of samples."""
    yield batch
    if isinstance(batch, (dict, Ducks)):
        parts = [batch[key] for key in batch.keys()]  # noqa: SIM118
    elif isinstance(batch, Two):
        parts = [batch.image, batch.label]
    elif isinstance(batch, (list, tuple)):
        parts = list(batch)
        samples = [list(everything_in(each))[1:] for each in parts]
        yield from (list(column) for column in zip(*samples, strict=False))
    else:
        parts = []
    for each in parts:
        yield from everything_in(each)


def fingerprint(value: Any) -> tuple[Any, str]:
    """The shape and the numbers of an array, or of nested lists of such; else nothing."""
    try:
        array = np.array(as_lists(value), dtype=float)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        return None, ""
    return array.shape, repr(array.ravel().tolist())


def as_lists(value: Any) -> Any:
    if isinstance(value, Tensor):
        return None if value.is_nested else value.to_dense().tolist()
    if isinstance(value, np.ndarray):
        return value.tolist()
    return list(map(as_lists, value)) if isinstance(value, (list, tuple)) else value
