"""The advice where a model cannot be called with the images: a `forward=` that was tried and works."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import ExitStack, suppress
from typing import Any

import torch
from torch import Tensor, nn

from lightning_gcam.cam.invocation import Invocation, parts_with_parameters
from lightning_gcam.cam.layouts import find_layout, main_tensor
from lightning_gcam.cam.outputs import RECIPES, find_raw_logits
from lightning_gcam.utils.dimensions import size_of
from lightning_gcam.utils.errors import MACHINE_FAILURE
from lightning_gcam.utils.isolation import is_sharded, untouched

_SAMPLES = 2
"""How many images a `forward=` is tried with: for a single one, a list of anything has as many parts as samples."""


def first_working_code(
    model: nn.Module, images: Tensor, codes: Iterable[str], of_a_part: Collection[str] = ()
) -> str | None:
    """The first of several codes for `forward=` with which a model can be explained; None where none works.

    Sharded models are not tried: only their whole forward may be called.

    Args:
        model: it is left as it was.
        images: `(N, C, H, W)`, on the model's device.
        codes: what stands behind `lambda module, images:`.
        of_a_part: those codes that call one part alone; numbers at every position are its features, and no logits.

    Example:
        >>> model = nn.ModuleDict({"head": nn.Linear(4, 2), "conv": nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten())})
        >>> codes = ['module["head"](images)', 'module["conv"](images)']
        >>> first_working_code(model, torch.rand(2, 3, 8, 8), codes)
        'module["conv"](images)'
    """
    if is_sharded(model):
        return None
    few = images[:_SAMPLES]
    return next((code for code in codes if _works(model, few, code, dense=code not in of_a_part)), None)


def _works(model: nn.Module, images: Tensor, code: str, *, dense: bool) -> bool:
    """Whether a model can be explained with this code as its `forward=`."""
    with suppress(Exception), untouched(model), torch.inference_mode(False), torch.enable_grad():
        return _can_be_explained(model, images, eval(f"lambda module, images: {code}"), dense=dense)
    return False


def _can_be_explained(model: nn.Module, images: Tensor, forward: Any, *, dense: bool) -> bool:
    """Whether some submodule's output is a grid over the image, and the logits are computed from it."""
    size, grids = size_of(images), []

    def collect(_: nn.Module, __: Any, output: Any) -> None:
        tensor = main_tensor(output)
        if tensor is not None and tensor.requires_grad and find_layout(tensor, size, len(images)) is not None:
            grids.append(tensor)

    with ExitStack() as stack:
        for module in list(model.modules())[1:]:
            stack.callback(module.register_forward_hook(collect).remove)
        leaf = images.detach().clone().requires_grad_(images.is_floating_point())
        logits = find_raw_logits(forward(model, leaf.clone()), len(images), images.ndim - 2)
    if not grids or not logits.requires_grad or (logits.ndim > 2 and not dense):
        return False
    gradients = torch.autograd.grad(logits.float().square().sum(), grids, allow_unused=True)
    return any(each is not None for each in gradients)


def is_about_integers(images: Tensor, error: Exception) -> bool:
    """Whether a forward failed because the images are whole numbers."""
    is_of_type = any(part in str(error) for part in ("type", "not implemented for"))
    return isinstance(error, (RuntimeError, TypeError)) and is_of_type and not images.is_floating_point()


_OF_SHAPE = re.compile(
    r"shape|size|channels|[Dd]imension|[Ee]xpected \dD|must match|[Ee]xpected input|at dim|same dtype|number of dims"
)
"""Words of torch's errors for a tensor of another shape or type than an operation takes."""


def is_wrong_input(error: Exception, invocation: Invocation | None) -> bool:
    """Whether an error seems to come from an input that the model does not take.

    A `forward(batch)` that takes the first image for the images, or a generator that takes a latent, fails at some
    layer, with that layer's message.
    """
    message = str(error)
    if MACHINE_FAILURE.search(message):
        return False
    if invocation is not None and invocation.takes_a_batch:
        return True
    if isinstance(error, ValueError):
        return "unpack" in message or re.search(r"expected \dD", message) is not None
    return not isinstance(error, RuntimeError) or is_misfit(error)


def is_misfit(error: Exception) -> bool:
    """Whether a RuntimeError means the same as a TypeError: an input of another shape or type than is taken.

    Example:
        >>> is_misfit(RuntimeError("mat1 and mat2 shapes cannot be multiplied (1x2 and 3x4)"))
        True
        >>> is_misfit(RuntimeError("CUDA error: device-side assert triggered"))
        False
    """
    return MACHINE_FAILURE.search(str(error)) is None and _OF_SHAPE.search(str(error)) is not None


