"""Trainings in two processes; every process writes what it saw. Started by `test_ddp.py` through torchrun."""

from __future__ import annotations

import json
import random
import sys
import warnings
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning
import torch
from pytorch_lightning.callbacks import EarlyStopping
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_gcam import SaliencyMonitor, ShortcutAlarm
from lightning_gcam.callbacks import distributed as processes
from lightning_gcam.data.fixed_samples import FixedBatch
from lightning_gcam.pipeline import run
from lightning_gcam.pipeline.run import _Look, record_saliency
from lightning_gcam.shortcuts import available_checks
from tests.support.modules import Plain, TwoHeads
from tests.support.witness import RowLogger, Witness, digest


class Unused(Plain):
    """Has a branch that no loss reaches."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Linear(2, 2)


class FailsOnRankOne(Plain):
    """Its forward raises inside the looks of one process only; the training never calls `forward`."""

    def forward(self, images: Tensor) -> Tensor:
        if self.global_rank == 1 and self.trainer.global_step > 0:
            raise RuntimeError("only here")
        return self.net(images)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", nn.functional.cross_entropy(self.net(batch[0]), batch[1]), sync_dist=True)


class Dense(Plain):
    """Gives logits at every position."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(*self.net[:6], nn.Conv2d(6, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 3, 1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return nn.functional.cross_entropy(self(batch[0]).amax(dim=(2, 3)), batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", self.training_step(batch, batch_idx), sync_dist=True)


class ReadsTheEdge(Plain):
    """Takes the class from the uppermost row, which tells it, and (for there to be maps) a little from the rest."""

    def forward(self, images: Tensor) -> Tensor:
        level = images[:, 0, 0].mean(dim=1, keepdim=True)
        return -((level - torch.arange(3.0)) ** 2) + 1e-6 * self.net(images)


def fails_on_rank_one(images: Tensor, regions: Tensor) -> Tensor:
    """A way to remove objects that raises in one process only."""
    if torch.distributed.is_initialized() and torch.distributed.get_rank() == 1:
        raise RuntimeError("removes only there")
    return torch.zeros_like(images)


def fail_once_on_rank_one(owner: Any, name: str, call: int = 1) -> None:
    """A function raises in process 1 the first time that it is called (or at another call), and nowhere else."""
    real, calls = getattr(owner, name), []

    def broken(self: Any, *arguments: Any) -> Any:
        calls.append(arguments)
        if torch.distributed.is_initialized() and torch.distributed.get_rank() == 1 and len(calls) == call:
            raise RuntimeError(f"{name} failed only there")
        return real(self, *arguments)

    setattr(owner, name, broken)


def break_before_the_exchanges() -> None:
    """Process 1 fails before the samples are pooled; in the next look behind its maps; and in that behind it, too.

    There the maps of all cannot be copied to the host. The look behind these goes on without checks, whose outputs
    cannot be put together. (The dry run comes first: one call of the second, two of the third. The samples are copied
    once more, by the first look.)
    """
    fail_once_on_rank_one(FixedBatch, "candidates")
    fail_once_on_rank_one(_Look, "interpretation", call=1 + 1)
    fail_once_on_rank_one(run, "held_on_host", call=2 + 1 + 1)
    fail_once_on_rank_one(processes, "_interleave", call=1 + 1 + 2)


MODES: dict[str, dict[str, Any]] = {
    "plain": {},
    "accumulate": {"accumulate_grad_batches": 4, "val_check_interval": 2},
    "bf16-mixed": {"precision": "bf16-mixed"},
    "find_unused_parameters": {"strategy": DDPStrategy(find_unused_parameters=True), "module": Unused},
    "static_graph": {"strategy": DDPStrategy(static_graph=True)},
    "early stopping": {"stop": True, "max_epochs": 8},
    "several layers": {"target_layer": ["net.1", "net.4"]},
    "several layers, fused": {"target_layer": ["net.4", "net.1"], "fuse": "product"},
    "dense logits": {"module": Dense},
    "several heads": {"module": TwoHeads, "head": ["kind", "value"]},
    "the model is asked": {
        "scores": ["energy", "average_drop", "adcc", "insertion", "random_model_similarity"]
    },
    "methods that ask": {
        "methods": [
            "guidance_cam",
            "layer_cam",
            "score_cam",
            "ablation_cam",
            "smooth_full_grad",
            "cameras",
            "random",
        ]
    },
    "one process fails": {"module": FailsOnRankOne, "on_error": "warn"},
    "a check fails in one process": {"removal": fails_on_rank_one, "on_error": "warn"},
    "positions": {"selection": [20, 0, 11]},
    "one process fails before an exchange": {
        "breaks": break_before_the_exchanges,
        "on_error": "warn",
        "max_epochs": 3,
    },
    "fewer checks": {"max_overhead": 0.05, "max_epochs": 4},
    "alarm": {"module": ReadsTheEdge, "alarm": ShortcutAlarm},
    "alarm that stops": {"module": ReadsTheEdge, "alarm": partial(ShortcutAlarm, stop=True), "max_epochs": 6},
}


