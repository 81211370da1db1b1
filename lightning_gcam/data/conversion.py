"""Convert images, labels and boxes in any form to what `SaliencyBatch` takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors  # type: ignore[import-untyped]  # it carries no types
from torchvision.ops import box_convert  # type: ignore[import-untyped]

from lightning_gcam.data.checks import Size, check_boxes, check_images, check_labels, shape_of
from lightning_gcam.data.structure import are_strings, as_tensor, is_binary, is_list, rows_of, unwrap
from lightning_gcam.data.unreadable import UnreadableBatch, array_code, check_part
from lightning_gcam.utils.errors import InputError, did_you_mean

_MOST_CHANNELS_LAST = 4
_LEAST_PIXELS = 16


def read_images(images: Any, labels: Any = None) -> Tensor:
    """Convert images in any form to `(N, C, H, W)`, in the dtype they came in.

    Args:
        images: an array `(N, C, H, W)`, or a list of `(C, H, W)` of one size.
        labels: what came with them; by their number, grey images and a single one are told apart in errors.

    Raises:
        InputError: none, or no real numbers.
        UnreadableBatch: another form.

    Example:
        >>> import torch
        >>> read_images([torch.zeros(3, 8, 8), torch.zeros(3, 8, 8)]).shape
        torch.Size([2, 3, 8, 8])
    """
    found = as_tensor(images)
    if found is None and is_list(unwrap(images)):
        _refuse_several_sizes(unwrap(images))
    if found is None or found.ndim < 3:
        check_images(unwrap(images))
        raise InputError(
            f"`images` must be a tensor (N, C, H, W); got {type(images).__name__}. Make it one, with `adapter=`."
        )
    if found.ndim != 4:
        raise _wrong_dimensions(found, array_code("images", images), as_tensor(labels))
    check_images(found)
    channels, rows, columns = found.shape[1:]
    if columns in (1, 3, _MOST_CHANNELS_LAST) and min(channels, rows) > _LEAST_PIXELS:
        raise UnreadableBatch(
            f"`images` {shape_of(found)} seem to have their channels last.",
            image_size=(len(found), channels, rows),
            images=f"{array_code('images', images)}.permute(0, 3, 1, 2)",
        )
    return found


def _refuse_several_sizes(images: Any) -> None:
    """Raise where a list holds images of several sizes, which cannot be one tensor."""
    tensors = [as_tensor(each) for each in images]
    shapes = [tuple(each.shape) for each in tensors if each is not None and each.ndim == 3]
    if len(shapes) < len(tensors) or not shapes:
        return
    size, channels = (shapes[0][1], shapes[0][2]), min(shape[0] for shape in shapes)
    resized = f"torch.as_tensor(each)[None, :{channels}].float(), size={size}"
    raise UnreadableBatch(
        f"`images` have several sizes: {', '.join(map(str, list(dict.fromkeys(shapes))[:4]))}.",
        image_size=(len(shapes), *size),
        images=f"torch.cat([torch.nn.functional.interpolate({resized}) for each in {{images}}])",
    )


def _wrong_dimensions(images: Tensor, code: str, labels: Tensor | None) -> UnreadableBatch:
    """The error for images `(N, H, W)`, `(C, H, W)` or with frames, with the code that settles it."""
    reason = f"`images` must be 4-D, (N, C, H, W); got {shape_of(images)}."
    is_batch = labels is not None and labels.ndim > 0 and len(labels) == len(images)
    if images.ndim == 3 and len(images) in (1, 3, _MOST_CHANNELS_LAST) and not is_batch:
        return UnreadableBatch(
            reason, image_size=(1, images.shape[1], images.shape[2]), images=f"{code}[None]"
        )
    if images.ndim == 3:
        size = (len(images), images.shape[1], images.shape[2])
        return UnreadableBatch(reason, image_size=size, images=f"{code}[:, None]")
    if images.ndim == 5:
        return _five_dimensions(images, code, reason)
    return UnreadableBatch(reason)


def _five_dimensions(images: Tensor, code: str, reason: str) -> UnreadableBatch:
    """The error for images of five dimensions: one frame each is an image, a volume or a clip needs a `forward=`."""
    size = (len(images), images.shape[3], images.shape[4])
    if images.shape[2] == 1:
        return UnreadableBatch(reason, image_size=size, images=f"{code}[:, :, 0]")
    if images.shape[1] == 1 and images.shape[2] <= _MOST_CHANNELS_LAST:
        return UnreadableBatch(reason, image_size=size, images=f"{code}[:, 0]")
    reason += " Volumes and clips are looked at through an `adapter=` that folds them into channels and a `forward=`."
    return UnreadableBatch(reason, recipe="#volumes-and-clips")


_TOLERANCE = 1e-2
"""By how much shares may miss a sum of one: half precision rounds each of them."""


def read_labels(labels: Any, images: Tensor, class_names: Sequence[str] | None = None) -> Tensor:
    """Convert labels in any form to `(N,)` classes or measurements, or `(N, K)` multi-hot, on the images' device.

    Shares of each class (soft labels, of mixed images or smoothed) become a mark at the largest: it is the class that
    the map explains, that the caption names and that the samples are balanced over. One-hot labels stay as they are:
    in another batch there may be several marks in a row.

    Args:
        labels: an array or lists of numbers or words.
        images: `(N, C, H, W)`.
        class_names: where labels are words, all of them in the order of the logits.

    Raises:
        InputError: words that are no class names.
        UnreadableBatch: another form.

    Example:
        >>> images = torch.zeros(2, 3, 8, 8)
        >>> read_labels(["dog", "cat"], images, ["cat", "dog"])
        tensor([1, 0])
        >>> read_labels([[0.2, 0.8], [0.9, 0.1]], images)
        tensor([[0., 1.],
                [1., 0.]])
    """
    n = len(images)
    if are_strings(labels):
        labels = classes_of(unwrap(labels), class_names)
    found = as_tensor(_label_rows(labels, n))
    if found is None:
        check_part(check_labels, labels, (n, 0, 0))
        raise UnreadableBatch("`labels` hold different numbers of classes.")
    found = found.to(images.device)
    found = found.reshape(n) if found.shape in ((), (n, 1)) and found.numel() == n else found
    if found.ndim > 2:
        raise UnreadableBatch(
            f"`labels` {shape_of(found)} are neither classes, marks nor measurements.", recipe="#keypoints"
        )
    check_part(check_labels, found, (n, 0, 0))
    found = found.long() if found.dtype == torch.bool and found.ndim == 1 else found
    return found if found.ndim == 1 else _read_rows(found, array_code("labels", labels))


def _label_rows(labels: Any, n: int) -> Any:
    """Turn the columns that `default_collate` makes of lists of labels into rows."""
    try:
        return rows_of(labels, n)
    except ValueError:
        raise UnreadableBatch(
            f"`labels` are {n} tensors of {n} numbers: a row for each sample, or, from torch's `default_collate`, a "
            "column for each class.",
            labels="torch.stack(list({labels}), dim=1)",
        ) from None


def _read_rows(labels: Tensor, code: str) -> Tensor:
    """Convert rows of labels `(N, K)`: marks stay, shares become a mark at the largest."""
    if is_binary(labels) and labels.shape[1]:
        return labels
    if not labels.is_floating_point():
        raise UnreadableBatch(
            f"`labels` {shape_of(labels)} hold other numbers than 0 and 1: several classes a sample in a list, or "
            "measurements. They are left out here; where one column is the class, give that one.",
            recipe="#measurements",
        )
    if bool((labels >= 0).all()) and bool(((labels.sum(dim=1) - 1).abs() < _TOLERANCE).all()):
        return torch.zeros_like(labels).scatter_(1, labels.argmax(dim=1, keepdim=True), 1.0)
    reason = f"`labels` {shape_of(labels)} are neither marks (0 and 1) nor shares (a sum of 1 in each row)"
    if _are_smoothed_marks(labels):
        raise UnreadableBatch(f"{reason}.", labels=f"({code} > 0.5)")
    raise UnreadableBatch(
        f"{reason}: measurements are no classes, and are left out here.", recipe="#measurements"
    )


def _are_smoothed_marks(labels: Tensor) -> bool:
    """Whether labels hold just two numbers, one on each side of a half: marks of several classes, smoothed."""
    found = labels.unique()
    return len(found) == 2 and 0 <= float(found[0]) < 0.5 < float(found[1]) <= 1


def classes_of(names: str | Sequence[str], class_names: Sequence[str] | None) -> list[int]:
    """Return the place of each word in `class_names`.

    Raises:
        InputError: without `class_names`, or for a word that is not among them.

    Example:
        >>> classes_of(["dog", "cat"], ["cat", "dog"])
        [1, 0]
    """
    names = [names] if isinstance(names, str) else names
    if class_names is None:
        raise InputError(
            f'`labels` are names ("{names[0]}", ...), and which logit belongs to which is not known. Pass all names '
            f"in the order of the logits, for example:\n    class_names={sorted(set(names))!r}"
        )
    places = {name: place for place, name in reversed(list(enumerate(class_names)))}
    unknown = next((name for name in names if name not in places), None)
    if unknown is not None:
        raise InputError(
            f'`labels` hold "{unknown}", which is not in `class_names`. {did_you_mean(unknown, places)}'
        )
    return [places[name] for name in names]


CORNERS, EXTENT, CENTRE = "x1, y1, x2, y2", "x, y, width, height", "cx, cy, width, height"

FORMATS: dict[str, str] = {
    CORNERS: "each",
    EXTENT: "torch.cat([each[:, :2], each[:, :2] + each[:, 2:]], dim=1)",
    CENTRE: "torch.cat([each[:, :2] - each[:, 2:] / 2, each[:, :2] + each[:, 2:] / 2], dim=1)",
}
"""What four numbers of a box may be, and the code that makes corners of them."""

_TORCHVISION = {CORNERS: "xyxy", EXTENT: "xywh", CENTRE: "cxcywh"}
"""What torchvision calls these formats."""


def read_boxes(
    boxes: Any, size: Size, device: torch.device | str = "cpu", formats: Sequence[str] = ()
) -> list[Tensor]:
    """Convert boxes in any form to N tensors `(M, 4)`, each row `x1, y1, x2, y2` in pixels of the image.

    Args:
        boxes: `(N, 4)`, one each; `(N, M, 4)`, several each; or a list of `(M, 4)` or `(4,)`, one per sample. Plain
            numbers are corners in pixels; `tv_tensors.BoundingBoxes` have their format and their canvas with them.
        size: N, H and W of the images.
        device: where the result is held.
        formats: what the boxes are by their name, one of `FORMATS` or several that it may mean; corners in
            pixels where it is empty. With a name, numbers of at most 1 are shares of the image.

    Raises:
        UnreadableBatch: another form, or numbers that are no corners in pixels.

    Example:
        >>> read_boxes([[0, 0, 2, 1], [1, 1, 2, 2]], (2, 8, 8))
        [tensor([[0, 0, 2, 1]]), tensor([[1, 1, 2, 2]])]
        >>> box = tv_tensors.BoundingBoxes([[1.0, 1.0, 2.0, 2.0]], format="XYWH", canvas_size=(4, 4))
        >>> read_boxes(box, (1, 8, 8))
        [tensor([[2., 2., 6., 6.]])]
    """
    found = [_sample_boxes(each, size) for each in _per_sample(boxes, size[0])]
    check_part(check_boxes, found, size)
    tensors = [each.to(device) for each in found if isinstance(each, Tensor)]
    if any(each.is_complex() or each.dtype == torch.bool for each in tensors):
        raise UnreadableBatch(f"`boxes` must be numbers of pixels; got {shape_of(tensors[0])}.")
    if formats:
        return _corners_in_pixels(tensors, _fitting_format(tensors, size, formats), size)
    _check_pixels(
        tensors, size
    )  # shares first: 0.5, 0.5, 0.4, 0.9 is upside down as corners, and is no x, y, w, h
    _check_corners(tensors, size)
    return tensors


def _fitting_format(boxes: list[Tensor], size: Size, formats: Sequence[str]) -> str:
    """Choose the format that the numbers can be, of those that the name of the boxes allows.

    Raises:
        UnreadableBatch: where they can be several of these, or only something else.
    """
    fitting = [each for each in formats if _is_possible(boxes, size, each)]
    others = [each for each in FORMATS if not fitting and _is_possible(boxes, size, each)]
    if others:
        raise UnreadableBatch(
            f"`boxes` are {', or '.join(formats)} by their name, which their numbers cannot be in these images. Are "
            f"they {', or '.join(others)}?",
            boxes=_conversion_code(others[0], boxes, size),
        )
    if len(formats) > 1 and len(fitting) > 1:
        raise UnreadableBatch(
            f"`boxes` could be {' as well as '.join(fitting)}: COCO's names say the one, and the numbers fit both. "
            'Name them "boxes_xywh" or "boxes_xyxy".',
            boxes=_conversion_code(fitting[0], boxes, size),
        )
    return (fitting or list(formats))[0]


def _corners_in_pixels(boxes: list[Tensor], name: str, size: Size) -> list[Tensor]:
    """Convert boxes of a format to corners in pixels; whole numbers stay whole where nothing is divided."""
    unit = [size[2], size[1]] if _are_shares(boxes, size) else [1, 1]
    scaled = [each * each.new_tensor(unit * 2) for each in boxes]
    return [box_convert(each, in_fmt=_TORCHVISION[name], out_fmt="xyxy") for each in scaled]


def _is_possible(boxes: list[Tensor], size: Size, name: str) -> bool:
    """Whether boxes can be of a format: no negative extent, and nothing beyond the image but for a pixel."""
    every = torch.cat([each.reshape(-1, 4).double() for each in _corners_in_pixels(boxes, name, size)])
    limit = every.new_tensor([size[2] + 1, size[1] + 1] * 2)
    has_area = bool((every[:, 2:] > every[:, :2]).all(dim=1).any())
    return has_area and bool(
        (every[:, 2:] >= every[:, :2]).all() and (every >= -1).all() and (every <= limit).all()
    )


def _conversion_code(name: str, boxes: list[Tensor], size: Size) -> str:
    """Write the code that makes corners in pixels of boxes of a format, with `{boxes}` for the boxes."""
    code = FORMATS[name]
    if _are_shares(boxes, size):
        scale = f"torch.tensor([{size[2]}, {size[1]}, {size[2]}, {size[1]}], device=each.device)"
        code = f"{code} * {scale}"
    return f"[{code} for each in (torch.as_tensor(one).reshape(-1, 4) for one in {{boxes}})]"


def _per_sample(boxes: Any, n: int) -> Sequence[Any]:
    """Split boxes by sample; those of a single sample may come without a list around them."""
    array = as_tensor(boxes)
    is_one_sample = n == 1 and array is not None and array.ndim == 2 and array.shape[-1] == 4
    if isinstance(boxes, tv_tensors.BoundingBoxes):
        rows = boxes.as_subclass(Tensor)
        return [boxes] if n == 1 else [tv_tensors.wrap(each[None], like=boxes) for each in rows]
    if is_one_sample:
        return [boxes]
    boxes = _box_rows(boxes, n)
    return list(boxes) if isinstance(boxes, Tensor) and boxes.ndim else boxes if is_list(boxes) else [boxes]


def _box_rows(boxes: Any, n: int) -> Any:
    """Turn the columns that `default_collate` makes of lists of boxes into rows."""
    try:
        return rows_of(boxes, n)
    except ValueError:
        if n != 4:
            return unwrap(boxes)
        raise UnreadableBatch(
            "`boxes` are 4 tensors of 4 numbers: a box for each sample, or, from torch's `default_collate`, x1, y1, x2 "
            "and y2 of all.",
            boxes="list(torch.stack(list({boxes}), dim=1)[:, None])",
        ) from None


def _sample_boxes(boxes: Any, size: Size) -> Any:
    """Convert one sample's boxes to `(M, 4)` corners; what cannot be converted is returned as it is."""
    if isinstance(boxes, tv_tensors.BoundingBoxes):
        boxes = corners_of(boxes, size)
    found = as_tensor(boxes)
    if found is None:
        return boxes
    if not found.numel():
        return found.new_zeros((0, 4))
    return found[None] if found.ndim == 1 else found


