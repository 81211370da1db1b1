"""`SaliencyBatch`: what it holds, what it gives back, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning
import torch
from torchvision import tv_tensors

from lightning_gcam import SaliencyBatch
from lightning_gcam.data.saliency_batch import boxes_to_masks
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
        "head_labels": {"sex": torch.tensor([0, 1, 1])},
        "inputs": {"ids": torch.rand(N, 5), "text": {"mask": torch.ones(N, 2)}, "words": ["x", "y", "z"]},
        "faults": ["", "a box with NaN", ""],
    }
    return SaliencyBatch(**{**fields, **changed})


def same(left: Any, right: Any) -> bool:
    if isinstance(left, torch.Tensor):
        return torch.equal(left, right)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(value, right[key]) for key, value in left.items())
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
    assert set(SaliencyBatch(batch.images).state_dict()) == {"images", "kind"}


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

    annotation = [(N,), (N, H, W), (1, 4), (0, 4), (2, 4), (N, H, W), (N,)]
    assert seen == [(N, 2, H, W), *annotation, (N,), (N, 5), (N, 2)]


def test_to_moves_every_tensor() -> None:
    moved = full().to("meta")

    tensors = [moved.images, moved.labels, moved.masks, *moved.boxes, moved.suspect, moved.groups]
    tensors += [moved.head_labels["sex"], moved.inputs["ids"], moved.inputs["text"]["mask"]]
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
        ({"images": [1, 2]}, r"`images` must be a tensor \(N, C, H, W\), .*; got list"),
        (
            {"images": torch.rand(N, H)},
            r"`images` must be \(N, C, H, W\), .*; got \(3, 6\) float32.*`adapter=`",
        ),
        (
            {"images": torch.rand(0, 2, H, W)},
            r"`images` holds no sample; got \(0, 2, 6, 8\) float32. Give at least one",
        ),
        ({"labels": torch.tensor([1, 2])}, r"`labels` must be a tensor \(3,\).*got \(2,\) int64"),
        ({"labels": [0, 1, 2]}, r"`labels` must be a tensor \(3,\).*got list of length 3"),
        ({"labels": torch.tensor(1)}, r"`labels` must be a tensor \(3,\).*got \(\) int64"),
        ({"labels": torch.tensor([0.5, torch.inf, 2])}, r"`labels` must be finite real numbers; got \(3,\)"),
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
        (
            {"images": torch.rand(N, 2, 3, 4, 5, 6)},
            r"`images` must be \(N, C, H, W\), \(N, C, L\) or .*got \(3, 2, 3",
        ),
        ({"kind": "video"}, r"`kind` must be 'image' for images of \(6, 8\); got 'video'"),
        ({"faults": [""]}, "`faults` must hold 3 faults, one per sample; got 1"),
        (
            {"inputs": {"ids": torch.rand(4, 2)}},
            r"`inputs\['ids'\]` must be a tensor with 3 rows.*got \(4, 2\)",
        ),
        ({"inputs": {"ids": [object()] * 3}}, r"`inputs\['ids'\]` must be .*got list of length 3"),
        ({"inputs": [1]}, r"`inputs` must be a dict from names to tensors; got list of length 1"),
        ({"head_labels": {"sex": ["a", "b", "c"]}}, r"`head_labels\['sex'\]` must be a tensor .*got list"),
        ({"names": ["a"]}, "`names` must hold 3 names, one per sample; got 1. Give one for each"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        full(**changed)


def test_labels_may_be_measurements() -> None:
    assert full(labels=torch.tensor([0.5, 1, 2])).labels.tolist() == [0.5, 1, 2]


# ------------------------------------------------------------------------------- one, two and three dimensions

SIZES = {(12,): "signal", (6, 8): "image", (4, 6, 8): "volume"}
DIMENSIONS = pytest.mark.parametrize("size", SIZES, ids=SIZES.values())


def boxed(size: tuple[int, ...], **changed: Any) -> SaliencyBatch:
    """Two samples, the first with a box around its middle, `size / 4` to `3 size / 4`."""
    low, high = ([side * share for side in reversed(size)] for share in (0.25, 0.75))
    none = torch.zeros(0, 2 * len(size))
    return SaliencyBatch(torch.rand(2, 2, *size), boxes=[torch.tensor([[*low, *high]]), none], **changed)


@DIMENSIONS
def test_boxes_become_masks_of_any_dimensions(size: tuple[int, ...]) -> None:
    batch = boxed(size)
    masks = batch.object_masks

    grids = torch.meshgrid(*(torch.arange(side) + 0.5 for side in size), indexing="ij")
    shares = torch.stack([at / side for at, side in zip(grids, size, strict=True)])
    expected = ((shares >= 0.25) & (shares < 0.75)).all(dim=0)
    assert (batch.kind, batch.image_size) == (SIZES[size], size)
    assert torch.equal(masks[0], expected)
    assert not masks[1].any()


def test_x_is_the_last_dimension_of_a_volume() -> None:
    box = torch.tensor([[0.0, 0.0, 2.0, 1.0, 2.0, 3.0]])  # x 0 to 1, y 0 to 2, z 2 to 3

    assert boxes_to_masks(box, (4, 5, 6))[0].nonzero().tolist() == [[2, 0, 0], [2, 1, 0]]


@DIMENSIONS
def test_everything_is_selected_joined_and_resized_in_any_dimensions(size: tuple[int, ...]) -> None:
    region = torch.rand(size) > 0.5
    batch = boxed(size, masks=torch.rand(2, *size) > 0.5, suspect=region)

    again = SaliencyBatch.cat([batch.select([0]), batch.select([1])])
    doubled = batch.resized(tuple(2 * side for side in size))

    assert equal(again, batch)
    assert torch.equal(batch.suspect_masks, region.expand(2, *size))
    assert doubled.image_size == doubled.suspect.shape == doubled.masks.shape[1:]
    assert torch.equal(doubled.boxes[0], batch.boxes[0] * 2)
    assert torch.equal(doubled.masks[(..., *[slice(None, None, 2)] * len(size))], batch.masks)
    assert torch.equal(doubled.resized(size).masks, batch.masks)


@pytest.mark.parametrize(
    ("shape", "kind"),
    [
        ((2, 12, 50), "signal"),
        ((2, 3, 50), "signal"),
        ((2, 3, 8, 8), "image"),
        ((2, 1, 8, 8, 8), "volume"),
        ((2, 3, 8, 8, 8), "video"),
    ],
)
def test_the_kind_is_known_by_the_shape(shape: tuple[int, ...], kind: str) -> None:
    assert SaliencyBatch(torch.rand(shape)).kind == kind


def test_a_kind_and_the_order_of_frames_stay() -> None:
    batch = SaliencyBatch(torch.rand(2, 1, 4, 8, 8), kind="video", frames_first=True)

    for each in (
        *(batch.select([1]), batch.to("cpu"), batch.resized((2, 4, 4)), SaliencyBatch.cat([batch, batch])),
        SaliencyBatch(**batch.state_dict()),
    ):
        assert (each.kind, each.frames_first) == ("video", True)


def test_faults_of_some_batches_stay() -> None:
    batch = SaliencyBatch(torch.rand(1, 1, 4, 4))
    joined = SaliencyBatch.cat([batch, SaliencyBatch(batch.images, faults=["an inverted box"])])

    assert joined.faults == ["", "an inverted box"]


def test_texts_of_several_lengths_are_padded() -> None:
    short, long = (SaliencyBatch(torch.rand(1, 1, 4, 4), inputs={"ids": torch.ones(1, n)}) for n in (2, 3))

    assert SaliencyBatch.cat([short, long]).inputs["ids"].tolist() == [[1, 1, 0], [1, 1, 1]]


def test_what_only_some_batches_came_with_is_no_input() -> None:
    first, second = (
        SaliencyBatch(torch.rand(1, 1, 4, 4), inputs={"age": torch.ones(1), name: torch.ones(1)})
        for name in "ab"
    )

    assert list(SaliencyBatch.cat([first, second]).inputs) == ["age"]


def test_inputs_are_held_and_not_copied() -> None:
    ids = torch.rand(N, 5)

    assert full(inputs={"ids": ids}).inputs["ids"].data_ptr() == ids.data_ptr()
