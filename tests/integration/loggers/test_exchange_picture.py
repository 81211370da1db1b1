"""The picture of the exchanges: at the first and the last look of a run, in every backend, and at no other look."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_gcam import SaliencyMonitor, SaliencyRecord
from lightning_gcam.loggers import Backend, log_picture, log_saliency, register_backend
from lightning_gcam.utils.errors import InputError
from tests.integration.loggers.test_contract import Breaks, Shows
from tests.support.backends import BACKENDS, Scalars, TensorBoard, alike
from tests.support.toys import LIGHTNING_SAYS, PACKAGES, Toy, toy_loader, toy_of, toy_trainer

pytestmark = [
    *LIGHTNING_SAYS,
    # what wandb and mlflow do themselves
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

TAG = "saliency/exchanges"
WITH_PICTURES = [name for name in BACKENDS if name not in ("report", "mlflow on sqlite")]
"""The report draws what it shows itself; MLflow's stores are one backend."""


@pytest.fixture(autouse=True)
def _no_trace_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """W&B stages tables in the home directory, and MLflow 3.17 takes files only where it is told to."""
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "wandb_data"))
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")


def monitor(**options: Any) -> SaliencyMonitor:
    return SaliencyMonitor(**{"checks": ["border"], "num_samples": 4, "on_error": "raise", **options})


def fit(root: Path, logger: Any, *callbacks: Any, epochs: int = 4, **options: Any) -> Any:
    trainer = toy_trainer(root, *callbacks, logger=logger, max_epochs=epochs, **options)
    trainer.fit(Toy(), toy_loader(32), toy_loader())
    return trainer


@pytest.mark.parametrize("name", WITH_PICTURES)
def test_at_the_first_and_the_last_of_four_looks(name: str, tmp_path: Path) -> None:
    backend, shows = BACKENDS[name](tmp_path / "run"), Shows()
    fit(backend.root, backend.logger(PACKAGES[0]), monitor(), shows)
    backend.finish()

    records, pictures = shows.records["saliency"], backend.pictures()
    assert sorted(records) == sorted(pictures["saliency/overlay"]) == [3, 7, 11, 15]
    assert sorted(pictures[TAG]) == [3, 15]
    for step, picture in pictures[TAG].items():
        drawn = records[step].exchange_figure().image
        assert alike(picture, drawn)
        assert not backend.exact or (picture == drawn).all()


def steps(root: Path, tag: str = TAG) -> list[int]:
    return sorted(TensorBoard(root).pictures().get(tag, {}))


def tensorboard(root: Path) -> Any:
    return TensorBoard(root).logger(PACKAGES[0])


def test_once_where_there_is_one_look(tmp_path: Path) -> None:
    fit(tmp_path, tensorboard(tmp_path), monitor(), epochs=1)
    assert steps(tmp_path) == [3]


def test_with_looks_at_steps(tmp_path: Path) -> None:
    """The last look is that of the last step, right before the last validation meets the same weights."""
    fit(tmp_path, tensorboard(tmp_path), monitor(every_n_train_steps=2), epochs=2)
    looks = steps(tmp_path, "saliency/overlay")
    assert len(looks) > 2 and steps(tmp_path) == [looks[0], looks[-1]]


def test_two_monitors_have_their_own(tmp_path: Path) -> None:
    fit(tmp_path, tensorboard(tmp_path), monitor(), monitor(log_prefix="where/else", checks=["histogram"]))
    found = TensorBoard(tmp_path).pictures()
    one, other = found[TAG], found["where/else/exchanges"]
    assert sorted(one) == sorted(other) == [3, 15]
    assert not (one[3] == other[3]).all()


def test_none_where_no_exchange_is_made(tmp_path: Path) -> None:
    fit(tmp_path, tensorboard(tmp_path), monitor(checks=[]))
    assert steps(tmp_path) == [] and len(steps(tmp_path, "saliency/overlay")) == 4


class Without(SaliencyMonitor):
    """A monitor of which some looks make no exchange."""

    looks: tuple[int, ...] = ()

    def _record(self, trainer: Any, pl_module: Any, step: int, config: Any) -> SaliencyRecord | None:
        record = super()._record(trainer, pl_module, step, config)
        if record is not None and step in self.looks:
            object.__setattr__(record, "exchanges", None)
            object.__setattr__(record, "exchange_logits", {})
        return record


@pytest.mark.parametrize(("looks", "shown"), [((3,), [7, 15]), ((15,), [3, 11]), ((3, 7, 11), [15])])
def test_the_first_look_that_has_exchanges_is_the_first(
    looks: tuple[int, ...], shown: list[int], tmp_path: Path
) -> None:
    without = Without(checks=["border"], num_samples=4, on_error="raise")
    without.looks = looks
    fit(tmp_path, tensorboard(tmp_path), without)
    assert steps(tmp_path) == shown


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("out of luck")])
def test_the_last_look_of_a_run_that_ends_early_is_shown(error: BaseException, tmp_path: Path) -> None:
    with pytest.raises((SystemExit, KeyboardInterrupt, RuntimeError)):
        fit(tmp_path, tensorboard(tmp_path), monitor(), Breaks(3, error))
    assert steps(tmp_path) == [3, 11]


