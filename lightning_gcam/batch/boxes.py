"""Boxes in any form as corners in pixels of the image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors  # type: ignore[import-untyped]  # it carries no types

from lightning_gcam.batch.checks import Size, check_boxes, shape_of
from lightning_gcam.batch.plain import as_tensor, is_list, plain, rows_of
from lightning_gcam.batch.refusal import Unclear, asked


def read_boxes(boxes: Any, size: Size, device: torch.device | str = "cpu") -> list[Tensor]:
    """Boxes in any form as N tensors `(M, 4)`, each row `x1, y1, x2, y2` in pixels of the image.

    Args:
        boxes: `(N, 4)`, one each; `(N, M, 4)`, several each; or a list of `(M, 4)` or `(4,)`, one per sample. Plain
            numbers are corners in pixels; `tv_tensors.BoundingBoxes` say their format and their canvas themselves.
        size: N, H and W of the images.
        device: where the result is held.

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
    _check_corners(tensors, size)
    _check_pixels(tensors, size)
    return tensors


def _per_sample(boxes: Any, n: int) -> Sequence[Any]:
    """What belongs to each sample; the boxes of a single one may come by themselves."""
    array = as_tensor(boxes)
    is_one_sample = n == 1 and array is not None and array.ndim == 2 and array.shape[-1] == 4
    if isinstance(boxes, tv_tensors.BoundingBoxes):
        rows = boxes.as_subclass(Tensor)
        return [boxes] if n == 1 else [tv_tensors.wrap(each[None], like=boxes) for each in rows]
    if is_one_sample:
        return [boxes]
    boxes = _rows(boxes, n)
    return list(boxes) if isinstance(boxes, Tensor) and boxes.ndim else boxes if is_list(boxes) else [boxes]


def _rows(boxes: Any, n: int) -> Any:
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
    """A box upside down is an error in the annotation and holds nothing, unless all could be x, y, width, height."""
    every = torch.cat([each.reshape(-1, 4).double() for each in boxes])
    upside_down = (every[:, 2:] < every[:, :2]).any(dim=1)
    ends = every[:, :2] + every[:, 2:]
    if bool(upside_down.any()) and bool((ends <= ends.new_tensor([size[2] + 1, size[1] + 1])).all()):
        corners = "torch.cat([each[..., :2], each[..., :2] + each[..., 2:]], dim=-1).reshape(-1, 4)"
        raise Unclear(
            f"`boxes` must be x1, y1, x2, y2 with x1 <= x2 and y1 <= y2; got {int(upside_down.sum())} of {len(every)} "
            "that are not. Are they x, y, width, height?",
            boxes=f"[{corners} for each in map(torch.as_tensor, {{boxes}})]",
        )


def _check_pixels(boxes: list[Tensor], size: Size) -> None:
    every = torch.cat([each.reshape(-1, 4).double() for each in boxes])
    is_share = (
        any(each.is_floating_point() for each in boxes) and len(every) > 0 and 0 < float(every.max()) <= 1
    )
    if is_share and max(size[1:]) > 1:
        scale = f"torch.tensor([{size[2]}, {size[1]}, {size[2]}, {size[1]}], device=each.device)"
        raise Unclear(
            "`boxes` must be in pixels; got none beyond 1. Are they shares of width and height?",
            boxes=f"[each.reshape(-1, 4) * {scale} for each in map(torch.as_tensor, {{boxes}})]",
        )
