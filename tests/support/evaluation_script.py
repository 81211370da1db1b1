"""Evaluations in processes of their own: to be killed, interrupted and resumed, or in two at once.

Started by `test_evaluation_resume.py`, and by `tests/distributed/test_evaluation.py` through torchrun.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_gcam import SaliencyEvaluation
from lightning_gcam.metrics import DeletionAUC, MaxBoxAccuracy
from tests.support.toys import ReadsTheBorder, Toy, bordered_loader, toy_loader, toy_trainer

METHODS = ["guidance_cam", "layer_cam"]
LOOKS = [0]
"""How often a model was run in this process: a look puts back whatever the module itself notes."""


def scores() -> dict[str, Any]:
    """Of one and of several numbers a sample, with and without further forwards."""
    from lightning_gcam.metrics import resolve_scores

    named = resolve_scores(["energy", "object_lift", "pointing_game", "blank_rate", "average_drop"])
    return {**named, "boxes": MaxBoxAccuracy(num_thresholds=5), "deletion": DeletionAUC(steps=3)}


class Stops(Toy):
    """Ends its own process in the batch number `at`, in one way or another, or breaks behind it; counts its looks."""

    def __init__(self, at: int | None = None, how: str = "", network: nn.Module | None = None) -> None:
        super().__init__(network)
        self.at, self.how, self.breaks = at, how, False

    def forward(self, images: Tensor) -> Tensor:
        LOOKS[0] += 1
        if self.breaks:
            raise RuntimeError("the cable was pulled")
        return super().forward(images)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        super().test_step(batch, batch_idx)
        if batch_idx != self.at:
            return
        if self.how == "break in the second process":
            self.breaks = os.environ.get("RANK") == "1"
            return
        if self.how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if signal.getsignal(signal.SIGINT) != signal.default_int_handler:
            raise KeyboardInterrupt  # a worker of pytest-xdist, and what it starts, ignore the signal
        os.kill(os.getpid(), signal.SIGINT)


def evaluate(
    directory: Path,
    *,
    n: int = 21,
    batch_size: int = 4,
    at: int | None = None,
    how: str = "",
    devices: int = 1,
    bordered: bool = False,
    **options: Any,
) -> dict[str, Any]:
    """One evaluation; what came of it, in JSON's types."""
    torch.manual_seed(3)
    LOOKS[0] = 0
    module = Stops(at, how, ReadsTheBorder() if bordered else None)
    settings = {"methods": METHODS, "scores": scores(), "checks": [], "resamples": 100, "on_error": "raise"}
    evaluation = SaliencyEvaluation(**{**settings, **options}, directory=directory)
    strategy = {"strategy": "ddp"} if devices > 1 else {}
    trainer = toy_trainer(directory, evaluation, devices=devices, **strategy)
    loader = bordered_loader if bordered else toy_loader
    measured = trainer.test(module, loader(n, batch_size=batch_size), verbose=False)
    assert evaluation.result is not None
    return {**evaluation.result.to_plain(), "looks": LOOKS[0], "test": measured}


if __name__ == "__main__":
    torch.set_num_threads(1)
    out, given = Path(sys.argv[1]), json.loads(sys.argv[2])
    rank = os.environ.get("RANK", "0")
    found = evaluate(out, **given)
    (out / f"rank{rank}.json").write_text(json.dumps(found))
