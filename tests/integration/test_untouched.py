"""The promise: with and without the callback a training is the same, bit for bit."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning
import torch
from pytorch_lightning.callbacks import BackboneFinetuning, StochasticWeightAveraging
from torch.optim.swa_utils import get_ema_avg_fn
from torch.utils.data import DataLoader, TensorDataset

from lightning_gcam import SaliencyMonitor, ShortcutAlarm
from lightning_gcam.utils import isolation
from tests.support.detectors import DetectorModule
from tests.support.modules import (
    MODULES,
    AlwaysDropout,
    Counting,
    FrozenBatchNorm,
    LogsInForward,
    OwnTrain,
    Plain,
    Signals,
    TwoHeads,
    TwoOptimizers,
    Volumes,
    WithBackbone,
)
from tests.support.witness import RowLogger, Witness, differences

# Lightning's advice on runs this small is not this file's subject; a failure of ours raises (`on_error="raise"`).
pytestmark = pytest.mark.filterwarnings("ignore")


def _loader(n: int, *, shuffle: bool, size: tuple[int, ...] = (8, 8), **options: Any) -> DataLoader[Any]:
    generator = torch.Generator().manual_seed(5)
    labels = torch.arange(n) % 3
    images = torch.rand(n, 1, *size, generator=generator)
    masks = torch.zeros(n, *size, dtype=torch.bool)
    masks[(slice(None), *(slice(2, 6),) * len(size))] = True
    images += labels.view(n, 1, *(1,) * len(size)) * masks[:, None]
    return DataLoader(TensorDataset(images, labels, masks), batch_size=4, shuffle=shuffle, **options)


def train(
    module: Callable[[], Any],
    root: Path,
    *,
    monitor: SaliencyMonitor | None,
    callbacks: Callable[[], list[Any]] = list,
    workers: bool = False,
    **options: Any,
) -> tuple[Witness, RowLogger, Any]:
    """One training of two epochs with six batches each, from fixed seeds; the witness stands behind ours."""
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    witness, rows = Witness(), RowLogger()
    settings: dict[str, Any] = {
        "max_epochs": 2,
        "accelerator": "cpu",
        "devices": 1,
        "logger": rows,
        "default_root_dir": root,
        "log_every_n_steps": 1,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    first = [ShortcutAlarm(on_error="raise"), monitor] if monitor is not None else []
    trainer = pytorch_lightning.Trainer(**{**settings, **options}, callbacks=[*first, *callbacks(), witness])
    made = module()
    persistent = {"num_workers": 1, "persistent_workers": True} if workers else {}
    loader = made.loader if hasattr(made, "loader") else partial(_loader, size=made.size)
    trainer.fit(made, loader(24, shuffle=True, **persistent), loader(12, shuffle=False, **persistent))
    return witness, rows, made


def _monitor(**options: Any) -> SaliencyMonitor:
    return SaliencyMonitor(
        **{
            "methods": ["guidance_cam", "layer_cam"],
            "num_samples": 6,
            "every_n_train_steps": 1,
            "on_error": "raise",
        }
        | options
    )


@dataclass(frozen=True)
class Mode:
    """A way to run the Trainer."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    module: Callable[[], Any] | None = None
    looks: int = 3
    """The least number of looks that must really have been taken."""

    def __str__(self) -> str:
        return self.name


def _ema() -> list[Any]:
    averaging = getattr(pytorch_lightning.callbacks, "WeightAveraging", None)
    if averaging is None:
        pytest.skip("this Lightning has no WeightAveraging")
    return [averaging(avg_fn=get_ema_avg_fn(0.9))]


def _swa() -> list[Any]:
    return [StochasticWeightAveraging(swa_lrs=0.01, swa_epoch_start=1)]


def _finetuning() -> list[Any]:
    return [BackboneFinetuning(unfreeze_backbone_at_epoch=1, train_bn=False)]


MODES = [
    Mode("plain"),
    Mode("accumulate", {"accumulate_grad_batches": 4, "val_check_interval": 3}),
    Mode("validation in mid-epoch", {"val_check_interval": 0.5}),
    Mode("no sanity check", {"num_sanity_val_steps": 0}),
    Mode("clipping", {"gradient_clip_val": 0.1}),
    Mode("bf16-mixed", {"precision": "bf16-mixed"}),
    Mode("bf16-true", {"precision": "bf16-true"}),
    Mode("64-true", {"precision": "64-true"}),
    Mode("overfit_batches", {"overfit_batches": 2}, looks=2),
    Mode("detect_anomaly", {"detect_anomaly": True}),
    Mode("fast_dev_run", {"fast_dev_run": 3}, looks=1),
]
SPECIAL_MODES = [
    Mode("two optimizers", module=TwoOptimizers),
    Mode("detector", module=DetectorModule),
    Mode("two heads", module=TwoHeads),
    Mode("two heads, no sanity check", {"num_sanity_val_steps": 0}, TwoHeads),
    Mode("two heads, bf16-mixed", {"precision": "bf16-mixed"}, TwoHeads),
    Mode("SWA", {"callbacks": _swa, "max_epochs": 3}, Plain),
    Mode("EMA", {"callbacks": _ema}, Plain),
    Mode("BackboneFinetuning", {"callbacks": _finetuning}, WithBackbone),
    Mode("persistent workers", {"workers": True}, Plain),
    Mode("deterministic", {"deterministic": True}, Plain),
]


