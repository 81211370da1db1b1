"""Take a batch of any structure apart, and test what each part can be by its form."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from itertools import combinations
from typing import Any, TypeGuard

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors  # type: ignore[import-untyped]  # it carries no types

_WIDER = {"uint16": np.int32, "uint32": np.int64, "uint64": np.int64, "longdouble": np.float64}
"""What torch can hold but hardly compute with, and what it is held as."""


class CollatedPart(list[Any]):
    """One field of a batch that came as a list of samples; `code` is the expression that collects it from the batch."""

    def __init__(self, values: list[Any], code: str) -> None:
        super().__init__(values)
        self.code = code


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
    if isinstance(value, Tensor):
        return not value.is_nested
    return isinstance(value, np.ndarray) and value.dtype.kind in "biufc"


def is_tv_mask(value: Any) -> bool:
    """Whether `value` is a `tv_tensors.Mask`, or a list of such."""
    return _is_made_of(tv_tensors.Mask, value)


def are_tv_boxes(value: Any) -> bool:
    """Whether `value` is `tv_tensors.BoundingBoxes`, or a list of such."""
    return _is_made_of(tv_tensors.BoundingBoxes, value)


def _is_made_of(kind: type, value: Any) -> bool:
    parts = value if is_list(value) and value else [value]
    return all(isinstance(each, kind) for each in parts)


def image_dimensions(value: Any) -> int:
    """Count the dimensions of the images that `value` can be by its form, 1 to 3; 0 where it can be none.

    `(N, C, H, W)` numbers or a list of `(C, H, W)` of any sizes have two, `(N, C, L)` one, `(N, C, D, H, W)` three.

    Example:
        >>> [image_dimensions(torch.zeros(shape)) for shape in ((2, 1, 5), (2, 3, 8, 8), (2, 8))]
        [1, 2, 0]
    """
    if is_tv_mask(value):
        return 0
    if is_array(value):
        return value.ndim - 2 if value.ndim in (3, 4, 5) and value.dtype not in (torch.bool, np.bool_) else 0
    array = unwrap(value)
    counts = {dimensions(each) for each in array} if is_list(array) else set()
    is_one_kind = counts == {3} or (isinstance(value, CollatedPart) and len(counts) == 1)
    return max(counts.pop() - 1, 0) if is_one_kind and counts <= {2, 3, 4} else 0


WIDE = 3
"""So many times as long as it has channels is a signal; an image without a channel is hardly as wide."""


def is_signal(shape: Sequence[int]) -> bool:
    """Whether `(..., C, L)` has the form of a signal: one channel, or much longer than it has channels.

    Example:
        >>> is_signal((8, 12, 5000)), is_signal((8, 28, 28)), is_signal((8, 1, 2))
        (True, False, True)
    """
    return len(shape) > 1 and (WIDE * shape[-2] <= shape[-1] or shape[-2] == 1 < shape[-1])


SIGNALS = (
    *(
        "signal",
        "signals",
        "ecg",
        "eeg",
        "audio",
        "waveform",
        "waveforms",
        "wav",
        "input_values",
        "input_features",
    ),
    *("time_series", "timeseries"),
)
"""Names of what has one dimension, whatever its length."""

PICTURES = ("image", "images", "img", "imgs", "pixel_values")
"""Names of what has two dimensions at least."""

VIDEOS = ("video", "videos", "clip", "clips", "frames")
"""Names of what has three dimensions, one of them time."""

VOLUMES = ("volume", "volumes", "image", "images", "img")
"""Names of what is no video, where it has three dimensions."""


def are_signals(shape: Sequence[int], name: str = "") -> bool:
    """Whether `(N, a, b)` are signals: by their name, or much longer than wide, whichever are the channels.

    Under the name of a picture only what has one channel is: images one row high hardly exist.

    Example:
        >>> are_signals((8, 12, 500)), are_signals((8, 12, 500), "image"), are_signals((8, 64, 81), "eeg")
        (True, False, True)
        >>> are_signals((8, 1, 500), "image")
        True
    """
    if name in PICTURES:
        return shape[1] == 1 < shape[2]
    return name in SIGNALS or is_signal(sorted(shape[1:]))


FRAMES = ("pixel_values", "frames")
"""Names under which videos have their frames first, as Hugging Face's."""


def are_frames_first(images: Any, name: str = "") -> bool:
    """Whether images are videos `(N, T, C, H, W)`: the third dimension is that of channels and the second is not.

    What is named as a volume is none, whatever its depth.

    Example:
        >>> are_frames_first(torch.zeros(2, 8, 3, 16, 16)), are_frames_first(torch.zeros(2, 3, 8, 16, 16))
        (True, False)
    """
    shape = batch_shape(images)
    is_possible = len(shape) == 5 and shape[2] in (1, 3) and name not in VOLUMES
    return is_possible and (shape[1] not in (1, 3) or name in FRAMES)


def batch_shape(images: Any) -> tuple[int, ...]:
    """Return the shape of images, in a list that of the first, without putting them together; () for anything else.

    Example:
        >>> batch_shape(np.zeros((2, 3, 8, 8))), batch_shape([torch.zeros(3, 8, 8), torch.zeros(3, 9, 9)])
        ((2, 3, 8, 8), (2, 3, 8, 8))
    """
    images = unwrap(images) if isinstance(images, Tensor) and images.is_nested else images
    if isinstance(images, (Tensor, np.ndarray)):
        return tuple(images.shape)
    first = as_tensor(images[0]) if is_list(images) and images else None
    return (len(images), *first.shape) if first is not None else ()


