"""Convert boxes in any form to corners in pixels of their image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors  # type: ignore[import-untyped]  # it carries no types
from torchvision.ops import box_convert  # type: ignore[import-untyped]

from lightning_gcam.data.checks import CORNERS_OF, Size, check_boxes, shape_of
from lightning_gcam.data.structure import as_tensor, is_list, rows_of, unwrap
from lightning_gcam.data.unreadable import UnreadableBatch, check_part

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
    boxes: Any,
    size: Size,
    device: torch.device | str = "cpu",
    formats: Sequence[str] = (),
    faults: list[str] | None = None,
) -> list[Tensor]:
    """Convert boxes in any form to N tensors `(M, 4)`, each row `x1, y1, x2, y2` in pixels of the image.

    In images of one or three dimensions they are `(M, 2)` start and end, or `(M, 6)` x1, y1, z1, x2, y2, z2. A box that
    is none (NaN, upside down, outside of its image) is left out.

    Args:
        boxes: `(N, 4)`, one each; `(N, M, 4)`, several each; or a list of `(M, 4)` or `(4,)`, one per sample. Plain
            numbers are corners in pixels; `tv_tensors.BoundingBoxes` have their format and their canvas with them.
        size: N, H and W of the images.
        device: where the result is held.
        faults: N strings, to which what was left out is written.
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
    corners, bad = corners_with_faults(_without_none(_per_sample(boxes, size), size), size, device, formats)
    for row, each in enumerate(bad if faults is not None else []):
        faults[row] = faults[row] or fault_of(each)  # type: ignore[index]
    return [each[of == 0] if len(of) else each for each, of in zip(corners, bad, strict=True)]


FAULTS = ("", "a box with NaN", "an inverted box", "a box outside of the image")
"""What may be wrong with a box, by its number."""


def fault_of(bad: Tensor) -> str:
    """Return what is wrong with the first bad box of a sample, of the numbers `(M,)`; "" where none is."""
    return next((FAULTS[each] for each in bad.tolist() if each), "")


def corners_with_faults(
    rows: Sequence[Any], size: Size, device: torch.device | str = "cpu", formats: Sequence[str] = ()
) -> tuple[list[Tensor], list[Tensor]]:
    """Convert the boxes of each sample to corners in pixels, and give what is wrong with each.

    Args:
        rows: of each sample its boxes in any form.
        size: N, H and W of the images.
        device: where the corners are held.
        formats: as in `read_boxes`.

    Returns:
        N tensors `(M, 4)`, and N of the numbers `(M,)` of `FAULTS` on the CPU; empty ones where no box is bad.

    Raises:
        UnreadableBatch: as `read_boxes`.
    """
    found = [_sample_boxes(each, size) for each in rows]
    check_part(check_boxes, found, size)
    tensors = [each.to(device) for each in found if isinstance(each, Tensor)]
    if any(each.is_complex() or each.dtype == torch.bool for each in tensors):
        raise UnreadableBatch(f"`boxes` must be numbers of pixels; got {shape_of(tensors[0])}.")
    finite = [each[~each.isnan().any(dim=1)] for each in tensors]
    if formats and len(size) == 3:
        tensors = _corners_in_pixels(tensors, _fitting_format(finite, size, formats), size)
    else:
        _check_pixels(
            finite, size
        )  # shares first: 0.5, 0.5, 0.4, 0.9 is upside down as corners, no x, y, w, h
        _check_corners(tensors, size)
    low, high = _joined(tensors).chunk(2, dim=1)
    is_outside = (high <= 0).any(dim=1) | (low >= low.new_tensor(size[:0:-1])).any(dim=1)
    bad = torch.where(is_outside, 3, 0)
    bad = torch.where((high < low).any(dim=1), 2, bad)
    bad = torch.where((low.isnan() | high.isnan()).any(dim=1), 1, bad).cpu()
    return tensors, list(bad.split([len(each) for each in tensors])) if bool(bad.any()) else [bad[:0]] * len(
        tensors
    )


def _joined(boxes: list[Tensor]) -> Tensor:
    """The boxes of all samples, `(M, 2 d)` of float64."""
    return torch.cat([each.double() for each in boxes])


def _without_none(rows: Sequence[Any], size: Size) -> Sequence[Any]:
    """Give a sample without boxes none, where others have some."""
    is_some = any(each is not None for each in rows)
    return [torch.zeros(0, 2 * (len(size) - 1)) if each is None and is_some else each for each in rows]


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


def _per_sample(boxes: Any, size: Size) -> Sequence[Any]:
    """Split boxes by sample; those of a single sample may come without a list around them."""
    array, n, width = as_tensor(boxes), size[0], 2 * (len(size) - 1)
    is_one_sample = n == 1 and array is not None and array.ndim == 2 and array.shape[-1] == width
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
        return found.new_zeros((0, 2 * (len(size) - 1)))
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
    """Raise where boxes are upside down, more than a few, and all could be of another format."""
    if len(size) != 3:
        return
    every = _joined(boxes)
    upside_down = int((every[:, 2:] < every[:, :2]).any(dim=1).sum())
    are_many = 4 * upside_down > len(every)
    others = [name for name in (EXTENT, CENTRE) if are_many and _is_possible(boxes, size, name)]
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
    fitting = [name for name in FORMATS if len(size) == 3 and _is_possible(boxes, size, name)]
    if not fitting:
        raise UnreadableBatch(
            f"`boxes` must be {CORNERS_OF[2 * len(size) - 2]} in pixels; got none beyond 1, and they are no shares of "
            "the image either."
        )
    kinds = f"{fitting[0]}" if len(fitting) == 1 else f"{fitting[0]} (or {', or '.join(fitting[1:])})"
    raise UnreadableBatch(
        f"`boxes` must be in pixels; got none beyond 1. Are they shares of width and height? Then they can be {kinds}.",
        boxes=_conversion_code(_likeliest_format(fitting), boxes, size),
    )


def _likeliest_format(fitting: Sequence[str]) -> str:
    """Choose among formats of shares: corners first, as torchvision's; then centres, as YOLO's and DETR's."""
    return next(name for name in (CORNERS, CENTRE, EXTENT) if name in fitting)
