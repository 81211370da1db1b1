"""Trainings with parameters sharded over two processes; started by `test_sharded.py` through torchrun."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning
import torch
from pytorch_lightning.strategies import FSDPStrategy, ModelParallelStrategy, Strategy
from torch import Tensor, nn
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard

from lightning_gcam import SaliencyMonitor
from tests.support.ddp_script import loader
from tests.support.modules import Plain
from tests.support.witness import digest


class FullySharded(Plain):
    """Its parameters are sharded over the data-parallel mesh."""

    def configure_model(self) -> None:
        mesh = self.device_mesh["data_parallel"]
        for index in (0, 4, 8):
            fully_shard(self.net[index], mesh=mesh)
        fully_shard(self.net, mesh=mesh)


class FSDPOnCPU(FSDPStrategy):
    """Lightning's, but for two things: it is not refused without a GPU, and tells FSDP that its device is a CPU."""

    def __init__(self, **options: Any) -> None:
        super().__init__(process_group_backend="gloo", **options)

    def _setup_model(self, model: nn.Module) -> nn.Module:
        return FullyShardedDataParallel(module=model, device_id=torch.device("cpu"), **self.kwargs)


def through_net(module: Any, images: Tensor) -> Tensor:
    """A way of the user's own to call the module."""
    return module.net(images)


def model_parallel() -> Strategy:
    return ModelParallelStrategy(data_parallel_size=2, tensor_parallel_size=1)


def fsdp() -> Strategy:
    return FSDPOnCPU()


def fsdp_wrapped() -> Strategy:
    return FSDPOnCPU(auto_wrap_policy={nn.Conv2d})


MODES: dict[str, tuple[Callable[[], Strategy], type[Plain], dict[str, Any]]] = {
    "model parallel": (model_parallel, FullySharded, {}),
    "FSDP": (fsdp, Plain, {}),
    "FSDP, layers wrapped": (fsdp_wrapped, Plain, {}),
    "FSDP, own forward": (fsdp, Plain, {"forward": through_net}),
}


def here(parameter: Tensor) -> Tensor:
    """This process's share of a parameter, copied: a view would keep FSDP from resizing it."""
    local = parameter.to_local() if hasattr(parameter, "to_local") else parameter
    return local.detach().clone()


def train(root: Path, mode: str, *, monitored: bool) -> dict[str, Any]:
    """One training; this process's weights at its end, and what the monitor saw."""
    strategy, module, options = MODES[mode]
    pytorch_lightning.seed_everything(1)
    monitor = SaliencyMonitor(
        num_samples=7, every_n_train_steps=1, max_overhead=None, on_error="raise", **options
    )
    trainer = pytorch_lightning.Trainer(
        accelerator="cpu",
        devices=2,
        strategy=strategy(),
        max_epochs=2,
        callbacks=[monitor] if monitored else [],
        logger=False,
        default_root_dir=root,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    made = module()
    trainer.fit(made, loader(24, shuffle=True), loader(12, shuffle=False))
    return {
        "weights": digest([here(parameter) for parameter in made.parameters()]),
        "buffers": digest([buffer.clone() for buffer in made.buffers()]),
        "random": digest(torch.get_rng_state()),
        "history": monitor.history,
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    out = Path(sys.argv[1])
    seen = {
        mode: {kind: train(out, mode, monitored=kind == "with") for kind in ("with", "without")}
        for mode in MODES
    }
    (out / f"rank{torch.distributed.get_rank()}.json").write_text(json.dumps(seen))
