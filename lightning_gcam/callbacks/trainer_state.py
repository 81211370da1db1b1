"""The Trainer's state as the callbacks need it: the step, the precision, and whether a look is due."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from lightning_gcam.data import SaliencyBatch
from lightning_gcam.utils.errors import InputError, check_whole
from lightning_gcam.utils.lightning_compat import Trainer


def logged_step(trainer: Trainer) -> int:
    """The step at which Lightning itself logs now: batches that stepped, not optimizer steps.

    With two optimizers `trainer.global_step` counts each of them; our points would lie beside Lightning's own.
    """
    return int(trainer.fit_loop.epoch_loop._batches_that_stepped)


def moment(trainer: Trainer) -> tuple[int, int]:
    """Optimizer steps and training batches so far: while both stand still, so do weights and buffers."""
    return int(trainer.global_step), int(trainer.fit_loop.total_batch_idx)


def is_fitting(trainer: Trainer) -> bool:
    """Whether this is `trainer.fit`, and not `validate` or `test` by themselves."""
    return trainer.state.fn is not None and trainer.state.fn.value == "fit"


def no_training_time_spent(trainer: Trainer) -> bool:
    """Whether a bad input may still be refused: in the sanity check, before the first step, or outside of `fit`."""
    return trainer.sanity_checking or trainer.global_step == 0 or not is_fitting(trainer)


def precision(trainer: Trainer) -> AbstractContextManager[Any]:
    """Autocast and the default dtype as the module's own `validation_step` has them."""
    plugin = getattr(trainer, "precision_plugin", None)
    return plugin.val_step_context() if plugin is not None else nullcontext()


def as_input(trainer: Trainer, images: Tensor) -> Tensor:
    """Images in the dtype that the Trainer's precision gives to every batch (`bf16-true`, `64-true`)."""
    plugin = getattr(trainer, "precision_plugin", None)
    converted = plugin.convert_input(images) if plugin is not None else images
    return converted if isinstance(converted, torch.Tensor) else images


def as_inputs(trainer: Trainer, batch: SaliencyBatch, device: torch.device) -> SaliencyBatch:
    """The samples on `device`, their images in the dtype that the Trainer's precision gives to every batch."""
    batch = batch.to(device)
    images = as_input(trainer, batch.images)
    return batch if images is batch.images else replace(batch, images=images)


_OR_NEVER = "a whole number from 1, or None for never"


def check_intervals(every_n_epochs: int | None, every_n_train_steps: int | None) -> None:
    """Refuse a schedule without looks."""
    if every_n_epochs is None and every_n_train_steps is None:
        raise InputError(
            "`every_n_epochs` and `every_n_train_steps` are both None, so there would never be a look. Give one, such "
            "as `every_n_epochs=1`."
        )
    if every_n_epochs is not None:
        check_whole("every_n_epochs", every_n_epochs, expected=_OR_NEVER)
    if every_n_train_steps is not None:
        check_whole("every_n_train_steps", every_n_train_steps, expected=_OR_NEVER)


class Schedule:
    """After the validation of every n-th epoch, after every n-th optimizer step, or both.

    Args:
        every_n_epochs: counted as Lightning counts: with 2, after the second, the fourth, ... epoch; None for never.
        every_n_train_steps: counted in `trainer.global_step`; None for never.
    """

    def __init__(self, every_n_epochs: int | None, every_n_train_steps: int | None) -> None:
        self.every_n_epochs = every_n_epochs
        self.every_n_train_steps = every_n_train_steps
        self._last_global_step = 0

    @property
    def takes_steps(self) -> bool:
        """Whether there are looks between validations."""
        return self.every_n_train_steps is not None

    def begin(self, trainer: Trainer) -> None:
        """Begin a fit, or go on from a checkpoint in the middle of an accumulation."""
        self._last_global_step = trainer.global_step

    def is_epoch_due(self, trainer: Trainer) -> bool:
        """Whether a look is due at the end of a validation; always in `validate` and `test` by themselves."""
        if not is_fitting(trainer):
            return True
        return self.every_n_epochs is not None and (trainer.current_epoch + 1) % self.every_n_epochs == 0

    def is_step_due(self, trainer: Trainer) -> bool:
        """Whether a look is due after a batch; once a step, of which accumulated batches share one."""
        new, self._last_global_step = trainer.global_step != self._last_global_step, trainer.global_step
        return (
            new
            and self.every_n_train_steps is not None
            and trainer.global_step % self.every_n_train_steps == 0
        )
