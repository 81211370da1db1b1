"""When a look is due."""

from __future__ import annotations

from lightning_gcam._lightning import Trainer
from lightning_gcam.callbacks.trainer_facts import is_fitting


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
        """A fit begins, or goes on from a checkpoint in the middle of an accumulation."""
        self._last_global_step = trainer.global_step

    def is_epoch_due(self, trainer: Trainer) -> bool:
        """Asked at the end of a validation; `validate` and `test` by themselves always look."""
        if not is_fitting(trainer):
            return True
        return self.every_n_epochs is not None and (trainer.current_epoch + 1) % self.every_n_epochs == 0

    def is_step_due(self, trainer: Trainer) -> bool:
        """Asked after every batch; true once a step, for with accumulated gradients several batches share one."""
        new, self._last_global_step = trainer.global_step != self._last_global_step, trainer.global_step
        return (
            new
            and self.every_n_train_steps is not None
            and trainer.global_step % self.every_n_train_steps == 0
        )
