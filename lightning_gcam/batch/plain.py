"""Arrays of every kind as plain tensors, and containers of every kind as dicts: what the readers look at."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, TypeGuard

import numpy as np
import torch
from torch import Tensor

_WIDER = {"uint16": np.int32, "uint32": np.int64, "uint64": np.int64, "longdouble": np.float64}
"""What torch can hold but hardly compute with, and what it is held as."""


def plain(value: Any) -> Any:
    """`value` as a plain tensor where it is an array, as a list where it holds words; anything else as it is.

    Tensors of a class of their own (`tv_tensors`, MONAI's `MetaTensor`) share their memory with the result; numpy
    arrays are copied, for theirs may be read-only. A nested tensor becomes a list, a sparse one is filled in.

    Example:
        >>> plain(np.array([1, 2])), plain(np.array(["cat"])), plain("cat")
        (tensor([1, 2]), ['cat'], 'cat')
    """
    if isinstance(value, Tensor):
        return _plain_tensor(value)
    if isinstance(value, (np.ndarray, np.generic)):
        return _from_numpy(value)
    return value


def _plain_tensor(tensor: Tensor) -> Any:
    if tensor.is_nested:
        return [plain(each) for each in tensor.unbind()]
    if tensor.layout is not torch.strided:
        tensor = tensor.to_dense()
    return tensor if type(tensor) is Tensor else tensor.as_subclass(Tensor)


def _from_numpy(array: np.ndarray[Any, Any] | np.generic) -> Any:
    if array.dtype.kind not in "biufc":
        return array.tolist()
    native = np.dtype(_WIDER.get(array.dtype.name, array.dtype)).newbyteorder("=")
    return torch.from_numpy(np.array(array, dtype=native))


def as_tensor(value: Any) -> Tensor | None:
    """An array, a number, or lists of equal lengths of either, as one plain tensor; None for anything else.

    Example:
        >>> as_tensor([[1, 2], torch.tensor([3, 4])])
        tensor([[1, 2],
                [3, 4]])
        >>> as_tensor([[1], [2, 3]]) is None, as_tensor("12") is None
        (True, True)
    """
    value = plain(value)
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
    """`value` with a row for each of `n` samples: torch's `default_collate` makes columns of lists of numbers.

    Raises:
        ValueError: where rows and columns are as many.

    Example:
        >>> rows_of([torch.tensor([1, 2, 3]), torch.tensor([4, 5, 6])], 3)
        tensor([[1, 4],
                [2, 5],
                [3, 6]])
    """
    value = plain(value)
    if n == 1 or not is_list(value) or not value or any(getattr(each, "shape", ()) != (n,) for each in value):
        return value
    if len(value) == n:
        raise ValueError
    columns = as_tensor(value)
    return columns.T if columns is not None else value


def _number(value: float) -> Tensor | None:
    try:
        return torch.tensor(value)
    except (OverflowError, RuntimeError, ValueError):  # more than 64 bits
        return None


def is_list(value: Any) -> TypeGuard[Sequence[Any]]:
    """Whether `value` is a list or a tuple whose parts have no names."""
    return isinstance(value, (list, tuple)) and not hasattr(value, "_fields")


def named_parts(value: Any) -> dict[Any, Any] | None:
    """The parts of a mapping, a named tuple or a dataclass by name; None for anything else.

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
