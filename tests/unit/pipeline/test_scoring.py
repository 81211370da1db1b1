"""Scores that need more than maps and a mask: the model's answers, earlier looks, random weights, groups."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_gcam import Attribution, SaliencyBatch, attribute
from lightning_gcam.cam.forward import random_weights
from lightning_gcam.metrics import (
    AverageDrop,
    InsertionAUC,
    SampleMean,
    available_scores,
    functional,
    resolve_scores,
)
from lightning_gcam.metrics.functional import deletion_steps
from lightning_gcam.metrics.measurement import ScoreResults
from lightning_gcam.metrics.perturbation import PerturbedKey, PerturbedOutputs
from lightning_gcam.metrics.registry import OutputNeeds, ResolvedScores, Scores
from lightning_gcam.metrics.samples import PerSample
from lightning_gcam.pipeline.captions import class_probabilities
from lightning_gcam.pipeline.config import LookConfig
from lightning_gcam.pipeline.model_outputs import (
    logits_for_versions,
    outputs_for_perturbed,
)
from lightning_gcam.pipeline.record import LookHistory, Stamp
from lightning_gcam.pipeline.run import _Look, in_one_process, record_saliency
from lightning_gcam.pipeline.scoring import score_maps
from lightning_gcam.utils.errors import InputError
from tests.support.toys import toy_network, toy_samples

ASKING = ["average_drop", "average_increase", "average_gain", "coherency", "adcc", "insertion", "deletion"]


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return toy_network().eval()


def state_of(model: nn.Module) -> dict[str, Tensor]:
    return copy.deepcopy(model.state_dict())


# ------------------------------------------------------------------------------------- the model is asked


def test_the_drop_is_the_functions_on_the_images_it_speaks_of(network: nn.Module) -> None:
    batch = SaliencyBatch(*toy_samples(5))
    record = record_saliency(network, batch, scores=["average_drop", "average_gain", "coherency", "adcc"])
    maps = record.attribution.maps["guidance_cam"]
    kept_images = functional.keep_salient(batch.images, maps)
    rows = torch.arange(5)
    with torch.no_grad():
        before = network(batch.images).softmax(dim=1)[rows, batch.labels]
        after = network(kept_images).softmax(dim=1)[rows, batch.labels]
    kept = attribute(network, kept_images, batch.labels, target_layer="5").maps["guidance_cam"]

    assert record.scores["average_drop"] == pytest.approx(float(functional.average_drop(before, after)))
    assert record.scores["average_gain"] == pytest.approx(float(functional.average_gain(before, after)))
    assert record.scores["coherency"] == pytest.approx(float(functional.coherency(maps, kept)))
    assert record.scores["adcc"] == pytest.approx(float(functional.adcc(maps, kept, before, after)))


def test_a_curve_runs_from_nothing_to_the_whole_image(network: nn.Module) -> None:
    batch = SaliencyBatch(*toy_samples(3))
    attribution = attribute(network, batch.images, batch.labels, target_layer="5")
    needs = OutputNeeds.of(
        resolve_scores({"few": InsertionAUC(steps=4, fill="zero"), "many": InsertionAUC()})
    )
    answers = outputs_for_perturbed(
        network, batch, attribution, needs, methods="guidance_cam", target_layer="5"
    )
    curves = answers.probabilities[PerturbedKey("guidance_cam", 0)]
    with torch.no_grad():
        nothing, whole = (network(each).softmax(dim=1) for each in (0 * batch.images, batch.images))

    assert curves.shape == (3, 5)
    torch.testing.assert_close(curves[:, 0], nothing[torch.arange(3), batch.labels])
    torch.testing.assert_close(curves[:, -1], whole[torch.arange(3), batch.labels])
    assert answers.probabilities[PerturbedKey("guidance_cam", 1)].shape == (3, 21)


@pytest.mark.parametrize("chunk_size", [1, 3, 100])
def test_the_size_of_the_pieces_changes_no_score(network: nn.Module, chunk_size: int) -> None:
    batch = SaliencyBatch(*toy_samples(7))
    whole = record_saliency(network, batch, scores=[*ASKING, "random_model_similarity"])
    pieces = record_saliency(
        network, batch, scores=[*ASKING, "random_model_similarity"], chunk_size=chunk_size
    )
    assert set(whole.scores) >= set(ASKING)
    assert pieces.scores == pytest.approx(whole.scores, abs=1e-5)


def test_scores_that_ask_the_same_share_the_answers(network: nn.Module) -> None:
    seen: list[int] = []

    def forward(model: nn.Module, images: Tensor) -> Tensor:
        seen.append(len(images))
        return model(images)

    def forwards(scores: list[str]) -> int:
        seen.clear()
        record_saliency(
            network, SaliencyBatch(*toy_samples(4)), scores=scores, forward=forward, target_layer="5"
        )
        return sum(seen) // 4

    forwards(["energy"])  # which sees how the layer lies
    alone = forwards(["energy"])
    assert forwards(["average_drop"]) == alone + 1
    assert forwards(["average_drop", "average_increase", "average_gain"]) == alone + 1
    assert forwards(["insertion"]) == alone + 21
    assert forwards(["random_model_similarity", "random_model_ssim"]) == alone + 1
    assert forwards(["coherency"]) == alone + 1  # maps of the kept images, and no probability


def test_two_maps_win_against_each_other(network: nn.Module) -> None:
    batch = SaliencyBatch(*toy_samples(5))
    record = record_saliency(
        network, batch, methods=["guidance_cam", "grad_cam", "layer_cam"], scores="win_rate"
    )
    with torch.no_grad():
        after = {
            name: network(functional.keep_salient(batch.images, maps)).softmax(dim=1)[
                torch.arange(5), batch.labels
            ]
            for name, maps in record.attribution.maps.items()
        }
    wins = {
        "win_rate": ("guidance_cam", "grad_cam"),
        "grad_cam/win_rate": ("grad_cam", "guidance_cam"),
        "layer_cam/win_rate": ("layer_cam", "guidance_cam"),
    }
    expected = {name: float(functional.win_rate(after[a], after[b])) for name, (a, b) in wins.items()}
    assert {name: record.scores[name] for name in wins} == pytest.approx(expected)
    assert expected["win_rate"] != 0.5
    with pytest.raises(InputError, match='"win_rate" compares two maps of a sample, and there is one'):
        record_saliency(network, SaliencyBatch(*toy_samples(5)), scores="win_rate")


def test_a_fill_of_your_own_reaches_the_images(network: nn.Module) -> None:
    batch = SaliencyBatch(*toy_samples(4))
    unchanged = {"mine": AverageDrop(fill=lambda images: images)}
    assert record_saliency(network, batch, scores=unchanged).scores["mine"] == pytest.approx(0, abs=1e-6)


def test_a_blank_map_has_no_answer_that_counts(network: nn.Module) -> None:
    batch = SaliencyBatch(*toy_samples(4))
    attribution = attribute(network, batch.images, batch.labels, target_layer="5")
    attribution.peaks["guidance_cam"][1] = 0
    needs = OutputNeeds.of(resolve_scores(["average_drop", "insertion"]))
    answers = outputs_for_perturbed(
        network, batch, attribution, needs, methods="guidance_cam", target_layer="5"
    )
    sheet = score_maps(attribution, batch, ["average_drop", "insertion"], outputs=answers)
    for found in sheet.measure().values():
        assert (found.overall.n, found.overall.blank) == (3, 1)


def test_where_a_sample_can_be_of_several_classes_each_has_a_sigmoid(network: nn.Module) -> None:
    images = toy_samples(4)[0]
    marks = torch.tensor([[1, 1, 0, 0], [0, 1, 0, 1], [1, 0, 0, 0], [1, 1, 1, 0]])
    record = record_saliency(network, SaliencyBatch(images, marks), targets=2, scores="average_drop")
    kept = functional.keep_salient(images, record.attribution.maps["guidance_cam"])
    with torch.no_grad():
        before, after = network(images)[:, 2].sigmoid(), network(kept)[:, 2].sigmoid()
    assert record.scores["average_drop"] == pytest.approx(float(functional.average_drop(before, after)))


def test_the_maps_of_kept_images_explain_what_the_others_did() -> None:
    torch.manual_seed(1)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(576, 1)
    )
    nn.init.constant_(model[-1].bias, -9.0)  # the predicted class is 0, whose score is the negative output
    images = toy_samples(5)[0]
    record = record_saliency(
        model, SaliencyBatch(images), targets="output", target_layer="3", scores="coherency"
    )
    maps = record.attribution.maps["guidance_cam"]
    kept = attribute(model, functional.keep_salient(images, maps), "output", target_layer="3")
    assert record.scores["coherency"] == pytest.approx(
        float(functional.coherency(maps, kept.maps["guidance_cam"]))
    )


@pytest.mark.parametrize("targets", ["output", lambda logits: logits.sum(dim=1)])
def test_without_classes_there_is_no_probability(targets: Any) -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 1)
    )
    with pytest.raises(InputError, match="need maps that explain classes"):
        record_saliency(model, SaliencyBatch(toy_samples(4)[0]), targets=targets, scores="average_drop")


@pytest.mark.parametrize(
    ("logits", "classes", "expected"),
    [
        ([[0.0, 0.0]], [1], 0.5),
        ([[2.0]], [1], 0.8808),
        ([[2.0]], [0], 0.1192),
        ([[2.0, 0.0, -9.0]], [[1, 1, 0]], (0.8808 + 0.5) / 2),
        ([[2.0, 0.0]], [[0, 0]], float("nan")),
    ],
)
def test_probabilities(logits: list[Any], classes: list[Any], expected: float) -> None:
    found = class_probabilities(torch.tensor(logits), torch.tensor(classes))
    assert found.tolist() == pytest.approx([expected], abs=1e-4, nan_ok=True)


def test_changed_versions_of_a_batch_are_answered_in_one_go(network: nn.Module) -> None:
    batch, seen = SaliencyBatch(*toy_samples(3)), []

    def forward(model: nn.Module, images: Tensor) -> Tensor:
        seen.append(len(images))
        return model(images)

    before = state_of(network)
    network.train()
    answers, size = logits_for_versions(
        network, batch, {"dark": 0 * batch.images, "same": batch.images}, forward=forward
    )
    assert (seen, size) == ([6], None)  # memory sufficed
    network.eval()
    torch.testing.assert_close(answers.logits["same"], network(batch.images).detach())
    torch.testing.assert_close(answers.logits["dark"], network(0 * batch.images).detach())
    assert all(torch.equal(each, before[name]) for name, each in network.state_dict().items())
    assert logits_for_versions(network, batch, {})[0].logits == {}


def test_where_memory_runs_out_the_pieces_become_smaller(network: nn.Module) -> None:
    def forward(model: nn.Module, images: Tensor) -> Tensor:
        if len(images) > 2:
            raise torch.OutOfMemoryError("CUDA out of history")
        return model(images)

    batch = SaliencyBatch(*toy_samples(5))
    answers, size = logits_for_versions(network, batch, {"same": batch.images}, forward=forward)
    assert size == 2
    torch.testing.assert_close(answers.logits["same"], network(batch.images).detach())


# -------------------------------------------------------------------------------------------- random weights


def test_the_random_model_is_another_one_and_yours_is_not_touched(network: nn.Module) -> None:
    before, stream = state_of(network), torch.get_rng_state()
    record = record_saliency(network, SaliencyBatch(*toy_samples(6)), scores="random_model_similarity")
    assert abs(record.scores["random_model_similarity"]) < 0.99
    assert all(torch.equal(each, before[name]) for name, each in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), stream)


def test_a_model_with_just_these_weights_has_just_these_maps(network: nn.Module) -> None:
    network.load_state_dict({**network.state_dict(), **random_weights(network)})
    record = record_saliency(network, SaliencyBatch(*toy_samples(6)), scores="random_model_similarity")
    assert record.scores["random_model_similarity"] == pytest.approx(1)


def test_random_weights_are_not_those_of_the_model(network: nn.Module) -> None:
    values = random_weights(network)
    assert values.keys() >= {name for name, _ in network.named_parameters()}
    assert not torch.equal(values["0.weight"], network[0].weight)
    assert values["1.running_var"].tolist() == [1] * 6
    assert not values["4.bias"].any()
    assert torch.equal(values["0.weight"], random_weights(network)["0.weight"])
    assert not torch.equal(values["0.weight"], random_weights(network, seed=1)["0.weight"])


# --------------------------------------------------------------------------------------------- earlier looks


def look_at(maps: Tensor, logit: float) -> Attribution:
    """A look of two samples whose explained class has this logit, against 0."""
    logits = torch.tensor([[logit, 0.0]] * 2)
    return Attribution({"mine": maps}, logits, torch.zeros(2).long(), "layer", {"mine": torch.ones(2)}, False)


def test_drift_is_measured_against_the_previous_the_first_and_the_best_look() -> None:
    rising = torch.arange(16.0).reshape(1, 4, 4).repeat(2, 1, 1)
    batch, history = SaliencyBatch(torch.rand(2, 1, 4, 4)), LookHistory()
    names = ["drift", "drift_from_first", "drift_from_best"]
    found = []
    for maps, logit in [(rising, 0.0), (rising.flip(2), 5.0), (rising, 1.0), (rising, 2.0)]:
        look = look_at(maps, logit)
        found.append(score_maps(look, batch, names, earlier=history.maps).values)
        history.keep(look)
    other = float(functional.drift(rising, rising.flip(2)))

    assert found[0] == {}
    assert found[1] == pytest.approx(dict.fromkeys(names, other))
    assert found[2] == pytest.approx({"drift": other, "drift_from_first": 1, "drift_from_best": other})
    assert found[3] == pytest.approx({"drift": 1, "drift_from_first": 1, "drift_from_best": other})


def test_a_memory_comes_back_from_its_state() -> None:
    history, again = LookHistory(), LookHistory()
    history.keep(look_at(torch.rand(2, 4, 4), 1.0))
    again.load_state_dict(history.state_dict())
    assert torch.equal(again.maps["first"]["mine"], history.maps["first"]["mine"])
    again.keep(look_at(torch.zeros(2, 4, 4), 0.5))
    assert torch.equal(again.maps["best"]["mine"], history.maps["best"]["mine"])


def test_maps_of_other_samples_are_not_compared() -> None:
    history = LookHistory()
    history.keep(look_at(torch.rand(2, 5, 5), 1.0))
    look = look_at(torch.rand(2, 4, 4), 1.0)
    assert score_maps(look, SaliencyBatch(torch.rand(2, 1, 4, 4)), "drift", earlier=history.maps).values == {}


# -------------------------------------------------------------------------------- signals and volumes


@pytest.mark.parametrize("size", [(60,), (11, 12, 13)])
def test_signals_and_volumes_have_every_score_and_ssim_of_a_signal_fails_alone(size: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    first, second, earlier, random, kept = torch.rand(5, 3, *size, generator=generator)
    masks = torch.zeros(3, *size, dtype=torch.bool)
    masks[(slice(None), *[slice(2, 6)] * len(size))] = True
    box = torch.tensor([[2.0] * len(size) + [6.0] * len(size)])
    images, labels = torch.rand(3, 2, *size, generator=generator), torch.arange(3)
    batch = SaliencyBatch(images, labels, masks, boxes=[box] * 3, suspect=masks[0].roll(5, 0))
    network = nn.Sequential(nn.Flatten(), nn.Linear(images[0].numel(), 3)).eval()
    maps = {"first": first, "second": second}
    peaks = dict.fromkeys(maps, torch.ones(3))
    attribution = Attribution(maps, network(images).detach(), labels, "layer", peaks, False)
    resolved, failed = ResolvedScores.of(available_scores()), []
    needs = resolved.output_needs
    outputs = outputs_for_perturbed(network, batch, attribution, replace(needs, with_maps=frozenset()))
    for number in needs.with_maps:
        outputs.maps.update({PerturbedKey(name, number): kept for name in maps})
    outputs.random_maps.update(dict.fromkeys(maps, random))
    looks = {when: dict.fromkeys(maps, earlier) for when in ("previous", "first", "best")}
    found = score_maps(
        attribution, batch, resolved, lambda *failure: failed.append(failure), outputs=outputs, earlier=looks
    )

    missing = {"random_model_ssim"} if len(size) == 1 else set()
    assert {name for name, _ in failed} == missing
    assert all(
        "`random_model_ssim` takes `saliency` of two or three dim" in str(error) for _, error in failed
    )
    assert set(available_scores()) - found.values.keys() == missing
    assert found.values["energy"] == pytest.approx(float(functional.energy_pointing_game(first, masks)))
    assert found.values["max_box_accuracy"] == float(functional.max_box_accuracy(first, masks, [box] * 3))
    shown = deletion_steps(images, first, 20)
    curve = torch.zeros(3, 21)
    for index, changed in shown:
        probabilities = network(changed).softmax(dim=1).detach()
        curve[index[:, 0], index[:, 1]] = probabilities[torch.arange(len(index)), labels[index[:, 0]]]
    assert found.values["deletion"] == pytest.approx(float(functional.deletion_auc(curve)), abs=1e-6)


# ------------------------------------------------------------------------------ groups, baselines, intervals


def halves() -> tuple[Attribution, SaliencyBatch]:
    """Four samples of four pixels; the object is the left half, which holds 3/4, 3/4, 1/4 and nothing of the map."""
    maps = torch.tensor([[[3.0, 1.0]], [[3.0, 1.0]], [[1.0, 3.0]], [[0.0, 0.0]]])
    masks = torch.tensor([[[True, False]]] * 4)
    batch = SaliencyBatch(
        torch.rand(4, 1, 1, 2), torch.tensor([0, 0, 1, 1]), masks, groups=torch.tensor([5, 5, 2, -1])
    )
    peaks = {"mine": maps.flatten(1).amax(dim=1)}
    return Attribution({"mine": maps}, torch.eye(2).repeat(2, 1), None, "layer", peaks, False), batch


def scored(
    attribution: Attribution, batch: SaliencyBatch, scores: Scores | ResolvedScores, history: LookHistory
) -> ScoreResults:
    """The step of a look that scores its maps."""
    look = _Look(nn.Identity(), batch, LookConfig(scores=scores), in_one_process, None, history=history)
    return look.scores(attribution, PerturbedOutputs(), Stamp())[0]


def test_the_worst_group_stands_beside_the_score() -> None:
    attribution, batch = halves()
    found = score_maps(attribution, batch, ["energy", "gini"]).values
    assert found["energy"] == pytest.approx(7 / 12)
    assert found["energy_worst_group"] == pytest.approx(1 / 4)
    assert "gini_worst_group" not in found
    assert "energy_worst_group" not in score_maps(attribution, replace(batch, groups=None), "energy").values


def test_what_a_blob_in_the_middle_would_score_stands_beside() -> None:
    attribution, batch = halves()
    found = score_maps(attribution, batch, ["energy", "pointing_game", "blank_rate"]).values
    assert found["centre/energy"] == pytest.approx(0.5)
    assert not any(name.startswith("uniform/") for name in found)  # these are the chance levels already
    assert not {"centre/energy_chance", "centre/blank_rate"} & set(found)
    assert "centre/energy" not in score_maps(attribution, replace(batch, masks=None)).values


def test_the_centre_is_computed_once_a_run() -> None:
    (attribution, batch), history = halves(), LookHistory()
    energy = ResolvedScores.of("energy")
    first = scored(attribution, batch, energy, history).values["centre/energy"]
    history.begin_run()
    history.keep_baselines(energy, {"centre/energy": 0.125})
    assert scored(attribution, batch, energy, history).values["centre/energy"] == 0.125
    assert scored(attribution, batch, ResolvedScores.of("energy"), history).values["centre/energy"] == first
    history.begin_run()
    assert scored(attribution, batch, energy, history).values["centre/energy"] == first


def test_copies_of_a_config_share_its_scores() -> None:
    """So that a run's looks, each at layers of its own, resolve them once."""
    config = LookConfig(scores=ResolvedScores.of(["energy", "drift"]))

    assert replace(config, target_layer="5").resolved_scores is config.resolved_scores
    assert config.compares_looks and not LookConfig().compares_looks


