"""The picture of a sample's exchanges: which panels, what is said below them, and what cannot be shown."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from lightning_gcam import SaliencyBatch, SaliencyRecord
from lightning_gcam.pipeline import rendering
from lightning_gcam.pipeline.record import Stamp
from lightning_gcam.pipeline.run import record_saliency
from lightning_gcam.shortcuts import exchange_property
from lightning_gcam.utils.errors import InputError
from lightning_gcam.visual import to_display
from lightning_gcam.visual.layout import plan_row
from tests.support.toys import decoded

NAMES = ["color", "texture", "border"]


def network(channels: int, classes: int) -> nn.Module:
    torch.manual_seed(0)
    features = [nn.Conv2d(channels, 6, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*features, nn.Linear(6, classes))


def looked(
    labels: Any, channels: int = 3, classes: int = 4, checks: Any = NAMES, size: int = 28, **stamp: Any
) -> SaliencyRecord:
    labels = torch.as_tensor(labels)
    images = torch.rand(len(labels), channels, size, size, generator=torch.Generator().manual_seed(1))
    batch = SaliencyBatch(images, labels)
    return record_saliency(network(channels, classes), batch, checks=checks, stamp=Stamp(**stamp))


@pytest.fixture(scope="module")
def record() -> SaliencyRecord:
    return looked([-1, 0, 1, 2, 3, 0], class_names=["cat", "dog", "cow", "hen"])


class Drawn:
    """What `render_row` was given."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[dict[str, Any]] = []
        original = rendering.render_row

        def render_row(images: Tensor, texts: Any, **given: Any) -> npt.NDArray[np.uint8]:
            self.calls.append({"images": images, "texts": texts, **given})
            return original(images, texts, **given)

        monkeypatch.setattr(rendering, "render_row", render_row)

    def of(self, record: SaliencyRecord, sample: int | None = None) -> dict[str, Any]:
        record.exchange_figure(sample)
        return self.calls[-1]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Drawn:
    return Drawn(monkeypatch)


def predicting(record: SaliencyRecord, row: int, **predicted: Tensor | int) -> SaliencyRecord:
    """The record with other logits for a sample's edits: of a class, or as they are given."""
    logits = dict(record.exchange_logits)
    for name, each in predicted.items():
        of_all = logits[f"{name}_swap_0"].clone()
        of_all[row] = each if isinstance(each, Tensor) else torch.eye(of_all.shape[1])[each]
        logits[f"{name}_swap_0"] = of_all
    return replace(record, exchange_logits=logits)


def of_images(record: SaliencyRecord, images: Tensor) -> SaliencyRecord:
    exchanges = replace(record.exchanges, images=images)  # type: ignore[type-var]
    return replace(record, batch=replace(record.batch, images=images), exchanges=exchanges)


def donor_of(record: SaliencyRecord, row: int, name: str = "border") -> int:
    return int(record.exchanges.donors[name].others[row, 0])  # type: ignore[union-attr]


def notes(call: dict[str, Any]) -> dict[str, str]:
    return {each.heading: each.note for each in call["texts"]}


def marked(call: dict[str, Any]) -> list[str]:
    return [each.heading for each in call["texts"] if each.is_marked]


# ------------------------------------------------------------------------------------------------ the panels


def test_a_panel_for_the_image_the_donor_and_each_property(record: SaliencyRecord, drawn: Drawn) -> None:
    call, figure = drawn.of(record), record.exchange_figure()
    assert list(notes(call)) == ["image", "donor", *NAMES]
    details = max(len(each.details) for each in call["texts"])
    layout = plan_row(5, 28, 28, details, len(call["legend"]))
    assert figure.image.shape == (layout.height, layout.width, 3)
    assert decoded(figure._repr_png_()).shape == figure.image.shape


def test_the_panels_are_the_edits_themselves(record: SaliencyRecord, drawn: Drawn) -> None:
    """The first sample has no class, so the second one is shown."""
    call, images = drawn.of(record), record.batch.images
    donor = donor_of(record, 1)
    edits = [exchange_property(name, images[1:2], images[donor][None]) for name in NAMES]
    expected = to_display(torch.cat([images[1:2], images[donor][None], *edits]))
    assert torch.equal(call["images"], expected)
    assert len({each.numpy().tobytes() for each in call["images"]}) == 5


def test_the_border_differs_outside_only(record: SaliencyRecord, drawn: Drawn) -> None:
    image, donor, *_, border = drawn.of(record)["images"]
    inside = (slice(None), slice(5, -5), slice(5, -5))
    assert torch.equal(border[inside], image[inside])
    assert torch.equal(border[:, :5], donor[:, :5])


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_every_number_of_channels(channels: int, drawn: Drawn) -> None:
    call = drawn.of(looked([0, 1, 2, 3], channels, checks=["color", "border"]))
    there = ["border"] if channels == 1 else ["color", "border"]
    assert list(notes(call)) == ["image", "donor", *there]
    assert ("channel" in call["title"]) == (channels in (2, 5))