def takes_floats(call: Callable[[Tensor], Any], model: nn.Module, images: Tensor) -> bool:
    """Whether a model takes the images once they are floating point, between 0 and 1, as it is called."""
    with suppress(Exception), untouched(model):
        call(images.float() / 255)
        return True
    return False


def message_not_taken(model: nn.Module, images: Tensor, error: Exception, *, floats: bool) -> str:
    """The message for images of whole numbers that a forward does not take."""
    return (
        f"`images` must be of a kind that the forward of {type(model).__name__} takes; got {images.dtype} "
        f"(N, {', '.join(map(str, images.shape[1:]))}) ({error}). Convert them as your training does"
        + (", as with `images.float() / 255`." if floats else ", in an `adapter=`.")
    )


def message_without_forward(model: nn.Module, images: Tensor, invocation: Invocation) -> str:
    """The message for a model that has no forward, and several parts or none that could be called."""
    parts = parts_with_parameters(model)
    note = f", and {len(parts)} parts with parameters ({', '.join(parts)})" if len(parts) > 1 else ""
    return f"{type(model).__name__} has no `forward` of its own{note}: {_remedy(model, images, invocation)}"


def message_failed(
    model: nn.Module,
    images: Tensor,
    invocation: Invocation | None,
    error: Exception,
    inputs: Mapping[str, Any] | None = None,
) -> str:
    """The message for a call that raised an error, with the other inputs: what was handed over, what there was."""
    kind = f"images {tuple(images.shape)} {str(images.dtype).removeprefix('torch.')}"
    raised = f"{type(error).__name__}: {error}"
    if invocation is None:
        return (
            f"`forward` failed on {type(model).__name__} and {kind}: {raised}. It is called as "
            "`forward(module, images)`, and gives the logits."
        )
    others = invocation.others(inputs) if inputs else {}
    call = str(invocation).removesuffix(")") + "".join(
        f", {name}=inputs[{key!r}]" for name, key in others.items()
    )
    there = f" (of the batch there are also {', '.join(map(repr, inputs))})" if inputs else ""
    return (
        f"{type(model).__name__} was called with {kind}, as `{call})`{there}, which raised {raised}. If it takes "
        f"anything but {'these' if others else 'the images alone'}, {_remedy(model, images, invocation)}"
    )


def _remedy(model: nn.Module, images: Tensor, invocation: Invocation) -> str:
    """The advice to pass a `forward=`, with the code of one that works where there is one."""
    remedy = "pass `forward=`, a function from the module and the images to the logits"
    code = first_working_code(model, images, *candidates(model, invocation))
    if code is None:
        return f"{remedy}; none that was tried gives a look, {RECIPES} has some."
    return f"{remedy}, for example:\n    forward=lambda module, images: {code}"


_HEADS = ("head", "classifier", "fc", "linear")

_NAMES = ("image", "images", "pixel_values", "x", "inputs", "input", "img", "data")
"""Likely names of the images in a batch that is a dictionary."""


def candidates(model: nn.Module, invocation: Invocation) -> tuple[list[str], set[str]]:
    """Codes that may call a model, the likeliest first, and those of them that call one part alone.

    Its parts in a row where the last is a head, one part, a batch, images with other dimensions.
    """
    parts, path = parts_with_parameters(model), invocation.path
    in_a_row = len(parts) > 1 and any(word in parts[-1].lower() for word in _HEADS)
    code = "images"
    for part in parts:
        code = f"module.{part}({code})"
    alone = [f"module.{part}(images)" for part in parts]
    inner = (
        [f"{path}.{part}(images)" for part in parts_with_parameters(invocation.module)]
        if path != "module"
        else []
    )
    batches = [f'{path}({{"{name}": images}})' for name in _NAMES]
    batches += [f"{path}((images, None))", f"{path}([images])"]
    permuted = [f"{path}(images{code})" for code in ("[:, 0]", ".permute(0, 2, 3, 1)")]
    either = [*alone, *batches]
    if len(parts) > 1 and not in_a_row and invocation.takes_a_batch:
        either = [*batches, *alone]  # its own forward combines its parts
    codes = [*([code] if in_a_row else []), *either, *inner, *permuted]
    return [each for each in dict.fromkeys(codes) if each not in ("images", str(invocation))], {
        *alone,
        *inner,
    }
