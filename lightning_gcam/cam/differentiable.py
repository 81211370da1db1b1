"""What stands in the way of a gradient in eval mode, and is let through: checkpoints, and recurrent layers on cuDNN."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.utils.checkpoint
from torch import nn


@contextmanager
def without_checkpoints() -> Iterator[None]:
    """Inside, `torch.utils.checkpoint` calls its function and does no more.

    A reentrant checkpoint is none for `torch.autograd.grad`. One that is not would run its part of the network a second
    time in the backward pass, where the random weights that stand in for zeros (see `probe`) are gone again.
    """
    module = torch.utils.checkpoint
    with ExitStack() as stack:
        stack.enter_context(_in_place_of(module.CheckpointFunction, "apply", staticmethod(_apply)))
        for name in _GENERATORS:
            if hasattr(module, name):
                stack.enter_context(_in_place_of(module, name, _nothing_around))
        yield


@contextmanager
def _in_place_of(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Inside, an attribute has another value; one that was inherited is so again behind it."""
    own = vars(owner).get(name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if own is None:
            delattr(owner, name)
        else:
            setattr(owner, name, own)


_GENERATORS = ("_checkpoint_without_reentrant_generator", "_checkpoint_without_reentrant_generator_impl")
"""What torch runs around the function of a checkpoint that is not reentrant, in older and in newer releases."""


def _apply(function: Callable[..., Any], preserve_rng_state: bool, *inputs: Any) -> Any:
    return function(*inputs)


def _nothing_around(*_: Any, **__: Any) -> Iterator[None]:
    yield


@contextmanager
def recurrent_layers_without_cudnn(model: nn.Module) -> Iterator[None]:
    """Inside, the model's `nn.RNN`, `nn.LSTM` and `nn.GRU` run without cuDNN, whose backward wants training mode.

    Everything else runs as it did: a whole forward without cuDNN would be slow, and of other bits.
    """
    before: list[bool] = []

    def off(*_: Any) -> None:
        before.append(torch.backends.cudnn.enabled)
        torch.backends.cudnn.enabled = False

    def back(*_: Any) -> None:
        if before:
            torch.backends.cudnn.enabled = before.pop()

    with ExitStack() as stack:
        for each in model.modules():
            if isinstance(each, nn.RNNBase):
                stack.callback(each.register_forward_pre_hook(off).remove)
                stack.callback(each.register_forward_hook(back, always_call=True).remove)
        try:
            yield
        finally:
            while before:
                back()