def corners_of(boxes: tv_tensors.BoundingBoxes, size: Size) -> Tensor:
    """Convert `tv_tensors.BoundingBoxes` to `(M, 4)` corners in pixels of an image; of a rotated box its outline.

    Example:
        >>> box = tv_tensors.BoundingBoxes([[4.0, 4.0, 2.0, 2.0]], format="CXCYWH", canvas_size=(8, 8))
        >>> corners_of(box, (1, 8, 8))
        tensor([[3., 3., 5., 5.]])
    """
    from torchvision.transforms.v2 import functional  # type: ignore[import-untyped]  # slow to import

    boxes = tv_tensors.wrap(boxes.as_subclass(Tensor).float(), like=boxes)
    is_plain = boxes.format.value in ("XYXY", "XYWH", "CXCYWH")
    target = "XYXY" if is_plain else "XYXYXYXY"
    points = functional.convert_bounding_box_format(boxes, new_format=target).as_subclass(Tensor)
    points = points.reshape(*points.shape[:-1], -1, 2)
    corners = torch.cat([points.amin(dim=-2), points.amax(dim=-2)], dim=-1)
    height, width = boxes.canvas_size
    scale = corners.new_tensor([size[2] / width, size[1] / height])
    return corners * scale.repeat(2)


def _check_corners(boxes: list[Tensor], size: Size) -> None:
    """Raise where boxes are upside down and all could be of another format; else such a box just holds nothing."""
    every = torch.cat([each.reshape(-1, 4).double() for each in boxes])
    upside_down = int((every[:, 2:] < every[:, :2]).any(dim=1).sum())
    others = [name for name in (EXTENT, CENTRE) if upside_down and _is_possible(boxes, size, name)]
    if others:
        raise UnreadableBatch(
            f"`boxes` must be {CORNERS} with x1 <= x2 and y1 <= y2; got {upside_down} of {len(every)} that are not. "
            f"Are they {', or '.join(others)}?",
            boxes=_conversion_code(others[0], boxes, size),
        )


