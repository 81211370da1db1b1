"""Faults that strike inside a look, a training that meets them, and what a person is told of it."""

from __future__ import annotations

import json
import os
import random
import signal
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning
import torch
from pytorch_lightning.loggers import Logger
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_gcam import SaliencyMonitor
from tests.support.modules import Plain, Transformer
from tests.support.witness import RowLogger, Witness, count_hooks, differences, digest, random_streams

# ------------------------------------------------------------------------------------------- a small training

FROM_VALIDATION: dict[str, Any] = {"max_epochs": 4, "limit_train_batches": 2, "limit_val_batches": 2}
"""Four looks, at the end of each epoch; two training batches an epoch."""

FROM_STEPS: dict[str, Any] = {"max_epochs": 3, "limit_train_batches": 2, "limit_val_batches": 2}
"""With `every_n_train_steps=1` alone: four looks, at steps 3 to 6, once the first validation gave the samples."""


def samples(n: int, size: int = 8) -> tuple[Tensor, Tensor, Tensor]:
    """Images `(n, 1, size, size)`, labels of three classes, and masks in the middle."""
    generator = torch.Generator().manual_seed(5)
    labels = torch.arange(n) % 3
    images = torch.rand(n, 1, size, size, generator=generator)
    masks = torch.zeros(n, size, size, dtype=torch.bool)
    masks[:, 2:6, 2:6] = True
    images[:, 0, 2:6, 2:6] += labels[:, None, None]
    return images, labels, masks


def loader(n: int, *, shuffle: bool = False) -> DataLoader[Any]:
    """Batches of four `(images, labels, masks)`."""
    return DataLoader(TensorDataset(*samples(n)), batch_size=4, shuffle=shuffle)


def absolute(activations: Tensor, gradients: Tensor) -> Tensor:
    """A method whose maps are not blank as long as there is any gradient, whatever a random network does."""
    return (activations.abs() + 1e-3).mul(gradients.abs()).sum(dim=1)


@dataclass
class Training:
    """A training that has ended, and what was said in it."""

    witness: Witness
    rows: RowLogger
    module: Any
    trainer: Any
    said: list[str] = field(default_factory=list)

    @property
    def told(self) -> list[str]:
        """Our warnings but for the one that says that there are no further looks."""
        return [message for message in self.said if "in a row" not in message]

    @property
    def given_up(self) -> list[str]:
        """Our warnings that there are no further looks."""
        return [message for message in self.said if "in a row" in message]


class Rows(RowLogger):
    """Keeps our rows too, beside the training's own."""

    def __init__(self) -> None:
        super().__init__()
        self.ours: list[dict[str, float]] = []

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        super().log_metrics(metrics, step)
        ours = {name: float(value) for name, value in metrics.items() if name.startswith("saliency")}
        self.ours += [ours] if ours else []


