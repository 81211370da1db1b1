"""Tensors copied between the host and a device, without waiting for the device more often than needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

ASYNCHRONOUS = frozenset({"cuda"})
"""The kinds of device whose copies can be queued."""


def to_host(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Copy tensors to the host's memory; a CUDA device is waited for once, whatever their number.

    Args:
        tensors: of any shapes and dtypes. One that is there already is not copied.

    Example:
        >>> to_host([torch.ones(2), torch.zeros(1)])
        [tensor([1., 1.]), tensor([0.])]
    """
    waiting = {each.device for each in tensors if each.device.type in ASYNCHRONOUS}
    copies = [_queued_copy(each) if each.device in waiting else each.detach().cpu() for each in tensors]
    for device in waiting:
        _wait_for(device)
    return copies


class HasTensors(Protocol):
    """What holds tensors, and can be made anew with others in their place."""

    def map_tensors(self, function: Callable[[Tensor], Tensor]) -> Any:
        """The same with `function` applied to each tensor, in the same order every time."""


Held = TypeVar("Held", bound=HasTensors)


def held_on_host(holder: Held) -> Held:
    """The same with all tensors on the host; a CUDA device is waited for once."""
    tensors: list[Tensor] = []

    def collect(tensor: Tensor) -> Tensor:
        tensors.append(tensor)
        return tensor

    holder.map_tensors(collect)
    copies = iter(to_host(tensors))
    found: Held = holder.map_tensors(lambda _: next(copies))
    return found


def _queued_copy(tensor: Tensor) -> Tensor:
    """A copy on the host, of which the values are there when the device is done."""
    copy = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu", pin_memory=True)
    return copy.copy_(tensor.detach(), non_blocking=True)


def _wait_for(device: torch.device) -> None:
    torch.cuda.current_stream(device).synchronize()


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor to a device, which is not waited for: the copy is queued behind what it is doing.

    Args:
        tensor: on the host, or on the device already.
        device: where it is needed.

    Example:
        >>> to_device(torch.ones(2), torch.device("cpu"))
        tensor([1., 1.])
    """
    if device.type in ASYNCHRONOUS and tensor.device.type == "cpu":
        return _pinned(tensor).to(device, non_blocking=True)
    return tensor.to(device)


def _pinned(tensor: Tensor) -> Tensor:
    """The tensor in memory that a device reads by itself: a copy from other memory is waited for."""
    return tensor.pin_memory()
