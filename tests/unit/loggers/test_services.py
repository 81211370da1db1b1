"""The services by capability, on stand-ins with only the methods that are called: what each gets, and who gets nothing.

The real packages are tried in `tests/integration/loggers/test_services.py` by `make loggers`.
"""

from __future__ import annotations

import io
import sys
from collections import defaultdict
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lightning_gcam import SaliencyBatch, SaliencyMonitor, SaliencyRecord
from lightning_gcam.loggers import log_alert, log_picture, log_saliency, log_table
from lightning_gcam.pipeline.record import Stamp
from lightning_gcam.pipeline.run import record_saliency
from tests.support.toys import LIGHTNING_SAYS, Toy, toy_loader, toy_network, toy_samples, toy_trainer
from tests.unit.loggers.test_alerts import ALERT
from tests.unit.loggers.test_dispatch import PlainLogger

pytestmark = LIGHTNING_SAYS

ROWS = [{"score": "energy", "value": 0.5}, {"score": "iou", "value": None}]


class StandIn:
    """An experiment that keeps what it gets as `(kind, tag, step, content)`."""

    def __init__(self) -> None:
        self.kept: list[tuple[str, str, int, Any]] = []

    def keep(self, kind: str, tag: str, step: int, content: Any) -> None:
        self.kept.append((kind, tag, step, np.asarray(content) if kind == "picture" else content))


class CometStandIn(StandIn):
    def log_image(self, image: Any, name: str, step: int) -> dict[str, str]:
        self.keep("picture", name, step, image)
        return {"imageId": "1"}

    def log_text(self, text: str, step: int, metadata: dict[str, str]) -> None:
        self.keep("text", metadata["tag"], step, text)

    def log_asset_data(self, data: str, name: str, step: int) -> None:
        self.keep("table", name.removesuffix(f"-step={step:08d}.csv"), step, data)

    def log_other(self, key: str, value: str) -> None:
        self.other = key, value


class AimStandIn(StandIn):
    def track(self, value: Any, name: str, step: int) -> None:
        kind = "picture" if isinstance(value, Image.Image) else "table" if value.startswith("|") else "text"
        self.keep(kind, name, step, value)


class NeptuneStandIn(StandIn):
    def __getattr__(self, name: str) -> Any:
        if name in ("log_image", "log_text"):
            raise ValueError("a legacy method")
        raise AttributeError(name)

    def __getitem__(self, path: str) -> Any:
        tag, _, at = path.partition("/step=")

        def upload(file: tuple[str, str]) -> None:
            content, extension = file
            self.keep("table" if extension == "csv" else "text", tag, int(at), content)

        return SimpleNamespace(
            append=lambda value, step: self.keep("picture", tag, step, value), upload=upload
        )

    def get_root_object(self) -> None: ...


class LitStandIn(StandIn):
    def __getitem__(self, key: str) -> Any:
        return SimpleNamespace(append=lambda value, step: AimStandIn.track(self, value, key, step))

    def log_media(self) -> None: ...


class ClearMlStandIn(StandIn):
    def report_image(self) -> None: ...

    def report_media(
        self, title: str, series: str, iteration: int, stream: Any, file_extension: str, max_history: int
    ) -> None:
        assert max_history == -1
        if file_extension == "png":
            self.keep("picture", f"{title}/{series}", iteration, Image.open(io.BytesIO(stream.read())))
        else:
            self.keep("text", f"{title}/{series}", iteration, stream.read())

    def report_text(self, text: str, print_console: bool) -> None:
        assert not print_console

    def report_table(self, title: str, series: str, iteration: int, table_plot: list[Any]) -> None:
        self.keep("table", f"{title}/{series}", iteration, "\n".join(map(str, table_plot)))


class ClearMlTaskStandIn(ClearMlStandIn):
    """The task, whose logger has the methods."""

    report_image = property()  # type: ignore[assignment]

    def get_logger(self) -> Any:
        logger = ClearMlStandIn()
        logger.kept = self.kept
        return logger

    def upload_artifact(self) -> None: ...


