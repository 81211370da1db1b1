"""Tensors copied between the host and a device, without waiting for the device more often than needed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def to_host(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Copy tensors to the host's memory; a CUDA device is waited for once, whatever their number.

    Args:
        tensors: of any shapes and dtypes. One that is there already is not copied.

    Example:
        >>> to_host([torch.ones(2), torch.zeros(1)])
        [tensor([1., 1.]), tensor([0.])]
    """
    on_cuda = [each for each in tensors if each.is_cuda]
    if not on_cuda:
        return [each.detach().cpu() for each in tensors]
    copies = [
        torch.empty(each.shape, dtype=each.dtype, pin_memory=True).copy_(each.detach(), non_blocking=True)
        if each.is_cuda
        else each.detach().cpu()
        for each in tensors
    ]
    for device in {each.device for each in on_cuda}:
        torch.cuda.current_stream(device).synchronize()
    return copies


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor to a device, which is not waited for: the copy is queued behind what it is doing.

    Args:
        tensor: on the host, or on the device already.
        device: where it is needed.

    Example:
        >>> to_device(torch.ones(2), torch.device("cpu"))
        tensor([1., 1.])
    """
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
