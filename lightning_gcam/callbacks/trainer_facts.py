"""What a look needs to know of the Trainer it runs in."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from lightning_gcam._lightning import Trainer


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
