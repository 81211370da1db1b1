"""`log_alert`: every logger is served by what is registered for it, or by what it can do."""

from __future__ import annotations

import csv
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pytorch_lightning.loggers.logger import DummyLogger

from lightning_gcam.loggers import log_alert, write_alert
from tests.unit.loggers.test_dispatch import PlainLogger

ALERT: dict[str, Any] = {
    "step": 7,
    "epoch": 1,
    "message": "Measured, with n, interval and chance.",
    "log_prefix": "saliency",
    "accuracy": 0.75,
    "accuracy_interval": [0.5, 0.9],
}


PARTS: dict[str, Any] = {
    "headline": "predictions follow the border",
    "evidence": [{"what": "accuracy", "value": 0.75, "n": 16, "interval": [0.5, 0.9], "chance": None}],
    "advice": ["crop the images"],
    "unchecked": ["the background", "cues on the object itself"],
}


class HasAWriter(PlainLogger):
    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.texts: list[tuple[str, str, int]] = []
        self.flushed = 0

    @property
    def experiment(self) -> Any:
        return SimpleNamespace(add_text=self._add, flush=self._flush)

    def _add(self, tag: str, text: str, global_step: int) -> None:
        self.texts.append((tag, text, global_step))

    def _flush(self) -> None:
        self.flushed += 1


class TakesAlerts(PlainLogger):
    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.alerts: list[tuple[str, str, str]] = []

    @property
    def experiment(self) -> Any:
        return SimpleNamespace(alert=lambda title, text, level: self.alerts.append((title, text, level)))


class Registered(PlainLogger):
    """Served by a backend of the user's."""


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_writer_takes_a_text_and_is_flushed(tmp_path: Path) -> None:
    logger = HasAWriter(tmp_path)
    log_alert(logger, ALERT)
    assert logger.texts == [("saliency/alarm", ALERT["message"], 7)]
    assert logger.flushed == 1
    assert list(tmp_path.iterdir()) == []


def test_what_takes_alerts_is_sent_one(tmp_path: Path) -> None:
    logger = TakesAlerts(tmp_path)
    log_alert(logger, ALERT)
    assert logger.alerts == [("ShortcutAlarm (saliency)", ALERT["message"], "WARN")]
    log_alert(logger, {**ALERT, **PARTS})
    assert logger.alerts[1][0] == "ShortcutAlarm (saliency): predictions follow the border"


def test_a_title_is_as_long_as_wandb_takes_it(tmp_path: Path) -> None:
    logger = TakesAlerts(tmp_path)
    headline = "predictions follow the border and the colours; the class survives without the object"
    log_alert(logger, {**ALERT, **PARTS, "headline": headline})
    ((title, _, _),) = logger.alerts
    assert title == "ShortcutAlarm (saliency): predictions follow the border and th…" and len(title) == 63


def test_any_other_logger_gets_a_line_in_a_file(tmp_path: Path) -> None:
    log_alert(PlainLogger(tmp_path), ALERT)
    (row,) = rows(tmp_path / "saliency" / "alerts.csv")
    assert row == {
        "step": "7",
        "epoch": "1",
        "message": ALERT["message"],
        "log_prefix": "saliency",
        "accuracy": "0.75",
        "accuracy_interval": "[0.5, 0.9]",
    }


def test_lines_are_in_order_and_one_a_step(tmp_path: Path) -> None:
    for step, accuracy in ((7, 0.1), (3, 0.2), (7, 0.3)):
        path = write_alert(tmp_path, {**ALERT, "step": step, "accuracy": accuracy})
    assert [(row["step"], row["accuracy"]) for row in rows(path)] == [("3", "0.2"), ("7", "0.3")]
    assert [each.name for each in path.parent.iterdir()] == ["alerts.csv"]


def test_a_backend_of_the_users_is_one_function(tmp_path: Path) -> None:
    sent: list[str] = []

    @log_alert.register(Registered)
    def alert_to_mine(logger: Registered, alert: Any) -> None:
        sent.append(alert["message"])

    log_alert(Registered(tmp_path), ALERT)
    assert sent == [ALERT["message"]]
    assert list(tmp_path.iterdir()) == []


def test_the_logger_of_a_fast_run_takes_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    log_alert(DummyLogger(), ALERT)
    assert list(tmp_path.iterdir()) == []
