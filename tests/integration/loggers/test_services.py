"""Comet, Aim, Neptune, ClearML and LitLogger, each with its own package and without a network: `make loggers`.

Where a package is not installed, its tests are left out; `tests/unit/loggers/test_services.py` has what needs none.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lightning_gcam import SaliencyMonitor
from lightning_gcam.loggers import log_alert, log_picture, log_table
from tests.integration.loggers.test_contract import Breaks, Shows
from tests.support.services import SERVICES, Comet, Lit, Service
from tests.support.toys import LIGHTNING_SAYS, PACKAGES, toy_loader, toy_of, toy_trainer
from tests.unit.loggers.test_alerts import ALERT

pytestmark = [*LIGHTNING_SAYS, pytest.mark.filterwarnings("ignore")]  # what other people's packages say

ROWS = [{"score": "energy", "value": 0.5, "n": 4}, {"score": "iou", "value": None, "n": 0}]


@pytest.fixture(params=SERVICES)
def service(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Service:
    monkeypatch.chdir(tmp_path)
    return SERVICES[request.param](tmp_path / "run", monkeypatch)


def package_of(service: Service) -> Any:
    """Lightning's own LitLogger is younger than Lightning's last release with a NeptuneLogger."""
    return PACKAGES[isinstance(service, Lit)]


def test_a_training_with_its_looks_scores_and_tables(service: Service, tmp_path: Path) -> None:
    package = package_of(service)
    logger, shows = service.logger(package), Shows()
    monitor = SaliencyMonitor(num_samples=4, on_error="raise")
    trainer = toy_trainer(tmp_path, monitor, shows, logger=logger, log_every_n_steps=1, package=package)
    trainer.fit(toy_of(package), toy_loader(32), toy_loader())
    service.finish()

    pictures, numbers, texts = service.pictures(), service.numbers(), service.texts()
    assert sorted(pictures["saliency/overlay"]) == [3, 7]
    for step, record in shows.records["saliency"].items():
        shown = pictures["saliency/overlay"][step]
        assert shown.shape == record.overlay.shape
        assert np.abs(shown.astype(int) - record.overlay).mean() <= (0 if service.exact else 4)
        assert numbers["saliency/energy"][step] == pytest.approx(record.scores["energy"], abs=1e-6)
        assert "energy" in texts["saliency/measurements"][step]
    assert sorted(pictures["saliency/exchanges"]) == [3]
    assert list(tmp_path.rglob("overlay*.png")) == []


def test_an_alert_a_table_and_a_picture(service: Service) -> None:
    logger = service.logger(package_of(service))
    log_picture(logger, "saliency/exchanges", np.full((8, 12, 3), 77, np.uint8), 7)
    log_alert(logger, ALERT)
    log_table(logger, "saliency/table", ROWS, 7)
    service.finish()

    assert (service.pictures()["saliency/exchanges"][7] == 77).all()
    texts = service.texts()
    assert ALERT["message"] in texts["saliency/alarm"][7]
    assert all(word in texts["saliency/table"][7] for word in ("score", "energy", "0.5", "iou"))


def test_nothing_is_lost_by_an_interruption(service: Service, tmp_path: Path) -> None:
    package = package_of(service)
    logger = service.logger(package)
    monitor, breaks = SaliencyMonitor(num_samples=4, on_error="raise"), Breaks(1, KeyboardInterrupt())
    trainer = toy_trainer(tmp_path, monitor, breaks, logger=logger, package=package)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        trainer.fit(toy_of(package), toy_loader(32), toy_loader())
    service.finish()
    assert sorted(service.pictures()["saliency/overlay"]) == [3]


def test_comet_that_is_disabled_is_one_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lightning disables an offline experiment, which then takes everything and keeps nothing."""
    pytest.importorskip("comet_ml")
    package = PACKAGES[0]
    logger = package.loggers.CometLogger(online=False, offline_directory=str(tmp_path))
    trainer = toy_trainer(tmp_path, SaliencyMonitor(num_samples=4), logger=logger)
    with pytest.warns(UserWarning, match="COMET_START_ONLINE=0") as caught:
        trainer.fit(toy_of(package), toy_loader(32), toy_loader())
    assert sum("COMET_START_ONLINE" in str(each.message) for each in caught) == 1
    assert trainer.global_step == 8
    assert Comet(tmp_path, monkeypatch).pictures() == {}
