"""Two real processes on gloo: the training is untouched, all ranks agree, and nothing hangs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.ddp_script import MODES, loader, train
from tests.support.processes import Ended, run_script
from tests.support.witness import digest

TIMEOUT = 280
"""Seconds for all modes together; a rank that waits for another forever does not pass."""


def run(out: Path, *what: str) -> Ended:
    """Two processes of `tests.support.ddp_script`."""
    return run_script("tests.support.ddp_script", str(out), *what, processes=2, timeout=TIMEOUT)


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of the two processes saw."""
    out = tmp_path_factory.mktemp("ddp")
    done = run(out)
    assert done.returncode == 0, done.said[-4000:]
    return [json.loads((out / f"rank{rank}.json").read_text()) for rank in (0, 1)]


COMPARED = [name for name in MODES if name not in ("early stopping", "alarm that stops")]


@pytest.mark.timeout(TIMEOUT + 20)
@pytest.mark.parametrize("mode", COMPARED)
def test_the_training_is_the_same_bit_for_bit_in_both_processes(
    mode: str, ranks: list[dict[str, Any]]
) -> None:
    for rank in ranks:
        assert rank[mode]["with"]["lines"] == rank[mode]["without"]["lines"]
        assert rank[mode]["with"]["rows"] == rank[mode]["without"]["rows"]


@pytest.mark.parametrize("mode", [name for name in MODES if name != "one process fails"])
def test_all_processes_have_the_same_samples_maps_and_scores(mode: str, ranks: list[dict[str, Any]]) -> None:
    left, right = (rank[mode]["with"] for rank in ranks)
    assert left["history"] == right["history"]
    assert len(left["history"]) >= 2
    assert left["positions"] == right["positions"]
    assert left["maps"] == right["maps"]


def test_the_samples_are_those_of_one_process(ranks: list[dict[str, Any]], tmp_path: Path) -> None:
    """The validation set is sorted by class and dealt out to two processes; balanced all the same."""
    alone = train(tmp_path, monitored=True, devices=1, max_epochs=1)
    assert ranks[0]["plain"]["with"]["positions"] == alone["positions"]


@pytest.mark.parametrize(
    "mode",
    [
        "plain",
        "accumulate",
        "find_unused_parameters",
        "static_graph",
        "several layers",
        "several layers, fused",
        "dense logits",
        "the model is asked",
        "methods that ask",
    ],
)
def test_the_scores_are_those_of_one_process_on_the_same_samples(
    mode: str, ranks: list[dict[str, Any]]
) -> None:
    for rank in ranks:
        together = {name: rank[mode]["with"]["history"][-1][name] for name in rank[mode]["with"]["alone"]}
        asked = set(MODES[mode].get("scores", {"energy", "iou"}))
        assert asked <= together.keys()
        checks = {"accuracy", "background_only_accuracy", "object_only_accuracy", "salient_flips"}
        properties = ("histogram", "spectrum", "texture", "border", "salient_region", "background")
        checks |= {f"{name}_follow_rate" for name in properties}
        checks |= {f"{name}_same_class_follow_rate" for name in properties}
        assert checks <= together.keys() or mode == "dense logits"
        others = ["layer_cam@net.1", "layer_cam@net.4"] if mode == "several layers" else ["layer_cam"]
        others += MODES[mode].get("methods", [])[2:]
        assert {f"{other}/energy" for other in others} <= together.keys()
        assert together == pytest.approx(rank[mode]["with"]["alone"], rel=1e-4)


def test_the_scores_of_each_head_are_those_of_one_process(ranks: list[dict[str, Any]]) -> None:
    for rank in ranks:
        seen = rank["several heads"]["with"]
        together = {name: seen["history"][-1][name] for name in seen["alone"]}
        assert {"kind/energy", "kind/border_follow_rate", "value/energy"} <= together.keys()
        assert together == pytest.approx(seen["alone"], rel=1e-4)


def test_early_stopping_on_a_score_stops_all_processes_together(ranks: list[dict[str, Any]]) -> None:
    epochs = [rank["early stopping"]["with"]["epochs"] for rank in ranks]
    assert epochs == [3, 3]


