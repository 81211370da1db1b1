"""A training with parameters sharded over two processes; started by `tests/test_sharded.py` through torchrun."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import pytorch_lightning
import torch
from pytorch_lightning.strategies import ModelParallelStrategy
from torch.distributed.fsdp import fully_shard

from lightning_gcam import SaliencyMonitor
from tests.ddp_script import loader
from tests.modules import Plain
from tests.witness import digest


class Sharded(Plain):
    """Its parameters are sharded over the data-parallel mesh."""

    def configure_model(self) -> None:
        mesh = self.device_mesh["data_parallel"]
        for index in (0, 4, 8):
            fully_shard(self.net[index], mesh=mesh)
        fully_shard(self.net, mesh=mesh)


def whole(parameter: torch.Tensor) -> torch.Tensor:
    """A sharded parameter in one piece."""
    return parameter.full_tensor() if hasattr(parameter, "full_tensor") else parameter


def train(root: Path, *, monitored: bool) -> dict[str, Any]:
    """One training; the weights at its end and what the monitor saw."""
    pytorch_lightning.seed_everything(1)
    monitor = SaliencyMonitor(num_samples=7, every_n_train_steps=1, on_error="raise")
    trainer = pytorch_lightning.Trainer(
        accelerator="cpu",
        devices=2,
        strategy=ModelParallelStrategy(data_parallel_size=2, tensor_parallel_size=1),
        max_epochs=2,
        callbacks=[monitor] if monitored else [],
        logger=False,
        default_root_dir=root,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    module = Sharded()
    trainer.fit(module, loader(24, shuffle=True), loader(12, shuffle=False))
    weights = digest([whole(parameter) for parameter in module.parameters()])
    return {"weights": weights, "random": digest(torch.get_rng_state()), "history": monitor.history}


if __name__ == "__main__":
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    out = Path(sys.argv[1])
    seen = {"with": train(out, monitored=True), "without": train(out, monitored=False)}
    (out / f"rank{torch.distributed.get_rank()}.json").write_text(json.dumps(seen))
