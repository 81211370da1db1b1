"""`SaliencyBatch`: what it holds, what it gives back, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning
import torch
from torchvision import tv_tensors

from lightning_gcam import SaliencyBatch
from lightning_gcam.utils.errors import InputError

N, H, W = 3, 6, 8


def full(**changed: Any) -> SaliencyBatch:
    """A batch with every field."""
    fields: dict[str, Any] = {
        "images": torch.rand(N, 2, H, W),
        "labels": torch.tensor([2, 0, 1]),
        "masks": torch.rand(N, H, W) > 0.5,
        "boxes": [torch.rand(count, 4) for count in (1, 0, 2)],
        "suspect": torch.rand(N, H, W) > 0.5,
        "groups": torch.tensor([0, 1, 0]),
        "names": ["a", "b", "c"],
    }
    return SaliencyBatch(**{**fields, **changed})


def same(left: Any, right: Any) -> bool:
    if isinstance(left, torch.Tensor):
        return torch.equal(left, right)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)


def equal(left: SaliencyBatch, right: SaliencyBatch) -> bool:
    return all(same(value, getattr(right, name)) for name, value in vars(left).items())


def test_length_and_size() -> None:
    assert (len(full()), full().image_size) == (N, (H, W))


def test_masks_come_before_boxes() -> None:
    batch = full()

    assert batch.object_masks is batch.masks
    assert SaliencyBatch(batch.images).object_masks is None


def test_boxes_are_united_pixel_centre_by_pixel_centre() -> None:
    boxes = [torch.tensor([[0.0, 0.0, 2.0, 1.0], [1.4, 0.0, 3.0, 2.4]]), torch.zeros(0, 4)]

    masks = SaliencyBatch(torch.rand(2, 1, 3, 4), boxes=boxes).object_masks

    # x from 0 to 2 and from 1.4 to 3: centres .5, 1.5, 2.5; y from 0 to 1 and from 0 to 2.4: centres .5; 1.5
    assert masks.dtype == torch.bool
    assert masks[0].int().tolist() == [[1, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]
    assert not masks[1].any()


def test_a_box_beyond_the_image_is_cut() -> None:
    masks = SaliencyBatch(torch.rand(1, 1, 2, 2), boxes=[torch.tensor([[-5.0, 1.0, 50.0, 9.0]])]).object_masks

    assert masks[0].int().tolist() == [[0, 0], [1, 1]]


def test_select_takes_rows_in_order_as_copies() -> None:
    batch = full()

    taken = batch.select([2, 0])

    assert torch.equal(taken.images, batch.images[[2, 0]])
    assert taken.labels.tolist() == [1, 2]
    assert same(taken.boxes, [batch.boxes[2], batch.boxes[0]])
    assert taken.names == ["c", "a"]
    assert torch.equal(taken.suspect, batch.suspect[[2, 0]])
    taken.images.fill_(7)
    taken.boxes[0].fill_(7)
    assert not batch.images.eq(7).any()
    assert not batch.boxes[2].eq(7).any()


def test_select_cuts_the_graph() -> None:
    batch = full(images=torch.rand(N, 2, H, W, requires_grad=True))

    assert not batch.select([0]).images.requires_grad


def test_one_suspect_region_serves_all_samples() -> None:
    suspect = torch.rand(H, W) > 0.5
    batch = full(suspect=suspect)

    taken = batch.select([1])
    assert torch.equal(taken.suspect, suspect)
    taken.suspect.logical_not_()
    assert torch.equal(batch.suspect, suspect)  # a copy, as every part of it
    assert torch.equal(batch.select([1]).suspect, suspect)
    many = SaliencyBatch(torch.rand(H + 3, 1, H, W), suspect=suspect)  # more samples than the image has rows
    assert torch.equal(many.select([H + 2]).suspect, suspect)
    assert torch.equal(SaliencyBatch.cat([batch.select([0]), batch.select([1])]).suspect, suspect)


def test_cat_of_single_samples_is_the_batch() -> None:
    batch = full()

    assert equal(SaliencyBatch.cat([batch.select([row]) for row in range(N)]), batch)


def test_cat_keeps_what_every_batch_has() -> None:
    batch = full()

    joined = SaliencyBatch.cat([batch, SaliencyBatch(batch.images, batch.labels)])

    assert len(joined) == 2 * N
    assert joined.labels.tolist() == [2, 0, 1] * 2
    assert joined.masks is joined.boxes is joined.names is None


def test_state_dict_loads_with_weights_only(tmp_path: Path) -> None:
    batch = full()
    torch.save(batch.state_dict(), tmp_path / "batch.pt")

    loaded = SaliencyBatch(**torch.load(tmp_path / "batch.pt", weights_only=True))

    assert equal(loaded, batch)
    assert set(SaliencyBatch(batch.images).state_dict()) == {"images"}


def test_measurements_are_labels_too() -> None:
    assert full(labels=torch.tensor([0.5, 1.0, 37.2])).has_measurements
    assert not any(
        full(labels=each).has_measurements for each in (torch.tensor([0.0, 1.0, 2.0]), torch.rand(N, 2), None)
    )


def test_tensors_are_held_as_plain_ones() -> None:
    images, masks = tv_tensors.Image(torch.rand(N, 2, H, W)), tv_tensors.Mask(torch.rand(N, H, W) > 0.5)

    batch = full(images=images, masks=masks, boxes=[tv_tensors.Mask(torch.rand(1, 4))] * N)

    assert {type(each) for each in (batch.images, batch.masks, *batch.boxes)} == {torch.Tensor}
    assert batch.images.data_ptr() == images.data_ptr()


def test_map_tensors_reaches_every_tensor() -> None:
    seen: list[tuple[int, ...]] = []
    full().map_tensors(lambda tensor: seen.append(tuple(tensor.shape)) or tensor)

    assert seen == [(N, 2, H, W), (N,), (N, H, W), (1, 4), (0, 4), (2, 4), (N, H, W), (N,)]


def test_to_moves_every_tensor() -> None:
    moved = full().to("meta")

    tensors = [moved.images, moved.labels, moved.masks, *moved.boxes, moved.suspect, moved.groups]
    assert {each.device.type for each in tensors} == {"meta"}


@pytest.mark.parametrize("precision", ["64-true", "bf16-true"])
def test_lightning_can_convert_it(precision: str) -> None:
    """Its precision plugins write into every dataclass of a batch."""
    converted = pytorch_lightning.Trainer(
        precision=precision, accelerator="cpu", logger=False
    ).precision_plugin
    assert converted.convert_input(full()).images.dtype in (torch.float64, torch.bfloat16)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"images": [1, 2]}, r"`images` must be a tensor \(N, C, H, W\); got list"),
        ({"images": torch.rand(N, H, W)}, r"`images` must be 4-D, .*; got \(3, 6, 8\) float32.*`adapter=`"),
        (
            {"images": torch.rand(0, 2, H, W)},
            r"`images` holds no sample; got \(0, 2, 6, 8\) float32. Give at least one",
        ),
        ({"labels": torch.tensor([1, 2])}, r"`labels` must be a tensor \(3,\).*got \(2,\) int64"),
        ({"labels": [0, 1, 2]}, r"`labels` must be a tensor \(3,\).*got list of length 3"),
        ({"labels": torch.tensor(1)}, r"`labels` must be a tensor \(3,\).*got \(\) int64"),
        ({"labels": torch.tensor([0.5, torch.nan, 2])}, r"`labels` must be finite real numbers; got \(3,\)"),
        (
            {"labels": torch.ones(3, 2).to(torch.complex64)},
            r"`labels` must be finite real numbers; got \(3, 2\)",
        ),
        (
            {"masks": torch.ones(N, 3, 4) > 0},
            r"`masks` must have the size of the images, \(3, 6, 8\); got \(3, 3, 4\) bool. Resize .*mode \"nearest\"",
        ),
        ({"masks": torch.ones(N, H, W)}, r"`masks` must be bool.*got \(3, 6, 8\) float32. Try `masks != 0`"),
        ({"boxes": torch.rand(N, 4)}, r"`boxes` must be a list of 3 tensors \(M, 4\).*got \(3, 4\) float32"),
        ({"boxes": [torch.rand(1, 4)]}, r"`boxes` must be a list of 3 tensors.*got list of length 1"),
        ({"boxes": [torch.rand(1, 5)] * 3}, r"`boxes\[0\]` must be a tensor \(M, 4\).*got \(1, 5\)"),
        (
            {"suspect": torch.ones(2, 2) > 0},
            r"`suspect` must be bool of shape \(6, 8\) or \(3, 6, 8\); got \(2, 2\) bool. Resize it to the images",
        ),
        (
            {"suspect": torch.ones(H, W)},
            r"`suspect` must be bool.*got \(6, 8\) float32. Try `suspect != 0`\.",
        ),
        (
            {"groups": torch.tensor([0.0, 1.0, 2.0])},
            r"`groups` must be an integer tensor \(3,\); got \(3,\) float32",
        ),
        (
            {"groups": torch.tensor([0, 1])},
            r"`groups` must be an integer tensor \(3,\); got \(2,\) int64. Number the groups",
        ),
        ({"names": ["a"]}, "`names` must hold 3 names, one per sample; got 1. Give one for each"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        full(**changed)


def test_labels_may_be_measurements() -> None:
    assert full(labels=torch.tensor([0.5, 1, 2])).labels.tolist() == [0.5, 1, 2]
