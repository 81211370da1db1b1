"""Event files, read back."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_gcam import SaliencyMonitor, SaliencyRecord
from tests.support.toys import (
    LIGHTNING_SAYS,
    PACKAGES,
    Toy,
    decoded,
    steps_of,
    toy_loader,
    toy_of,
    toy_trainer,
)

pytestmark = LIGHTNING_SAYS


class Showing(SaliencyMonitor):
    """Keeps what was shown."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.shown: dict[int, Any] = {}

    def on_saliency_look(self, trainer: Any, module: Any, monitor: Any, record: SaliencyRecord) -> None:
        self.shown[record.step] = record.overlay


def fit_and_read(root: Path, monitor: Any, package: ModuleType, module: Any = None, **options: Any) -> Any:
    logger = package.loggers.TensorBoardLogger(root)
    trainer = toy_trainer(root, monitor, package=package, logger=logger, log_every_n_steps=1, **options)
    trainer.fit(module or toy_of(package), toy_loader(32), toy_loader())
    events = EventAccumulator(logger.log_dir, size_guidance={"images": 0, "scalars": 0})
    return events.Reload()


def scalars(events: Any, tag: str) -> dict[int, float]:
    return {event.step: event.value for event in events.Scalars(tag)}


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_every_look_is_an_image_under_one_tag(tmp_path: Path, package: ModuleType) -> None:
    monitor = Showing(num_samples=4)

    events = fit_and_read(tmp_path, monitor, package, max_epochs=3)

    images = events.Images("saliency/overlay")
    assert set(events.Tags()["images"]) == {"saliency/overlay", "saliency/exchanges"}
    assert [event.step for event in images] == steps_of(monitor.history) == [3, 7, 11]
    for event in images:
        assert_alike(decoded(event.encoded_image_string), monitor.shown[event.step])


def assert_alike(kept: npt.NDArray[np.uint8], shown: npt.NDArray[np.uint8]) -> None:
    """A JPEG of high quality: no pixel is seen to be another one."""
    assert kept.shape == shown.shape
    error = np.abs(kept.astype(int) - shown.astype(int))
    assert error.mean() < 2
    assert np.quantile(error, 0.999) < 40


def test_scores_lie_at_the_steps_of_the_modules_own(tmp_path: Path) -> None:
    monitor = SaliencyMonitor(num_samples=4, methods=["guidance_cam", "grad_cam"])

    events = fit_and_read(tmp_path, monitor, PACKAGES[0], max_epochs=3, val_check_interval=0.5)

    own = list(scalars(events, "val_loss"))
    assert own == [1, 3, 5, 7, 9, 11]
    for name in ("energy", "energy_chance", "object_lift", "pointing_game", "rank_accuracy", "iou"):
        found = scalars(events, f"saliency/{name}")
        assert list(found) == own
        assert list(found.values()) == pytest.approx([row[name] for row in monitor.history], abs=1e-6)
    assert list(scalars(events, "saliency/grad_cam/energy")) == own
    assert [event.step for event in events.Images("saliency/overlay")] == own


class LogsItsTraining(Toy):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = super().training_step(batch, batch_idx)
        self.log("train_loss", loss)
        return loss


def test_looks_between_validations_lie_where_lightning_logs(tmp_path: Path) -> None:
    monitor = SaliencyMonitor(num_samples=4, every_n_epochs=None, every_n_train_steps=3)

    events = fit_and_read(tmp_path, monitor, PACKAGES[0], LogsItsTraining(), max_epochs=4)

    looks = list(scalars(events, "saliency/energy"))
    assert looks == [5, 8, 11, 14]
    assert [event.step for event in events.Images("saliency/overlay")] == looks
    assert set(looks) <= set(scalars(events, "train_loss"))


class TwoOptimizers(Toy):
    """Under manual optimization `global_step` counts both of them; Lightning's x-axis does not."""

    automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> None:
        for optimizer in self.optimizers():
            loss = self.loss(batch)
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
        self.log("train_loss", loss)

    def configure_optimizers(self) -> Any:
        halves = (self.network[:4], self.network[4:])
        return [torch.optim.SGD(half.parameters(), lr=0.05) for half in halves]


def test_two_optimizers_do_not_stretch_the_axis(tmp_path: Path) -> None:
    monitor = SaliencyMonitor(num_samples=4, every_n_train_steps=4)

    events = fit_and_read(tmp_path, monitor, PACKAGES[0], TwoOptimizers(), max_epochs=2)

    # eight batches, sixteen optimizer steps
    assert steps_of(monitor.history) == [3, 5, 7]
    assert [event.step for event in events.Images("saliency/overlay")] == [3, 5, 7]
    assert sorted(scalars(events, "saliency/energy")) == [3, 5, 7]
    assert list(scalars(events, "val_loss")) == [3, 7]
    assert set(scalars(events, "train_loss")) == set(range(8))


def test_a_name_of_its_own(tmp_path: Path) -> None:
    events = fit_and_read(tmp_path, SaliencyMonitor(num_samples=4, log_prefix="where"), PACKAGES[0])

    assert set(events.Tags()["images"]) == {"where/overlay", "where/exchanges"}
    assert list(scalars(events, "where/energy")) == [3, 7]
