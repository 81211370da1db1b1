"""The Trainer's state as the callbacks need it: the step, the precision, whether a look is due; and how it was run."""

from __future__ import annotations

import math
import os
import platform
import shlex
import sys
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_gcam.data import SaliencyBatch
from lightning_gcam.utils.chunking import without_progress_bars
from lightning_gcam.utils.errors import InputError, check_whole
from lightning_gcam.utils.lightning_compat import Trainer

_PACKAGES = (
    "lightning-gcam",
    "torch",
    "torchvision",
    "pytorch-lightning",
    "lightning",
    "torchmetrics",
    "timm",
)


def logged_step(trainer: Trainer) -> int:
    """The step at which Lightning itself logs now: batches that stepped, not optimizer steps.

    With two optimizers `trainer.global_step` counts each of them; our points would lie beside Lightning's own.
    """
    return int(trainer.fit_loop.epoch_loop._batches_that_stepped)


def total_steps(trainer: Trainer) -> float:
    """The steps of the whole fit, as `logged_step` counts them; infinity where they are not known."""
    try:
        total = float(trainer.estimated_stepping_batches)
    except Exception:  # a strategy or a dataloader that cannot be counted
        return math.inf
    if total <= 0:  # no end is set, and the dataloader has no length
        return math.inf
    if total == trainer.max_steps and trainer.global_step:  # where each of several optimizers counts
        total *= logged_step(trainer) / trainer.global_step
    return total


def monitored_names(trainer: Trainer) -> set[str]:
    """The names of the metrics that callbacks and learning-rate schedulers monitor."""
    watching = [*getattr(trainer, "callbacks", []), *getattr(trainer, "lr_scheduler_configs", [])]
    return {each.monitor for each in watching if isinstance(getattr(each, "monitor", None), str)}


def moment(trainer: Trainer) -> tuple[int, int]:
    """Optimizer steps and training batches so far: while both stand still, so do weights and buffers."""
    return int(trainer.global_step), int(trainer.fit_loop.total_batch_idx)


def is_fitting(trainer: Trainer) -> bool:
    """Whether this is `trainer.fit`, and not `validate` or `test` by themselves."""
    return trainer.state.fn is not None and trainer.state.fn.value == "fit"


def no_training_time_spent(trainer: Trainer) -> bool:
    """Whether a bad input may still be refused: in the sanity check, before the first step, or outside of `fit`."""
    return trainer.sanity_checking or trainer.global_step == 0 or not is_fitting(trainer)


def progress_bars(trainer: Trainer) -> AbstractContextManager[None]:
    """Hide the progress bars of long looks where the Trainer has none of its own.

    Args:
        trainer: whose `enable_progress_bar` decides.
    """
    has_bar = getattr(trainer, "progress_bar_callback", None) is not None
    return nullcontext() if has_bar else without_progress_bars()


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

    def __str__(self) -> str:
        """When looks are taken, in words.

        Example:
            >>> str(Schedule(1, None)), str(Schedule(2, 100))
            ('every epoch', 'every 2 epochs and every 100 steps')
        """
        every = ((self.every_n_epochs, "epoch"), (self.every_n_train_steps, "step"))
        return " and ".join(
            f"every {what if n == 1 else f'{n} {what}s'}" for n, what in every if n is not None
        )

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


def versions(packages: Iterable[str] = _PACKAGES) -> dict[str, str]:
    """Return the version of Python, and of each package that is installed.

    Example:
        >>> sorted(versions(["torch", "no-such-package"]))
        ['python', 'torch']
    """
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    if torch.cuda.is_available() and torch.version.cuda is not None:
        found["cuda"] = torch.version.cuda
    return found


def command() -> str:
    """Return the command line of this process, quoted for a shell."""
    given = getattr(sys, "orig_argv", sys.argv)
    program = Path(sys.argv[0]).name if sys.argv and sys.argv[0] else ""
    is_script = program and program not in ("-c", "-m") and not program.endswith(".py")
    return shlex.join([program, *sys.argv[1:]] if is_script else [Path(given[0]).name, *given[1:]])


def seed() -> int | None:
    """Return the seed that Lightning's `seed_everything` was called with; None where it was not."""
    found = os.environ.get("PL_GLOBAL_SEED", "")
    return int(found) if found.lstrip("-").isdigit() else None


def device_in_words(device: torch.device) -> str:
    """Describe a device: its type and, for a GPU, its name.

    Example:
        >>> device_in_words(torch.device("cpu"))
        'cpu'
    """
    if device.type == "cuda":
        return f"{device.type} ({torch.cuda.get_device_name(device)})"
    return device.type
