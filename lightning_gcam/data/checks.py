"""Checks of the fields of a `SaliencyBatch`: shapes, dtypes and lengths; the messages name the field."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from lightning_gcam.utils.errors import InputError

Size = tuple[int, ...]
"""How many samples, and the size of their images: `(N, L)`, `(N, H, W)` or `(N, D, H, W)`."""

Kind = Literal["signal", "image", "volume", "video"]
"""What the images are; of three dimensions they are a volume or a video."""

FORMS = "(N, C, H, W), (N, C, L) or (N, C, D, H, W)"
"""The shapes that images may have."""


def shape_of(tensor: Tensor) -> str:
    """Write a tensor's shape and dtype, for messages."""
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


def type_and_shape(value: Any) -> str:
    """Describe what was handed over in a word or two, for messages."""
    if isinstance(value, Tensor):
        return shape_of(value)
    kind = type(value).__name__
    if isinstance(value, (list, tuple, dict, str)):
        return f"{kind} of length {len(value)}"
    return f"{kind} {value.shape}" if hasattr(value, "shape") else kind


def check_images(images: Any) -> None:
    """Check that images are a tensor `(N, C, *S)` of real numbers, of one to three dimensions, at least one sample."""
    if not isinstance(images, Tensor):
        raise InputError(
            f"`images` must be a tensor {FORMS}; "
            f"got {type_and_shape(images)}. Make it one, as with `torch.stack(images)`."
        )
    if images.ndim not in (3, 4, 5):
        raise InputError(
            f"`images` must be {FORMS}; got {shape_of(images)}. Where the batch has another layout, "
            "`adapter=` is the place to say so: a function from the batch to a SaliencyBatch."
        )
    if not len(images):
        raise InputError(f"`images` holds no sample; got {shape_of(images)}. Give at least one.")
    if not images.numel() or images.is_complex():
        raise InputError(
            f"`images` must be real numbers, at least one channel and one pixel; got {shape_of(images)}."
        )


def check_kind(kind: Any, size: Size) -> None:
    """Check that a kind is one that images of so many dimensions can be."""
    allowed = KINDS[len(size) - 2]
    if kind not in allowed:
        raise InputError(
            f"`kind` must be {' or '.join(map(repr, allowed))} for images of {size[1:]}; got {kind!r}. "
            "Leave it out to have it chosen."
        )


KINDS: tuple[tuple[Kind, ...], ...] = (("signal",), ("image",), ("volume", "video"))
"""What images of one, two and three dimensions may be."""


def check_labels(labels: Any, size: Size) -> None:
    """Check that labels are `(N,)` or `(N, K)` finite real numbers; a missing measurement `(N,)` is NaN."""
    if labels is None:
        return
    n = size[0]
    if not isinstance(labels, Tensor) or labels.ndim not in (1, 2) or len(labels) != n:
        raise InputError(
            f"`labels` must be a tensor ({n},) of classes or measurements, or ({n}, K) multi-hot; "
            f"got {type_and_shape(labels)}. "
            "Give one per sample, or None where there are none."
        )
    bad = labels.isinf() if labels.ndim == 1 else ~labels.isfinite()
    if labels.is_complex() or (labels.is_floating_point() and bool(bad.any())):
        raise InputError(
            f"`labels` must be finite real numbers; got {shape_of(labels)} with NaN or infinity. Leave such "
            "samples out."
        )


RESIZE = (
    'Resize them first, with mode "nearest", as in `torch.nn.functional.interpolate(masks[:, None].float(), '
    "size=images.shape[2:])[:, 0] != 0`."
)
"""What to do with masks of another size."""


def check_masks(masks: Any, size: Size) -> None:
    """Check that masks are `(N, *S)` bool."""
    if masks is None:
        return
    if not isinstance(masks, Tensor) or tuple(masks.shape) != size:
        raise InputError(
            f"`masks` must have the size of the images, {size}; got {type_and_shape(masks)}. {RESIZE}"
        )
    if masks.dtype != torch.bool:
        raise InputError(
            f"`masks` must be bool, True on the object; got {shape_of(masks)}. Try `masks != 0`."
        )


