"""Every step of a look stands in a guard: what it raises is one warning, and the training is the same to the bit."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning

from lightning_gcam import ShortcutAlarm
from lightning_gcam.callbacks import publisher as display
from lightning_gcam.utils.chunking import is_out_of_memory
from tests.support import faults
from tests.support.faults import EVERY, FROM_VALIDATION, assert_same, fit, struck
from tests.support.modules import Plain

pytestmark = pytest.mark.filterwarnings("ignore")


class Mute(Exception):
    """Its message cannot be had."""

    def __str__(self) -> str:
        raise RuntimeError("no words")

    __repr__ = __str__


class Hook(pytorch_lightning.Callback):
    def on_saliency_look(self, *_: Any) -> None:
        raise ValueError("mine")


@pytest.mark.parametrize("step", ["announcement_of", "explain_even_gradients"])
def test_the_announcement(step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise ValueError("mine")

    monkeypatch.setattr(display, step, fail)
    monitor = faults.monitor()
    training = fit(Plain, tmp_path, monitor, **FROM_VALIDATION)
    assert_same(training, fit(Plain, tmp_path, **FROM_VALIDATION))
    (told,) = training.told
    assert re.search("^Saying what is looked at failed.*ValueError: mine", told)
    assert len(monitor.history) == len(training.rows.ours) == 4


def test_a_hook_of_the_users_own(tmp_path: Path) -> None:
    monitor = faults.monitor()
    training = fit(Plain, tmp_path, monitor, Hook(), **FROM_VALIDATION)
    assert_same(training, fit(Plain, tmp_path, **FROM_VALIDATION))
    (told,) = training.told
    assert re.search("^`on_saliency_look` of Hook failed.*ValueError: mine", told)
    assert len(training.rows.ours) == 4


def test_what_another_callback_is_to_raise_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise ValueError("mine")

    monkeypatch.setattr(ShortcutAlarm, "_judge", fail)
    with pytest.raises(ValueError, match="mine"):
        fit(Plain, tmp_path, faults.monitor(), ShortcutAlarm(on_error="raise"), **FROM_VALIDATION)


def test_an_exception_without_words(tmp_path: Path) -> None:
    monitor = faults.monitor()
    training = fit(struck(Plain, faults.raising(Mute()), EVERY.looks), tmp_path, monitor, **FROM_VALIDATION)
    assert_same(training, fit(Plain, tmp_path, **FROM_VALIDATION))
    (told,) = training.told
    assert re.search("^The look failed.*Mute: .its message cannot be shown", told)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("cuDNN error: CUDNN_STATUS_ALLOC_FAILED", True),
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", True),
        ("cuFFT error: CUFFT_ALLOC_FAILED", True),
        ("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED", False),
    ],
)
def test_the_words_of_cudas_libraries(words: str, expected: bool) -> None:
    assert is_out_of_memory(RuntimeError(words)) is expected