def _assert_untouched(module: Callable[[], Any], mode: Mode, root: Path) -> None:
    without = train(module, root, monitor=None, **mode.options)
    monitor = _monitor()
    with_ = train(module, root, monitor=monitor, **mode.options)
    assert differences(without[0], with_[0]) == []
    assert without[1].rows == with_[1].rows
    assert len(monitor.history) >= mode.looks


@pytest.mark.parametrize("mode", MODES, ids=str)
@pytest.mark.parametrize("module", [*MODULES, Signals, Volumes], ids=lambda module: module.__name__)
def test_the_training_is_the_same_bit_for_bit(module: Callable[[], Any], mode: Mode, tmp_path: Path) -> None:
    _assert_untouched(module, mode, tmp_path)


@pytest.mark.parametrize("mode", SPECIAL_MODES, ids=str)
def test_the_training_is_the_same_in_special_modes(mode: Mode, tmp_path: Path) -> None:
    try:
        assert mode.module is not None
        _assert_untouched(mode.module, mode, tmp_path)
    finally:
        torch.use_deterministic_algorithms(False)


# ------------------------------------------------------------------------------- each safeguard is necessary


@contextmanager
def _nothing(*_: Any) -> Any:
    yield


@contextmanager
def _eval_and_train(module: torch.nn.Module) -> Any:
    """What is usually written by hand."""
    module.eval()
    yield
    module.train()


class CountsInPython(Plain):
    """Notes in a plain attribute how often it was called, and does something else every fifth time."""

    calls = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.net(images) * (1.1 if self.calls % 5 == 0 else 1.0)


NECESSARY = [
    ("same_random_streams", _nothing, AlwaysDropout, "random"),
    ("_training_flags", _eval_and_train, FrozenBatchNorm, "modes"),
    ("_training_flags", _eval_and_train, OwnTrain, "state"),
    ("_buffers", _nothing, Counting, "state"),
    ("_attributes", _nothing, CountsInPython, "state"),
]


@pytest.mark.parametrize(("safeguard", "instead", "module", "what"), NECESSARY)
def test_without_a_safeguard_the_training_is_another(
    safeguard: str,
    instead: Any,
    module: Callable[[], Any],
    what: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    without, _, _ = train(module, tmp_path, monitor=None)
    monkeypatch.setattr(isolation, safeguard, instead)
    with_, _, _ = train(module, tmp_path, monitor=_monitor())
    assert any(line.endswith(what) for line in differences(without, with_))


def test_without_silence_the_users_rows_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, without, _ = train(LogsInForward, tmp_path, monitor=None)
    monkeypatch.setattr(isolation, "_silenced_log", _nothing)
    _, with_, _ = train(LogsInForward, tmp_path, monitor=_monitor())
    assert without.rows != with_.rows


def test_a_backward_instead_of_autograd_grad_changes_the_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What explainers do: with accumulated gradients, a backward at a validation ends up in the weights."""

    def backward(score: torch.Tensor, outputs: list[torch.Tensor]) -> Any:
        for output in outputs:
            output.retain_grad()
        score.backward(torch.ones_like(score))
        return tuple(output.grad for output in outputs)

    options = {"accumulate_grad_batches": 4, "val_check_interval": 3}
    without, _, _ = train(Plain, tmp_path, monitor=None, **options)
    monkeypatch.setattr("lightning_gcam.cam.capture._gradients", backward)
    saved, _, _ = train(Plain, tmp_path, monitor=_monitor(target_layer="net.2"), **options)
    assert not any("grads" in line for line in differences(without, saved)), "gradients are put back, too"
    monkeypatch.setattr("lightning_gcam.utils.isolation.parameters_restored", lambda _: nullcontext())
    with_, _, _ = train(Plain, tmp_path, monitor=_monitor(target_layer="net.2"), **options)
    assert any(line.endswith("grads behind validation") for line in differences(without, with_))
