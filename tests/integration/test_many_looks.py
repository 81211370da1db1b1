"""A thousand looks in one process: after the first ten nothing grows. No memory, no tensor, no hook, no file handle."""

from __future__ import annotations

import gc
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
from torch import Tensor, nn

from lightning_gcam import SaliencyBatch, SaliencyMonitor
from tests.support.toys import LIGHTNING_SAYS, Toy, toy_loader, toy_samples, toy_trainer

pytestmark = LIGHTNING_SAYS

PROC = Path("/proc/self")
WARM_UP = 10
TOLERANCE = 8 * 2**20
"""The allocator's own ups and downs are 2 MiB; a picture has one, so keeping each would be 120 times this."""

HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_state_dict_hooks",
    "_load_state_dict_pre_hooks",
)


@dataclass
class Sight:
    """What the process holds at one moment."""

    looks: int
    tensors: int
    hooks: int
    handles: int
    resident: int


@dataclass
class Witness(pl.Callback):
    """Counts what the process holds after some of the looks; stands behind the monitor, so each look is over."""

    monitor: SaliencyMonitor
    every: int
    seen: list[Sight] = field(default_factory=list)
    kept: list[Any] = field(default_factory=list)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        looks = len(self.monitor.history)
        if looks == WARM_UP or looks % self.every == 0:
            self.seen.append(sight(looks, pl_module))


class Hoarder(Witness):
    """A leak, to see that it is seen."""

    def on_train_batch_end(self, *arguments: Any) -> None:
        self.kept.append((self.monitor.last_record, open(os.devnull)))  # noqa: SIM115
        super().on_train_batch_end(*arguments)


def sight(looks: int, module: nn.Module) -> Sight:
    gc.collect()
    return Sight(
        looks=looks,
        tensors=sum(issubclass(type(each), Tensor) for each in gc.get_objects()),
        hooks=sum(len(getattr(each, name)) for each in module.modules() for name in HOOKS),
        handles=len(os.listdir(PROC / "fd")) if PROC.exists() else 0,
        resident=int((PROC / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        if PROC.exists()
        else 0,
    )


def look_often(root: Path, looks: int, every: int, kind: type[Witness] = Witness) -> Witness:
    """A look after each step of a training, at two samples, to TensorBoard."""
    monitor = SaliencyMonitor(
        batch=SaliencyBatch(*toy_samples(2)),
        every_n_epochs=None,
        every_n_train_steps=1,
        on_error="raise",
    )
    witness = kind(monitor, every)
    trainer = toy_trainer(
        root,
        monitor,
        witness,
        max_epochs=-1,
        max_steps=looks,
        logger=pl.loggers.TensorBoardLogger(root),
        log_every_n_steps=1,
    )
    trainer.fit(Toy(), toy_loader(64, batch_size=4))
    return witness


@pytest.mark.slow
def test_a_thousand_looks_leave_nothing_behind(tmp_path: Path) -> None:
    witness = look_often(tmp_path, looks=1000, every=90)

    warm, last = witness.seen[0], witness.seen[-1]
    assert (warm.looks, last.looks) == (WARM_UP, 990)
    assert len(witness.monitor.history) == 1000
    assert max(each.tensors for each in witness.seen) == warm.tensors  # fewer where other tests' garbage goes
    assert {each.hooks for each in witness.seen} == {0}
    assert {each.handles for each in witness.seen} == {warm.handles}
    assert last.resident - warm.resident < TOLERANCE


def test_a_leak_would_be_seen(tmp_path: Path) -> None:
    witness = look_often(tmp_path, looks=30, every=10, kind=Hoarder)

    warm, last = witness.seen[0], witness.seen[-1]
    assert last.tensors > warm.tensors
    if PROC.exists():
        assert last.handles == warm.handles + 20
    for _, handle in witness.kept:
        handle.close()
