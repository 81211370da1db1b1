"""Boxes in any format as corners in pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors  # type: ignore[import-untyped]  # it carries no types

from lightning_gcam.data.refusal import Unclear, asked
from lightning_gcam.data.saliency_batch import Size, check_boxes, shape_of
from lightning_gcam.data.structure import as_tensor, is_list, plain, rows_of

CORNERS, EXTENT, CENTRE = "x1, y1, x2, y2", "x, y, width, height", "cx, cy, width, height"

FORMATS: dict[str, str] = {
    CORNERS: "each",
    EXTENT: "torch.cat([each[:, :2], each[:, :2] + each[:, 2:]], dim=1)",
    CENTRE: "torch.cat([each[:, :2] - each[:, 2:] / 2, each[:, :2] + each[:, 2:] / 2], dim=1)",
}
"""What four numbers of a box may be, and the code that makes corners of them."""


def read_boxes(
    boxes: Any, size: Size, device: torch.device | str = "cpu", formats: Sequence[str] = ()
) -> list[Tensor]:
    """Boxes in any form as N tensors `(M, 4)`, each row `x1, y1, x2, y2` in pixels of the image.

    Args:
        boxes: `(N, 4)`, one each; `(N, M, 4)`, several each; or a list of `(M, 4)` or `(4,)`, one per sample. Plain
            numbers are corners in pixels; `tv_tensors.BoundingBoxes` say their format and their canvas themselves.
        size: N, H and W of the images.
        device: where the result is held.
        formats: what the name of the boxes says they are, one of `FORMATS` or several that it may mean; corners in
            pixels where it says nothing. With a name, numbers of at most 1 are shares of the image.

    Raises:
        Unclear: another form, or numbers that are no corners in pixels.

    Example:
        >>> read_boxes([[0, 0, 2, 1], [1, 1, 2, 2]], (2, 8, 8))
        [tensor([[0, 0, 2, 1]]), tensor([[1, 1, 2, 2]])]
        >>> box = tv_tensors.BoundingBoxes([[1.0, 1.0, 2.0, 2.0]], format="XYWH", canvas_size=(4, 4))
        >>> read_boxes(box, (1, 8, 8))
        [tensor([[2., 2., 6., 6.]])]
    """
    found = [_one_sample(each, size) for each in _per_sample(boxes, size[0])]
    asked(check_boxes, found, size)
    tensors = [each.to(device) for each in found if isinstance(each, Tensor)]
    if any(each.is_complex() or each.dtype == torch.bool for each in tensors):
        raise Unclear(f"`boxes` must be numbers of pixels; got {shape_of(tensors[0])}.")
    if formats:
        return _of_format(tensors, _the_one_that_fits(tensors, size, formats), size)
    _check_pixels(
        tensors, size
    )  # shares first: 0.5, 0.5, 0.4, 0.9 is upside down as corners, and is no x, y, w, h
    _check_corners(tensors, size)
    return tensors


def _the_one_that_fits(boxes: list[Tensor], size: Size, formats: Sequence[str]) -> str:
    """What boxes are by their name; COCO's `bbox`, which many fill with corners, leaves it open.

    Raises:
        Unclear: where they can be several of these, or only something else.
    """
    fitting = [each for each in formats if _fit(boxes, size, each)]
    others = [each for each in FORMATS if not fitting and _fit(boxes, size, each)]
    if others:
        raise Unclear(
            f"`boxes` are {', or '.join(formats)} by their name, which their numbers cannot be in these images. Are "
            f"they {', or '.join(others)}?",
            boxes=_code_for(others[0], boxes, size),
        )
    if len(formats) > 1 and len(fitting) > 1:
        raise Unclear(
            f"`boxes` could be {' as well as '.join(fitting)}: COCO's names say the one, and the numbers fit both. "
            'Name them "boxes_xywh" or "boxes_xyxy".',
            boxes=_code_for(fitting[0], boxes, size),
        )
    return (fitting or list(formats))[0]


def _of_format(boxes: list[Tensor], name: str, size: Size) -> list[Tensor]:
    """Corners in pixels; whole numbers stay whole where nothing is divided."""
    unit = [size[2], size[1]] if _are_shares(boxes, size) else [1, 1]
    scaled = [each * each.new_tensor(unit * 2) for each in boxes]
    if name == CORNERS:
        return scaled
    near = [each[:, :2] - each[:, 2:] / 2 if name == CENTRE else each[:, :2] for each in scaled]
    return [torch.cat([first, first + each[:, 2:]], dim=1) for first, each in zip(near, scaled, strict=True)]


def _fit(boxes: list[Tensor], size: Size, name: str) -> bool:
    """Whether the numbers are possible as this: no negative extent, and nothing beyond the image but for a pixel."""
    every = torch.cat([each.reshape(-1, 4).double() for each in _of_format(boxes, name, size)])
    limit = every.new_tensor([size[2] + 1, size[1] + 1] * 2)
    has_area = bool((every[:, 2:] > every[:, :2]).all(dim=1).any())
    return has_area and bool(
        (every[:, 2:] >= every[:, :2]).all() and (every >= -1).all() and (every <= limit).all()
    )


def _code_for(name: str, boxes: list[Tensor], size: Size) -> str:
    """The code that makes corners in pixels of boxes of this format, to be completed by what gives the boxes."""
    code = FORMATS[name]
    if _are_shares(boxes, size):
        scale = f"torch.tensor([{size[2]}, {size[1]}, {size[2]}, {size[1]}], device=each.device)"
        code = f"{code} * {scale}"
    return f"[{code} for each in (torch.as_tensor(one).reshape(-1, 4) for one in {{boxes}})]"


def _per_sample(boxes: Any, n: int) -> Sequence[Any]:
    """What belongs to each sample; the boxes of a single one may come by themselves."""
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
    try:
        return rows_of(boxes, n)
    except ValueError:
        if n != 4:
            return plain(boxes)
        raise Unclear(
            "`boxes` are 4 tensors of 4 numbers: a box for each sample, or, from torch's `default_collate`, x1, y1, x2 "
            "and y2 of all.",
            boxes="list(torch.stack(list({boxes}), dim=1)[:, None])",
        ) from None


def _one_sample(boxes: Any, size: Size) -> Any:
    """`(M, 4)` corners, where it can be read so."""
    if isinstance(boxes, tv_tensors.BoundingBoxes):
        boxes = corners_of(boxes, size)
    found = as_tensor(boxes)
    if found is None:
        return boxes
    if not found.numel():
        return found.new_zeros((0, 4))
    return found[None] if found.ndim == 1 else found


def corners_of(boxes: tv_tensors.BoundingBoxes, size: Size) -> Tensor:
    """`(M, 4)` corners in pixels of an image of `size`, from any format and canvas; of a rotated box its outline.

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
    """A box upside down is an error in the annotation and holds nothing, unless all could be of another format."""
    every = torch.cat([each.reshape(-1, 4).double() for each in boxes])
    upside_down = int((every[:, 2:] < every[:, :2]).any(dim=1).sum())
    others = [name for name in (EXTENT, CENTRE) if upside_down and _fit(boxes, size, name)]
    if others:
        raise Unclear(
            f"`boxes` must be {CORNERS} with x1 <= x2 and y1 <= y2; got {upside_down} of {len(every)} that are not. "
            f"Are they {', or '.join(others)}?",
            boxes=_code_for(others[0], boxes, size),
        )


