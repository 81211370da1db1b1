"""Where looks are written as files, the report lies beside them: of a `CSVLogger`, and without any logger."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger

from lightning_gcam import SaliencyMonitor, ShortcutAlarm
from lightning_gcam.loggers import ReportLogger
from lightning_gcam.report.sources import read_run
from tests.support.pages import Page
from tests.support.toys import LIGHTNING_SAYS, PACKAGES, Toy, toy_loader, toy_of, toy_trainer

pytestmark = LIGHTNING_SAYS


def fit(root: Path, *callbacks: Any, package: ModuleType = PACKAGES[0], **options: Any) -> SaliencyMonitor:
    monitor = SaliencyMonitor(num_samples=4, on_error="raise", final_scores=["insertion"])
    trainer = toy_trainer(root, monitor, *callbacks, package=package, log_every_n_steps=1, **options)
    trainer.fit(toy_of(package), toy_loader(32), toy_loader())
    return monitor


@pytest.mark.parametrize("package", PACKAGES)
@pytest.mark.parametrize("with_csv", [False, True])
def test_the_report_lies_beside_the_files(tmp_path: Path, package: ModuleType, with_csv: bool) -> None:
    logger = package.loggers.CSVLogger(tmp_path, name="rows") if with_csv else False
    monitor = fit(tmp_path, package=package, logger=logger)
    (path,) = tmp_path.rglob("report.html")
    assert path.parent == (Path(logger.log_dir) if with_csv else monitor.directory)
    assert len(list(path.parent.rglob("overlay-step=*.png"))) == 2
    page = Page(path)
    assert page.steps() == [3, 7]
    (run,) = page.data["runs"]
    curves = run["curves"]
    assert curves["val_loss"][0] == [3, 7], "the user's own metrics, of the last epoch too"
    assert curves["saliency/energy"][1] == [row["energy"] for row in monitor.history]
    assert curves["saliency/final/insertion"][1] == [monitor.final_record.scores["insertion"]]


def test_the_alarm_is_on_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alarm = ShortcutAlarm(looks_in_a_row=1)
    monkeypatch.setattr(alarm, "on_saliency_look", _speaks(alarm))
    with pytest.warns(UserWarning, match="the words"):
        fit(tmp_path, alarm, logger=CSVLogger(tmp_path))
    (path,) = tmp_path.rglob("report.html")
    (run,) = Page(path).data["runs"]
    assert [alert["message"] for alert in run["alerts"]] == ["the words"] * 2


def _speaks(alarm: ShortcutAlarm) -> Any:
    def on_saliency_look(trainer: Any, pl_module: Any, monitor: Any, record: Any) -> None:
        from lightning_gcam.callbacks import shortcut_alarm

        with pytest.MonkeyPatch.context() as patch:
            plain = {"step": record.step, "message": "the words"}
            patch.setattr(shortcut_alarm, "plain_of", lambda finding: plain)
            alarm._alert(trainer, monitor, "saliency", None)  # type: ignore[arg-type]

    return on_saliency_look


def test_there_is_one_page_where_the_run_has_its_own(tmp_path: Path) -> None:
    fit(tmp_path, logger=[CSVLogger(tmp_path / "rows"), ReportLogger(tmp_path / "mine")])
    assert list(tmp_path.rglob("report.html")) == [tmp_path / "mine" / "report.html"]


def test_tensorboard_alone_gets_no_page(tmp_path: Path) -> None:
    monitor = fit(tmp_path, logger=TensorBoardLogger(tmp_path))
    assert monitor.pages == [] and list(tmp_path.rglob("report*")) == []


def test_a_rehearsal_writes_nothing(tmp_path: Path) -> None:
    fit(tmp_path, fast_dev_run=True)
    assert list(tmp_path.iterdir()) == []


def test_built_again_it_has_every_point_that_csvlogger_kept(tmp_path: Path) -> None:
    fit(tmp_path, logger=CSVLogger(tmp_path))
    (rows,) = tmp_path.rglob("metrics.csv")
    rows.write_text("step,mine\n" + "".join(f"{step},{step / 8}\n" for step in range(8)))
    assert read_run(rows.parent).curves["mine"] == {step: step / 8 for step in range(8)}
    assert read_run(rows.parent).curves["val_loss"].keys() == {3, 7}


class Crashes(Toy):
    def on_train_epoch_start(self) -> None:
        if self.current_epoch == 2:
            raise RuntimeError("out of luck")


def test_after_a_crash_every_look_is_on_it(tmp_path: Path) -> None:
    trainer = toy_trainer(tmp_path, SaliencyMonitor(num_samples=4), max_epochs=4)
    with pytest.raises(RuntimeError, match="out of luck"):
        trainer.fit(Crashes(), toy_loader(32), toy_loader())
    (path,) = tmp_path.rglob("report.html")
    assert Page(path).steps() == [3, 7]


def test_a_look_of_a_validation_by_itself_is_on_it(tmp_path: Path) -> None:
    monitor, toy = SaliencyMonitor(num_samples=4), Toy()
    trainer = toy_trainer(tmp_path, monitor)
    trainer.fit(toy, toy_loader(32), toy_loader())
    trainer.validate(toy, toy_loader(), verbose=False)
    (path,) = tmp_path.rglob("report.html")
    assert Page(path).steps() == [3, 7, 8]
