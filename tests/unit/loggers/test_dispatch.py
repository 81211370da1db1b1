"""`log_saliency`: every logger is served by what is registered for it, or by what it can do."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from pytorch_lightning.loggers.logger import DummyLogger, Logger

from lightning_gcam import SaliencyBatch, SaliencyMonitor, SaliencyRecord
from lightning_gcam.loggers import Backend, log_alert, log_saliency, log_table, register_backend
from lightning_gcam.loggers.registry import has
from lightning_gcam.pipeline.record import Stamp
from lightning_gcam.pipeline.run import record_saliency
from tests.support.toys import (
    LIGHTNING_SAYS,
    Toy,
    listening,
    toy_loader,
    toy_network,
    toy_samples,
    toy_trainer,
)

pytestmark = LIGHTNING_SAYS


class PlainLogger(Logger):
    """A logger of a third party: it takes numbers, and has a directory."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self.directory = directory
        self.numbers: list[tuple[int, dict[str, float]]] = []

    @property
    def name(self) -> str:
        return "plain"

    @property
    def version(self) -> int:
        return 0

    @property
    def save_dir(self) -> str:
        return str(self.directory)

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.numbers.append((step or 0, dict(metrics)))

    def log_hyperparams(self, *_: Any, **__: Any) -> None: ...


class TakesImages(PlainLogger):
    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.pictures: list[tuple[str, int, Any]] = []

    def log_image(self, key: str, images: list[Any], step: int | None = None) -> None:
        (picture,) = images
        self.pictures.append((key, step or 0, picture))


class HasAWriter(PlainLogger):
    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.pictures: list[tuple[str, int, Any]] = []
        self.flushed = 0

    @property
    def experiment(self) -> Any:
        return SimpleNamespace(add_image=self._add, flush=self._flush)

    def _add(self, tag: str, picture: Any, global_step: int, dataformats: str) -> None:
        assert dataformats == "HWC"
        self.pictures.append((tag, global_step, picture))

    def _flush(self) -> None:
        self.flushed += 1


class Registered(PlainLogger):
    """Served by a backend of the user's."""


class AlsoRegistered(Registered):
    """Served by what its parent is served by."""


@pytest.fixture
def record() -> SaliencyRecord:
    return record_saliency(toy_network(), SaliencyBatch(*toy_samples(2)), stamp=Stamp(step=5))


@pytest.mark.parametrize("kind", [TakesImages, HasAWriter])
def test_a_logger_that_can_take_pictures_gets_every_look(tmp_path: Path, kind: Any) -> None:
    monitor, logger = SaliencyMonitor(num_samples=4), kind(tmp_path)

    toy_trainer(tmp_path, monitor, logger=logger).fit(Toy(), toy_loader(32), toy_loader())

    assert [(tag, step) for tag, step, _ in logger.pictures] == [
        ("saliency/overlay", 3),
        ("saliency/exchanges", 3),
        ("saliency/overlay", 7),
    ]
    assert np.array_equal(logger.pictures[-1][2], monitor.last_record.overlay)
    assert list(tmp_path.rglob("*.png")) == []
    assert [step for step, numbers in logger.numbers if "saliency/energy" in numbers] == [3, 7]


def test_the_writer_is_flushed_at_every_look(tmp_path: Path, record: SaliencyRecord) -> None:
    logger = HasAWriter(tmp_path)

    log_saliency(logger, record)

    assert logger.flushed == 1


def test_a_logger_that_takes_no_pictures_gets_files(tmp_path: Path) -> None:
    logger = PlainLogger(tmp_path / "there")

    with listening() as said:
        toy_trainer(tmp_path, SaliencyMonitor(num_samples=4), logger=logger).fit(
            Toy(), toy_loader(32), toy_loader()
        )

    (words,) = [each for each in said if "gets the scores alone" in each]
    assert "PlainLogger" in words and "@log_saliency.register(PlainLogger)" in words
    assert [step for step, numbers in logger.numbers if "saliency/energy" in numbers] == [3, 7]
    assert len(list((tmp_path / "there" / "saliency").glob("overlay-*.png"))) == 2
    assert (tmp_path / "there" / "saliency" / "scores.csv").exists()


