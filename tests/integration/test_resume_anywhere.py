"""Interrupted anywhere and resumed: the same weights, the same fixed samples, one continuous history."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

from lightning_gcam import SaliencyMonitor
from tests.integration.test_untouched import _loader
from tests.support.modules import Plain
from tests.support.witness import RowLogger, Witness, differences, digest

pytestmark = pytest.mark.filterwarnings("ignore")

OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "accumulate": {"accumulate_grad_batches": 4, "val_check_interval": 3},
    "validation in mid-epoch": {"val_check_interval": 0.5},
}


class Interrupt(pytorch_lightning.Callback):
    """Ctrl-C behind a batch, or in the middle of a validation."""

    def __init__(self, batches: int, in_validation: bool) -> None:
        self.left, self.in_validation = batches, in_validation

    def on_train_batch_end(self, *_: Any) -> None:
        self.left -= 1
        if self.left <= 0 and not self.in_validation:
            raise KeyboardInterrupt

    def on_validation_batch_end(self, *_: Any) -> None:
        if self.left <= 0 and self.in_validation:
            raise KeyboardInterrupt


def _monitors() -> list[SaliencyMonitor]:
    return [
        SaliencyMonitor(num_samples=6, every_n_train_steps=1, on_error="raise"),
        SaliencyMonitor(num_samples=3, targets=1, log_prefix="saliency_of_one", on_error="raise"),
    ]


def _fit(
    root: Path, monitors: list[SaliencyMonitor], stop: list[Any], ckpt: Path | None, **options: Any
) -> Witness:
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    witness = Witness()
    saver = ModelCheckpoint(
        root, filename="last", every_n_train_steps=1, save_top_k=1, enable_version_counter=False
    )
    trainer = pytorch_lightning.Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=RowLogger(),
        default_root_dir=root,
        callbacks=[*monitors, *stop, witness, saver],
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )
    try:
        trainer.fit(Plain(), _loader(24, shuffle=True), _loader(12, shuffle=False), ckpt_path=ckpt)
    except (KeyboardInterrupt, SystemExit):
        assert stop
    return witness


@pytest.mark.parametrize("in_validation", [False, True], ids=["behind a batch", "in a validation"])
@pytest.mark.parametrize("batches", [2, 5, 7, 9, 13])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_resumed_is_the_same_with_and_without_the_callbacks(
    options: dict[str, Any], batches: int, in_validation: bool, tmp_path: Path
) -> None:
    seen, histories = {}, []
    for monitored in (False, True):
        root = tmp_path / str(monitored)
        monitors = _monitors() if monitored else []
        first = _fit(root, monitors, [Interrupt(batches, in_validation)], None, **options)
        checkpoint = root / "last.ckpt"
        if not checkpoint.exists():
            pytest.skip("interrupted before the first optimizer step")
        state = torch.load(checkpoint, weights_only=True)["callbacks"]
        assert sum("SaliencyMonitor" in key for key in state) == (2 if monitored else 0)
        resumed = _monitors() if monitored else []
        second = _fit(root, resumed, [], checkpoint, **options)
        seen[monitored] = first, second
        histories = list(
            zip(monitors, resumed, [_state_of(state, monitor) for monitor in resumed], strict=True)
        )
    for without, with_ in zip(seen[False], seen[True], strict=True):
        assert differences(without, with_) == []
    for before, after, saved in histories:
        steps = [row["step"] for row in after.history]
        assert steps == sorted(steps)  # with accumulated gradients several validations share a step
        assert after.history[: len(saved["history"])] == saved["history"]
        if saved["fixed_batch"]:
            assert before._collection.fixed.positions == after._collection.fixed.positions
            left, right = before._collection.fixed.samples.images, after._collection.fixed.samples.images
            assert digest(left) == digest(right)


def _state_of(state: dict[str, Any], monitor: SaliencyMonitor) -> dict[str, Any]:
    return next(value for key, value in state.items() if key == monitor.state_key)
