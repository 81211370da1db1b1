"""What every backend keeps: images and scalars at their step, under stable tags, two monitors apart, over a resume."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import pytorch_lightning
import torch

from lightning_gcam import SaliencyMonitor, SaliencyRecord
from tests.integration.test_untouched import train
from tests.support.backends import BACKENDS, Backend, Numbers, Pictures, Report, Wandb, WithLogImage, alike
from tests.support.modules import Plain
from tests.support.toys import LIGHTNING_SAYS, PACKAGES, toy_loader, toy_of, toy_trainer
from tests.support.witness import differences

pytestmark = [
    *LIGHTNING_SAYS,
    # what wandb and mlflow do themselves
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture(autouse=True, scope="module")
def _no_trace_elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """W&B stages tables in the home directory, and MLflow 3.17 takes files only where it is told to."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_DATA_DIR", str(tmp_path_factory.mktemp("wandb_data")))
        patch.setenv("WANDB_SILENT", "true")
        patch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        yield
        if "wandb" in sys.modules:  # a test that failed has not finished its run
            sys.modules["wandb"].finish()


class Shows(pytorch_lightning.Callback):
    """Keeps what was shown, by prefix and step."""

    def __init__(self) -> None:
        self.records: dict[str, dict[int, SaliencyRecord]] = {}

    def on_saliency_look(self, trainer: Any, module: Any, monitor: Any, record: SaliencyRecord) -> None:
        self.records.setdefault(monitor.log_prefix, {})[record.step] = record


class Breaks(pytorch_lightning.Callback):
    """Ends the training in the first batch of an epoch."""

    def __init__(self, epoch: int, error: BaseException) -> None:
        self.epoch, self.error = epoch, error

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        if trainer.current_epoch == self.epoch:
            raise self.error


@dataclass
class Story:
    """What was shown, and what was read back."""

    backend: Backend
    records: dict[str, dict[int, SaliencyRecord]] = field(default_factory=dict)
    pictures: Pictures = field(default_factory=dict)
    numbers: Numbers = field(default_factory=dict)


def monitors() -> list[SaliencyMonitor]:
    return [
        SaliencyMonitor(
            num_samples=4, sample_images=True, checks=["border"], max_overhead=None, on_error="raise"
        ),
        SaliencyMonitor(num_samples=3, targets=1, log_prefix="where/else", on_error="raise"),
    ]


def fit(
    backend: Backend,
    *callbacks: Any,
    package: ModuleType = PACKAGES[0],
    resumed: bool = False,
    **options: Any,
) -> Any:
    trainer = toy_trainer(
        backend.root,
        *callbacks,
        package=package,
        logger=backend.logger(package, resumed=resumed),
        log_every_n_steps=1,
    )
    trainer.fit_loop.max_epochs = options.get("max_epochs", 2)
    trainer.fit(toy_of(package), toy_loader(32), toy_loader(), ckpt_path=options.get("ckpt_path"))
    return trainer


