"""What a `SaliencyBatch` refuses; every message names the field, what was expected, and what came."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightning_gcam._errors import InputError

Size = tuple[int, int, int]
"""How many samples, and the height and width of their images."""


def shape_of(tensor: Tensor) -> str:
    """A tensor's shape and dtype, for messages."""
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


def came(value: Any) -> str:
    """What was handed over, in a word or two, for messages."""
    if isinstance(value, Tensor):
        return shape_of(value)
    kind = type(value).__name__
    if isinstance(value, (list, tuple, dict, str)):
        return f"{kind} of length {len(value)}"
    return f"{kind} {value.shape}" if hasattr(value, "shape") else kind


def check_images(images: Any) -> None:
    """`(N, C, H, W)`, at least one."""
    if not isinstance(images, Tensor):
        raise InputError(
            f"`images` must be a tensor (N, C, H, W); got {came(images)}. Make it one, as with `torch.stack(images)`."
        )
    if images.ndim != 4:
        raise InputError(
            f"`images` must be 4-D, (N, C, H, W); got {shape_of(images)}. Where the batch has another layout, "
            "`adapter=` is the place to say so: a function from the batch to a SaliencyBatch."
        )
    if not len(images):
        raise InputError(f"`images` holds no sample; got {shape_of(images)}. Give at least one.")
    if not images.numel() or images.is_complex():
        raise InputError(
            f"`images` must be real numbers, at least one channel and one pixel; got {shape_of(images)}."
        )


def check_labels(labels: Any, size: Size) -> None:
    """`(N,)` or `(N, K)`, finite real numbers."""
    if labels is None:
        return
    n = size[0]
    if not isinstance(labels, Tensor) or labels.ndim not in (1, 2) or len(labels) != n:
        raise InputError(
            f"`labels` must be a tensor ({n},) of classes or measurements, or ({n}, K) multi-hot; got {came(labels)}. "
            "Give one per sample, or None where there are none."
        )
    is_finite = not labels.is_floating_point() or bool(torch.isfinite(labels).all())
    if labels.is_complex() or not is_finite:
        raise InputError(
            f"`labels` must be finite real numbers; got {shape_of(labels)} with NaN or infinity. Leave such "
            "samples out."
        )


RESIZE = (
    'Resize them first, with mode "nearest", as in `torch.nn.functional.interpolate(masks[:, None].float(), '
    "size=images.shape[-2:])[:, 0] != 0`."
)
"""What to do with masks of another size."""


def check_masks(masks: Any, size: Size) -> None:
    """`(N, H, W)` bool."""
    if masks is None:
        return
    if not isinstance(masks, Tensor) or tuple(masks.shape) != size:
        raise InputError(f"`masks` must have the size of the images, {size}; got {came(masks)}. {RESIZE}")
    if masks.dtype != torch.bool:
        raise InputError(
            f"`masks` must be bool, True on the object; got {shape_of(masks)}. Try `masks != 0`."
        )


def check_boxes(boxes: Any, size: Size) -> None:
    """N tensors `(M, 4)`."""
    if boxes is None:
        return
    if not isinstance(boxes, list) or len(boxes) != size[0]:
        raise InputError(
            f"`boxes` must be a list of {size[0]} tensors (M, 4), one per sample; got {came(boxes)}. Of a sample "
            "without boxes it is `torch.zeros(0, 4)`."
        )
    for index, each in enumerate(boxes):
        if not isinstance(each, Tensor) or each.ndim != 2 or each.shape[1] != 4:
            raise InputError(
                f"`boxes[{index}]` must be a tensor (M, 4) of x1, y1, x2, y2; got {came(each)}. A single box is "
                "`box[None]`, and none is `torch.zeros(0, 4)`."
            )


def check_suspect(suspect: Any, size: Size) -> None:
    """`(H, W)` or `(N, H, W)` bool."""
    if suspect is None:
        return
    allowed = (size[1:], size)
    if not isinstance(suspect, Tensor) or tuple(suspect.shape) not in allowed or suspect.dtype != torch.bool:
        is_in_shape = isinstance(suspect, Tensor) and tuple(suspect.shape) in allowed
        remedy = (
            "Try `suspect != 0`."
            if is_in_shape
            else "Resize it to the images first, or draw it at their size."
        )
        raise InputError(
            f"`suspect` must be bool of shape {allowed[0]} or {allowed[1]}; got {came(suspect)}. {remedy}"
        )


def check_groups(groups: Any, size: Size) -> None:
    """`(N,)` integer."""
    if groups is None:
        return
    if not isinstance(groups, Tensor) or tuple(groups.shape) != (size[0],) or groups.is_floating_point():
        raise InputError(
            f"`groups` must be an integer tensor ({size[0]},); got {came(groups)}. Number the groups, and give one "
            "number per sample, as with `torch.tensor(groups)`."
        )


def check_names(names: Any, size: Size) -> None:
    """N names."""
    if names is not None and len(names) != size[0]:
        raise InputError(
            f"`names` must hold {size[0]} names, one per sample; got {len(names)}. Give one for each, or None."
        )