@pytest.mark.parametrize("kind", [Registered, AlsoRegistered])
def test_a_backend_of_the_users_is_one_function(tmp_path: Path, record: SaliencyRecord, kind: Any) -> None:
    sent: list[tuple[str, int, tuple[int, ...]]] = []

    @log_saliency.register(Registered)
    def log_to_mine(logger: Registered, record: SaliencyRecord) -> None:
        sent.append((record.tag, record.step, record.overlay.shape))

    log_saliency(kind(tmp_path), record)

    assert sent == [("saliency/overlay", 5, record.overlay.shape)]
    assert list(tmp_path.rglob("*.png")) == []


class Words:
    """What several libraries call an experiment: it takes words, alerts and pictures."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if name not in ("add_image", "add_text", "alert", "log_image", "log_text", "set_tag", "flush"):
            raise AttributeError(name)
        return lambda *_, **__: self.calls.append(name)


class DoesEverything(TakesImages):
    run_id = "1"

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.experiment = Words()

    def log_table(self, **_: Any) -> None:
        self.experiment.calls.append("log_table")


def test_of_several_ways_an_unknown_logger_has_the_first_is_taken(
    tmp_path: Path, record: SaliencyRecord
) -> None:
    """TensorBoard's before W&B's before MLflow's before a method `log_image`, however the modules are imported."""
    logger = DoesEverything(tmp_path)

    log_saliency(logger, record)
    log_alert(logger, {"step": 1, "message": "m", "log_prefix": "saliency"})
    log_table(logger, "saliency/table", [{"a": 1.0}], 1)

    assert logger.experiment.calls == [
        "add_image",
        "add_text",
        "flush",
        "add_text",
        "flush",
        "add_text",
        "flush",
    ]
    assert logger.pictures == [] and list(tmp_path.rglob("*.*")) == []


def test_a_backend_can_be_registered_for_what_a_logger_can_do(tmp_path: Path, record: SaliencyRecord) -> None:
    """It is tried before those of this package."""

    class Sends(DoesEverything):
        def send(self, *what: Any) -> None:
            self.experiment.calls.append("send")

    can_send = has("send")
    register_backend(
        Backend(
            log_look=lambda logger, record: logger.send(record),
            log_alert=lambda logger, alert: logger.send(alert),
            takes_look=can_send,
            takes_alert=can_send,
        )
    )
    logger = Sends(tmp_path)

    log_saliency(logger, record)
    log_alert(logger, {"step": 1, "message": "m", "log_prefix": "saliency"})
    log_table(logger, "saliency/table", [{"a": 1.0}], 1)

    assert logger.experiment.calls == ["send", "send", "add_text", "flush"], "it shows no tables itself"


def test_several_loggers_at_once(tmp_path: Path) -> None:
    loggers = [
        TensorBoardLogger(tmp_path / "board"),
        CSVLogger(tmp_path / "table"),
        TakesImages(tmp_path / "images"),
    ]

    toy_trainer(tmp_path, SaliencyMonitor(num_samples=4), logger=loggers).fit(
        Toy(), toy_loader(32), toy_loader()
    )

    assert len(list((tmp_path / "board").rglob("events.out.*"))) == 1
    assert len(list((tmp_path / "table").rglob("overlay-*.png"))) == 2
    assert [tag for tag, *_ in loggers[2].pictures].count("saliency/overlay") == 2
    assert len(list(tmp_path.rglob("overlay-*.png"))) == 2


def test_the_logger_of_a_fast_run_takes_everything(record: SaliencyRecord) -> None:
    log_saliency(DummyLogger(), record)