def loader(n: int, *, shuffle: bool) -> DataLoader[Any]:
    """Sorted by class, so that neither process sees all classes early."""
    generator = torch.Generator().manual_seed(5)
    labels = torch.arange(n) * 3 // n
    images = torch.rand(n, 1, 8, 8, generator=generator)
    masks = torch.zeros(n, 8, 8, dtype=torch.bool)
    masks[:, 2:6, 2:6] = True
    images[:, 0, 2:6, 2:6] += labels[:, None, None]
    images[:, 0, 0] = labels[:, None].float()
    return DataLoader(TensorDataset(images, labels, masks), batch_size=4, shuffle=shuffle)


def train(
    root: Path,
    *,
    monitored: bool,
    module: Any = Plain,
    stop: bool = False,
    on_error: str = "raise",
    target_layer: Any = None,
    fuse: Any = None,
    scores: Any = None,
    methods: Any = ("guidance_cam", "layer_cam"),
    removal: Any = "blur",
    alarm: Any = ShortcutAlarm,
    selection: Any = "balanced",
    breaks: Any = None,
    max_overhead: float | None = None,
    head: Any = None,
    devices: int = 2,
    **options: Any,
) -> dict[str, Any]:
    """One training; what this process saw of it, in JSON's types."""
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    witness, rows = Witness(), RowLogger()
    if breaks is not None and monitored:
        breaks()
    monitor = SaliencyMonitor(
        methods=list(methods),
        num_samples=7,
        selection=selection,
        every_n_train_steps=2,
        on_error=on_error,
        target_layer=target_layer,
        fuse=fuse,
        scores=scores,
        checks=available_checks(),  # at every look, however little the network has learnt
        max_overhead=max_overhead,
        removal=removal,
        head=head,
    )
    speaker = alarm()
    # a score that can only stay where it is: the patience runs out in every process at the same epoch
    stopper = EarlyStopping("saliency/energy_chance", patience=2, mode="max")
    callbacks = [
        *([speaker, monitor] if monitored else []),
        *([stopper] if stop and monitored else []),
        witness,
    ]
    settings = {
        "accelerator": "cpu",
        "devices": devices,
        "strategy": "ddp" if devices > 1 else "auto",
        "max_epochs": 2,
    }
    trainer = pytorch_lightning.Trainer(
        **{**settings, **options},
        callbacks=callbacks,
        logger=rows,
        default_root_dir=root,
        log_every_n_steps=1,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    made = module()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.fit(made, loader(48, shuffle=True), loader(24, shuffle=False))
    return {
        "lines": digest([str(line) for line in witness.lines]),
        "rows": rows.rows,
        "epochs": trainer.current_epoch,
        "history": monitor.history,
        "alerts": speaker.alerts,
        "positions": monitor._collection.fixed.positions,
        "images": digest(monitor.last_record.batch.images) if monitor.last_record else "",
        "maps": digest(monitor.last_record.attribution.maps) if monitor.last_record else "",
        "alone": alone(made, monitor, target_layer, fuse, scores, methods, removal, head)
        if monitor.last_record
        else {},
        "warnings": sum("the training goes on" in str(each.message) for each in caught),
        "given up": sum("not tried again" in str(each.message) for each in caught),
    }


def alone(
    module: Any,
    monitor: SaliencyMonitor,
    target_layer: Any,
    fuse: Any,
    scores: Any,
    methods: Any,
    removal: Any,
    head: Any,
) -> dict[str, float]:
    """The scores of the last look once more, by each process alone, on the same samples and with rank zero's network.

    Between two forwards DDP lets each process have its own BatchNorm statistics; a look is at those of rank zero.
    """
    for buffer in module.buffers():
        if torch.distributed.is_initialized():
            torch.distributed.broadcast(buffer, 0)
    assert monitor.last_record is not None
    return record_saliency(
        module,
        monitor.last_record.batch,
        methods=list(methods),
        target_layer=target_layer,
        fuse=fuse,
        scores=scores,
        checks=[] if callable(removal) else available_checks(),
        head=head,
    ).scores


def main(out: Path) -> None:
    """Every mode with and without the monitor."""
    rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else int(_env("RANK"))
    found = {}
    for name, options in MODES.items():
        options = dict(options)
        if "strategy" in options:  # a strategy object serves one Trainer
            kind = options.pop("strategy")._ddp_kwargs
            make = lambda kind=kind: {"strategy": DDPStrategy(**kind)}  # noqa: E731
        else:
            make = dict
        without = {key: value for key, value in options.items() if key not in ("stop",)}
        found[name] = {
            "with": train(out, monitored=True, **options, **make()),
            "without": train(out, monitored=False, **without, **make()) if not options.get("stop") else None,
        }
    (out / f"rank{rank}.json").write_text(json.dumps(found))


def fail_alone() -> None:
    """The mode "one process fails" without the safeguard: the exception leaves at once, before the exchange."""
    processes._tried = lambda work: work()  # type: ignore[assignment]
    train(
        Path(sys.argv[1]),
        monitored=True,
        module=FailsOnRankOne,
        on_error="warn",
        strategy=DDPStrategy(timeout=timedelta(seconds=10)),
    )


def _env(name: str) -> str:
    import os

    return os.environ.get(name, "0")


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[2:] == ["fail_alone"]:
        fail_alone()
    else:
        main(Path(sys.argv[1]))
