"""TensorBoard's event file when there is no room for a look, and when a run that was killed is resumed."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning
from pytorch_lightning.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.support import faults
from tests.support.faults import FROM_VALIDATION, assert_same, fit
from tests.support.modules import Plain

resource = pytest.importorskip("resource")

# a thread of TensorBoard's ends with the error that it met, which pytest would report as an unhandled one
pytestmark = pytest.mark.filterwarnings("ignore")


class Limit(pytorch_lightning.Callback):
    """As if the disk had room for so many more bytes of the event file in the second and the third epoch."""

    def __init__(self, logger: TensorBoardLogger, room: int) -> None:
        self.logger, self.room = logger, room

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        if trainer.current_epoch == 1:
            (path,) = Path(self.logger.log_dir).glob("events*")
            _limit(path.stat().st_size + self.room)
        elif trainer.current_epoch == 3:
            _limit(resource.RLIM_INFINITY)


def _limit(size: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def events_in(logger: TensorBoardLogger) -> EventAccumulator:
    events = EventAccumulator(logger.log_dir, size_guidance={"images": 0, "scalars": 0})
    return events.Reload()


def test_a_look_that_finds_no_room_leaves_the_writer_as_it_was(tmp_path: Path) -> None:
    """Lightning's own numbers find some: all of them are there, and so is the look after there is room again."""
    logger, monitor = TensorBoardLogger(tmp_path, version=0), faults.monitor()
    try:
        training = fit(Plain, tmp_path, monitor, Limit(logger, 4000), loggers=[logger], **FROM_VALIDATION)
    finally:
        _limit(resource.RLIM_INFINITY)
    assert_same(training, fit(Plain, tmp_path, **FROM_VALIDATION))
    (told,) = training.told
    assert "Logging the look to TensorBoardLogger failed" in told and "The disk is full" in told
    events = events_in(logger)
    assert [each.step for each in events.Scalars("train_loss")] == [0, 1, 2, 3, 4, 5, 6, 7]
    assert [each.step for each in events.Scalars("val_loss")] == [1, 3, 5, 7]
    assert [each.step for each in events.Scalars("saliency/accuracy")] == [1, 3, 5, 7]
    assert [each.step for each in events.Images("saliency/overlay")] == [1, 7]
    assert len(monitor.history) == 4


@pytest.mark.parametrize("purge", [False, True], ids=["as it is", "with purge_step"])
def test_a_run_that_is_resumed_into_the_same_event_files(purge: bool, tmp_path: Path) -> None:
    """TensorBoard's files only grow: what was written behind the checkpoint is there twice, unless it is purged."""

    def checkpoint(trainer: Any, module: Any) -> None:
        trainer.callbacks.append(Saves(tmp_path / "last.ckpt"))

    options = {**FROM_VALIDATION, "max_epochs": 3}
    fit(
        Plain,
        tmp_path,
        faults.monitor(),
        loggers=[TensorBoardLogger(tmp_path, version=0)],
        before=checkpoint,
        **options,
    )
    logger = TensorBoardLogger(tmp_path, version=0, **({"purge_step": 4} if purge else {}))
    trainer = pytorch_lightning.Trainer(
        max_epochs=4,
        limit_train_batches=2,
        limit_val_batches=2,
        logger=logger,
        callbacks=[faults.monitor()],
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        accelerator="cpu",
    )
    # from Lightning 2.6 on, a checkpoint is read with weights alone unless this is said
    takes_it = "weights_only" in inspect.signature(trainer.fit).parameters
    how = {"weights_only": False} if takes_it else {}
    trainer.fit(Plain(), faults.loader(24), faults.loader(12), ckpt_path=tmp_path / "last.ckpt", **how)
    steps = [each.step for each in events_in(logger).Images("saliency/overlay")]
    assert steps == ([1, 3, 5, 7] if purge else [1, 3, 5, 5, 7])


class Saves(pytorch_lightning.Callback):
    """Keeps the state behind the second epoch; the third is trained, and lost."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        if trainer.current_epoch == 1:
            trainer.save_checkpoint(self.path)
