"""A `forward=` is tried before it is shown: whether it gives logits that a layer over the image influences."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from contextlib import ExitStack, suppress
from typing import Any

import torch
from torch import Tensor, nn

from lightning_gcam.cam.outputs import find_raw_logits
from lightning_gcam.cam.reshape import find_layout, main_tensor
from lightning_gcam.isolation import is_sharded, untouched

_SAMPLES = 2
"""How many images a code is tried with: of one alone, a list of anything has as many parts as samples."""


def first_that_works(
    model: nn.Module, images: Tensor, codes: Iterable[str], of_a_part: Collection[str] = ()
) -> str | None:
    """The first code of a `forward=` with which a look can be taken; None where none is one, or it cannot be tried.

    Sharded modules are not tried: of theirs only the whole forward may be called.

    Args:
        model: it is left as it was.
        images: `(N, C, H, W)`, on the model's device.
        codes: what stands behind `lambda module, images:`.
        of_a_part: those of them that call one part alone; numbers at every position are its features, and no logits.

    Example:
        >>> model = nn.ModuleDict({"head": nn.Linear(4, 2), "conv": nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten())})
        >>> codes = ['module["head"](images)', 'module["conv"](images)']
        >>> first_that_works(model, torch.rand(2, 3, 8, 8), codes)
        'module["conv"](images)'
    """
    if is_sharded(model):
        return None
    few = images[:_SAMPLES]
    return next((code for code in codes if _works(model, few, code, dense=code not in of_a_part)), None)


def _works(model: nn.Module, images: Tensor, code: str, *, dense: bool) -> bool:
    with suppress(Exception), untouched(model), torch.inference_mode(False), torch.enable_grad():
        return _gives_a_look(model, images, eval(f"lambda module, images: {code}"), dense=dense)
    return False


def _gives_a_look(model: nn.Module, images: Tensor, forward: Any, *, dense: bool) -> bool:
    """Whether some module's output is a grid over the image, and the logits are computed from it."""
    size, grids = (images.shape[-2], images.shape[-1]), []

    def note(_: nn.Module, __: Any, output: Any) -> None:
        tensor = main_tensor(output)
        if tensor is not None and tensor.requires_grad and find_layout(tensor, size, len(images)) is not None:
            grids.append(tensor)

    with ExitStack() as stack:
        for module in list(model.modules())[1:]:
            stack.callback(module.register_forward_hook(note).remove)
        leaf = images.detach().clone().requires_grad_(images.is_floating_point())
        logits = find_raw_logits(forward(model, leaf.clone()), len(images))
    if not grids or not logits.requires_grad or (logits.ndim == 4 and not dense):
        return False
    gradients = torch.autograd.grad(logits.float().square().sum(), grids, allow_unused=True)
    return any(each is not None for each in gradients)