@pytest.fixture(autouse=True)
def _their_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand-ins of the classes that wrap what is logged."""
    files = SimpleNamespace(
        as_image=lambda image: image, from_content=lambda content, extension: (content, extension)
    )
    wraps: dict[str, dict[str, Any]] = {
        "aim": {"Image": lambda image, format: image, "Text": str},
        "litlogger": {"Image": lambda image: image, "Text": str},
        "neptune": {},
        "neptune.types": {"File": files},
    }
    for name, members in wraps.items():
        module = ModuleType(name)
        vars(module).update(members)
        monkeypatch.setitem(sys.modules, name, module)


STAND_INS = [
    CometStandIn,
    AimStandIn,
    NeptuneStandIn,
    LitStandIn,
    ClearMlStandIn,
    ClearMlTaskStandIn,
]


class Theirs(PlainLogger):
    def __init__(self, directory: Path, experiment: Any) -> None:
        super().__init__(directory)
        self.experiment = experiment


@pytest.fixture(params=STAND_INS)
def logger(request: pytest.FixtureRequest, tmp_path: Path) -> Theirs:
    return Theirs(tmp_path, request.param())


@pytest.fixture(scope="module")
def record() -> SaliencyRecord:
    return record_saliency(toy_network(), SaliencyBatch(*toy_samples(2)), stamp=Stamp(step=5))


def test_a_look_is_a_picture_and_a_table_with_its_step(logger: Theirs, record: SaliencyRecord) -> None:
    log_saliency(logger, record)
    (kind, tag, step, picture), table = logger.experiment.kept
    assert (kind, tag, step) == ("picture", "saliency/overlay", 5)
    assert np.array_equal(picture, record.overlay)
    assert table[:3] == ("table", "saliency/measurements", 5) and "energy" in table[3]
    assert list(logger.directory.iterdir()) == []


def test_an_alert_is_a_text(logger: Theirs) -> None:
    log_alert(logger, ALERT)
    assert logger.experiment.kept == [("text", "saliency/alarm", 7, ALERT["message"])]


def test_a_table_and_a_picture_beside_the_looks(logger: Theirs) -> None:
    log_table(logger, "saliency/table", ROWS, 7)
    log_picture(logger, "saliency/exchanges", np.zeros((4, 6, 3), np.uint8), 7)
    table, picture = logger.experiment.kept
    assert table[:3] == ("table", "saliency/table", 7)
    assert all(word in table[3] for word in ("score", "value", "energy", "0.5", "iou"))
    assert "None" not in table[3]
    assert picture[:3] == ("picture", "saliency/exchanges", 7) and picture[3].shape == (4, 6, 3)


def test_no_prefix_leads_out_of_a_run(logger: Theirs) -> None:
    log_picture(logger, "../up", np.zeros((4, 6, 3), np.uint8), 7)
    assert logger.experiment.kept[0][1] == "%2E%2E/up"


def test_a_training(logger: Theirs, tmp_path: Path) -> None:
    toy_trainer(tmp_path, SaliencyMonitor(num_samples=4, on_error="raise"), logger=logger).fit(
        Toy(), toy_loader(32), toy_loader()
    )
    steps = defaultdict(list)
    for kind, tag, step, _ in logger.experiment.kept:
        steps[kind, tag].append(step)
    assert steps["picture", "saliency/overlay"] == steps["table", "saliency/measurements"] == [3, 7]
    assert steps["picture", "saliency/exchanges"] == [3]
    assert [step for step, numbers in logger.numbers if "saliency/energy" in numbers] == [3, 7]


def test_an_error_is_one_warning_and_the_training_goes_on(logger: Theirs, tmp_path: Path) -> None:
    def fails(*_: Any) -> None:
        raise ConnectionError("no network")

    logger.experiment.keep = fails
    if isinstance(logger.experiment, ClearMlTaskStandIn):
        logger.experiment.get_logger = fails
    trainer = toy_trainer(tmp_path, SaliencyMonitor(num_samples=4), logger=logger)
    with pytest.warns(UserWarning, match="no network") as caught:
        trainer.fit(Toy(), toy_loader(32), toy_loader())
    assert sum("no network" in str(each.message) for each in caught) == 1
    assert trainer.global_step == 8


def test_comet_that_takes_nothing_is_named(tmp_path: Path) -> None:
    experiment = CometStandIn()
    experiment.log_image = lambda *_, **__: None  # type: ignore[assignment,return-value]
    with pytest.raises(RuntimeError, match="set the environment variable COMET_START_ONLINE=0"):
        log_picture(Theirs(tmp_path, experiment), "saliency/overlay", np.zeros((4, 6, 3), np.uint8), 7)


def test_the_first_line_of_the_last_alert_is_a_column_of_comets_runs(tmp_path: Path) -> None:
    experiment = CometStandIn()
    log_alert(Theirs(tmp_path, experiment), {**ALERT, "message": "follows the border\naccuracy 0.75"})
    assert experiment.other == ("saliency/alarm", "follows the border")


def test_a_writer_of_tensorboard_comes_first(tmp_path: Path) -> None:
    """People give their own logger of a service `add_image`, so that code for TensorBoard goes on working."""
    experiment, added = AimStandIn(), []
    experiment.add_image = lambda tag, *_, **__: added.append(tag)  # type: ignore[attr-defined]
    experiment.flush = lambda: None  # type: ignore[attr-defined]
    log_picture(Theirs(tmp_path, experiment), "saliency/exchanges", np.zeros((4, 6, 3), np.uint8), 7)
    assert added == ["saliency/exchanges"] and experiment.kept == []


def test_what_has_only_some_of_the_methods_gets_files(tmp_path: Path, record: SaliencyRecord) -> None:
    partly = SimpleNamespace(log_image=None, report_media=print, __getitem__=print, get_logger=print)
    log_saliency(Theirs(tmp_path, partly), record)
    assert [each.name for each in tmp_path.rglob("*.png")] == ["overlay-step=00000005.png"]
