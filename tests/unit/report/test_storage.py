"""The data beside the page: read back as it was written, also where a run was killed in the middle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lightning_gcam.report import Store
from lightning_gcam.report.reading import parse_json, placeholder_sample
from lightning_gcam.report.storage import parse_alert
from tests.unit.loggers.test_alerts import PARTS


def look(step: int, samples: int = 0, **more: Any) -> str:
    """The least that is a look."""
    row = {"caption": "", "scores": {}, "maps": {"grad_cam": ["AA==", 1.0, 0.5, 0.5]}}
    return json.dumps({"step": step, "size": [1, 1], "samples": [row] * samples, **more})


def samples_named(name: str) -> str:
    return json.dumps([{**placeholder_sample(), "name": name}])


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write_hyperparameters({"lr": "0.1"})
    store.add_metrics({"loss": 1.0, "acc": 0.5}, step=3)
    store.add_metrics({"loss": 0.5}, step=7)
    store.add_alert(7, "words", "saliency")
    store.add_look("val/saliency", 7, "[]", look(7))
    store.add_look("val/saliency", 3, "[]", look(3))
    run = store.read("run")
    assert run.curves == {"loss": {3: 1.0, 7: 0.5}, "acc": {3: 0.5}}
    assert run.hyperparameters == {"lr": "0.1"}
    assert run.alerts == [{"step": 7, "message": "words", "log_prefix": "saliency"}]
    assert list(run.monitors) == ["val/saliency"]
    assert list(run.monitors["val/saliency"].looks) == [3, 7]


def test_a_line_that_was_cut_off_is_passed_over_and_harms_no_other(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.add_metrics({"loss": 1.0}, step=3)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('\n{"step": 5, "lo')
    Store(tmp_path).add_metrics({"loss": 0.5}, step=7)
    assert store.read("run").curves == {"loss": {3: 1.0, 7: 0.5}}


def test_half_a_look_is_no_look(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.add_look("saliency", 3, "[]", look(3))
    (tmp_path / "saliency" / "look-0000000007.json.part").write_text('{"st')
    assert list(store.read("run").monitors["saliency"].looks) == [3]


def test_a_step_that_comes_again_takes_its_place(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for value in (1.0, 2.0):
        store.add_metrics({"loss": value}, step=3)
        store.add_look("saliency", 3, "[]", look(3, value=value))
        store.add_alert(3, "words", "saliency")
    run = store.read("run")
    assert run.curves == {"loss": {3: 2.0}}
    assert run.monitors["saliency"].looks == {3: look(3, value=2.0)}
    assert len(run.alerts) == 1


def test_looks_at_other_samples_are_set_aside_not_deleted(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for name in ("a", "b", "c"):
        store.add_look("saliency", 3, samples_named(name), look(3, 1))
    run = store.read("run")
    assert list(run.monitors) == ["saliency"] and run.monitors["saliency"].samples == samples_named("c")
    assert len(list(tmp_path.glob("saliency.*.aside/look-*.json"))) == 2


def test_numbers_that_are_not_finite_are_no_points(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.add_metrics({"loss": float("nan"), "acc": float("inf")}, step=3)
    assert store.read("run").curves == {}


def test_a_look_that_was_checked_is_not_parsed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, parsed = Store(tmp_path), []

    def counted(text: str) -> Any:
        parsed.append(text)
        return parse_json(text)

    monkeypatch.setattr("lightning_gcam.report.storage.parse_json", counted)
    for step in range(20):
        store.add_look("saliency", step, "[]", look(step))
        store.read("run")
    assert parsed == ["[]", *map(look, range(20))]
    store.add_look("saliency", 3, "[]", look(3, value=2.0))
    assert store.read("run").monitors["saliency"].looks[3] == parsed[-1] == look(3, value=2.0)
    assert len(parsed) == 22


def test_an_alert_comes_back_in_its_parts(tmp_path: Path) -> None:
    Store(tmp_path).add_alert(7, "words", "saliency", {**PARTS, "accuracy": 0.75})
    (alert,) = Store(tmp_path).read("run").alerts
    assert alert == {"step": 7, "message": "words", "log_prefix": "saliency", **PARTS}


ROW = PARTS["evidence"][0]


@pytest.mark.parametrize(
    "broken",
    [
        {"headline": 7},
        {"evidence": "no JSON"},
        {"evidence": [{**ROW, "value": "much"}]},
        {"evidence": [{**ROW, "value": True}]},
        {"evidence": [{**ROW, "value": None}]},
        {"evidence": [{**ROW, "interval": [0.5]}]},
        {"evidence": [{**ROW, "what": None}]},
        {"evidence": ["accuracy"]},
        {"advice": "crop"},
        {"unchecked": [7]},
        {"advice": None},
    ],
    ids=str,
)
def test_parts_of_another_form_leave_the_message(broken: dict[str, Any]) -> None:
    row = {"step": 7, "message": "words", "log_prefix": "saliency"}
    assert parse_alert({**row, **PARTS, **broken}) == row
    texts = {name: json.dumps(value) if isinstance(value, list) else value for name, value in PARTS.items()}
    assert parse_alert({**row, **texts}) == {**row, **PARTS}
