"""A look at a model with several heads, without a Trainer: samples, records and histories of each, joined."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lightning_gcam import SaliencyBatch
from lightning_gcam.cam.heads import HeadPlan
from lightning_gcam.pipeline.config import LookConfig
from lightning_gcam.pipeline.dry_run import dry_run
from lightning_gcam.pipeline.heads import JoinedRecord, RunHistory
from lightning_gcam.pipeline.labels import for_planning, labels_by_name, plan_heads, samples_of_head
from lightning_gcam.pipeline.record import Stamp
from lightning_gcam.pipeline.run import analyze, record_saliency
from lightning_gcam.utils.errors import InputError
from tests.support.synchronizations import OnDevice, synchronizations, to_device
from tests.support.toys import listening, toy_samples

SEXES, AGES = torch.tensor([0, 1, 0, 1]), torch.tensor([20, 31, 40, 50])


FORWARDS: list[int] = []


class Face(nn.Module):
    """An age, a sex and an embedding that both are of; and how often it was run."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.age, self.sex = nn.Linear(6, 1), nn.Linear(6, 2)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        FORWARDS.append(len(images))
        embedding = self.body(images)
        return {"embedding": embedding, "age": self.age(embedding), "sex": self.sex(embedding)}


def batch(**fields: Any) -> SaliencyBatch:
    images, _, masks = toy_samples(4)
    return SaliencyBatch(
        images, **{"masks": masks, "head_labels": {"sex": SEXES, "age": AGES[:, None]}, **fields}
    )


PLANS = [HeadPlan((), "age", 1, "age"), HeadPlan((), "sex", 2, "sex")]