def test_a_second_fit_and_a_validation_have_their_own_first_look(tmp_path: Path) -> None:
    looks, module = monitor(), Toy()
    trainer = toy_trainer(tmp_path, looks, logger=tensorboard(tmp_path), max_epochs=2)
    trainer.fit(module, toy_loader(32), toy_loader())
    trainer.fit_loop.max_epochs = 4
    trainer.fit(module, toy_loader(32), toy_loader())
    assert steps(tmp_path) == [3, 7, 11, 15]
    trainer.validate(module, toy_loader(), verbose=False)
    assert steps(tmp_path) == [3, 7, 11, 15, 16]


def test_in_the_other_package(tmp_path: Path) -> None:
    package = PACKAGES[1]
    logger = TensorBoard(tmp_path).logger(package)
    trainer = toy_trainer(tmp_path, monitor(), package=package, logger=logger, max_epochs=3)
    trainer.fit(toy_of(package), toy_loader(32), toy_loader())
    assert steps(tmp_path) == [3, 11]


def test_a_rehearsal_writes_no_file(tmp_path: Path) -> None:
    fit(tmp_path, False, monitor(), fast_dev_run=True)
    assert not list(tmp_path.rglob("*.png"))


# ------------------------------------------------------------------------------------------------ failures


def test_a_drawing_that_fails_is_one_warning_and_takes_nothing_else_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def refuse(*_: Any, **__: Any) -> None:
        tried.append(1)
        raise RuntimeError("no font")

    monkeypatch.setattr("lightning_gcam.pipeline.record.draw_exchanges", refuse)
    with pytest.warns(UserWarning, match="Showing the exchanges failed.*no font") as warned:
        fit(tmp_path, tensorboard(tmp_path), monitor(on_error="warn"))
    assert len([each for each in warned if "failed" in str(each.message)]) == 1
    assert len(tried) == 2, "at the first look, and at the last"
    assert steps(tmp_path) == [] and len(steps(tmp_path, "saliency/overlay")) == 4


class Refuses(Scalars):
    """It takes looks, and breaks at a picture beside them."""

    def log_image(self, key: str, images: list[Any], step: int) -> None:
        if key == TAG:
            raise OSError("the line is cut")


def test_a_logger_that_fails_is_one_warning_and_the_next_one_gets_its_picture(tmp_path: Path) -> None:
    loggers = [Refuses(tmp_path / "refuses"), tensorboard(tmp_path)]
    with pytest.warns(UserWarning, match="Logging the look to Refuses failed.*the line is cut") as warned:
        fit(tmp_path, loggers, monitor(on_error="warn"))
    assert len([each for each in warned if "failed" in str(each.message)]) == 1
    assert steps(tmp_path) == [3, 15]


def test_a_training_is_the_same_with_a_property_that_draws_random_numbers(tmp_path: Path) -> None:
    from lightning_gcam.shortcuts import register_property
    from lightning_gcam.shortcuts.exchange import unregister_property

    @register_property("noise")
    def exchange_noise(images: torch.Tensor, donors: torch.Tensor) -> torch.Tensor:
        return images + 0.1 * torch.rand_like(donors)

    def weights(*callbacks: Any) -> torch.Tensor:
        torch.manual_seed(3)
        trainer = fit(tmp_path, tensorboard(tmp_path), *callbacks, epochs=3)
        return torch.cat([each.detach().flatten() for each in trainer.model.parameters()])

    try:
        with_it = weights(monitor(checks=["noise", "border"]))
    finally:
        unregister_property("noise")
    assert steps(tmp_path) == [3, 11]
    assert torch.equal(with_it, weights())


# ------------------------------------------------------------------------------------------------ loggers of users


class Diary(Scalars):
    """A logger of a user's, who shows looks as they like."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.shown: list[tuple[str, int]] = []


class FullDiary(Diary):
    """One with pictures."""


def test_a_logger_whose_looks_are_shown_by_a_function_of_the_users_gets_no_other_picture(
    tmp_path: Path,
) -> None:
    @log_saliency.register(Diary)
    def log_to_diary(logger: Any, record: SaliencyRecord) -> None:
        logger.shown.append((record.tag, record.step))

    diary = Diary(tmp_path)
    fit(tmp_path, diary, monitor(), epochs=2)
    assert diary.shown == [("saliency/overlay", 3), ("saliency/overlay", 7)]
    assert not list(tmp_path.rglob("*.png"))


def test_a_backend_of_the_users_takes_pictures_where_it_says_how(tmp_path: Path) -> None:
    def look(logger: Any, record: SaliencyRecord) -> None:
        logger.shown.append((record.tag, record.step))

    def alert(logger: Any, alert: Any) -> None: ...

    def picture(logger: Any, tag: str, pixels: Any, step: int) -> None:
        assert pixels.ndim == 3 and pixels.dtype.name == "uint8"
        logger.shown.append((tag, step))

    register_backend(Backend(look, alert, types=[FullDiary], log_picture=picture))
    diary = FullDiary(tmp_path)
    fit(tmp_path, diary, monitor(), epochs=2)
    assert diary.shown == [
        ("saliency/overlay", 3),
        (TAG, 3),
        ("saliency/overlay", 7),
        (TAG, 7),
    ]


def test_a_picture_by_hand(tmp_path: Path) -> None:
    logger = tensorboard(tmp_path)
    looks = monitor()
    fit(tmp_path, logger, looks, epochs=1)
    record = looks.last_record
    assert record is not None
    log_picture(logger, "mine/second", record.exchange_figure(sample=1).image, step=5)
    assert steps(tmp_path, "mine/second") == [5]
    with pytest.raises(InputError, match="`sample`"):
        record.exchange_figure(sample=9)