def is_segmentation(value: Any, d: int = 2) -> bool:
    """Whether `value` is `(N, H, W)`, with a channel or without, or a list of such as `(H, W)` or `(C, H, W)`.

    Args:
        value: a part of a batch.
        d: the dimensions of the images: `(N, L)`, `(N, H, W)`, `(N, D, H, W)`.
    """
    if is_list(array := unwrap(value)):
        held = [each for each in array if each is not None]  # of some samples there may be none
        return bool(held) and all(is_array(each) and each.ndim in (d, d + 1) for each in held)
    return is_array(value) and array.ndim in (d + 1, d + 2)


def is_segmentation_of(value: Any, image_size: tuple[int, ...]) -> bool:
    """Whether `value` is a segmentation whose shape fits the image: as large, or of the same aspect, or boolean.

    Keypoints `(N, 5, 2)` and camera poses `(N, 4, 4)` have as many dimensions as masks have.
    """
    d = len(image_size)
    if not is_segmentation(value, d):
        return False
    held = [each for each in unwrap(value) if each is not None]
    first = as_tensor(held[0]) if held else None
    if first is None or is_tv_mask(value) or (first.dtype == torch.bool and d > 1):
        return first is not None
    shape = [side for side in first.shape if side > 1]
    sizes = {tuple(first.shape[-d:]), tuple(first.shape[-d - 1 : -1]), tuple(shape)}
    return any(len(each) == d and has_aspect(each, image_size) for each in sizes)


def has_aspect(shape: Sequence[int], image_size: Sequence[int]) -> bool:
    """Whether a grid is the image's own, or a smaller or larger one of its aspect, to a cell."""
    sides = list(zip(shape, image_size, strict=True))
    off = [(abs(a * q - b * p), p + q) for (a, p), (b, q) in combinations(sides, 2)]
    is_alike = bool(off) and all(2 * difference <= both for difference, both in off)
    return tuple(shape) == tuple(image_size) or (min(shape) > LARGEST_POSE and is_alike)


LARGEST_POSE = 4
"""The side of the largest matrix of a position: a camera's pose, in homogeneous coordinates."""


def are_boxes(value: Any, n: int, d: int = 2) -> bool:
    """Whether `value` is `(N, M, 4)`, or a list of N `(M, 4)`, `(4,)`, empty ones or None; in d dimensions 2 d numbers.

    Two numbers a sample, as those of a signal, could be anything: they are boxes by their name only.
    """
    if is_list(array := unwrap(value)):
        held = [each for each in array if each is not None]
        shapes = [each.shape for each in map(as_tensor, held) if each is not None]
        are_fours = [shape[-1:] == (2 * d,) for shape in shapes]
        has_none = [shape.numel() == 0 for shape in shapes]
        is_whole = len(array) == n and len(held) == len(shapes) and d > 1
        return is_whole and any(are_fours) and all(map(max, are_fours, has_none))
    is_possible = is_array(value) and array.ndim == 3 and d > 1 and array.dtype != torch.bool
    return is_possible and array.shape[-1] == 2 * d


def are_single_boxes(value: Any, image_size: tuple[int, ...]) -> bool:
    """Whether `value` is `(N, 4)` numbers that can be corners in the image, and are not marks of four classes.

    Of pixels (numbers beyond 1) less than half of the rows may be broken.
    """
    array, d = unwrap(value), len(image_size)
    if (
        not (is_array(value) and array.ndim == 2 and array.shape[1] == 2 * d and d > 1)
        or array.is_complex()
        or is_binary(array)
    ):
        return False
    sides = torch.tensor(image_size[::-1], device=array.device)
    low, high = array[:, :d], array[:, d:]
    inside = ((low >= 0) & (high <= sides) & (high > low)).all(dim=1)
    return bool(inside.all()) or (bool((array > 1).any()) and 2 * int(inside.sum()) > len(inside))


def are_labels(value: Any, n: int) -> bool:
    """Whether `value` holds a number or several for each sample."""
    if is_list(array := unwrap(value)):
        held = [each for each in array if each is not None]
        return len(array) == n and bool(held) and all(0 <= dimensions(each) <= 1 for each in held)
    return dimensions(value) == 0 or (is_array(value) and array.ndim in (1, 2))


def has_numbers(value: Any, n: int) -> bool:
    """Whether `value` holds a row of real numbers for each sample."""
    array = as_tensor(value)
    return array is not None and array.ndim > 0 and len(array) == n and not array.is_complex()


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


_TOLERANCE = 1e-2
"""By how much shares may miss a sum of one: half precision rounds each of them."""


def are_shares(rows: Tensor) -> bool:
    """Whether rows `(N, K)` are shares of each class: none negative, and a sum of one.

    Example:
        >>> are_shares(torch.tensor([[0.2, 0.8]])), are_shares(torch.tensor([[0.2, 0.9]]))
        (True, False)
    """
    is_one = (rows.sum(dim=1) - 1).abs() < _TOLERANCE
    return rows.is_floating_point() and bool((rows >= 0).all()) and bool(is_one.all())


def is_whole(numbers: Tensor) -> bool:
    """Whether all numbers are whole, of whatever dtype."""
    return not numbers.is_floating_point() or torch.equal(numbers, numbers.round())
