"""Runs read from files and from TensorBoard's events, as their loggers wrote them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger

from lightning_gcam import SaliencyMonitor
from lightning_gcam.loggers import log_alert
from lightning_gcam.report import build_page, read_run
from lightning_gcam.utils.errors import InputError
from tests.support.pages import Page, write_report
from tests.support.toys import LIGHTNING_SAYS, Toy, toy_loader, toy_trainer
from tests.unit.loggers.test_alerts import PARTS

pytestmark = LIGHTNING_SAYS

ALERT = {"step": 7, "message": "Measured so.", "log_prefix": "saliency"}


def train(root: Path, kind: type, **options: Any) -> list[dict[str, float]]:
    monitor = SaliencyMonitor(num_samples=4, on_error="raise", **options)
    logger = kind(root, name="", version="")
    toy_trainer(root, monitor, logger=logger).fit(Toy(), toy_loader(32), toy_loader())
    log_alert(logger, ALERT)
    log_alert(logger, {**ALERT, "step": 9, **PARTS})
    logger.save()
    shutil.rmtree(
        root / "report_data", ignore_errors=True
    )  # beside a CSVLogger's files; without it they are read
    return monitor.history


@pytest.mark.parametrize("kind", [CSVLogger, TensorBoardLogger])
def test_what_a_logger_wrote_becomes_a_page(tmp_path: Path, kind: type) -> None:
    history = train(tmp_path / "run", kind, checks=["border"])
    run = read_run(tmp_path / "run")
    page = Page(build_page([run], tmp_path / "report.html"))
    assert page.steps() == [3, 7]
    looks = page.data["runs"][0]["monitors"][0]["looks"]
    assert all(look["picture"].startswith("data:image/") for look in looks)
    for look, row in zip(looks, history, strict=True):
        assert look["scores"]["border_follow_rate"] == pytest.approx(row["border_follow_rate"], rel=1e-5)
        assert "measured" not in look
    energies = {row["step"]: row["energy"] for row in history}
    assert run.curves["saliency/energy"] == pytest.approx(energies, rel=1e-5)
    assert sorted(run.curves["val_loss"]) == [3, 7]
    assert run.alerts[0] == ALERT
    assert (run.alerts[1]["step"], {name: run.alerts[1][name] for name in PARTS}) == (9, PARTS)


def test_the_reports_own_data_comes_first(tmp_path: Path) -> None:
    logger = write_report(tmp_path / "run")
    written = logger.report_path.read_text(encoding="utf-8")
    for path in (tmp_path / "run", logger.report_path, tmp_path / "run" / "report_data"):
        assert build_page([read_run(path)], tmp_path / "again.html").read_text(encoding="utf-8") == written


def test_half_a_picture_is_no_look(tmp_path: Path) -> None:
    train(tmp_path, CSVLogger)
    picture = next(tmp_path.rglob("overlay-step=00000003.png"))
    picture.write_bytes(picture.read_bytes()[:200])
    assert list(read_run(tmp_path).monitors["saliency"].looks) == [7]


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"`PATH` .*nowhere.* does not exist"):
        read_run(tmp_path / "nowhere")
    with pytest.raises(InputError, match="holds nothing of a run"):
        read_run(tmp_path)
