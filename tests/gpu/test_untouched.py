"""The promise on a CUDA device: fp16 with its scaler, the devices' random streams, channels-last, inductor, graphs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning
import torch
from torch import Tensor

from lightning_gcam.utils import isolation
from tests.integration.test_untouched import Mode, _monitor, train
from tests.support.device import ON, needs_device
from tests.support.modules import MODULES, AlwaysDropout, Plain, TwoOptimizers
from tests.support.witness import differences

pytestmark = [*needs_device, pytest.mark.filterwarnings("ignore")]

ON_DEVICE: dict[str, Any] = {"accelerator": ON, "deterministic": True}


@pytest.fixture(autouse=True)
def same_sums(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two trainings can only be compared where one alone would come out the same twice."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch._dynamo.reset()
    yield
    torch.use_deterministic_algorithms(False)
    torch._dynamo.reset()


class ChannelsLast(Plain):
    """Weights and images lie in memory with the channels last."""

    def __init__(self) -> None:
        super().__init__()
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images.contiguous(memory_format=torch.channels_last))


def by_inductor() -> Any:
    """A submodule compiled by the default backend."""
    module = Plain()
    module.net = torch.compile(module.net)
    return module


def with_graphs() -> Any:
    """The same with its steps recorded as CUDA graphs, and replayed."""
    module = Plain()
    module.net = torch.compile(module.net, mode="reduce-overhead")
    return module


MODES = [
    Mode("plain"),
    Mode("16-mixed", {"precision": "16-mixed"}),
    Mode(
        "16-mixed, accumulate",
        {"precision": "16-mixed", "accumulate_grad_batches": 4, "val_check_interval": 3},
    ),
    Mode("16-mixed, clipping", {"precision": "16-mixed", "gradient_clip_val": 0.1}),
    Mode("16-true", {"precision": "16-true"}),
    Mode("bf16-mixed", {"precision": "bf16-mixed"}),
]
SPECIAL = [
    *((ChannelsLast, mode) for mode in MODES[:3]),
    (ChannelsLast, MODES[-1]),
    *((by_inductor, mode) for mode in (*MODES[:3], MODES[-1])),
    *((with_graphs, mode) for mode in (*MODES[:2], MODES[-1])),
    (TwoOptimizers, MODES[0]),
    (TwoOptimizers, MODES[1]),
]


def _assert_untouched(module: Callable[[], Any], mode: Mode, root: Path) -> None:
    options = {**ON_DEVICE, **mode.options}
    without, rows, _ = train(module, root, monitor=None, **options)
    again, _, _ = train(module, root, monitor=None, **options)
    assert differences(without, again) == [], "this training is not the same twice, even by itself"
    monitor = _monitor()
    with_, rows_with, _ = train(module, root, monitor=monitor, **options)
    assert differences(without, with_) == []
    assert rows.rows == rows_with.rows
    assert len(monitor.history) >= mode.looks
    assert monitor.last_record is not None
    assert monitor.last_record.attribution.logits.device.type == ON


@pytest.mark.parametrize("mode", MODES, ids=str)
@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_the_training_is_the_same_bit_for_bit(module: Callable[[], Any], mode: Mode, tmp_path: Path) -> None:
    _assert_untouched(module, mode, tmp_path)


@pytest.mark.parametrize(("module", "mode"), SPECIAL, ids=lambda each: getattr(each, "__name__", str(each)))
def test_the_training_is_the_same_in_special_modes(
    module: Callable[[], Any], mode: Mode, tmp_path: Path
) -> None:
    _assert_untouched(module, mode, tmp_path)


@pytest.mark.skipif(ON != "cuda", reason="only a CUDA device has streams of its own")
def test_without_the_streams_put_back_the_training_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without, _, _ = train(AlwaysDropout, tmp_path, monitor=None, **ON_DEVICE)
    monkeypatch.setattr(isolation, "_device_streams", list)
    with_, _, _ = train(AlwaysDropout, tmp_path, monitor=_monitor(), **ON_DEVICE)
    assert any(line.endswith("random") for line in differences(without, with_))


def test_half_precision_gives_a_map_that_is_finite_and_not_blank(tmp_path: Path) -> None:
    """The product of activations and squared gradients would overflow, or vanish, in half precision."""
    monitor = _monitor()
    train(Plain, tmp_path, monitor=monitor, **ON_DEVICE, precision="16-mixed")
    assert monitor.last_record is not None
    for name, peaks in monitor.last_record.attribution.peaks.items():
        assert torch.isfinite(peaks).all(), name
        assert (peaks > 0).any(), name


@pytest.mark.skipif(ON != "cuda", reason="its memory is counted by torch")
def test_memory_of_the_device_does_not_grow(tmp_path: Path) -> None:
    used: list[int] = []

    class Counting(pytorch_lightning.Callback):
        def on_saliency_look(self, *_: Any) -> None:
            used.append(torch.cuda.memory_allocated())

    train(Plain, tmp_path, monitor=_monitor(), callbacks=lambda: [Counting()], **ON_DEVICE, max_epochs=6)
    assert len(used) > 20
    assert max(used[10:]) <= max(used[:10])
