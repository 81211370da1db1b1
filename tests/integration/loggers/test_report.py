"""`ReportLogger` in real trainings: each look is on the page, whole at any time, and the run goes on where it was."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from lightning_utilities.core.rank_zero import rank_zero_only
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger

from lightning_gcam import SaliencyMonitor
from lightning_gcam.cli import main
from lightning_gcam.loggers import ReportLogger, log_alert, log_saliency
from lightning_gcam.pipeline.record import Stamp
from lightning_gcam.report import Run, build_page, read_run
from tests.support.pages import Page, record_at, write_report
from tests.support.toys import LIGHTNING_SAYS, PACKAGES, Toy, listening, toy_loader, toy_of, toy_trainer

pytestmark = LIGHTNING_SAYS


def fit(
    root: Path, *monitors: Any, package: ModuleType = PACKAGES[0], epochs: int = 2, **options: Any
) -> Any:
    monitors = monitors or (SaliencyMonitor(num_samples=4, on_error="raise"),)
    trainer = toy_trainer(root, *monitors, package=package, max_epochs=epochs, log_every_n_steps=1, **options)
    trainer.fit(toy_of(package), toy_loader(32), toy_loader())
    return trainer


@pytest.mark.parametrize("package", PACKAGES)
def test_each_look_of_a_training_is_on_the_page(tmp_path: Path, package: ModuleType) -> None:
    logger = ReportLogger(tmp_path / "run")
    assert isinstance(logger, package.loggers.Logger)
    monitor = SaliencyMonitor(num_samples=4, on_error="raise")
    fit(tmp_path, monitor, package=package, logger=logger)
    page = Page(logger.report_path)
    assert page.steps() == [3, 7]
    (run,) = page.data["runs"]
    assert run["monitors"][0]["looks"][-1]["scores"] == monitor.last_record.scores
    assert run["curves"]["val_loss"][0] == [3, 7], "the user's own metrics, the last ones too"
    assert run["curves"]["saliency/energy"][1] == [row["energy"] for row in monitor.history]
    there = sorted(path.name for path in (tmp_path / "run").iterdir())
    assert there == [".lightning_gcam.lock", "report.html", "report_data"]


def test_beside_another_logger_both_have_all(tmp_path: Path) -> None:
    report, board = ReportLogger(tmp_path / "run"), TensorBoardLogger(tmp_path / "board")
    fit(tmp_path, logger=[board, report])
    assert Page(report.report_path).steps() == [3, 7]
    assert len(list((tmp_path / "board").rglob("events.out.*"))) == 1
    assert list(tmp_path.rglob("*.png")) == []


def test_two_monitors_stand_side_by_side(tmp_path: Path) -> None:
    logger = ReportLogger(tmp_path)
    monitors = [
        SaliencyMonitor(num_samples=n, log_prefix=name, on_error="raise")
        for n, name in ((4, "a/b"), (2, "c"))
    ]
    fit(tmp_path, *monitors, logger=logger)
    (run,) = Page(logger.report_path).data["runs"]
    assert [(each["prefix"], len(each["samples"]), len(each["looks"])) for each in run["monitors"]] == [
        ("a/b", 4, 2),
        ("c", 2, 2),
    ]


def test_checkpoints_lie_in_the_directory_of_the_run(tmp_path: Path) -> None:
    checkpoint = ModelCheckpoint()
    fit(
        tmp_path,
        SaliencyMonitor(num_samples=4),
        checkpoint,
        logger=ReportLogger(tmp_path / "run"),
        enable_checkpointing=True,
    )
    assert Path(checkpoint.best_model_path).parent == tmp_path / "run" / "checkpoints"


def test_a_resumed_run_goes_on(tmp_path: Path) -> None:
    trainer = fit(tmp_path, logger=ReportLogger(tmp_path / "run"))
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    logger, monitor = ReportLogger(tmp_path / "run"), SaliencyMonitor(num_samples=4, on_error="raise")
    again = toy_trainer(tmp_path, monitor, logger=logger, max_epochs=4)
    again.fit(Toy(), toy_loader(32), toy_loader(), ckpt_path=tmp_path / "last.ckpt")
    assert Page(logger.report_path).steps() == [3, 7, 11, 15]


class Crashes(Toy):
    def on_train_epoch_start(self) -> None:
        if self.current_epoch == 2:
            raise self.error


@pytest.mark.parametrize("error", [RuntimeError("out of luck"), KeyboardInterrupt()])
def test_after_a_crash_the_page_is_whole(tmp_path: Path, error: BaseException) -> None:
    logger, module = ReportLogger(tmp_path), Crashes()
    module.error = error
    trainer = toy_trainer(tmp_path, SaliencyMonitor(num_samples=4), logger=logger, max_epochs=4)
    with pytest.raises((RuntimeError, SystemExit, KeyboardInterrupt)):
        trainer.fit(module, toy_loader(32), toy_loader())
    page = Page(logger.report_path)
    assert page.steps() == [3, 7]
    assert page.data["runs"][0]["curves"]["val_loss"][0] == [3, 7]
    assert list(tmp_path.rglob("*.part")) == []


@dataclass
class Clock:
    """Seconds that pass when a test says so, and with each page that is built."""

    now: float = 1000.0
    seconds_a_look: float = 0.0
    pages: int = 0
    spent: float = 0.0

    def __call__(self) -> float:
        return self.now

    def build(self, runs: Sequence[Run], path: Path) -> Path:
        seconds = self.seconds_a_look * runs[0].num_looks
        self.pages, self.spent, self.now = self.pages + 1, self.spent + seconds, self.now + seconds
        return build_page(runs, path)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("lightning_gcam.loggers.report_logger.monotonic", clock)
    monkeypatch.setattr("lightning_gcam.loggers.report_logger.build_page", clock.build)
    return clock


def test_the_page_waits_a_few_seconds_and_the_data_does_not(tmp_path: Path, clock: Clock) -> None:
    logger = ReportLogger(tmp_path)

    def steps() -> tuple[list[int], list[int]]:
        return Page(logger.report_path).steps(), list(read_run(tmp_path).monitors["saliency"].looks)

    log_saliency(logger, record_at(3))
    assert steps() == ([3], [3]), "the first look is on the page"
    clock.now += 4.9
    log_saliency(logger, record_at(7))
    logger.log_alert(7, "words")
    logger.save()
    assert steps() == ([3], [3, 7])
    clock.now += 0.1
    logger.save()
    assert steps() == ([3, 7], [3, 7])
    assert Page(logger.report_path).data["runs"][0]["alerts"] != []
    log_saliency(logger, record_at(11))
    assert steps() == ([3, 7], [3, 7, 11])
    logger.finalize("failed")
    assert steps() == ([3, 7, 11], [3, 7, 11])
    logger.finalize("success")
    assert clock.pages == 3, "nothing is new"


def test_the_pages_of_500_looks_take_a_twentieth_of_the_time(tmp_path: Path, clock: Clock) -> None:
    logger, record = ReportLogger(tmp_path), record_at(0, 2)
    clock.seconds_a_look = 0.01
    began = clock.now
    for step in range(500):
        logger.log_look(replace(record, stamp=Stamp(step)))
        clock.now += 1
    assert 5 < clock.pages < 50
    assert clock.spent < (clock.now - began) / 20 + 0.01 * 500, "and what the last page took"


def test_a_page_that_cannot_be_written_waits_too(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    logger, tries = ReportLogger(tmp_path), []

    def fails(*given: object) -> None:
        tries.append(given)
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr("lightning_gcam.loggers.report_logger.build_page", fails)
        with pytest.raises(OSError, match="disk full"):
            logger.log_look(record_at(3))
        logger.log_look(record_at(7))
    assert len(tries) == 1 and not logger.report_path.exists()
    logger.finalize("success")
    assert Page(logger.report_path).steps() == [3, 7]


def test_metrics_between_looks_do_not_write_the_page_each_time(tmp_path: Path, clock: Clock) -> None:
    logger = write_report(tmp_path, range(3, 8, 4), n=2)
    clock.pages = 0
    for step in range(8, 200):
        logger.log_metrics({"train_loss": 0.5}, step=step)
        logger.save()
    assert clock.pages == 0
    logger.finalize("success")
    assert clock.pages == 1


def test_a_run_that_was_killed_gets_its_page_by_the_command(tmp_path: Path, clock: Clock) -> None:
    logger = ReportLogger(tmp_path)
    for step in (3, 7):
        logger.log_look(record_at(step))
    assert Page(logger.report_path).steps() == [3]
    assert main(["report", str(tmp_path), "--force"]) == 0
    assert Page(logger.report_path).steps() == [3, 7]


def test_what_the_alarm_says_is_on_the_page(tmp_path: Path) -> None:
    logger = ReportLogger(tmp_path)
    log_alert(logger, {"step": 7, "message": "Measured so.", "log_prefix": "saliency", "accuracy": 0.75})
    (run,) = Page(logger.report_path).data["runs"]
    assert run["alerts"] == [{"step": 7, "message": "Measured so.", "log_prefix": "saliency"}]


def test_only_rank_zero_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank_zero_only, "rank", 1, raising=False)
    logger = ReportLogger(tmp_path / "run")
    logger.log_hyperparams({"lr": 0.1})
    logger.log_metrics({"val_loss": 0.5}, step=3)
    logger.log_look(record_at(3))
    logger.log_alert(3, "words")
    logger.save()
    logger.finalize("success")
    assert not (tmp_path / "run").exists()


def test_hyperparameters_of_any_kind(tmp_path: Path) -> None:
    logger = ReportLogger(tmp_path)
    logger.log_hyperparams(Namespace(lr=0.1, tensor=torch.zeros(2), words="x" * 900))
    logger.log_look(record_at(3))
    kept = Page(logger.report_path).data["runs"][0]["hyperparameters"]
    assert kept["lr"] == "0.1" and kept["tensor"] == "tensor([0., 0.])" and len(kept["words"]) == 300


def test_looks_of_an_earlier_run_are_told_of_once(tmp_path: Path) -> None:
    write_report(tmp_path, range(3, 16, 4))
    with listening() as said:
        logger = ReportLogger(tmp_path)
        for step in (3, 7):
            logger.log_look(record_at(step))
        logger.finalize("success")
    assert [each for each in said if "earlier run up to step 15" in each] != [] and len(said) == 1
    assert Page(logger.report_path).steps() == [3, 7, 11, 15]


def test_a_disk_that_refuses_is_one_warning_not_the_end(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file where the directory should be")
    logger = ReportLogger(tmp_path / "run")
    with pytest.warns(UserWarning, match="ReportLogger cannot write to .* The training goes on"):
        logger.log_metrics({"val_loss": 0.5}, step=0)
    logger.log_metrics({"val_loss": 0.5}, step=1)  # a second warning would be an error
    logger.finalize("success")


def test_words_among_the_metrics_are_no_points(tmp_path: Path) -> None:
    logger = ReportLogger(tmp_path)
    logger.log_metrics({"val_loss": torch.tensor(0.5), "phase": "late", "step": 9}, step=3)  # type: ignore[dict-item]
    logger.log_look(record_at(3))
    curves = Page(logger.report_path).data["runs"][0]["curves"]
    assert curves["val_loss"] == [[3], [0.5]] and "phase" not in curves