def test_all_panels_are_on_one_scale(drawn: Drawn) -> None:
    """Images beyond [0, 1]: the same value is the same grey in the image, the donor and the edit."""
    record = looked([0, 1], checks=["border"])
    images = torch.zeros(2, 3, 28, 28)
    images[0, :, 14, 14], images[1, :, 0, 0] = 4.0, -4.0
    image, donor, border = drawn.of(of_images(record, images))["images"]
    assert image[0, 0, 5] == donor[0, 5, 5] == border[0, 9, 9] == 128
    assert (image.max(), donor.min()) == (255, 0)


def test_a_normalization_is_undone(drawn: Drawn) -> None:
    call = drawn.of(looked([0, 1], checks=["border"], normalize=(0.5, 0.25)))
    plain = looked([0, 1], checks=["border"])
    assert torch.equal(call["images"][0], to_display(plain.batch.images[:1], (0.5, 0.25))[0])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.bfloat16, torch.float64])
def test_every_dtype(dtype: torch.dtype) -> None:
    record = looked([0, 1], checks=["border"])
    images = (record.batch.images * 255).to(dtype) if dtype == torch.uint8 else record.batch.images.to(dtype)
    figure = of_images(record, images).exchange_figure().image
    assert np.abs(figure.astype(int) - record.exchange_figure().image.astype(int)).mean() < 1


# ------------------------------------------------------------------------------------------------ the words


def test_stays_follows_and_other(record: SaliencyRecord, drawn: Drawn) -> None:
    theirs = int(record.batch.labels[donor_of(record, 1)])  # type: ignore[index]
    other = 5 - theirs if theirs in (2, 3) else 3
    call = drawn.of(predicting(record, 1, color=0, texture=theirs, border=other))
    names = record.stamp.class_names
    assert names is not None
    assert notes(call) == {
        "image": "true cat",
        "donor": f"true {names[theirs]}",
        "color": "stays: cat",
        "texture": f"follows: {names[theirs]}",
        "border": f"other: {names[other]}",
    }
    assert marked(call) == ["texture"]
    assert call["caption"] == record.captions[1] and call["correct"] == record.correct[1]


def test_logits_that_are_not_finite_are_no_prediction(record: SaliencyRecord, drawn: Drawn) -> None:
    call = drawn.of(predicting(record, 1, border=torch.full((4,), torch.nan)))
    assert notes(call)["border"] == "not finite" and "border" not in marked(call)


def test_the_rates_are_those_of_all_samples(record: SaliencyRecord, drawn: Drawn) -> None:
    call, scores = drawn.of(record), record.scores
    for each in call["texts"][2:]:
        rate, chance = scores[f"{each.heading}_follow_rate"], scores[f"{each.heading}_follow_chance"]
        assert each.details[0] == f"follows {rate:.2f}, chance {chance:.2f}"
    assert "rates: of 5 samples; chance: before the edit" in call["legend"]


def test_the_control_is_said_where_it_was_measured(record: SaliencyRecord, drawn: Drawn) -> None:
    measured = dict(record.reliance.measurements)  # type: ignore[union-attr]
    plain = {name: each for name, each in measured.items() if "same_class_follow" not in name}
    control = {"border_same_class_follow_rate": measured["border_follow_rate"]._replace(value=0.125)}
    calls = [
        drawn.of(replace(record, reliance=replace(record.reliance, measurements=each)))  # type: ignore[type-var]
        for each in (plain, plain | control)
    ]
    assert [[each.details[1:] for each in call["texts"][2:]] for call in calls] == [
        [[], [], []],
        [[], [], ["control 0.12"]],
    ]
    assert [any(each.startswith("control:") for each in call["legend"]) for call in calls] == [False, True]


def test_a_property_without_its_logits_has_no_panel(record: SaliencyRecord, drawn: Drawn) -> None:
    logits = {name: each for name, each in record.exchange_logits.items() if not name.startswith("texture")}
    assert list(notes(drawn.of(replace(record, exchange_logits=logits)))) == [
        "image",
        "donor",
        "color",
        "border",
    ]


def test_two_classes_of_one_logit(drawn: Drawn) -> None:
    record = looked([0, 1, 0, 1], classes=1, checks=["color", "border"])
    call = drawn.of(predicting(record, 1, color=torch.tensor([2.0]), border=torch.tensor([-2.0])), sample=1)
    assert notes(call) == {"image": "true 1", "donor": "true 0", "color": "stays: 1", "border": "follows: 0"}