def _are_shares(boxes: list[Tensor], size: Size) -> bool:
    """Whether no number is beyond 1, in numbers that need not be whole."""
    numbers = torch.cat([each.reshape(-1).double() for each in boxes])
    is_float = any(each.is_floating_point() for each in boxes)
    return is_float and max(size[1:]) > 1 and len(numbers) > 0 and 0 < float(numbers.max()) <= 1


def _check_pixels(boxes: list[Tensor], size: Size) -> None:
    if not _are_shares(boxes, size):
        return
    fitting = [name for name in FORMATS if _fit(boxes, size, name)]
    if not fitting:
        raise Unclear(
            "`boxes` must be in pixels; got none beyond 1, and they are no shares of the image either."
        )
    words = f"{fitting[0]}" if len(fitting) == 1 else f"{fitting[0]} (or {', or '.join(fitting[1:])})"
    raise Unclear(
        f"`boxes` must be in pixels; got none beyond 1. Are they shares of width and height? Then they can be {words}.",
        boxes=_code_for(_likeliest(fitting), boxes, size),
    )


def _likeliest(fitting: Sequence[str]) -> str:
    """Of formats of shares: corners where they can be, as torchvision's are; else centres, as YOLO's and DETR's are."""
    return next(name for name in (CORNERS, CENTRE, EXTENT) if name in fitting)
