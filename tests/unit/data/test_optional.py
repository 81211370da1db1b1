"""Labels, masks and boxes are optional: what cannot be read of them is left out, and said."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lightning_gcam import SaliencyBatch
from lightning_gcam.data import as_saliency_batch
from lightning_gcam.data.fixed_samples import FixedBatch
from lightning_gcam.utils.errors import InputError
from tests.support.pasting import pasted

N, SIZE = 8, 16
IMAGES = torch.rand(N, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(N) % 3
NAN = float("nan")


def read(batch: Any, **options: Any) -> tuple[SaliencyBatch, list[str]]:
    """A batch as training reads it, and what is said."""
    said: list[str] = []
    return as_saliency_batch(batch, on_unclear=said.append, **options), said


# ------------------------------------------------------------------------------------- a label that is no class

NO_CLASS: dict[str, tuple[Any, str]] = {
    "keypoints": (torch.rand(N, 5, 2), "#keypoints"),
    "heat maps": (torch.rand(N, 17, SIZE, SIZE), "no mask's either"),
    "heat maps of another size": (torch.rand(N, 17, SIZE // 2, SIZE // 2), "no mask's either"),
    "token ids": (
        torch.randint(2, 999, (N, 16), generator=torch.Generator().manual_seed(0)),
        "#measurements",
    ),
    "ten measurements": (torch.randn(N, 10), "#measurements"),
    "a depth map": (torch.linspace(0.1, 1, SIZE).expand(N, SIZE, SIZE).clone(), "a dense target"),
}


@pytest.mark.parametrize("name", NO_CLASS)
@pytest.mark.parametrize("named", [False, True])
def test_what_is_no_class_is_left_out_and_said_once(name: str, named: bool) -> None:
    part, words = NO_CLASS[name]
    batch = {"image": IMAGES, "label": part} if named else (IMAGES, part)

    found, said = read(batch)

    assert found.labels is found.masks is found.boxes is found.head_labels is None
    assert torch.equal(found.inputs["label" if named else "1"], part)
    (message,) = said
    assert message.startswith("Not all of the batch could be read: ")
    assert words in message
    copied, said = read(batch, adapter=pasted(message))
    assert said == []
    assert torch.equal(copied.images, IMAGES)
    with pytest.raises(InputError, match="The batch could not be read"):
        as_saliency_batch(batch)


@pytest.mark.parametrize("name", NO_CLASS)
def test_the_label_beside_it_stays(name: str) -> None:
    part, _ = NO_CLASS[name]

    for batch in ((IMAGES, part, LABELS), {"image": IMAGES, "keypoints": part, "label": LABELS}):
        found, _ = read(batch)
        assert torch.equal(found.labels, LABELS)
        assert found.masks is None


LEFT_OUT: dict[str, tuple[dict[str, Any], str]] = {
    "masks": ({"mask": torch.ones(N, 5, 9)}, "`masks` must have the size of the images"),
    "boxes": ({"boxes": [torch.rand(1, 5)] * N}, "`boxes\\[0\\]` must be a tensor"),
    "labels": ({"label": LABELS[:2]}, "`labels` must be a tensor"),
    "words": ({"label": ["ant", "bee"] * 4}, "class_names=\\['ant', 'bee'\\]"),
    "groups": ({"group": ["a"] * N}, "`groups` must be an integer tensor"),
    "suspect": ({"suspect": torch.ones(3, 3)}, "`suspect` must be bool of shape"),
    "targets": (
        {"target": [{"labels": LABELS, "boxes": torch.tensor([[1.0, 2, 9, 9]] * 2)}] * N},
        "An image has 2 and 8 boxes",
    ),
}


@pytest.mark.parametrize("field", LEFT_OUT)
def test_every_field_but_the_images_may_be_left_out(field: str) -> None:
    part, words = LEFT_OUT[field]
    found, said = read({"image": IMAGES, **part})

    assert len(said) == 1
    assert torch.equal(found.images, IMAGES)
    assert found.labels is found.masks is found.boxes is found.groups is found.suspect is None
    with pytest.raises(InputError, match=words):
        as_saliency_batch({"image": IMAGES, **part})


def test_two_pictures_that_could_each_be_the_images_are_no_end() -> None:
    found, said = read({"image": IMAGES, "x": IMAGES + 1, "label": LABELS})

    assert torch.equal(found.images, IMAGES)
    assert torch.equal(found.labels, LABELS)
    assert torch.equal(found.inputs["x"], IMAGES + 1)
    assert "they differ: 'image' is taken" in said[0]


@pytest.mark.parametrize(
    "batch", [{"text": ["a"]}, None, (LABELS, LABELS), {"image": "a.png"}, {"image": IMAGES[:0]}]
)
def test_without_images_there_is_nothing_to_draw(batch: Any) -> None:
    with pytest.raises(InputError, match="could not be read|must be a tensor|no sample"):
        read(batch)


# ----------------------------------------------------------------------------------------- labels of several heads

AGE, SEX, FINDINGS = (
    torch.linspace(20, 79.5, N),
    torch.arange(N) % 2,
    (torch.arange(N * 14) % 3 == 0).reshape(N, 14),
)

HEADS: dict[str, tuple[Any, dict[str, torch.Tensor], bool]] = {
    "two labels by name": (
        {"image": IMAGES, "label": LABELS, "target": SEX},
        {"label": LABELS, "target": SEX},
        True,
    ),
    "two labels in order": ((IMAGES, LABELS, SEX), {"0": LABELS, "1": SEX}, True),
    "findings and a view": ((IMAGES, FINDINGS.float(), SEX), {"0": FINDINGS.float(), "1": SEX}, True),
    "names of their own": ({"image": IMAGES, "age": AGE, "sex": SEX}, {"age": AGE, "sex": SEX}, False),
    "beside a label": ({"image": IMAGES, "label": LABELS, "sex": SEX}, {"label": LABELS, "sex": SEX}, False),
    "a dict": ((IMAGES, {"age": AGE, "sex": SEX}), {"age": AGE, "sex": SEX}, False),
    "a dict by name": (
        {"image": IMAGES, "labels": {"age": AGE, "sex": SEX}},
        {"age": AGE, "sex": SEX},
        False,
    ),
    "beside numbers of samples": (
        {"image": IMAGES, "sex": SEX, "idx": torch.arange(N), "patient_id": torch.arange(N)},
        {"sex": SEX},
        False,
    ),
}


@pytest.mark.parametrize("name", HEADS)
def test_labels_of_several_heads(name: str) -> None:
    batch, expected, is_said = HEADS[name]
    found, said = read(batch)

    assert found.labels is None or name == "beside a label"
    assert list(found.head_labels) == list(expected)
    assert all(torch.equal(found.head_labels[key].float(), each.float()) for key, each in expected.items())
    assert bool(said) == is_said
    if is_said:
        assert torch.equal(
            as_saliency_batch(batch, pasted(said[0])).labels.float(), next(iter(expected.values())).float()
        )


def test_one_label_has_no_heads() -> None:
    for batch in ((IMAGES, LABELS), {"image": IMAGES, "label": LABELS, "attention_mask": torch.ones(N, 4)}):
        assert as_saliency_batch(batch).head_labels is None


# ------------------------------------------------------------------------------------------- one bad entry of many


def boxes(**changed: list[float]) -> torch.Tensor:
    rows = torch.tensor([[1.0, 1.0, 9.0, 9.0]] * N)
    for row, box in changed.items():
        rows[int(row[1:])] = torch.tensor(box)
    return rows


BAD_BOXES = {
    "a box with NaN": [NAN, 1, 9, 9],
    "an inverted box": [9, 9, 1, 1],
    "a box outside of the image": [30, 30, 40, 40],
}


@pytest.mark.parametrize("fault", BAD_BOXES)
@pytest.mark.parametrize("way", ["named", "in order", "list", "target"])
def test_a_bad_box_costs_its_sample_alone(fault: str, way: str) -> None:
    rows = boxes(_2=BAD_BOXES[fault])
    batch: Any = {"image": IMAGES, "boxes": rows, "label": LABELS}
    if way == "in order":
        batch = (IMAGES, LABELS, rows)
    if way == "list":
        batch = (IMAGES, LABELS, [each[None] for each in rows])
    if way == "target":
        batch = (
            IMAGES,
            [{"boxes": box[None], "labels": label[None]} for box, label in zip(rows, LABELS, strict=True)],
        )

    found, said = read(batch)

    assert said == []
    assert [len(each) for each in found.boxes] == [1, 1, 0, 1, 1, 1, 1, 1]
    assert found.faults == ["", "", fault, "", "", "", "", ""]
    assert torch.equal(found.labels, LABELS)
    assert torch.equal(found.boxes[3], rows[3:4])


def test_the_good_box_of_a_sample_stays() -> None:
    rows = [torch.cat([boxes()[:1], torch.tensor([[NAN] * 4])]), *boxes()[1:, None]]

    found, _ = read({"image": IMAGES, "boxes": rows})

    assert torch.equal(found.boxes[0], boxes()[:1])
    assert found.faults[0] == "a box with NaN"


def test_masks_of_other_sizes_in_a_list() -> None:
    whole = torch.zeros(SIZE, SIZE, dtype=torch.bool)
    whole[4:12, 4:12] = True
    masks: list[Any] = [whole, whole[::2, ::2], whole[:5, :9], None, whole[None], *[whole] * 3]

    for batch in ({"image": IMAGES, "mask": masks, "label": LABELS}, (IMAGES, masks, LABELS)):
        found, said = read(batch)
        assert said == []
        assert found.masks.flatten(1).sum(dim=1).tolist() == [64, 64, 0, 0, 64, 64, 64, 64]
        assert found.faults == ["", "", "a mask of another size", "", "", "", "", ""]


def test_a_mask_with_nan_is_empty() -> None:
    masks = torch.zeros(N, SIZE, SIZE)
    masks[:, 4:12, 4:12] = 1
    masks[5, 0, 0] = NAN

    found, _ = read({"image": IMAGES, "mask": masks, "label": LABELS})

    assert found.masks.flatten(1).sum(dim=1).tolist() == [64] * 5 + [0, 64, 64]
    assert found.faults[5] == "a mask with NaN"


@pytest.mark.parametrize(
    ("labels", "expected", "fault"),
    [
        (torch.tensor([-100, *LABELS[1:]]), [-100, 1, 2, 0, 1, 2, 0, 1], "a label of -100"),
        (torch.tensor([-1, *LABELS[1:]]), [-1, 1, 2, 0, 1, 2, 0, 1], None),
        (torch.tensor([NAN, *LABELS[1:]]), [-1, 1, 2, 0, 1, 2, 0, 1], "a label of NaN"),
        ([None, *LABELS[1:].tolist()], [-1, 1, 2, 0, 1, 2, 0, 1], None),
        ([None, *LABELS[1:]], [-1, 1, 2, 0, 1, 2, 0, 1], None),
    ],
    ids=["-100", "-1", "NaN", "None", "None beside tensors"],
)
def test_a_missing_label_costs_its_sample_alone(labels: Any, expected: list[int], fault: str | None) -> None:
    for batch in ((IMAGES, labels), {"image": IMAGES, "label": labels}):
        found, said = read(batch)
        assert said == []
        assert found.labels.tolist() == expected
        assert found.faults == ([fault, *[""] * 7] if fault else None)


def test_words_of_which_one_is_missing() -> None:
    found, _ = read({"image": IMAGES[:3], "label": ["bee", None, "ant"]}, class_names=["ant", "bee"])

    assert found.labels.tolist() == [1, -1, 0]


@pytest.mark.parametrize("missing", [NAN, -1.0, -100.0])
def test_a_missing_mark_is_none(missing: float) -> None:
    marks = FINDINGS.float()
    marks[2, 5] = missing

    found, said = read((IMAGES, marks))

    assert said == []
    assert torch.equal(
        found.labels, FINDINGS.float().index_put((torch.tensor(2), torch.tensor(5)), torch.tensor(0.0))
    )
    assert found.faults[2] == f"a label of {'NaN' if missing != missing else int(missing)}"


@pytest.mark.parametrize("missing", [NAN, None])
def test_a_missing_measurement_costs_its_sample_alone(missing: float | None) -> None:
    found, said = read({"image": IMAGES, "label": [missing, *AGE[1:].tolist()]})

    assert said == []
    assert found.labels[0].isnan()
    assert torch.equal(found.labels[1:], AGE[1:])
    assert found.faults == (["a label of NaN", *[""] * 7] if missing is not None else None)
    fixed = FixedBatch(3)
    fixed.offer(found)
    fixed.close()
    assert (fixed.positions, fixed.unlabelled) == ([1, 2, 3], 1)
    assert torch.equal(fixed.samples.labels, AGE[1:4])


def test_labels_that_are_all_missing_are_said() -> None:
    found, said = read((IMAGES, torch.full((N,), NAN)))

    assert found.labels is None
    assert "`labels` are NaN for every sample" in said[0]


@pytest.mark.parametrize("beside", [False, True])
def test_a_missing_measurement_of_a_head_costs_its_sample_alone(beside: bool) -> None:
    ages = torch.tensor([NAN, *AGE[1:]])
    found, said = read({"image": IMAGES, "age": ages, "sex": SEX, **({"label": LABELS} if beside else {})})

    assert said == []
    assert torch.equal(found.head_labels["age"].nan_to_num(-5), ages.nan_to_num(-5))
    assert torch.equal(found.head_labels["sex"], SEX)
    assert found.faults == (None if beside else ["a label of NaN", *[""] * 7])


def test_samples_some_of_which_have_an_annotation() -> None:
    mask = torch.ones(SIZE, SIZE)
    mask[:4] = 0
    samples = [{"image": image, "label": 1, "mask": mask} for image in IMAGES]
    samples[1:3] = [{"image": IMAGES[1]}, {"image": IMAGES[2], "label": 1}]

    found, said = read(samples)

    assert said == []
    assert found.labels.tolist() == [1, -1, 1, 1, 1, 1, 1, 1]
    assert found.masks.flatten(1).any(dim=1).tolist() == [True, False, False, *[True] * 5]


def test_a_broken_target_costs_its_sample_alone() -> None:
    targets = [{"boxes": boxes()[:1], "labels": torch.tensor([2])} for _ in range(N)]
    targets[4] = {"boxes": boxes()[:1], "labels": torch.tensor([1, 2])}

    found, said = read((IMAGES, targets))

    assert said == []
    assert found.labels.tolist() == [2, 2, 2, 2, -1, 2, 2, 2]
    assert found.faults[4] == "a target whose parts do not belong together"
