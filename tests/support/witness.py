"""A witness that writes down everything of a training that a callback could disturb."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytorch_lightning
import torch
from pytorch_lightning.loggers import Logger
from torch import Tensor, nn


def digest(value: Any) -> str:
    """A short hash of tensors, numbers and containers of them, bit by bit."""
    state = hashlib.blake2b(digest_size=12)
    for piece in _pieces(value):
        state.update(piece)
    return state.hexdigest()


def _pieces(value: Any) -> Iterator[bytes]:
    if isinstance(value, Tensor):
        plain = value.detach().cpu().contiguous()
        yield f"{plain.dtype}{tuple(plain.shape)}".encode()
        yield plain.reshape(-1).view(torch.uint8).numpy().tobytes()
    elif isinstance(value, np.ndarray):
        yield value.tobytes()
    elif isinstance(value, dict):
        for key in value:
            yield str(key).encode()
            yield from _pieces(value[key])
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from _pieces(each)
    else:
        yield repr(value).encode()


def random_streams() -> str:
    """The state of python's, numpy's and torch's random numbers, those of the CUDA devices in use included."""
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return digest([random.getstate(), np.random.get_state(), torch.get_rng_state(), *devices])


def count_hooks(module: nn.Module) -> int:
    """All hooks on a module and its submodules."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return sum(len(getattr(each, kind)) for each in module.modules() for kind in kinds)


class Witness(pytorch_lightning.Callback):
    """Writes one line for each thing it sees; two trainings are the same if their lines are.

    It stands behind the monitor, so that it sees what the module sees.
    """

    def __init__(self) -> None:
        self.lines: list[tuple[str, Any]] = []

    def _see(self, what: str, value: Any) -> None:
        self.lines.append((what, value))

    def on_train_batch_start(self, trainer: Any, pl_module: nn.Module, batch: Any, batch_idx: int) -> None:
        self._see("batch", digest(batch))
        self._see("modes", tuple(each.training for each in pl_module.modules()))
        self._see("random", random_streams())
        self._see("grads before", digest([parameter.grad for parameter in pl_module.parameters()]))

    def on_validation_batch_start(
        self, trainer: Any, pl_module: nn.Module, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self._see("validation batch", digest(batch))
        self._see("validation modes", tuple(each.training for each in pl_module.modules()))

    def on_before_optimizer_step(self, trainer: Any, pl_module: nn.Module, optimizer: Any) -> None:
        self._see("grads", digest([parameter.grad for parameter in pl_module.parameters()]))

    def on_train_batch_end(
        self, trainer: Any, pl_module: nn.Module, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._see("state", digest(dict(pl_module.state_dict())))
        self._see("hooks", count_hooks(pl_module))
        self._see("random behind", random_streams())

    def on_validation_end(self, trainer: Any, pl_module: nn.Module) -> None:
        self._see("grads behind validation", digest([parameter.grad for parameter in pl_module.parameters()]))
        self._see("random behind validation", random_streams())
        self._see(
            "metrics", _theirs({name: float(value) for name, value in trainer.callback_metrics.items()})
        )

    def on_train_end(self, trainer: Any, pl_module: nn.Module) -> None:
        self._see("weights", digest(dict(pl_module.state_dict())))
        self._see("optimizers", [digest(optimizer.state_dict()) for optimizer in trainer.optimizers])
        self._see(
            "schedulers", [digest(config.scheduler.state_dict()) for config in trainer.lr_scheduler_configs]
        )
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        self._see("scaler", digest(scaler.state_dict()) if scaler is not None else None)
        self._see("grad needed", tuple(parameter.requires_grad for parameter in pl_module.parameters()))


class RowLogger(Logger):
    """Keeps every logged row that is not the monitor's."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[int | None, dict[str, float]]] = []

    @property
    def name(self) -> str:
        return "rows"

    @property
    def version(self) -> str:
        return "0"

    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        """Nothing to keep."""

    def log_image(self, key: str, images: list[Any], step: int | None = None) -> None:
        """The monitor's pictures are not the training's."""

    @property
    def experiment(self) -> Any:
        """Takes the alarm's words, which would else go to a file in the working directory."""
        return SimpleNamespace(alert=lambda *_, **__: None)

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        theirs = _theirs(metrics)
        if theirs and set(theirs) != {"epoch"}:
            self.rows.append((step, theirs))


def _theirs(metrics: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if not name.startswith("saliency")}


def differences(left: Witness, right: Witness) -> list[str]:
    """What differs between two trainings, in words; empty where they are the same bit for bit."""
    found = [
        f"{index}: {mine[0]}"
        for index, (mine, other) in enumerate(zip(left.lines, right.lines, strict=False))
        if mine != other
    ]
    if len(left.lines) != len(right.lines):
        found.append(f"{len(left.lines)} lines against {len(right.lines)}")
    return found
