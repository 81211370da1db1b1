"""What else came with a batch is kept by its key or its place, for a forward that takes more than images."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from lightning_gcam import SaliencyBatch
from lightning_gcam.data import as_saliency_batch
from lightning_gcam.data.fixed_samples import FixedBatch
from tests.support.pasting import pasted

N = 4
LEFT, RIGHT = torch.rand(2, N, 3, 8, 9, generator=torch.Generator().manual_seed(0))
LABELS, TABLE = torch.tensor([1, 0, 2, 1]), torch.randn(N, 5, generator=torch.Generator().manual_seed(1))
IDS = torch.arange(N * 6).reshape(N, 6)
ECG, VOLUME = torch.rand(N, 2, 50), torch.rand(N, 1, 4, 8, 9)

CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "a pair": ((LEFT, RIGHT, LABELS), {"1": RIGHT, "2": LABELS}),
    "a pair in itself": (((LEFT, RIGHT), LABELS), {"1": RIGHT, "2": LABELS}),
    "a pair in a list": ([[LEFT, RIGHT], LABELS], {"1": RIGHT, "2": LABELS}),
    "a pair and nothing else": ((LEFT, RIGHT), {"1": RIGHT}),
    "numbered": ({"image1": LEFT, "image2": RIGHT, "label": LABELS}, {"image2": RIGHT, "label": LABELS}),
    "numbered with a line": ({"img_0": LEFT, "img_1": RIGHT, "y": LABELS}, {"img_1": RIGHT, "y": LABELS}),
    "letters": ({"x_a": LEFT, "x_b": RIGHT, "y": LABELS}, {"x_b": RIGHT, "y": LABELS}),
    "left and right": ({"left": LEFT, "right": RIGHT, "label": LABELS}, {"right": RIGHT, "label": LABELS}),
    "a triplet": (
        {"anchor": LEFT, "positive": RIGHT, "negative": LEFT + 1},
        {"positive": RIGHT, "negative": LEFT + 1},
    ),
    "a table": ((LEFT, TABLE, LABELS), {"1": TABLE, "2": LABELS}),
    "a table and shares": (
        (LEFT, TABLE, torch.eye(3)[LABELS] * 0.7 + 0.1),
        {"1": TABLE, "2": torch.eye(3)[LABELS] * 0.7 + 0.1},
    ),
    "a table by name": (
        {"image": LEFT, "tabular": TABLE, "label": LABELS},
        {"tabular": TABLE, "label": LABELS},
    ),
    "a forward with labels": ({"pixel_values": LEFT, "labels": LABELS}, {"labels": LABELS}),
    "a text": (
        {"pixel_values": LEFT, "input_ids": IDS, "attention_mask": torch.ones(N, 6)},
        {"input_ids": IDS, "attention_mask": torch.ones(N, 6)},
    ),
    "a text in a dict": ((LEFT, {"input_ids": IDS}), {"1": {"input_ids": IDS}, "input_ids": IDS}),
    "words": ({"image": LEFT, "text": list("abcd")}, {"text": list("abcd")}),
    "labels alone": ((LEFT, LABELS), {"1": LABELS}),
    "images alone": (LEFT, {}),
    "an index in front": ((IDS, LEFT), {"0": IDS}),
    "numpy": ({"image": LEFT.numpy(), "age": np.arange(N)}, {"age": torch.arange(N)}),
    "what has other rows": ({"image": LEFT, "epoch": 3, "weights": torch.ones(7), "path": "a.png"}, {}),
    "what no checkpoint can hold": ({"image": LEFT, "who": [object()] * N}, {}),
    "inside": ({"batch": (LEFT, TABLE, LABELS), "index": None}, {"1": TABLE, "2": LABELS}),
    "samples": (
        [{"image": image, "age": age, "label": 1} for age, image in enumerate(LEFT)],
        {"age": torch.arange(N), "label": torch.ones(N, dtype=torch.long)},
    ),
    "a pair of signals": ({"ecg": ECG, "other": ECG + 1}, {"other": ECG + 1}),
    "a pair of volumes": ((VOLUME, VOLUME + 1, LABELS), {"1": VOLUME + 1, "2": LABELS}),
    "a signal beside": ({"image": LEFT, "signal": ECG, "label": LABELS}, {"signal": ECG, "label": LABELS}),
}


def same(left: Any, right: Any) -> bool:
    if isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[key], each) for key, each in right.items())
    return torch.equal(left, right) if isinstance(right, torch.Tensor) else left == right


@pytest.mark.parametrize("name", CASES)
def test_inputs(name: str) -> None:
    batch, expected = CASES[name]

    found = as_saliency_batch(batch, on_unclear=lambda message: None)

    assert found.images.shape[0] == N
    assert same(found.inputs or {}, expected)
    assert found.masks is None


def test_two_pictures_are_read_without_a_word() -> None:
    for batch in (CASES["a pair"][0], CASES["a pair in itself"][0], CASES["left and right"][0]):
        found = as_saliency_batch(batch)
        assert torch.equal(found.images, LEFT)
        assert torch.equal(found.labels, LABELS)


def test_a_mask_of_three_channels_is_no_second_picture() -> None:
    mask = (LEFT > 0.5).float()
    said: list[str] = []

    as_saliency_batch((LEFT, mask, LABELS), on_unclear=said.append)

    assert "3 channels may be instances or classes" in said[0]


def test_they_are_the_tensors_that_came() -> None:
    found = as_saliency_batch((LEFT, TABLE, LABELS))

    assert found.inputs["1"] is TABLE
    assert found.images is LEFT


def test_the_fixed_samples_take_along_those_of_their_rows() -> None:
    fixed = FixedBatch(2)
    fixed.offer(as_saliency_batch({"image": LEFT, "ids": IDS, "text": list("abcd"), "label": LABELS}))
    fixed.close()

    assert torch.equal(fixed.samples.inputs["ids"], IDS[fixed.positions])
    assert fixed.samples.inputs["text"] == ["abcd"[each] for each in fixed.positions]
    assert fixed.samples.inputs["ids"].data_ptr() != IDS.data_ptr()


def test_an_adapter_that_was_copied_does_not_lose_them() -> None:
    batch = {"pixel_values": LEFT, "input_ids": IDS, "labels": IDS}
    said: list[str] = []
    as_saliency_batch(batch, on_unclear=said.append)

    found = as_saliency_batch(batch, pasted(said[0]))

    assert same(found.inputs, {"input_ids": IDS, "labels": IDS})
    own = as_saliency_batch(batch, lambda batch: SaliencyBatch(batch["pixel_values"], inputs={"ids": IDS}))
    assert list(own.inputs) == ["ids"]