def test_several_classes_a_sample(drawn: Drawn) -> None:
    """The first sample has classes 0 and 1, its donor 1 and 2: they differ in two."""
    record = looked([[1, 1, 0, 0], [0, 1, 1, 0]], checks=["color", "texture", "border"])

    def marks(*each: int) -> Tensor:
        return torch.tensor(each) * 8.0 - 4

    call = drawn.of(
        predicting(record, 0, color=marks(1, 0, 0, 1), texture=marks(0, 1, 1, 0), border=marks(1, 1, 1, 0))
    )
    assert notes(call) == {
        "image": "true 0, 1",
        "donor": "true 1, 2",
        "color": "stays: 0, 3",
        "texture": "follows: 1, 2",
        "border": "follows 1 of 2: 0, 1, 2",
    }
    assert marked(call) == ["texture"]


def test_one_hot_labels_are_classes(drawn: Drawn) -> None:
    record = looked(torch.eye(4).long()[[2, 3, 2]], checks=["color", "border"])
    call = drawn.of(predicting(record, 0, color=3, border=2))
    assert notes(call) == {"image": "true 2", "donor": "true 3", "color": "follows: 3", "border": "stays: 2"}


def test_classes_beyond_the_names_are_numbers(drawn: Drawn) -> None:
    assert notes(drawn.of(looked([0, 3], checks=["border"], class_names=["cat"])))["donor"] == "true 3"


# ------------------------------------------------------------------------------------------------ which sample


def test_any_sample_with_a_donor(record: SaliencyRecord, drawn: Drawn) -> None:
    assert torch.equal(drawn.of(record, 3)["images"][0], to_display(record.batch.images)[3])


@pytest.mark.parametrize("sample", [0, 6, -1, "1"])
def test_a_sample_without_a_donor_is_refused(record: SaliencyRecord, sample: Any) -> None:
    with pytest.raises(InputError, match=rf"`sample` must be .* got {sample!r}. These have: 1, 2, 3, 4, 5\."):
        record.exchange_figure(sample)


@pytest.mark.parametrize(
    "record",
    [looked([0, 1], checks=[]), looked([1, 1]), looked([0.5, 1.5], classes=1)],
    ids=["no checks", "one class", "no classes"],
)
def test_a_look_without_exchanges_says_what_to_do(record: SaliencyRecord) -> None:
    with pytest.raises(InputError, match=r"no exchanged images to show: .*`checks=\[\"border\"\]`"):
        record.exchange_figure()


def test_drawing_moves_no_random_stream(record: SaliencyRecord) -> None:
    before = torch.get_rng_state()
    first = record.exchange_figure().image
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(first, record.exchange_figure().image)


# ------------------------------------------------------------------------------------------------ with masks


def annotated(unmasked: list[int], checks: Any = None) -> SaliencyRecord:
    """Eight samples of four classes, some without an object in their mask."""
    images = torch.rand(8, 3, 28, 28, generator=torch.Generator().manual_seed(1))
    masks = torch.zeros(8, 28, 28, dtype=torch.bool)
    masks[:, 10:18, 10:18] = True
    masks[unmasked] = False
    suspect = torch.zeros(28, 28, dtype=torch.bool)
    suspect[:6, :6] = True
    batch = SaliencyBatch(images, torch.arange(8) % 4, masks, suspect=suspect)
    return record_saliency(network(3, 4), batch, checks=checks)


def test_with_masks_there_are_backgrounds_and_the_suspect_region(drawn: Drawn) -> None:
    """What is measured of objects is measured on the images of backgrounds, so it has no panel."""
    record = annotated([])
    shown = list(notes(drawn.of(record)))
    assert record.exchanges is not None and "object" in record.exchanges.names
    assert shown[:2] == ["image", "donor"]
    assert set(shown[2:]) == {*record.exchanges.names, "salient region"} - {"object", "salient_region"}


def test_of_objects_alone_the_images_are_shown(drawn: Drawn) -> None:
    call = drawn.of(annotated([], checks=["object"]))
    assert [each.heading for each in call["texts"]] == ["image", "donor", "background"]
    assert not call["texts"][2].details


def test_a_property_with_another_donor_stands_behind_that(drawn: Drawn) -> None:
    """Samples without an object lend no background, so that others are chosen for it."""
    record = annotated([1, 2], checks=["border", "background"])
    border, background = donor_of(record, 0, "border"), donor_of(record, 0, "background")
    assert border != background
    call = drawn.of(record)
    assert [each.heading for each in call["texts"]] == ["image", "donor", "border", "donor", "background"]
    assert [call["texts"][at].note for at in (1, 3)] == [f"true {border % 4}", f"true {background % 4}"]
    assert torch.equal(call["images"][3], to_display(record.batch.images)[background])
    assert "rates: of 6 to 8 samples; chance: before the edit" in call["legend"]


def test_the_first_sample_with_the_most_properties_is_shown_and_others_have_those_that_they_have(
    drawn: Drawn,
) -> None:
    record = annotated([0, 2], checks=["border", "background"])
    assert torch.equal(drawn.of(record)["images"][0], to_display(record.batch.images)[1])
    assert list(notes(drawn.of(record, 0))) == ["image", "donor", "border"]
