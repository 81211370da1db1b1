"""A training under `ddp_spawn`; started by `tests/distributed/test_ddp.py`."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import pytorch_lightning
import torch

from lightning_gcam import SaliencyMonitor
from tests.support.ddp_script import loader
from tests.support.modules import Plain
from tests.support.witness import digest


class Writer(pytorch_lightning.Callback):
    """The spawned processes hand nothing back, so each writes what it has."""

    def __init__(self, out: Path, monitor: SaliencyMonitor | None) -> None:
        self.out, self.monitor = out, monitor

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        seen = {
            "weights": digest(dict(pl_module.state_dict())),
            "random": digest(torch.get_rng_state()),
            "history": self.monitor.history if self.monitor is not None else [],
        }
        name = f"{'with' if self.monitor is not None else 'without'}{trainer.global_rank}.json"
        (self.out / name).write_text(json.dumps(seen))


def train(out: Path, monitor: SaliencyMonitor | None) -> None:
    """One training in two spawned processes."""
    pytorch_lightning.seed_everything(1)
    trainer = pytorch_lightning.Trainer(
        accelerator="cpu",
        devices=2,
        strategy="ddp_spawn",
        max_epochs=2,
        callbacks=[*([monitor] if monitor is not None else []), Writer(out, monitor)],
        logger=False,
        default_root_dir=out,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Plain(), loader(24, shuffle=True), loader(12, shuffle=False))


if __name__ == "__main__":
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    train(Path(sys.argv[1]), SaliencyMonitor(num_samples=7, every_n_train_steps=1, on_error="raise"))
    train(Path(sys.argv[1]), None)
