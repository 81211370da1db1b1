"""Names that are no names of files: they reach every backend, and nothing is written outside of the run's directory."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
import pytorch_lightning
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_gcam import SaliencyBatch, SaliencyMonitor, SaliencyRecord
from lightning_gcam.data.saliency_batch import sample_names
from lightning_gcam.loggers import log_alert, log_saliency, log_table
from lightning_gcam.pipeline.record import Stamp
from lightning_gcam.pipeline.run import record_saliency
from lightning_gcam.report import read_run
from lightning_gcam.utils.errors import InputError
from lightning_gcam.utils.files import LONGEST, safe_name, safe_path, same_on_any_disk, shortened
from tests.support.backends import BACKENDS, TensorBoard
from tests.support.toys import (
    LIGHTNING_SAYS,
    Toy,
    decoded,
    listening,
    toy_loader,
    toy_network,
    toy_samples,
    toy_trainer,
)

pytestmark = [
    *LIGHTNING_SAYS,
    # what wandb and mlflow do themselves
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

NASTY = (
    "../up",
    "../../../../../up",
    "a/../../b",
    "..",
    "/abs",
    "nul\0",
    "x" * 300,
    "CON",
    "ü ?",
    "a//b/",
    ".h",
)
PARTS = (
    "..",
    ".",
    "",
    "\\",
    "C:",
    "a",
    "A",
    "nul.txt",
    "com1",
    "\0",
    "z" * 300,
    "%2e%2e",
    "~",
    " ",
    "ü",
    "-",
    "\n",
)
NAMES = st.text(min_size=1, max_size=30) | st.lists(st.sampled_from(PARTS), min_size=1, max_size=6).map(
    "/".join
)
BOUNDED = settings(max_examples=30, deadline=None, derandomize=True)
DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.I)


@pytest.fixture(scope="module")
def record() -> SaliencyRecord:
    batch = SaliencyBatch(*toy_samples(2))
    return record_saliency(toy_network(), batch, scores=["energy"], checks=[])


@pytest.fixture(autouse=True, scope="module")
def _no_trace_elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_DATA_DIR", str(tmp_path_factory.mktemp("wandb_data")))
        patch.setenv("WANDB_SILENT", "true")
        patch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        yield
        if "wandb" in sys.modules:
            sys.modules["wandb"].finish()


def at(record: SaliencyRecord, prefix: str, step: int = 3, **fields: Any) -> SaliencyRecord:
    return replace(record, stamp=Stamp(step=step, log_prefix=prefix, sample_images=True), **fields)


# ---------------------------------------------------------------------------------------------- the function


@settings(max_examples=100, deadline=None, derandomize=True)
@given(NAMES | st.text(alphabet=st.characters(), max_size=200))
def test_any_name_is_one_component_that_every_file_system_takes(name: str) -> None:
    found = safe_name(name)
    assert re.fullmatch(r"[A-Za-z0-9_%~-]([A-Za-z0-9_.%~ -]*[A-Za-z0-9_%~-])?", found)
    assert len(found) <= LONGEST
    assert not DEVICE.fullmatch(found)
    if name and len(found) < LONGEST - 3:
        assert unquote(found, errors="surrogatepass") == name


@settings(max_examples=100, deadline=None, derandomize=True)
@given(NAMES, NAMES)
def test_two_names_are_two_components(name: str, other: str) -> None:
    assert (safe_name(name) == safe_name(other)) == (name == other)
    assert safe_name("q" * 300 + name) != safe_name("q" * 300 + other) or name == other


def test_names_that_are_fine_stay() -> None:
    for name in (
        "saliency",
        "where/else",
        "ILSVRC2012_val_00000001",
        "timm-resnet18.a1_in1k",
        "a~b",
        "my saliency",
    ):
        assert safe_path(name) == name
    assert safe_name("con") == "%63on"
    assert safe_name("console") == "console"


def test_what_only_capital_letters_tell_apart_is_refused_for_two_monitors(tmp_path: Path) -> None:
    assert same_on_any_disk("A/b", "a/B/") and not same_on_any_disk("a/b", "ab")
    monitors = [SaliencyMonitor(log_prefix=each) for each in ("Saliency", "saliency")]
    with pytest.raises(InputError, match='`log_prefix` "Saliency" is used by two .* capital letters'):
        toy_trainer(tmp_path, *monitors).fit(Toy(), toy_loader(8), toy_loader(8))


def test_names_of_samples_that_are_too_long_end_in_a_checksum(record: SaliencyRecord) -> None:
    long, deep = "n" * 250, "/".join(["folder"] * 20) + "/dog.png"
    names = sample_names(replace(record.batch, names=[long + "1", long + "2"]))
    assert names == [shortened(long + each, 80) for each in "12"]
    assert {len(each) for each in names} == {80} and {each[:71] for each in names} == {"n" * 71}
    assert names[0] != names[1]
    assert re.fullmatch(r"dog\.png-[0-9a-f]{8}", sample_names(replace(record.batch, names=[deep, ""]))[0])
    assert sample_names(replace(record.batch, names=["Cat.png", "cat.png"])) == ["0_Cat.png", "1_cat.png"]


# ----------------------------------------------------------------------------------------------- the backends


def files_of(root: Path) -> set[Path]:
    return {path for path in root.rglob("*") if not path.is_dir()}


def send_everything(logger: Any, record: SaliencyRecord, prefix: str, step: int) -> None:
    log_saliency(logger, at(record, prefix, step))
    log_alert(logger, {"step": step, "message": "m", "log_prefix": prefix})
    log_table(logger, f"{prefix}/table", [{"a": 1.0}], step)


@pytest.mark.parametrize("name", ["tensorboard", "csv", "report", "log_image", "add_image", "scalars only"])
def test_random_names_through_every_logger(name: str, tmp_path: Path, record: SaliencyRecord) -> None:
    root = tmp_path / "1" / "2" / "3" / "4" / "run"
    logger, steps = BACKENDS[name](root).logger(pytorch_lightning), iter(range(1000))
    inside: set[Path] = set()

    @settings(BOUNDED, max_examples=6 if name == "tensorboard" else 30)  # it reads its own file back
    @given(NAMES)
    def each(prefix: str) -> None:
        send_everything(logger, record, prefix, next(steps))
        found = files_of(tmp_path)
        assert all(root in path.parents for path in found), found - files_of(root)
        inside.update(found)

    each()
    logger.finalize("success")
    assert len(inside) > (0 if name == "tensorboard" else 30)
    assert not list(Path("/").glob("*-step=*"))


@pytest.mark.parametrize("name", ["wandb", "mlflow on files"])
def test_nasty_names_through_the_loggers_that_are_slow(
    name: str, tmp_path: Path, record: SaliencyRecord
) -> None:
    root = tmp_path / "1" / "2" / "3" / "run"
    backend = BACKENDS[name](root)
    logger = backend.logger(pytorch_lightning)
    for step, prefix in enumerate(NASTY):
        send_everything(logger, record, prefix, step)
    backend.finish()
    assert all(root in path.parents for path in files_of(tmp_path))
    overlays = {tag: steps for tag, steps in backend.pictures().items() if tag.endswith("overlay")}
    assert sorted(step for steps in overlays.values() for step in steps) == list(range(len(NASTY)))
    assert len(overlays) == len(NASTY)


def test_tensorboard_keeps_the_tag_as_it_is(tmp_path: Path, record: SaliencyRecord) -> None:
    backend = TensorBoard(tmp_path)
    log_saliency(backend.logger(pytorch_lightning), at(record, "../up"))
    assert "../up/overlay" in backend.pictures()


@pytest.mark.parametrize("prefix", ["../up", "/abs", "a/../../b", "where/else", "CON", "ü ?"])
def test_a_look_in_files_is_found_again_under_its_name(
    prefix: str, tmp_path: Path, record: SaliencyRecord
) -> None:
    send_everything(BACKENDS["csv"](tmp_path).logger(pytorch_lightning), record, prefix, 3)
    run = read_run(tmp_path / "lightning_logs" / "version_0")
    shown = prefix.strip("/")
    assert list(run.monitors) == [shown]
    assert list(run.monitors[shown].looks) == [3]
    assert run.curves[f"{shown}/energy"] == {3: pytest.approx(record.scores["energy"])}
    assert [alert["log_prefix"] for alert in run.alerts] == [prefix]


def test_a_training_with_a_prefix_that_leads_out(tmp_path: Path) -> None:
    root = tmp_path / "deep" / "run"
    logger = pytorch_lightning.loggers.CSVLogger(root, version=0)
    monitor = SaliencyMonitor(num_samples=4, log_prefix="../../../up", sample_images=True, on_error="raise")
    toy_trainer(root, monitor, logger=logger).fit(Toy(), toy_loader(16), toy_loader())
    assert [path.name for path in tmp_path.iterdir()] == ["deep"]
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["run"]
    (table,) = root.rglob("scores.csv")
    assert table.parent.relative_to(logger.log_dir).as_posix() == "%2E%2E/%2E%2E/%2E%2E/up"
    assert read_run(Path(logger.log_dir)).monitors["../../../up"].looks.keys() == {1, 3}


# ----------------------------------------------------------------------------------- what fails takes nothing along


@pytest.mark.parametrize("length", [250, 5000])
def test_a_long_sample_name_loses_nothing(length: int, tmp_path: Path) -> None:
    names = ["n" * length, "short", "w/../..", "CON"]
    batch = SaliencyBatch(*toy_samples(4), names=names)
    monitor = SaliencyMonitor(batch=batch, sample_images=True, on_error="raise")
    with listening() as said:
        toy_trainer(tmp_path, monitor).fit(Toy(), toy_loader(16), toy_loader())
    assert not [each for each in said if "failed" in each]
    directory = tmp_path / "lightning_gcam" / "version_0"
    assert (directory / "report.html").is_file()
    assert len((directory / "saliency" / "scores.csv").read_text().splitlines()) == 3
    shown = {unquote(path.name).partition("-step=")[0] for path in (directory / "saliency/sample").iterdir()}
    assert shown == {shortened("n" * length, 80), "short", "w", "CON"}


@pytest.mark.parametrize("name", ["tensorboard", "csv", "log_image", "add_image"])
def test_one_picture_that_fails_stops_no_other(
    name: str, tmp_path: Path, record: SaliencyRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    overlays = dict(at(record, "saliency").sample_overlays)
    broken = {"saliency/overlay": np.zeros((0, 0, 3), dtype=np.uint8), **overlays}
    monkeypatch.setattr(SaliencyRecord, "pictures", property(lambda self: broken))
    backend = BACKENDS[name](tmp_path)
    logger = backend.logger(pytorch_lightning)
    with pytest.raises((ValueError, SystemError, OSError, AttributeError)):
        log_saliency(logger, at(record, "saliency"))
    assert set(backend.pictures()) == {"saliency/sample/0", "saliency/sample/1"}
    if name == "csv":
        assert list(backend.numbers()["saliency/energy"]) == [3]
    if name == "tensorboard":
        assert "saliency/measurements/text_summary" in backend.events().Tags()["tensors"]


def test_a_picture_that_cannot_be_drawn_leaves_scores_and_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any, **__: Any) -> Any:
        raise OSError("no font")

    monkeypatch.setattr("lightning_gcam.pipeline.record.draw", fails)
    monitor = SaliencyMonitor(num_samples=4)
    with pytest.warns(UserWarning, match="Drawing the look failed.*no font"):
        toy_trainer(tmp_path, monitor).fit(Toy(), toy_loader(16), toy_loader())
    directory = tmp_path / "lightning_gcam" / "version_0"
    assert read_run(directory).monitors["saliency"].looks.keys() == {1, 3}
    assert len((directory / "saliency" / "scores.csv").read_text().splitlines()) == 3


# -------------------------------------------------------------------------------------------- one array for all


def test_the_picture_is_read_only(record: SaliencyRecord) -> None:
    record = at(record, "saliency")
    for picture in record.pictures.values():
        with pytest.raises(ValueError, match="read-only"):
            picture[:] = 0
    assert record.figure().image is record.overlay


def test_a_logger_that_draws_on_the_picture_does_not_change_the_next_ones(tmp_path: Path) -> None:
    class Draws(BACKENDS["log_image"].kind):  # type: ignore[name-defined, misc]
        def log_image(self, key: str, images: list[Any], step: int) -> None:
            images[0][:] = 0

    second = BACKENDS["log_image"](tmp_path / "second")
    loggers = [Draws(tmp_path / "first"), second.logger(pytorch_lightning)]
    monitor = SaliencyMonitor(num_samples=4)
    trainer = toy_trainer(tmp_path, monitor, logger=loggers)
    with pytest.warns(UserWarning, match="Logging the look to Draws failed.*read-only"):
        trainer.fit(Toy(), toy_loader(16), toy_loader())
    assert monitor.last_record is not None
    assert (second.pictures()["saliency/overlay"][3] == monitor.last_record.overlay).all()
    assert decoded(tmp_path / "second/pictures/saliency/overlay/3.png").max() > 200
