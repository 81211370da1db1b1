"""MLflow beside the contract: the alarm, the table, and clients that know no steps of images."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lightning_gcam import SaliencyBatch, SaliencyRecord
from lightning_gcam.loggers import log_alert, log_saliency, log_table
from lightning_gcam.pipeline.record import Stamp
from lightning_gcam.pipeline.run import record_saliency
from tests.support.backends import MLflowFiles, Scalars
from tests.support.toys import PACKAGES, toy_network, toy_samples
from tests.unit.loggers.test_alerts import ALERT

pytest.importorskip("mlflow")
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")


@pytest.fixture(autouse=True)
def _files_are_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")


@pytest.fixture
def record() -> SaliencyRecord:
    images, labels, masks = toy_samples(2)
    batch = SaliencyBatch(images, labels, masks, names=["cats/tom (1).png", "b"])
    return record_saliency(toy_network(), batch, stamp=Stamp(step=5))


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_the_alarm_is_a_tag_and_each_alert_a_text(tmp_path: Path, package: Any) -> None:
    backend = MLflowFiles(tmp_path)
    logger = backend.logger(package)

    log_alert(logger, ALERT)
    log_alert(logger, {**ALERT, "step": 9, "message": "Again. " * 2000})

    assert backend.run().data.tags["saliency/alarm"] == ("Again. " * 2000)[:5000]
    texts = sorted((backend.folder() / "saliency").iterdir())
    assert [path.name for path in texts] == ["alarm-step=00000007.txt", "alarm-step=00000009.txt"]
    assert texts[0].read_text() == ALERT["message"]


def test_the_table_of_a_look_is_a_file_of_its_step(tmp_path: Path, record: SaliencyRecord) -> None:
    backend = MLflowFiles(tmp_path)

    log_saliency(backend.logger(PACKAGES[0]), record)

    text = (backend.folder() / "saliency" / "measurements-step=00000005.csv").read_text()
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["score"] for row in rows] == [row["score"] for row in record.table]
    assert float(rows[0]["low"]) == record.table[0]["low"]


def test_any_table_is_a_file_of_its_step(tmp_path: Path) -> None:
    backend = MLflowFiles(tmp_path)

    log_table(
        backend.logger(PACKAGES[0]), "saliency_evaluation/table", [{"method": "a, b", "energy": None}], 3
    )

    text = (backend.folder() / "saliency_evaluation" / "table-step=00000003.csv").read_text()
    assert list(csv.DictReader(io.StringIO(text))) == [{"method": "a, b", "energy": ""}]


def test_names_of_samples_are_such_that_mlflow_takes(tmp_path: Path, record: SaliencyRecord) -> None:
    backend = MLflowFiles(tmp_path)

    log_saliency(backend.logger(PACKAGES[0]), replace(record, stamp=Stamp(step=5, sample_images=True)))

    assert set(backend.pictures()) == {
        "saliency/overlay",
        "saliency/sample/cats/tom_1_.png",
        "saliency/sample/b",
    }


class OldClient:
    """As before MLflow knew steps of images."""

    def __init__(self) -> None:
        self.said: list[Any] = []

    def log_image(self, run_id: str, image: Any, artifact_file: str) -> None:
        self.said.append((run_id, artifact_file, image))

    def log_text(self, run_id: str, text: str, artifact_file: str) -> None:
        self.said.append((run_id, artifact_file, text))

    def set_tag(self, run_id: str, key: str, value: str) -> None:
        self.said.append((run_id, key, value))


class TheirMLflow(Scalars):
    """A third party's logger on an MLflow client."""

    run_id = "run"

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.experiment = OldClient()


def test_a_client_without_steps_gets_the_step_in_the_name(tmp_path: Path, record: SaliencyRecord) -> None:
    logger = TheirMLflow(tmp_path)

    log_saliency(logger, record)

    (run, name, image), (_, table, _) = logger.experiment.said
    assert (run, name) == ("run", "saliency/overlay-step=00000005.png")
    assert np.array_equal(image, record.overlay)
    assert table == "saliency/measurements-step=00000005.csv"
    assert list(tmp_path.iterdir()) == []


def test_a_logger_of_a_third_party_is_known_by_its_client(tmp_path: Path) -> None:
    logger = TheirMLflow(tmp_path)

    log_alert(logger, ALERT)

    assert [name for _, name, _ in logger.experiment.said] == [
        "saliency/alarm-step=00000007.txt",
        "saliency/alarm",
    ]
