"""`torch.compile`: hooks on compiled code are never called, so a look runs it plainly; the training stays compiled."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_gcam.utils.errors import InputError
from tests.integration.test_untouched import _monitor, train
from tests.support.modules import Plain
from tests.support.witness import differences

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


OLD = torch.__version__ < (2, 7)
"""A release whose compiler fails on Lightning's own `log`, and calls hooks that are added later."""


def whole() -> Any:
    """The whole module, compiled before the callback is attached."""
    if OLD:
        pytest.skip("this torch cannot compile Lightning's own `log`, with or without a callback")
    return torch.compile(Plain(), backend="aot_eager")


def in_part() -> Any:
    """A submodule only."""
    module = Plain()
    module.net = torch.compile(module.net, backend="aot_eager")
    return module


def in_place() -> Any:
    """`Module.compile()`: the module stays itself."""
    module = Plain()
    module.net.compile(backend="aot_eager")
    return module


class CompiledLater(Plain):
    """Compiled once the training runs: after the callback was attached and has found its layer."""

    def on_train_epoch_start(self) -> None:
        if self.current_epoch == 1:
            self.net.compile(backend="aot_eager")


MODULES = [whole, in_part, in_place, CompiledLater]


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
@pytest.mark.parametrize(
    "options", [{}, {"accumulate_grad_batches": 4, "val_check_interval": 3}], ids=["plain", "accumulate"]
)
def test_a_compiled_training_is_the_same_bit_for_bit(
    module: Any, options: dict[str, Any], tmp_path: Path
) -> None:
    without, rows_without, _ = train(module, tmp_path, monitor=None, **options)
    torch._dynamo.reset()
    monitor = _monitor()
    with_, rows_with, _ = train(module, tmp_path, monitor=monitor, **options)
    assert differences(without, with_) == []
    assert rows_without.rows == rows_with.rows
    assert len(monitor.history) >= 3
    assert all(row["blank_rate"] < 1 for row in monitor.history)


@pytest.mark.skipif(OLD, reason="this torch calls hooks that are added to compiled code")
def test_inside_compiled_code_a_hook_is_never_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Why a look runs the module uncompiled."""
    monkeypatch.setattr("lightning_gcam.utils.isolation.torch.compiler.set_stance", lambda _: nullcontext())
    # another global state than the code was compiled under is a reason to compile anew, which would see the hook
    monkeypatch.setattr("lightning_gcam.utils.isolation._without_autocast_cache", nullcontext)
    monkeypatch.setattr("lightning_gcam.utils.isolation.parameters_restored", lambda _: nullcontext())
    with pytest.raises(InputError, match="was not called by the forward"):
        train(in_place, tmp_path, monitor=_monitor(target_layer="net.2"))


def test_a_compiled_module_gives_the_maps_of_the_plain_one(tmp_path: Path) -> None:
    plain, compiled = _monitor(), _monitor()
    train(Plain, tmp_path, monitor=plain)
    train(in_part, tmp_path, monitor=compiled)
    assert plain.last_record is not None
    assert compiled.last_record is not None
    torch.testing.assert_close(
        plain.last_record.attribution.maps["layer_cam"],
        compiled.last_record.attribution.maps["layer_cam"],
        rtol=0,
        atol=1e-3,
    )