def test_plans_by_the_names_of_the_labels() -> None:
    assert plan_heads(Face(), batch(), None, None) == PLANS
    assert plan_heads(Face(), batch(), "sex", None) == PLANS[1:]
    assert plan_heads(Face(), batch(), ["embedding", "sex"], None) == [HeadPlan((), "embedding", 6), PLANS[1]]
    assert plan_heads(Face(), batch(head_labels=None), None, None) == [
        replace(each, labels=None) for each in PLANS
    ]
    one = nn.Sequential(nn.Conv2d(1, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert plan_heads(one, batch(), None, None) == []


def test_labels_of_no_head_are_left_out() -> None:
    plans = plan_heads(Face(), batch(head_labels={"view": torch.tensor([0, 8, 1, 3])}), None, None)
    assert [plan.labels for plan in plans] == [None, None]


def test_labels_that_two_heads_could_have_are_said_to_be_of_the_first() -> None:
    class Alike(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.left, self.right = Face().body, nn.Linear(6, 3), nn.Linear(6, 3)

        def forward(self, images: Tensor) -> Any:
            features = self.body(images)
            return self.left(features), self.right(features)

    with listening() as said:
        plans = plan_heads(Alike(), batch(head_labels=None, labels=SEXES), None, None)
    assert plans == [HeadPlan((), "0", 3, "")]
    assert any('`head="0"`. For another one pass `head="1"`' in each for each in said)
    with listening() as said:
        assert plan_heads(Alike(), batch(head_labels=None, labels=SEXES), "1", None) == [
            HeadPlan((), "1", 3, "")
        ]
        both = plan_heads(Alike(), batch(head_labels=None, labels=SEXES), ["1", "0"], None)
    assert [plan.labels for plan in both] == ["", None]
    assert said == []


def test_the_samples_of_a_head_have_its_labels() -> None:
    age, sex = (samples_of_head(batch(), plan) for plan in PLANS)
    assert (age.labels.dtype, age.labels.tolist()) == (
        torch.float32,
        [20, 31, 40, 50],
    )  # measured, no classes
    assert sex.labels.tolist() == SEXES.tolist()
    assert sex.head_labels is None
    assert samples_of_head(batch(), HeadPlan((), "view", 3)).labels is None
    whole = batch(labels=SEXES)
    assert samples_of_head(whole, HeadPlan()) is whole
    assert list(labels_by_name(whole)) == ["sex", "age"]  # the same once
    assert list(labels_by_name(batch(labels=1 - SEXES))) == ["sex", "age", ""]
    planned = for_planning(batch(labels=1 - SEXES))
    assert (planned.labels, planned.masks) == (None, None)
    assert list(labels_by_name(planned)) == ["sex", "age", ""]


def test_a_look_at_both_heads_is_the_two_looks() -> None:
    model, config = Face(), LookConfig(scores=["energy", "average_drop"])
    record = analyze(model, batch(), config, stamp=Stamp(step=3, class_names=["woman", "man"]))
    assert isinstance(record, JoinedRecord)
    assert list(record.heads) == ["age", "sex"]
    for plan in PLANS:
        name = str(plan.name)
        alone = analyze(
            model,
            samples_of_head(batch(), plan),
            LookConfig(scores=["energy", *(["average_drop"] if name == "sex" else [])], head=name),
        )
        (expected,) = alone.heads.values()
        found = record.heads[name]
        assert found.scores == expected.scores
        assert torch.equal(found.attribution.maps["guidance_cam"], expected.attribution.maps["guidance_cam"])
        assert {key: value for key, value in record.scores.items() if key.startswith(f"{name}/")} == {
            f"{name}/{key}": value for key, value in expected.scores.items()
        }
    assert record.cost.maps == sum(each.cost.maps for each in record.heads.values())
    assert record.cost.checks == record.heads["sex"].cost.checks > record.heads["age"].cost.checks == 0
    assert record.row == {"step": 3, "epoch": 0, **record.scores}
    assert record.metrics["saliency/sex/energy"] == record.scores["sex/energy"]
    assert "sex/average_drop" in record.scores and "age/average_drop" not in record.scores


@pytest.mark.parametrize("history", [None, RunHistory()])
def test_the_samples_are_copied_to_the_host_once_for_all_heads(history: RunHistory | None) -> None:
    config = LookConfig(scores=["energy"], checks=[], target_layer="body.1")
    model, samples = to_device(Face()), to_device(batch(labels=SEXES))
    with synchronizations():
        record = analyze(model, samples, config, history=history)
    hosts = [record.batch, *(each.batch for each in record.heads.values())]
    assert all(each.images is record.batch.images and each.masks is record.batch.masks for each in hosts)
    assert not isinstance(record.batch.images, OnDevice)
    assert record.batch.labels.tolist() == SEXES.tolist()
    assert record.batch.head_labels["age"][:, 0].tolist() == AGES.tolist()
    assert record.heads["age"].batch.labels.tolist() == AGES.tolist()


def test_a_joined_record_shows_all_heads() -> None:
    record = record_saliency(Face(), batch(groups=torch.tensor([0, 0, 1, 1])), scores=["energy"], checks=[])
    age, sex = record.heads.values()
    assert record.parts == (age, sex) and age.parts == (age,)
    assert list(record.pictures) == ["saliency/age/overlay", "saliency/sex/overlay"]
    assert np.array_equal(record.overlay[: len(age.overlay)], age.overlay)
    assert np.array_equal(record.overlay[len(age.overlay) :], sex.overlay)
    assert not record.overlay.flags.writeable
    assert [each for each in record.title.splitlines() if "head sex" in each] == [sex.title]
    assert [row["score"] for row in record.table if row["samples"] == "all"] == [
        f"{head}/{score}"
        for head in ("age", "sex")
        for score in ("energy", "energy_chance", "uniform/energy", "centre/energy")
    ]
    assert list(record.measurements) == ["age/energy", "age/energy_chance", "sex/energy", "sex/energy_chance"]
    assert "sex/energy" in record.group_measurements and "sex/energy" in record.class_measurements
    assert record.batch.head_labels is not None
    assert record.figure().image.shape == record.overlay.shape


def test_a_head_of_any_name_has_tags_that_every_logger_takes() -> None:
    class Named(Face):
        def forward(self, images: Tensor) -> dict[str, Tensor]:
            found = super().forward(images)
            return {"age (years)": found["age"], "sex": found["sex"]}

    labels = {"sex": SEXES, "age (years)": AGES}
    record = record_saliency(Named(), batch(head_labels=labels), scores=["energy"], checks=[])
    assert list(record.heads) == ["age (years)", "sex"], "in Python they keep their names"
    assert list(record.pictures) == ["saliency/age_years_/overlay", "saliency/sex/overlay"]
    energy = record.heads["age (years)"].scores["energy"]
    assert record.metrics["saliency/age_years_/energy"] == energy == record.scores["age_years_/energy"]
    assert record.measurements["age_years_/energy"].value == pytest.approx(energy)
    assert record.table[0]["score"] == "age_years_/energy"
    assert "head age (years)" in record.title


def test_class_names_are_those_of_the_heads_with_as_many_classes() -> None:
    record = analyze(
        Face(), batch(), LookConfig(head=["sex", "embedding"]), stamp=Stamp(class_names=["f", "m"])
    )
    sex, embedding = record.heads.values()
    assert sex.captions[1].startswith("true m · predicted ")
    assert embedding.stamp.class_names is None
    assert "maps of the predicted class" in embedding.title


def test_a_number_without_labels_is_explained_itself() -> None:
    record = record_saliency(Face(), batch(head_labels={"sex": SEXES}), scores=[], checks=[])
    assert record.heads["age"].attribution.explains == "output"


def test_a_dry_run_finds_the_layer_of_each_head() -> None:
    class Branching(Face):
        def forward(self, images: Tensor) -> dict[str, Tensor]:
            early = self.body[:2](images)
            return {
                "age": self.age(early.mean(dim=(2, 3))),
                "sex": self.sex(self.late(early).mean(dim=(2, 3))),
            }

    model = Branching()
    model.late = nn.Conv2d(6, 6, 3)
    found = dry_run(model, batch().select([0]), LookConfig(), whole=batch())
    assert [(plan.name, plan.layers) for plan in found] == [("age", ("body.1",)), ("sex", ("late",))]
    named = dry_run(model, batch().select([0]), LookConfig(target_layer="body.0"), whole=batch())
    assert [plan.layers for plan in named] == [("body.0",)] * 2
    config = LookConfig(scores=[], checks=[]).at_plans([*found], None)
    record = analyze(model, batch(), config)
    assert [each.attribution.target_layer for each in record.parts] == ["body.1", "late"]


def test_labels_that_are_no_classes_of_their_head_are_refused() -> None:
    wrong = batch(head_labels={"sex": SEXES + 1, "age": AGES})
    with pytest.raises(InputError, match="`labels` holds class 2, but the logits have 2"):
        dry_run(Face(), wrong.select([0]), LookConfig(), whole=wrong)


def test_each_head_has_a_history() -> None:
    model, samples, history = Face(), batch(), RunHistory()
    plans = [replace(plan, layers=("body.1",)) for plan in PLANS]
    config = LookConfig(scores=["energy", "drift"], checks=["border"]).at_plans(plans, None)
    first = analyze(model, samples, config, history=history)
    model.age.weight.data.neg_()
    second = analyze(model, samples, config, history=history)
    assert "age/drift" not in first.scores
    assert second.scores["sex/drift"] == pytest.approx(1.0) != second.scores["age/drift"]
    assert history.is_checked and not history.maps
    again = RunHistory()
    again.load_state_dict(history.state_dict())
    assert again.is_checked and set(again.of_head("sex").maps) == {"previous", "first", "best"}
    assert again.of_head("sex").maps.keys() == history.of_head("sex").maps.keys()


def test_the_heads_are_planned_once_a_run() -> None:
    """A dry run has planned them: a look runs the model as often as the looks at its heads do."""
    model, samples = Face(), batch()
    config = LookConfig(scores=["energy"], checks=[])
    plans = [*dry_run(model, samples.select([0]), config, whole=samples)]
    FORWARDS.clear()
    analyze(model, samples, config.at_plans(plans, None), history=RunHistory())
    assert FORWARDS == [4, 4]