def test_all_processes_leave_out_the_checks_at_the_same_looks(ranks: list[dict[str, Any]]) -> None:
    left, right = (rank["fewer checks"]["with"]["history"] for rank in ranks)
    assert left == right
    made = ["border_follow_rate" in row for row in left]
    assert made[0] and 3 <= sum(made) < len(made)
    assert all("accuracy" in row for row in left)


def test_the_alarm_says_the_same_in_all_processes(ranks: list[dict[str, Any]]) -> None:
    left, right = (rank["alarm"]["with"] for rank in ranks)
    assert left["alerts"] == right["alerts"]
    (alert,) = left["alerts"]
    assert alert["step"] == left["history"][1]["step"]
    assert (alert["accuracy"], alert["background_only_accuracy"]) == (1.0, 1.0)


def test_an_alarm_that_stops_stops_all_processes_together(ranks: list[dict[str, Any]]) -> None:
    left, right = (rank["alarm that stops"]["with"] for rank in ranks)
    assert left["epochs"] == right["epochs"] < MODES["alarm that stops"]["max_epochs"]
    assert left["history"] == right["history"]
    assert left["alerts"] == right["alerts"]
    assert [alert["step"] for alert in left["alerts"]] == [left["history"][1]["step"]]


def test_a_check_that_fails_in_one_process_is_left_out_in_both(ranks: list[dict[str, Any]]) -> None:
    found = [rank["a check fails in one process"]["with"] for rank in ranks]
    assert found[0]["history"] == found[1]["history"]
    assert {"energy", "accuracy"} <= found[0]["history"][-1].keys()
    assert "background_only_accuracy" not in found[0]["history"][-1]
    assert found[0]["warnings"] == 1  # rank zero says it once


def test_a_look_that_fails_in_one_process_is_given_up_in_all(ranks: list[dict[str, Any]]) -> None:
    for rank in ranks:
        assert rank["one process fails"]["with"]["history"] == []
    assert ranks[0]["one process fails"]["with"]["given up"] == 1


def test_positions_are_those_of_the_dataset(ranks: list[dict[str, Any]]) -> None:
    images = loader(24, shuffle=False).dataset.tensors[0]  # type: ignore[attr-defined]
    for rank in ranks:
        assert rank["positions"]["with"]["positions"] == [20, 0, 11]
        assert rank["positions"]["with"]["images"] == digest(images[[20, 0, 11]])


def test_a_process_that_fails_before_an_exchange_leaves_none_waiting(ranks: list[dict[str, Any]]) -> None:
    """The samples are collected by the validation behind, and the looks begin when the third failure is over."""
    for rank in ranks:
        found = rank["one process fails before an exchange"]["with"]
        assert [row["step"] for row in found["history"]] == [15, 17]
        assert ["salient_flips" in row for row in found["history"]] == [False, True]
        assert len(found["positions"]) == 7
        assert found["given up"] == 0


def test_a_process_that_left_before_the_exchange_would_end_the_training(tmp_path: Path) -> None:
    """Why every process reaches every exchange, whatever its own look met: the exchanges of the others go wrong."""
    done = run(tmp_path, "fail_alone")
    assert done.returncode != 0


@pytest.mark.timeout(420)
def test_spawned_processes(tmp_path: Path) -> None:
    done = run_script("tests.support.spawn_script", str(tmp_path), timeout=400)
    assert done.returncode == 0, done.said[-4000:]
    seen = {path.stem: json.loads(path.read_text()) for path in tmp_path.glob("with*.json")}
    assert sorted(seen) == ["with0", "with1", "without0", "without1"]
    for rank in (0, 1):
        assert seen[f"with{rank}"]["weights"] == seen[f"without{rank}"]["weights"]
        assert seen[f"with{rank}"]["random"] == seen[f"without{rank}"]["random"]
    assert seen["with0"]["history"] == seen["with1"]["history"]
    assert len(seen["with0"]["history"]) >= 2
