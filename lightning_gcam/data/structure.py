"""Take a batch of any structure apart, and test what each part can be by its form."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, TypeGuard

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors  # type: ignore[import-untyped]  # it carries no types

_WIDER = {"uint16": np.int32, "uint32": np.int64, "uint64": np.int64, "longdouble": np.float64}
"""What torch can hold but hardly compute with, and what it is held as."""


def unwrap(value: Any) -> Any:
    """Convert an array to a plain tensor, and an array of words to a list; anything else stays as it is.

    Tensors of a class of their own (`tv_tensors`, MONAI's `MetaTensor`) share their memory with the result; numpy
    arrays are copied, for theirs may be read-only. A nested tensor becomes a list, a sparse one is filled in.

    Example:
        >>> unwrap(np.array([1, 2])), unwrap(np.array(["cat"])), unwrap("cat")
        (tensor([1, 2]), ['cat'], 'cat')
    """
    if isinstance(value, Tensor):
        return _unwrap_tensor(value)
    if isinstance(value, (np.ndarray, np.generic)):
        return _from_numpy(value)
    return value


def _unwrap_tensor(tensor: Tensor) -> Any:
    if tensor.is_nested:
        return [unwrap(each) for each in tensor.unbind()]
    if tensor.layout is not torch.strided:
        tensor = tensor.to_dense()
    return tensor if type(tensor) is Tensor else tensor.as_subclass(Tensor)


def _from_numpy(array: np.ndarray[Any, Any] | np.generic) -> Any:
    if array.dtype.kind not in "biufc":
        return array.tolist()
    native = np.dtype(_WIDER.get(array.dtype.name, array.dtype)).newbyteorder("=")
    return torch.from_numpy(np.array(array, dtype=native))


def as_tensor(value: Any) -> Tensor | None:
    """Convert an array, a number, or lists of equal lengths of either to one plain tensor; None for anything else.

    Example:
        >>> as_tensor([[1, 2], torch.tensor([3, 4])])
        tensor([[1, 2],
                [3, 4]])
        >>> as_tensor([[1], [2, 3]]) is None, as_tensor("12") is None
        (True, True)
    """
    value = unwrap(value)
    if isinstance(value, (bool, int, float)):
        value = _number(value)
    if isinstance(value, Tensor) or not is_list(value):
        return value if isinstance(value, Tensor) else None
    parts = [as_tensor(each) for each in value]
    tensors = [each for each in parts if each is not None]
    if not parts:
        return torch.zeros(0)
    if len(tensors) < len(parts) or len({(each.shape, each.device) for each in tensors}) > 1:
        return None
    dtypes = [each.dtype for each in tensors]
    common = dtypes[0]
    for dtype in dtypes[1:]:
        common = torch.promote_types(common, dtype)
    return torch.stack([each.to(common) for each in tensors])


def rows_of(value: Any, n: int) -> Any:
    """Return a row for each of `n` samples: torch's `default_collate` makes columns of lists of numbers.

    Raises:
        ValueError: where rows and columns are as many.

    Example:
        >>> rows_of([torch.tensor([1, 2, 3]), torch.tensor([4, 5, 6])], 3)
        tensor([[1, 4],
                [2, 5],
                [3, 6]])
    """
    value = unwrap(value)
    if n == 1 or not is_list(value) or not value or any(getattr(each, "shape", ()) != (n,) for each in value):
        return value
    if len(value) == n:
        raise ValueError
    columns = as_tensor(value)
    return columns.T if columns is not None else value


def _number(value: float) -> Tensor | None:
    """Convert a number to a tensor, or None where it has more than 64 bits."""
    try:
        return torch.tensor(value)
    except (OverflowError, RuntimeError, ValueError):  # more than 64 bits
        return None


def is_list(value: Any) -> TypeGuard[Sequence[Any]]:
    """Whether `value` is a list or a tuple whose parts have no names."""
    return isinstance(value, (list, tuple)) and not hasattr(value, "_fields")


def named_parts(value: Any) -> dict[Any, Any] | None:
    """Return the parts of a mapping, a named tuple or a dataclass by name; None for anything else.

    What counts is what it can do: Hugging Face's `BatchFeature` has keys, and so has a `TensorDict`.

    Example:
        >>> named_parts({"image": 1}), named_parts([1]) is None
        ({'image': 1}, True)
    """
    if isinstance(value, (Tensor, np.ndarray, type)):
        return None
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return value._asdict()  # type: ignore[attr-defined, no-any-return]
    if callable(getattr(value, "keys", None)) and hasattr(value, "__getitem__"):
        return {key: value[key] for key in value.keys()}  # noqa: SIM118 - it may iterate over something else
    if dataclasses.is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return None


def dimensions(value: Any) -> int:
    """Count the dimensions of an array, or of lists of equal lengths; -1 for anything else."""
    tensor = as_tensor(value)
    return tensor.ndim if tensor is not None else -1


def is_array(value: Any) -> bool:
    """Whether `value` holds numbers in a tensor or a numpy array."""
    return isinstance(value, (Tensor, np.ndarray)) and isinstance(unwrap(value), Tensor)


def is_tv_mask(value: Any) -> bool:
    """Whether `value` is a `tv_tensors.Mask`, or a list of such."""
    return _is_made_of(tv_tensors.Mask, value)


def are_tv_boxes(value: Any) -> bool:
    """Whether `value` is `tv_tensors.BoundingBoxes`, or a list of such."""
    return _is_made_of(tv_tensors.BoundingBoxes, value)


def _is_made_of(kind: type, value: Any) -> bool:
    parts = value if is_list(value) and value else [value]
    return all(isinstance(each, kind) for each in parts)


def is_image_batch(value: Any) -> bool:
    """Whether `value` is `(N, C, H, W)` numbers, or a list of `(C, H, W)` of any sizes."""
    if is_tv_mask(value):
        return False
    if is_list(array := unwrap(value)):
        return bool(array) and all(dimensions(each) == 3 for each in array)
    return is_array(value) and array.ndim == 4 and array.dtype != torch.bool


def is_segmentation(value: Any) -> bool:
    """Whether `value` is `(N, H, W)`, with a channel or without, or a list of such as `(H, W)` or `(C, H, W)`."""
    if is_list(array := unwrap(value)):
        return bool(array) and all(is_array(each) and each.ndim in (2, 3) for each in array)
    return is_array(value) and array.ndim in (3, 4)


def is_segmentation_of(value: Any, image_size: tuple[int, int]) -> bool:
    """Whether `value` is a segmentation whose shape fits the image: as large, or of the same aspect, or boolean.

    Keypoints `(N, 5, 2)` and camera poses `(N, 4, 4)` have as many dimensions as masks have.
    """
    if not is_segmentation(value):
        return False
    first = as_tensor(unwrap(value)[0]) if len(unwrap(value)) else None
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
"""The side of the largest matrix of a position: a camera's pose, in homogeneous coordinates."""


def are_boxes(value: Any, n: int) -> bool:
    """Whether `value` is `(N, M, 4)`, or a list of N `(M, 4)`, `(4,)` or empty ones."""
    if is_list(array := unwrap(value)):
        shapes = [each.shape for each in map(as_tensor, array) if each is not None]
        are_fours = [shape[-1:] == (4,) for shape in shapes]
        has_none = [shape.numel() == 0 for shape in shapes]
        return len(array) == len(shapes) == n and any(are_fours) and all(map(max, are_fours, has_none))
    return is_array(value) and array.ndim == 3 and array.shape[-1] == 4 and array.dtype != torch.bool


def are_single_boxes(value: Any, image_size: tuple[int, int]) -> bool:
    """Whether `value` is `(N, 4)` numbers that can be corners in the image, and are not marks of four classes."""
    array = unwrap(value)
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
    """Whether `value` holds a number or several for each sample."""
    if is_list(array := unwrap(value)):
        return len(array) == n and all(0 <= dimensions(each) <= 1 for each in array)
    return dimensions(value) == 0 or (is_array(value) and array.ndim in (1, 2))


def are_strings_for(value: Any, n: int) -> bool:
    """Whether `value` holds a string for each sample."""
    strings = unwrap(value)
    return are_strings(strings) and (len(strings) == n if is_list(strings) else n == 1)


def are_strings(value: Any) -> bool:
    """Whether `value` is a string, or a list of strings."""
    strings = unwrap(value)
    return isinstance(strings, str) or (
        is_list(strings) and bool(strings) and all(isinstance(each, str) for each in strings)
    )


def are_objects(value: Any, n: int | None = None) -> bool:
    """Whether `value` holds something with named parts for each sample, as torchvision's detection targets."""
    return (
        is_list(value)
        and bool(value)
        and len(value) == (n or len(value))
        and all(named_parts(each) is not None for each in value)
    )


def is_binary(array: Tensor) -> bool:
    """Whether an array holds nothing but 0 and 1."""
    return bool(((array == 0) | (array == 1)).all())