def _are_shares(boxes: list[Tensor], size: Size) -> bool:
    """Whether boxes are shares of the image: no number beyond 1, in numbers that need not be whole."""
    numbers = torch.cat([each.reshape(-1).double() for each in boxes])
    is_float = any(each.is_floating_point() for each in boxes)
    return is_float and max(size[1:]) > 1 and len(numbers) > 0 and 0 < float(numbers.max()) <= 1


def _check_pixels(boxes: list[Tensor], size: Size) -> None:
    """Raise where boxes are shares of the image, not pixels."""
    if not _are_shares(boxes, size):
        return
    fitting = [name for name in FORMATS if _is_possible(boxes, size, name)]
    if not fitting:
        raise UnreadableBatch(
            "`boxes` must be in pixels; got none beyond 1, and they are no shares of the image either."
        )
    kinds = f"{fitting[0]}" if len(fitting) == 1 else f"{fitting[0]} (or {', or '.join(fitting[1:])})"
    raise UnreadableBatch(
        f"`boxes` must be in pixels; got none beyond 1. Are they shares of width and height? Then they can be {kinds}.",
        boxes=_conversion_code(_likeliest_format(fitting), boxes, size),
    )


def _likeliest_format(fitting: Sequence[str]) -> str:
    """Choose among formats of shares: corners first, as torchvision's; then centres, as YOLO's and DETR's."""
    return next(name for name in (CORNERS, CENTRE, EXTENT) if name in fitting)
