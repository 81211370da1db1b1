"""The names of the scores, and what a user may ask for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torchmetrics import JaccardIndex, MeanMetric, MetricCollection
from torchmetrics.classification import BinaryF1Score

from lightning_gcam.metrics import (
    ADCC,
    AverageDrop,
    AverageGain,
    AverageIncrease,
    BestSaliencyIoU,
    BlankRate,
    Coherency,
    Complexity,
    DeletionAUC,
    EnergyChance,
    EnergyPointingGame,
    InsertionAUC,
    MaxBoxAccuracy,
    PixelAveragePrecision,
    PointingGame,
    PositionalConcentration,
    RandomModelSimilarity,
    RandomModelSSIM,
    RegionLift,
    RelevanceRankAccuracy,
    SaliencyDrift,
    SaliencyEntropy,
    SaliencyGini,
    SaliencyIoU,
    SuspectLift,
    WinRate,
    available_scores,
    default_scores,
    needs,
    needs_mask,
    resolve_scores,
)
from lightning_gcam.utils.errors import InputError

# On by default: what is logged where nobody asks for anything. Each costs no forward.
TABLE = {
    "energy": EnergyPointingGame,
    "energy_chance": EnergyChance,
    "object_lift": RegionLift,
    "suspect_lift": SuspectLift,
    "pointing_game": PointingGame,
    "rank_accuracy": RelevanceRankAccuracy,
    "iou": SaliencyIoU,
    "blank_rate": BlankRate,
}
# On request: the class, what it needs beside the maps, and its cost in forwards.
ON_REQUEST = {
    "best_iou": (BestSaliencyIoU, {"mask"}, 0),
    "pixel_average_precision": (PixelAveragePrecision, {"mask"}, 0),
    "max_box_accuracy": (MaxBoxAccuracy, {"mask"}, 0),
    "max_box_accuracy_v1": (MaxBoxAccuracy, {"mask"}, 0),
    "gini": (SaliencyGini, set(), 0),
    "entropy": (SaliencyEntropy, set(), 0),
    "complexity": (Complexity, set(), 0),
    "positional_concentration": (PositionalConcentration, {"mask"}, 0),
    "drift": (SaliencyDrift, {"earlier"}, 0),
    "drift_from_first": (SaliencyDrift, {"earlier"}, 0),
    "drift_from_best": (SaliencyDrift, {"earlier"}, 0),
    "average_drop": (AverageDrop, {"forwards"}, 1),
    "average_increase": (AverageIncrease, {"forwards"}, 1),
    "average_gain": (AverageGain, {"forwards"}, 1),
    "win_rate": (WinRate, {"forwards", "other"}, 2),
    "coherency": (Coherency, {"maps"}, 1),
    "adcc": (ADCC, {"forwards", "maps"}, 1),
    "insertion": (InsertionAUC, {"forwards"}, 21),
    "deletion": (DeletionAUC, {"forwards"}, 21),
    "random_model_similarity": (RandomModelSimilarity, {"random"}, 1),
    "random_model_ssim": (RandomModelSSIM, {"random"}, 1),
}


class MeanIoU(MeanMetric):
    """A foreign metric whose name has a word of mixed case."""


def test_names_stand_in_the_order_of_the_tables() -> None:
    differs = set(available_scores()) ^ {*TABLE, *ON_REQUEST}
    assert available_scores() == (*TABLE, *ON_REQUEST), f"rows of ON_REQUEST above: {differs}"


@pytest.mark.parametrize("name", available_scores())
def test_the_page_of_the_scores_names_each(name: str) -> None:
    page = Path(__file__).parents[3] / "docs" / "scores.md"
    assert f"`{name}`" in page.read_text(encoding="utf-8"), f"a row for {name} in docs/scores.md"


def test_the_default_scores_are_the_first() -> None:
    assert default_scores() == tuple(TABLE)


@pytest.mark.parametrize("name", ON_REQUEST)
def test_a_score_says_what_it_needs_and_costs(name) -> None:
    metric = resolve_scores(name)[name]
    cls, required, cost = ON_REQUEST[name]
    assert type(metric) is cls
    assert needs(metric) == required
    assert metric.cost == cost
    assert needs_mask(metric) == metric.requires_mask == ("mask" in required)


def test_the_default_scores_cost_nothing_and_need_no_more_than_a_region() -> None:
    for metric in resolve_scores(None).values():
        assert metric.cost == 0
        assert needs(metric) <= {"mask", "suspect"}


def test_a_drift_says_since_when() -> None:
    names = ["drift", "drift_from_first", "drift_from_best"]
    assert [metric.since for metric in resolve_scores(names).values()] == ["previous", "first", "best"]
    with pytest.raises(ValueError, match='`since` must be "previous", "first" or "best", got \'last\''):
        SaliencyDrift(since="last")


def test_the_two_box_accuracies_are_the_two_versions() -> None:
    names = ["max_box_accuracy_v1", "max_box_accuracy"]
    assert [metric.version for metric in resolve_scores(names).values()] == [1, 2]


def test_a_foreign_metric_needs_what_it_says() -> None:
    class NoMask(MeanMetric):
        requires_mask = False

    class Suspicious(MeanMetric):
        requires = frozenset({"suspect"})

    class Peak(PointingGame):
        requires_mask = False

    assert needs(Peak()) == set()
    assert needs(MeanMetric()) == {"mask"}
    assert needs(NoMask()) == set()
    assert needs(Suspicious()) == {"suspect"}


def test_none_means_every_score_that_is_on_by_default() -> None:
    resolved = resolve_scores(None)
    assert list(resolved) == list(TABLE)
    assert {name: type(metric) for name, metric in resolved.items()} == TABLE


def test_a_name_makes_a_fresh_metric_each_time() -> None:
    first, second = resolve_scores("iou")["iou"], resolve_scores(["iou"])["iou"]
    assert type(first) is type(second) is SaliencyIoU
    assert first is not second


@pytest.mark.parametrize(
    ("scores", "names"),
    [
        ("energy", ["energy", "energy_chance"]),
        (["energy", "iou"], ["energy", "energy_chance", "iou"]),
        (("iou", "energy"), ["iou", "energy", "energy_chance"]),
        (["energy_chance", "energy"], ["energy_chance", "energy"]),
        (["energy", "iou", "energy_chance"], ["energy", "iou", "energy_chance"]),
        (EnergyPointingGame(), ["energy_pointing_game", "energy_chance"]),
        ({"mine": EnergyPointingGame()}, ["mine", "energy_chance"]),
        ({"a": EnergyPointingGame(), "b": EnergyPointingGame()}, ["a", "energy_chance", "b"]),
        ({"mine": EnergyPointingGame(), "area": EnergyChance()}, ["mine", "area"]),
        ([], []),
        ({}, []),
    ],
)
def test_energy_is_always_beside_its_chance_level(scores, names) -> None:
    resolved = resolve_scores(scores)
    assert list(resolved) == names
    assert type(resolved.get("energy_chance", EnergyChance())) is EnergyChance


@pytest.mark.parametrize(
    ("metric", "name"),
    [
        (PointingGame(tolerance=15), "pointing_game"),
        (SaliencyIoU(threshold=0.5), "saliency_iou"),
        (MeanIoU(), "mean_iou"),
        (BinaryF1Score(), "binary_f1_score"),
    ],
)
def test_an_instance_is_named_after_its_class(metric, name) -> None:
    assert list(resolve_scores(metric)) == list(resolve_scores([metric])) == [name]


def test_an_instance_is_cloned_with_its_settings_and_without_its_past(batch) -> None:
    mine = PointingGame(tolerance=3)
    mine.update(*batch)
    for resolved in (resolve_scores(mine)["pointing_game"], resolve_scores({"p": mine})["p"]):
        assert resolved is not mine
        assert (resolved.tolerance, resolved.n) == (3, 0)
        resolved.update(*batch)
    assert mine.n == 7


def test_a_mapping_names_each_metric_itself() -> None:
    resolved = resolve_scores({"near": PointingGame(), "far": PointingGame(tolerance=15)})
    assert {name: metric.tolerance for name, metric in resolved.items()} == {"near": 0, "far": 15}


def test_an_unknown_name_gets_the_nearest_and_all_known() -> None:
    expected = r'^`scores` "energi" is not a score\. Did you mean "energy"( or "\w+")?\? Known: energy, '
    with pytest.raises(ValueError, match=expected):
        resolve_scores("energi")
    with pytest.raises(ValueError, match=r'^`scores` "zzz" is not a score\. Known: energy, '):
        resolve_scores(["iou", "zzz"])


@pytest.mark.parametrize("scores", [["iou", "iou"], [PointingGame(), "pointing_game"]])
def test_two_scores_of_one_name_are_refused(scores) -> None:
    with pytest.raises(
        ValueError, match=r'`scores` has two scores named "\w+"\..*mapping from names to metrics'
    ):
        resolve_scores(scores)


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (3, r"`scores` must be a name, a torchmetrics.Metric, .*, got int\."),
        (["iou", 3], r"`scores` must be a name, a torchmetrics.Metric, .*, got int\."),
        (PointingGame, r"got the class PointingGame\. Make an instance: `PointingGame\(\)`"),
        ({"p": PointingGame}, r'`scores\["p"\]` must be a torchmetrics.Metric, got the class PointingGame\.'),
        ({"p": "pointing_game"}, r'`scores\["p"\]` must be a torchmetrics.Metric, got str\.'),
        ({1: PointingGame()}, r"`scores` must be keyed by names, got the key 1\."),
        (MetricCollection([PointingGame()]), r"`scores` must be a name, .* got MetricCollection\."),
    ],
)
def test_what_is_neither_a_name_nor_a_metric_is_refused(scores, message) -> None:
    with pytest.raises(TypeError, match=message) as refused:
        resolve_scores(scores)
    assert isinstance(refused.value, InputError)


def test_only_a_metric_that_says_so_needs_no_mask() -> None:
    asked = {name: needs_mask(metric) for name, metric in resolve_scores(None).items()}
    assert [name for name, needed in asked.items() if not needed] == ["suspect_lift", "blank_rate"]
    assert needs_mask(JaccardIndex(task="binary")) is True


def test_every_score_is_updated_alike(batch) -> None:
    for metric in resolve_scores(None).values():
        metric.update(saliency=batch[0], mask=batch[1])
        assert torch.isfinite(metric.compute())
