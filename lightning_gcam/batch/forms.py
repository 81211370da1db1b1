"""What a part of a batch can be by its form alone: the predicates that the readers' tables are made of."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors  # type: ignore[import-untyped]  # it carries no types

from lightning_gcam.batch.plain import as_tensor, is_list, named_parts, plain


def dimensions(value: Any) -> int:
    """Of an array, or of lists of equal lengths; -1 for anything else."""
    tensor = as_tensor(value)
    return tensor.ndim if tensor is not None else -1


def is_array(value: Any) -> bool:
    """Whether `value` holds numbers in a tensor or a numpy array."""
    return isinstance(value, (Tensor, np.ndarray)) and isinstance(plain(value), Tensor)


def is_tv_mask(value: Any) -> bool:
    """Whether `value` says by its class that it is a mask, or a list of such."""
    return _is_made_of(tv_tensors.Mask, value)


def are_tv_boxes(value: Any) -> bool:
    """Whether `value` says by its class that it is boxes, or a list of such."""
    return _is_made_of(tv_tensors.BoundingBoxes, value)


def _is_made_of(kind: type, value: Any) -> bool:
    parts = value if is_list(value) and value else [value]
    return all(isinstance(each, kind) for each in parts)


def is_image_batch(value: Any) -> bool:
    """`(N, C, H, W)` numbers, or a list of `(C, H, W)` of any sizes."""
    if is_tv_mask(value):
        return False
    if is_list(array := plain(value)):
        return bool(array) and all(dimensions(each) == 3 for each in array)
    return is_array(value) and array.ndim == 4 and array.dtype != torch.bool


def is_segmentation(value: Any) -> bool:
    """`(N, H, W)`, with a channel or without, or a list of such as `(H, W)` or `(C, H, W)`."""
    if is_list(array := plain(value)):
        return bool(array) and all(is_array(each) and each.ndim in (2, 3) for each in array)
    return is_array(value) and array.ndim in (3, 4)


def is_segmentation_of(value: Any, image_size: tuple[int, int]) -> bool:
    """Whether `value` is a segmentation whose shape fits the image: as large, or of the same aspect, or boolean.

    Keypoints `(N, 5, 2)` and camera poses `(N, 4, 4)` have as many dimensions as masks have.
    """
    if not is_segmentation(value):
        return False
    first = as_tensor(plain(value)[0]) if len(plain(value)) else None
    if first is None or first.dtype == torch.bool or is_tv_mask(value):
        return first is not None
    shape = [side for side in first.shape if side > 1]
    sizes = {tuple(first.shape[-2:]), tuple(first.shape[-3:-1]), tuple(shape)}
    return any(len(each) == 2 and _has_aspect(each, image_size) for each in sizes)


def _has_aspect(shape: tuple[int, ...], image_size: tuple[int, int]) -> bool:
    """Whether a grid is the image's own, or a smaller or larger one of its aspect, to a cell."""
    (rows, columns), (height, width) = shape, image_size
    off = abs(rows * width - columns * height)
    return (rows, columns) == image_size or (min(rows, columns) > LARGEST_POSE and 2 * off <= height + width)


LARGEST_POSE = 4
"""The side of the largest matrix that says where something is: a camera's pose, in homogeneous coordinates."""


def are_boxes(value: Any, n: int) -> bool:
    """`(N, M, 4)`, or a list of N `(M, 4)`, `(4,)` or empty ones."""
    if is_list(array := plain(value)):
        shapes = [each.shape for each in map(as_tensor, array) if each is not None]
        are_fours = [shape[-1:] == (4,) for shape in shapes]
        has_none = [shape.numel() == 0 for shape in shapes]
        return len(array) == len(shapes) == n and any(are_fours) and all(map(max, are_fours, has_none))
    return is_array(value) and array.ndim == 3 and array.shape[-1] == 4 and array.dtype != torch.bool


def are_single_boxes(value: Any, image_size: tuple[int, int]) -> bool:
    """`(N, 4)` numbers that can be corners of boxes in the image, and are not marks of four classes."""
    array = plain(value)
    if (
        not (is_array(value) and array.ndim == 2 and array.shape[1] == 4)
        or array.is_complex()
        or is_binary(array)
    ):
        return False
    width_and_height = torch.tensor(image_size[::-1], device=array.device)
    inside = (array[:, :2] >= 0) & (array[:, 2:] <= width_and_height) & (array[:, 2:] > array[:, :2])
    return bool(inside.all())


def are_labels(value: Any, n: int) -> bool:
    """A number or several for each sample."""
    if is_list(array := plain(value)):
        return len(array) == n and all(0 <= dimensions(each) <= 1 for each in array)
    return dimensions(value) == 0 or (is_array(value) and array.ndim in (1, 2))


def are_words_for(value: Any, n: int) -> bool:
    """A word for each sample."""
    words = plain(value)
    return are_words(words) and (len(words) == n if is_list(words) else n == 1)


def are_words(value: Any) -> bool:
    """A string, or a list of strings."""
    words = plain(value)
    return isinstance(words, str) or (
        is_list(words) and bool(words) and all(isinstance(each, str) for each in words)
    )


def are_objects(value: Any, n: int | None = None) -> bool:
    """A list with something that has named parts for each sample: torchvision's detection targets."""
    return (
        is_list(value)
        and bool(value)
        and len(value) == (n or len(value))
        and all(named_parts(each) is not None for each in value)
    )


def is_binary(array: Tensor) -> bool:
    """Whether an array holds nothing but 0 and 1."""
    return bool(((array == 0) | (array == 1)).all())