def check_boxes(boxes: Any, size: Size) -> None:
    """Check that boxes are a list of N tensors `(M, 2 * d)` for images of d dimensions."""
    if boxes is None:
        return
    width = 2 * (len(size) - 1)
    if not isinstance(boxes, list) or len(boxes) != size[0]:
        raise InputError(
            f"`boxes` must be a list of {size[0]} tensors (M, {width}), one per sample; "
            f"got {type_and_shape(boxes)}. Of a sample "
            f"without boxes it is `torch.zeros(0, {width})`."
        )
    for index, each in enumerate(boxes):
        if not isinstance(each, Tensor) or each.ndim != 2 or each.shape[1] != width:
            raise InputError(
                f"`boxes[{index}]` must be a tensor (M, {width}) of {CORNERS_OF[width]}; "
                f"got {type_and_shape(each)}. A single box is "
                f"`box[None]`, and none is `torch.zeros(0, {width})`."
            )


CORNERS_OF = {2: "start, end", 4: "x1, y1, x2, y2", 6: "x1, y1, z1, x2, y2, z2"}
"""What the numbers of a box are, x along the last dimension."""


def check_suspect(suspect: Any, size: Size) -> None:
    """Check that a suspect region is `S` or `(N, *S)` bool."""
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
            f"`suspect` must be bool of shape {allowed[0]} or {allowed[1]}; got {type_and_shape(suspect)}. {remedy}"
        )


def check_groups(groups: Any, size: Size) -> None:
    """Check that groups are `(N,)` integers."""
    if groups is None:
        return
    if not isinstance(groups, Tensor) or tuple(groups.shape) != (size[0],) or groups.is_floating_point():
        raise InputError(
            f"`groups` must be an integer tensor ({size[0]},); "
            f"got {type_and_shape(groups)}. Number the groups, and give one "
            "number per sample, as with `torch.tensor(groups)`."
        )


def check_strings(field: str, values: Any, n: int) -> None:
    """Check that there is one string for each of N samples."""
    if values is not None and len(values) != n:
        raise InputError(
            f"`{field}` must hold {n} {field}, one per sample; got {len(values)}. Give one for each, or None."
        )


def check_rows(field: str, parts: Any, size: Size) -> None:
    """Check that what came beside the images has names, and a row for each sample, that a checkpoint can hold."""
    if parts is None:
        return
    if not isinstance(parts, dict) or not all(isinstance(key, str) for key in parts):
        raise InputError(
            f"`{field}` must be a dict from names to tensors; got {type_and_shape(parts)}. Name each by its key."
        )
    for key, value in parts.items():
        if not has_rows(value, size[0]) or (field == "head_labels" and not isinstance(value, Tensor)):
            raise InputError(
                f"`{field}[{key!r}]` must be a tensor with {size[0]} rows, one per sample"
                f"{', or a list' if field == 'inputs' else ''}; got {type_and_shape(value)}. Leave it out, or give one "
                "row for each."
            )


def has_rows(value: Any, n: int) -> bool:
    """Whether a tensor, a list, or each part of a dict has `n` rows that a checkpoint can hold.

    Example:
        >>> has_rows({"ids": torch.zeros(2, 5), "words": ["a", "b"]}, 2), has_rows(torch.zeros(3), 2)
        (True, False)
    """
    if isinstance(value, dict):
        return bool(value) and all(isinstance(key, str) and has_rows(each, n) for key, each in value.items())
    if isinstance(value, Tensor):
        return value.ndim > 0 and len(value) == n
    return isinstance(value, list) and len(value) == n and all(map(_is_storable, value))


def _is_storable(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_storable(each) for key, each in value.items())
    if isinstance(value, (list, tuple)):
        return type(value) in (list, tuple) and all(map(_is_storable, value))
    return isinstance(value, Tensor) or value is None or type(value) in (str, int, float, bool)