class AtTheRight(SampleMean):
    """The share of the saliency in the columns from `first` on."""

    def __init__(self, first: int) -> None:
        super().__init__()
        self.first = first

    def _score(self, saliency: Tensor, mask: Tensor) -> PerSample:
        inside = saliency[..., self.first :].sum(dim=(1, 2)) / saliency.sum(dim=(1, 2))
        return PerSample(inside, mask.flatten(1).any(dim=1))


def test_two_scores_of_one_name_have_a_centre_each() -> None:
    """Also where both are of one class and set differently; `==` of two metrics is a third one, and true."""
    (attribution, batch), history = halves(), LookHistory()
    width = batch.image_size[1]
    centre = functional.centre_map(batch.image_size)

    for first in (0, width - 1, width // 2, width - 1):
        scores = {"energy": AtTheRight(first)}
        found = scored(attribution, batch, scores, history).values["centre/energy"]
        assert found == pytest.approx(float(centre[:, first:].sum() / centre.sum()))
    alone = score_maps(attribution, batch, "energy").values["centre/energy"]
    assert scored(attribution, batch, "energy", history).values["centre/energy"] == alone


def two_objects() -> tuple[Attribution, SaliencyBatch]:
    """Objects at two corners of an image, in boxes of their own, and a map on the second alone."""
    maps = torch.zeros(1, 20, 20)
    maps[0, 14:18, 14:18] = 1
    boxes = [torch.tensor([[0.0, 0.0, 4.0, 4.0], [14.0, 14.0, 18.0, 18.0]])]
    peaks = {"grad_cam": torch.ones(1)}
    made = Attribution({"grad_cam": maps}, torch.zeros(1, 2), torch.tensor([0]), "", peaks, False)
    return made, SaliencyBatch(torch.zeros(1, 3, 20, 20), boxes=boxes)


BOTH_VERSIONS = ["max_box_accuracy", "max_box_accuracy_v1"]


def test_a_box_may_match_any_of_the_objects_boxes() -> None:
    """The box around both objects, which their common mask has, fits no map of one of them."""
    attribution, batch = two_objects()
    of_the_mask = replace(batch, masks=batch.object_masks, boxes=None)

    found = score_maps(attribution, batch, BOTH_VERSIONS)
    with_masks = score_maps(attribution, replace(batch, masks=batch.object_masks), BOTH_VERSIONS)

    assert [found.values[name] for name in BOTH_VERSIONS] == [1, 1]
    assert [with_masks.values[name] for name in BOTH_VERSIONS] == [1, 1]
    assert found.measure()["max_box_accuracy"].overall.n == 1
    assert [score_maps(attribution, of_the_mask, BOTH_VERSIONS).values[name] for name in BOTH_VERSIONS] == [
        0,
        0,
    ]


def test_the_centre_may_match_any_of_the_objects_boxes() -> None:
    attribution, batch = two_objects()
    boxes = [torch.tensor([[8.0, 8.0, 12.0, 12.0], [0.0, 0.0, 1.0, 1.0]])]
    batch = replace(batch, boxes=boxes)

    found = scored(attribution, batch, BOTH_VERSIONS, LookHistory())

    assert found.values["centre/max_box_accuracy_v1"] == 1
    assert found.baselines == score_maps(attribution, batch, BOTH_VERSIONS).baselines
    assert (
        score_maps(attribution, replace(batch, masks=batch.object_masks, boxes=None), BOTH_VERSIONS).values[
            "centre/max_box_accuracy_v1"
        ]
        == 0
    )


def test_a_record_measures_its_scores(network: nn.Module) -> None:
    batch = replace(SaliencyBatch(*toy_samples(12)), groups=torch.arange(12) % 2)
    record = record_saliency(network, batch, scores=["energy", "iou"])

    assert list(record.measurements) == ["energy", "energy_chance", "iou"]
    energy = record.measurements["energy"]
    assert energy.value == pytest.approx(record.scores["energy"])
    assert energy.n + energy.left_out == 12
    assert energy.interval is not None
    assert energy.interval[0] < energy.value < energy.interval[1]
    assert list(record.class_measurements["energy"].groups) == [0, 1, 2, 3]
    assert record.group_measurements["iou"].worst in (0, 1)
    rows = record.table
    scores = [*record.measurements, *record.reliance.measurements]  # type: ignore[union-attr]
    baselines = ["uniform/energy", "centre/energy", "uniform/iou", "centre/iou"]
    overall = [row["score"] for row in rows if row["samples"] == "all"]
    assert overall == [*scores, *baselines]
    assert "background_only_accuracy" in overall
    assert [row["samples"] for row in rows[len(overall) :]] == ["group 0", "group 1"] * 3
    assert rows[0] == {
        "score": "energy",
        "samples": "all",
        "value": energy.value,
        "n": energy.n,
        "left_out": energy.left_out,
        "low": energy.interval[0],
        "high": energy.interval[1],
    }


def test_answers_are_cut_and_put_together() -> None:
    answers = PerturbedOutputs(logits={"a": torch.arange(4), "b": torch.eye(4)})
    parts = [answers.select([1, 3]), answers.select([0])]
    whole = PerturbedOutputs.cat(parts)
    assert (len(whole), whole.logits["a"].tolist()) == (3, [1, 3, 0])
    assert whole.logits["b"].shape == (3, 4)
    assert len(PerturbedOutputs()) == 0


def test_other_classes_ask_the_random_model_anew() -> None:
    history, maps = LookHistory(), torch.rand(2, 4, 4)
    look = look_at(maps, 1.0)
    assert history.random_maps(look) is None
    history.keep_random_maps(PerturbedOutputs(), look)  # computing them failed
    assert history.random_maps(look) is None
    found = PerturbedOutputs(random_maps={"mine": maps})
    history.keep_random_maps(found, look)
    assert history.random_maps(look) is found
    assert history.random_maps(replace(look, targets=torch.ones(2).long())) is None
    history.begin_run()
    assert history.random_maps(look) is None


def test_baselines_are_of_the_scores_that_were_asked_for() -> None:
    (attribution, batch), history = halves(), LookHistory()
    scored(attribution, batch, "energy", history)
    found = scored(attribution, batch, "iou", history).values
    assert [name for name in found if name.startswith("centre/")] == ["centre/iou"]


def test_a_column_of_labels_names_its_own_classes(network: nn.Module) -> None:
    images, labels, masks = toy_samples(4)
    batch = SaliencyBatch(images, (labels > 0).long()[:, None], masks)
    single = nn.Sequential(*list(network)[:-1], nn.Linear(8, 1))
    groups = record_saliency(single, batch, scores="blank_rate").class_measurements["blank_rate"].groups
    assert {group: each.n for group, each in groups.items()} == {0: 1, 1: 3}