def fit(
    module: Callable[[], Any],
    root: Path,
    *callbacks: Any,
    validation: Any = None,
    loggers: Sequence[Logger] = (),
    before: Callable[[Any, Any], None] | None = None,
    **options: Any,
) -> Training:
    """One training from fixed seeds; a witness stands behind the callbacks.

    Args:
        module: makes the LightningModule.
        root: where Lightning may write.
        callbacks: the monitor, and whatever the test adds.
        validation: the validation loader; twelve good samples where it is left out.
        loggers: beside the one that keeps the rows.
        before: called with the Trainer and the module before `fit`.
        options: of the Trainer.
    """
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    witness, rows = Witness(), Rows()
    settings: dict[str, Any] = {
        "accelerator": "cpu",
        "devices": 1,
        "logger": [rows, *loggers],
        "default_root_dir": root,
        "log_every_n_steps": 1,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = pytorch_lightning.Trainer(**{**settings, **options}, callbacks=[*callbacks, witness])
    made = module()
    if before is not None:
        before(trainer, made)
    with listening() as said:
        trainer.fit(made, loader(24, shuffle=True), validation if validation is not None else loader(12))
    return Training(witness, rows, made, trainer, said)


TESTS = Path(__file__).parents[1]


@contextmanager
def listening() -> Iterator[list[str]]:
    """What this package warns of; Lightning's own advice is not listened to."""
    ours: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield ours
    ours += [str(each.message) for each in caught if is_ours(each)]


def is_ours(warning: warnings.WarningMessage) -> bool:
    """Whether this package warned: its warnings name the user's line, which is one of the tests here."""
    return Path(warning.filename).is_relative_to(TESTS)


@cache
def undisturbed(module: Callable[[], Any], root: Path, options: tuple[tuple[str, Any], ...]) -> Training:
    """The same training without a callback; taken once for all the faults that are compared with it."""
    return fit(module, root, **dict(options))


def assert_same_training(training: Training, module: Callable[[], Any], **options: Any) -> None:
    """Finished, and bit for bit the same as without a callback; nothing of ours is left in the module."""
    without = undisturbed(module, Path(training.trainer.default_root_dir), tuple(options.items()))
    assert_same(training, without)


def assert_same(training: Training, without: Training) -> None:
    """As `assert_same_training`, against a training that was run by hand."""
    assert differences(without.witness, training.witness) == []
    assert without.rows.rows == training.rows.rows
    assert training.trainer.state.finished
    assert training.trainer.global_step == without.trainer.global_step
    for name, value in training.trainer.callback_metrics.items():
        assert not name.startswith("saliency") or torch.isfinite(value), name
    assert all(np.isfinite(value) for row in training.rows.ours for value in row.values())
    for each in training.module.modules():
        assert not {"log", "log_dict"} & set(vars(each))


# ------------------------------------------------------------------------------- faults that strike in a look

Call = Callable[[Tensor], Any]
Fault = Callable[[Any, Tensor, Call], Any]
"""`(module, images, forward) -> output`, in place of the module's own forward."""


@dataclass
class When:
    """Which looks a fault strikes, counted from one; 0 is the trial before training."""

    name: str
    looks: Sequence[int]
    options: dict[str, Any] = field(default_factory=lambda: FROM_VALIDATION)
    monitor: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name


_STEPS = {"every_n_epochs": None, "every_n_train_steps": 1}
FIRST = When("first look", [1])
LATER = When("later look", [3])
EVERY = When("every look", [1, 2, 3, 4])
STEPS = When("a look at a step", [2], FROM_STEPS, _STEPS)
EVERY_STEP = When("every look at a step", [1, 2, 3, 4], FROM_STEPS, _STEPS)
WHEN = [FIRST, LATER, EVERY, STEPS, EVERY_STEP]


class Clock:
    """Numbers the looks: a forward outside of the module's own steps belongs to one."""

    def __init__(self) -> None:
        self.in_own_step = False
        self.looks: list[int] = []
        """The optimizer step of each look."""
        self.sizes: list[int] = []
        """The number of samples in each forward of a look."""

    @contextmanager
    def own_step(self) -> Iterator[None]:
        self.in_own_step = True
        try:
            yield
        finally:
            self.in_own_step = False

    def look(self, trainer: Any, size: int) -> int:
        """The number of the look that runs now; 0 before the first training step."""
        self.sizes.append(size)
        if trainer.sanity_checking or trainer.global_step == 0:
            return 0
        if not self.looks or self.looks[-1] != trainer.global_step:
            self.looks.append(trainer.global_step)
        return len(self.looks)


def struck(base: type[Any], fault: Fault, looks: Sequence[int]) -> Callable[[], Any]:
    """A module like `base` whose forward meets a fault in some of the looks, and never in its own steps."""

    class Struck(base):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.clock = Clock()

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            with self.clock.own_step():
                return super().training_step(batch, batch_idx)

        def validation_step(self, batch: Any, batch_idx: int) -> Any:
            with self.clock.own_step():
                return super().validation_step(batch, batch_idx)

        def forward(self, images: Tensor) -> Any:
            if self.clock.in_own_step or self.clock.look(self.trainer, len(images)) not in looks:
                return super().forward(images)
            return fault(self, images, super().forward)

    return Struck


def raising(error: BaseException) -> Fault:
    """The forward raises."""

    def fault(module: Any, images: Tensor, forward: Call) -> Any:
        raise error

    return fault


def raising_behind(error: BaseException) -> Fault:
    """The forward raises when all but its last line has run."""

    def fault(module: Any, images: Tensor, forward: Call) -> Any:
        forward(images)
        raise error

    return fault


def raising_above(error: BaseException, most: int) -> Fault:
    """Memory for `most` samples at once, and no more."""

    def fault(module: Any, images: Tensor, forward: Call) -> Any:
        if len(images) > most:
            raise error
        return forward(images)

    return fault


def giving(change: Callable[[Any], Any]) -> Fault:
    """The forward's output goes through `change`."""
    return lambda module, images, forward: change(forward(images))


def layer_giving(change: Callable[[Tensor], Tensor]) -> Fault:
    """The target layer's output goes through `change`, in place of what it computes."""

    def fault(module: Any, images: Tensor, forward: Call) -> Any:
        with changed_layer(module.get_submodule(layer_of(module)), change):
            return forward(images)

    return fault


def layer_raising(error: BaseException) -> Fault:
    """The target layer raises: between our hooks."""

    def refuse(output: Tensor) -> Tensor:
        raise error

    return layer_giving(refuse)


def head_raising(error: BaseException) -> Fault:
    """The last layer of `net` raises: behind our hook."""

    def refuse(output: Tensor) -> Tensor:
        raise error

    def fault(module: Any, images: Tensor, forward: Call) -> Any:
        with changed_layer(module.net[-1], refuse):
            return forward(images)

    return fault


def one_nan(output: Tensor) -> Tensor:
    """A single value of the whole batch is not a number."""
    broken = output.clone()
    broken.view(-1)[-1] = torch.nan
    return broken


@contextmanager
def changed_layer(layer: nn.Module, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """For a while, `layer` gives something else."""
    own = type(layer).forward
    layer.forward = lambda *args: change(own(layer, *args))  # type: ignore[method-assign]
    try:
        yield
    finally:
        del layer.forward


def layer_of(module: Any) -> str:
    """The layer that is found in `tests.support.modules`."""
    return "norm" if isinstance(module, Transformer) else "net.5"


class _BrokenGradient(torch.autograd.Function):
    """The value passes; the gradient becomes a constant."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return values.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:  # type: ignore[override]
        return torch.full_like(gradient, ctx.factor), None


def gradient_of(factor: float) -> Fault:
    """The gradient that comes back from the logits is `factor` everywhere."""
    return giving(lambda logits: _BrokenGradient.apply(logits, factor))


def monitor(when: When | None = None, **options: Any) -> SaliencyMonitor:
    """Three samples and two scores, so that it is quick; and a method that leaves no map blank."""
    given = when.monitor if when is not None else {}
    usual = {"methods": absolute, "num_samples": 3, "scores": ["energy", "blank_rate"]}
    return SaliencyMonitor(**{**usual, **given, **options})


# ---------------------------------------------------------------------------------------- interrupts in a look


def snapshot(module: Any) -> dict[str, Any]:
    """All that a look could leave behind in a module and in the random streams."""
    return {
        "state": digest(dict(module.state_dict())),
        "modes": tuple(each.training for each in module.modules()),
        "random": random_streams(),
        "hooks": count_hooks(module),
        "grads": digest([parameter.grad for parameter in module.parameters()]),
        "attributes": [sorted(vars(each)) for each in module.modules()],
    }


class Observer(pytorch_lightning.Callback):
    """Stands before the monitor: the last snapshot before its hooks, and the one when an exception leaves the loop."""

    def __init__(self) -> None:
        self.before: dict[str, Any] = {}
        self.after: dict[str, Any] = {}

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self.before = snapshot(pl_module)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        self.before = snapshot(pl_module)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        self.after = snapshot(pl_module)


class Armed(pytorch_lightning.Callback):
    """Does something as the training begins, behind the trial."""

    def __init__(self, action: Callable[[], Any]) -> None:
        self.action = action

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        self.action()


class Silent(Plain):
    """Logs nothing of its own."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self(batch[0])


def without_service(root: Path) -> None:
    """Train with an offline W&B run whose service process is killed behind the first look; print what came out.

    Run in a process of its own: W&B keeps threads and exit hooks. The training logs nothing itself: W&B would refuse
    that too, and end the training without our help.
    """
    from pytorch_lightning.loggers import WandbLogger

    torch.set_num_threads(1)
    wandb_logger = WandbLogger(save_dir=root, offline=True)

    class Killer(pytorch_lightning.Callback):
        def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
            wandb_logger.experiment  # noqa: B018  # the service starts
            if trainer.current_epoch == 1:
                for child in _children(os.getpid()):
                    if "wandb" in Path(f"/proc/{child}/cmdline").read_text():
                        os.kill(child, signal.SIGKILL)

    looks = monitor()
    training = fit(Silent, root, looks, Killer(), loggers=[wandb_logger], **FROM_VALIDATION)
    outcome = {"said": training.said, "looks": len(looks.history), "witness": digest(training.witness.lines)}
    print(json.dumps(outcome), flush=True)
    os._exit(0)  # W&B's exit hooks would wait for the process that is gone


def _children(process: int) -> list[int]:
    tasks = Path(f"/proc/{process}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]
