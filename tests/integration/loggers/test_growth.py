"""What a look does on disk is the same at the tenth look and at the five-hundredth: counted, for every backend."""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.cost.many_looks import restamped
from lightning_gcam import SaliencyRecord
from lightning_gcam.loggers import log_alert, log_saliency, write_alert, write_look
from lightning_gcam.loggers.disk import restored_on_failure
from tests.support.backends import BACKENDS
from tests.support.disk import DiskUse, counted_disk_use
from tests.support.pages import record_at
from tests.support.toys import LIGHTNING_SAYS, PACKAGES

pytestmark = LIGHTNING_SAYS

FIRST = 1000
"""The step of the first look; all steps have as many digits."""


@pytest.fixture(autouse=True)
def disk_that_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture(scope="module")
def record() -> SaliencyRecord:
    record = record_at(FIRST, 2)
    assert record.overlay is not None and record.table
    return record


def alert_at(step: int) -> dict[str, Any]:
    return {
        "step": step,
        "message": 'Two lines,\n"quoted".',
        "log_prefix": "saliency",
        "interval": [0.5, 0.9],
    }


def uses(look: Callable[[int], None], looks: int, seen: tuple[int, ...] = (10, 500)) -> list[DiskUse]:
    """What some of the looks do on disk."""
    found = []
    for number in range(1, looks + 1):
        with counted_disk_use() as use:
            look(FIRST + number)
        if number in seen:
            found.append(use)
    return found


@pytest.mark.parametrize(
    ("name", "looks"),
    [
        ("csv", 500),
        ("tensorboard", 500),
        ("report", 500),
        ("scalars only", 100),
        ("wandb", 20),
        ("mlflow on files", 30),
    ],
)
def test_the_last_look_does_what_the_tenth_did(
    tmp_path: Path, name: str, looks: int, record: SaliencyRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lightning_gcam.loggers.report_logger.monotonic", lambda: 1000.0)  # no second page
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    backend = BACKENDS[name](tmp_path)
    logger = backend.logger(PACKAGES[0])

    def look(step: int) -> None:
        now = restamped(record, step)
        with restored_on_failure(logger):
            log_saliency(logger, now)
        with restored_on_failure(logger):
            logger.log_metrics({**now.metrics, "epoch": 1}, step=step)
            logger.save()
        log_alert(logger, alert_at(step))

    tenth, last = uses(look, looks, (10, looks))
    backend.finish()
    assert last == tenth and tenth.opened > 0
    if Path("/proc/self/io").exists():
        assert tenth.written > 1000


def test_without_a_logger_too_and_nothing_is_read(tmp_path: Path, record: SaliencyRecord) -> None:
    def look(step: int) -> None:
        write_look(tmp_path, restamped(record, step))
        write_alert(tmp_path, alert_at(step))

    tenth, last = uses(look, 500)
    assert last == tenth
    assert (tenth.opened, tenth.listed, tenth.read) == (4, 0, 0), "a picture and three tables"
    assert [row["step"] for row in rows(tmp_path / "saliency/scores.csv")] == [*map(str, range(1001, 1501))]
    assert [row["message"] for row in rows(tmp_path / "saliency/alerts.csv")] == [
        'Two lines,\n"quoted".'
    ] * 500


def test_what_grows_would_be_seen(tmp_path: Path) -> None:
    def look(step: int) -> None:
        text = (tmp_path / "table").read_text() if step > FIRST + 1 else ""
        (tmp_path / "table").write_text(f"{text}{step}\n")
        (tmp_path / f"{step}").touch()
        os.listdir(tmp_path)

    tenth, last = uses(look, 20, (10, 20))
    assert (tenth.opened, tenth.listed) == (3, 1) == (last.opened, last.listed)
    if Path("/proc/self/io").exists():
        assert (tenth.read, tenth.written) == (45, 50) and (last.read, last.written) == (95, 100)


def test_a_directory_that_was_deleted_and_used_again_has_no_earlier_rows(
    tmp_path: Path, record: SaliencyRecord
) -> None:
    for step in (3, 7):
        write_look(tmp_path / "run", restamped(record, step))
    shutil.rmtree(tmp_path / "run")
    directory = write_look(tmp_path / "run", restamped(record, 11))
    assert [row["step"] for row in rows(directory / "scores.csv")] == ["11"]


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
