"""PNG files and scores.csv, where there is no logger or one that takes no pictures."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from lightning_gcam import SaliencyBatch, SaliencyMonitor, SaliencyRecord
from lightning_gcam.loggers import log_saliency, write_look, write_scores
from lightning_gcam.loggers.disk import next_version
from lightning_gcam.pipeline.record import Stamp
from lightning_gcam.pipeline.run import record_saliency
from tests.support.toys import (
    LIGHTNING_SAYS,
    PACKAGES,
    Toy,
    decoded,
    listening,
    toy_loader,
    toy_network,
    toy_of,
    toy_samples,
    toy_trainer,
)

pytestmark = LIGHTNING_SAYS


@pytest.fixture
def record() -> SaliencyRecord:
    return record_saliency(toy_network(), SaliencyBatch(*toy_samples(2)), stamp=Stamp(step=3))


def table(directory: Path) -> list[dict[str, str]]:
    with (directory / "scores.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def at(record: SaliencyRecord, step: int, **scores: float) -> SaliencyRecord:
    return replace(record, stamp=Stamp(step=step), scores=scores)


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_beside_the_table_of_a_csv_logger(tmp_path: Path, package: ModuleType) -> None:
    monitor = SaliencyMonitor(num_samples=4, checks=["border"])
    logger = package.loggers.CSVLogger(tmp_path, name="runs")

    with listening() as said:
        toy_trainer(tmp_path, monitor, package=package, logger=logger).fit(
            toy_of(package), toy_loader(32), toy_loader()
        )

    directory = Path(logger.log_dir) / "saliency"
    assert directory == tmp_path / "runs" / "version_0" / "saliency"
    assert sorted(path.name for path in directory.iterdir()) == [
        "exchanges-step=00000003.png",
        "exchanges-step=00000007.png",
        "measurements-step=00000003.csv",
        "measurements-step=00000007.csv",
        "overlay-step=00000003.png",
        "overlay-step=00000007.png",
        "scores.csv",
    ]
    assert np.array_equal(decoded(directory / "overlay-step=00000007.png"), monitor.last_record.overlay)
    assert [row["step"] for row in table(directory)] == ["3", "7"]
    assert [float(row["energy"]) for row in table(directory)] == [row["energy"] for row in monitor.history]
    assert sum(f", in {directory.parent} (report.html, scores.csv, overlays)" in each for each in said) == 1


def test_without_a_logger_each_run_gets_its_own_directory(tmp_path: Path) -> None:
    for version in (0, 1):
        with listening() as said:
            toy_trainer(tmp_path, SaliencyMonitor(num_samples=4)).fit(Toy(), toy_loader(32), toy_loader())
        directory = tmp_path / "lightning_gcam" / f"version_{version}" / "saliency"
        assert len(list(directory.glob("overlay-*.png"))) == 2
        assert len(table(directory)) == 2
        assert sum(str(directory.parent) in each for each in said) == 1


def test_a_validation_by_itself_goes_on_where_its_training_wrote(tmp_path: Path) -> None:
    monitor, toy = SaliencyMonitor(num_samples=4), Toy()
    trainer = toy_trainer(tmp_path, monitor)
    trainer.fit(toy, toy_loader(32), toy_loader())
    trainer.validate(toy, toy_loader(), verbose=False)
    assert [each.name for each in (tmp_path / "lightning_gcam").iterdir()] == ["version_0"]
    toy_trainer(tmp_path, monitor).fit(toy, toy_loader(32), toy_loader())
    assert monitor.directory == tmp_path / "lightning_gcam" / "version_1"


def test_a_look_at_the_same_step_takes_the_place_of_the_older(tmp_path: Path, record: SaliencyRecord) -> None:
    for step, energy in [(3, 0.1), (7, 0.2), (11, 0.3), (7, 0.9)]:
        directory = write_look(tmp_path, at(record, step, energy=energy))

    assert [(row["step"], row["energy"]) for row in table(directory)] == [
        ("3", "0.1"),
        ("7", "0.9"),
        ("11", "0.3"),
    ]
    assert len(list(directory.glob("*.png"))) == 3


def test_a_score_that_comes_later_gets_its_column(tmp_path: Path, record: SaliencyRecord) -> None:
    write_look(tmp_path, at(record, 1, blank_rate=1.0))
    directory = write_look(tmp_path, at(record, 2, energy=0.5, blank_rate=0.0))

    assert [(row["energy"], row["blank_rate"]) for row in table(directory)] == [("", "1.0"), ("0.5", "0.0")]


def test_scores_of_the_end_stand_beside_those_of_the_look(tmp_path: Path, record: SaliencyRecord) -> None:
    directory = write_look(tmp_path, at(record, 7, energy=0.5))
    write_scores(tmp_path, at(record, 7, **{"final/insertion": 0.25}))

    (row,) = table(directory)
    assert (row["energy"], row["final/insertion"]) == ("0.5", "0.25")


def test_nothing_half_written_stays(tmp_path: Path, record: SaliencyRecord) -> None:
    directory = write_look(tmp_path, record)

    assert {path.suffix for path in directory.iterdir()} == {".png", ".csv"}


def test_versions_count_on(tmp_path: Path) -> None:
    assert next_version(tmp_path / "runs").name == "version_0"
    for name in ("version_2", "version_10", "version_x", "other"):
        (tmp_path / "runs" / name).mkdir(parents=True)
    assert next_version(tmp_path / "runs").name == "version_11"


def test_a_logger_without_a_directory_writes_where_the_run_was_started(
    tmp_path: Path, record: SaliencyRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    log_saliency(object(), record)

    assert np.array_equal(decoded(tmp_path / "saliency" / "overlay-step=00000003.png"), record.overlay)


def test_the_picture_is_the_same_on_every_day(tmp_path: Path, record: SaliencyRecord) -> None:
    (first,) = write_look(tmp_path / "a", record).glob("*.png")
    (second,) = write_look(tmp_path / "b", record).glob("*.png")

    assert first.read_bytes() == second.read_bytes()
    assert torch.is_grad_enabled()