@pytest.fixture(scope="module", params=BACKENDS)
def story(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Story:
    """Two epochs; resumed from the checkpoint; and it dies in the fourth epoch, behind its third look."""
    backend, shows = BACKENDS[request.param](tmp_path_factory.mktemp("run")), Shows()
    fit(backend, *monitors(), shows).save_checkpoint(backend.root / "last.ckpt")
    backend.finish()
    with pytest.raises(RuntimeError, match="out of luck"):
        fit(
            backend, *monitors(), shows, Breaks(3, RuntimeError("out of luck")),
            resumed=True, max_epochs=5, ckpt_path=backend.root / "last.ckpt",
        )  # fmt: skip
    backend.finish()
    return Story(backend, shows.records, backend.pictures(), backend.numbers())


PREFIXES = ("saliency", "where/else")
STEPS = [3, 7, 11]


def test_each_look_is_an_image_at_its_step_over_the_resume_and_up_to_the_crash(story: Story) -> None:
    for prefix in PREFIXES:
        assert sorted(story.records[prefix]) == STEPS
        assert sorted(story.pictures[f"{prefix}/overlay"]) == STEPS


def test_each_image_is_the_one_that_was_drawn(story: Story) -> None:
    for prefix in PREFIXES:
        for step, picture in story.pictures[f"{prefix}/overlay"].items():
            shown = story.records[prefix][step].overlay
            assert picture is None or alike(picture, shown)
            assert picture is None or not story.backend.exact or (picture == shown).all()


def test_each_score_is_there_at_its_step(story: Story) -> None:
    for prefix in PREFIXES:
        for step, record in story.records[prefix].items():
            found = {name: story.numbers[name][step] for name in record.metrics}
            assert found == pytest.approx(record.metrics, abs=1e-6)
        assert sorted(story.numbers[f"{prefix}/energy"]) == STEPS


def test_the_exchanges_are_shown_at_the_first_and_the_last_look_of_each_run(story: Story) -> None:
    """Of the run that was resumed both are one."""
    shown = story.pictures.get("saliency/exchanges", {})
    assert sorted(shown) == ([] if isinstance(story.backend, Report) else STEPS)
    for step, picture in shown.items():
        assert alike(picture, story.records["saliency"][step].exchange_figure().image)


def test_tags_are_the_same_at_every_look(story: Story) -> None:
    samples = {f"saliency/sample/{number}" for number in range(4)} if story.backend.has_sample_tags else set()
    extra = {f"{prefix}/samples" for prefix in PREFIXES} if isinstance(story.backend, Wandb) else set()
    pictures = {tag: each for tag, each in story.pictures.items() if not tag.endswith("/exchanges")}
    assert set(pictures) == {f"{prefix}/overlay" for prefix in PREFIXES} | samples | extra
    assert {tuple(sorted(steps)) for steps in pictures.values()} == {tuple(STEPS)}


@pytest.mark.parametrize("name", BACKENDS)
def test_nothing_is_lost_by_an_interruption(name: str, tmp_path: Path) -> None:
    backend = BACKENDS[name](tmp_path / "run")
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        fit(backend, SaliencyMonitor(num_samples=4, on_error="raise"), Breaks(1, KeyboardInterrupt()))
    backend.finish()
    assert list(backend.pictures()["saliency/overlay"]) == [3]
    assert list(backend.numbers()["saliency/energy"]) == [3]


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow on sqlite", "csv", "report"])
def test_in_the_other_package(name: str, tmp_path: Path) -> None:
    backend = BACKENDS[name](tmp_path / "run")
    fit(backend, SaliencyMonitor(num_samples=4, on_error="raise"), package=PACKAGES[1])
    backend.finish()
    assert sorted(backend.pictures()["saliency/overlay"]) == [3, 7]
    assert sorted(backend.numbers()["saliency/energy"]) == [3, 7]


def test_all_at_once(tmp_path: Path) -> None:
    backends = [BACKENDS[name](tmp_path / name) for name in BACKENDS if name != "no logger"]
    shows = Shows()
    loggers = [each.logger(PACKAGES[0]) for each in backends]
    trainer = toy_trainer(tmp_path, SaliencyMonitor(num_samples=4, on_error="raise"), shows, logger=loggers)
    trainer.fit(toy_of(PACKAGES[0]), toy_loader(32), toy_loader())
    for backend in backends:
        backend.finish()
        pictures, numbers = backend.pictures()["saliency/overlay"], backend.numbers()
        assert sorted(pictures) == [3, 7]
        for step, record in shows.records["saliency"].items():
            assert pictures[step] is None or alike(pictures[step], record.overlay)
            assert numbers["saliency/energy"][step] == pytest.approx(record.scores["energy"], abs=1e-6)


class Draws(WithLogImage):
    """Its pictures, and the monitor's scores, cost random numbers of every kind."""

    def log_image(self, key: str, images: list[Any], step: int) -> None:
        super().log_image(key, images, step)
        self.drawn = random.random(), np.random.rand(), torch.rand(1)

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        super().log_metrics(metrics, step)
        if any(name.startswith("saliency/") for name in metrics):
            self.drawn = random.random(), np.random.rand(), torch.rand(1)


@pytest.mark.filterwarnings("ignore:.* maps are blank")
def test_the_training_is_the_same_bit_for_bit_whatever_is_logged(tmp_path: Path) -> None:
    """Without W&B and MLflow: these draw python's random numbers of their own in other threads, now and then."""

    def trained(root: Path, monitor: SaliencyMonitor | None) -> Any:
        names = ("tensorboard", "csv", "report", "add_image", "scalars only")
        loggers = [BACKENDS[name](root / name).logger(PACKAGES[0]) for name in names]
        witness, _, _ = train(Plain, root, monitor=monitor, logger=[*loggers, Draws(root / "draws")])
        return witness

    options: dict[str, Any] = {
        "sample_images": True,
        "checks": ["background_only_accuracy", "border"],
        "on_error": "raise",
    }
    monitor = SaliencyMonitor(num_samples=6, every_n_train_steps=2, **options)
    assert differences(trained(tmp_path / "without", None), trained(tmp_path / "with", monitor)) == []
    assert len(monitor.history) >= 4
    assert (tmp_path / "with" / "draws" / "pictures" / "saliency" / "sample" / "5").is_dir()
    assert len(list((tmp_path / "with" / "draws" / "pictures" / "saliency" / "exchanges").iterdir())) == 2
