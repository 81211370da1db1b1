"""Targets of detection, one dict an image, as labels, masks and boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_gcam.data.boxes import read_boxes
from lightning_gcam.data.conversion import classes_of
from lightning_gcam.data.readers import BOX_FORMATS, annotation_among
from lightning_gcam.data.refusal import Parts, Unclear
from lightning_gcam.data.saliency_batch import Size, came
from lightning_gcam.data.structure import are_words, as_tensor, is_binary, is_list, named_parts, plain


@dataclass(frozen=True)
class Objects:
    """The M objects of one image.

    Args:
        labels: `(M,)` int64 classes; None where they have none.
        boxes: `(M, 4)` corners in pixels, or None.
        masks: `(M, H, W)` bool, or None.
    """

    labels: Tensor | None
    boxes: Tensor | None
    masks: Tensor | None

    def __len__(self) -> int:
        return next((len(each) for each in (self.labels, self.boxes, self.masks) if each is not None), 0)

    @property
    def areas(self) -> Tensor | None:
        """Of each object `(M,)`, in pixels: of its mask, or else of its box."""
        if self.masks is not None:
            return self.masks.flatten(1).sum(dim=1)
        if self.boxes is None:
            return None
        return (self.boxes[:, 2:] - self.boxes[:, :2]).clamp(min=0).prod(dim=1).nan_to_num()

    def of_largest_class(self) -> tuple[int, Objects]:
        """The class of the largest object, the first of several, and all objects of that class; -1 and none, else."""
        if self.labels is None or not len(self):
            return -1, self
        areas = self.areas
        if areas is None and len(self.labels.unique()) > 1:
            raise Unclear("An image has objects of several classes, and nothing says how large they are.")
        label = int(self.labels[areas.argmax() if areas is not None else 0])
        rows = self.labels == label
        return label, Objects(self.labels[rows], _rows(self.boxes, rows), _rows(self.masks, rows))


def _rows(values: Tensor | None, rows: Tensor) -> Tensor | None:
    return values[rows] if values is not None else None


def read_objects(targets: Sequence[Any], images: Tensor, class_names: Sequence[str] | None = None) -> Parts:
    """From detection targets to one label, mask and set of boxes per sample, on the images' device.

    The label is the class of the largest object, by its mask or else its box; the mask and the boxes are those of all
    objects of that class. An image without objects has the label -1, "none". Without labels all objects count.

    Args:
        targets: for each image a dict with `labels` `(M,)`, and `boxes` `(M, 4)` or `masks` `(M, H, W)` or both, as
            torchvision has them. Beside `class_labels`, boxes of at most 1 are centre, width and height as shares of
            the image, as Hugging Face's DETR has them.
        images: `(N, C, H, W)`.
        class_names: where labels are words, all of them in the order of the logits.

    Raises:
        InputError: words that are no class names.
        Unclear: parts that do not belong together.

    Example:
        >>> target = {"labels": [4, 7], "boxes": [[0.0, 0.0, 2.0, 2.0], [2.0, 2.0, 8.0, 8.0]]}
        >>> read_objects([target], torch.zeros(1, 3, 8, 8))
        {'labels': tensor([7]), 'boxes': [tensor([[2., 2., 8., 8.]])]}
    """
    if len(targets) != len(images):
        raise Unclear(f"There are {len(targets)} detection targets for {len(images)} images.")
    size, device = (1, images.shape[-2], images.shape[-1]), images.device
    every = [_objects_of(named_parts(each) or {}, size, device, class_names) for each in targets]
    full = [each for each in every if len(each)]
    labels, kept = zip(*(each.of_largest_class() for each in every), strict=True)
    found: Parts = {}
    if any(each.labels is not None for each in every):
        if any(each.labels is None for each in full):
            raise Unclear("Only some of the images have labels for their objects.")
        found["labels"] = torch.tensor(labels, device=device)
    if full and all(each.masks is not None for each in full):
        found["masks"] = torch.stack([_union(each.masks, size, device) for each in kept])
    if full and all(each.boxes is not None for each in full):
        none = torch.zeros(0, 4, device=device)
        found["boxes"] = [each.boxes if each.boxes is not None else none for each in kept]
    return found


def _union(masks: Tensor | None, size: Size, device: torch.device) -> Tensor:
    return masks.any(dim=0) if masks is not None else torch.zeros(size[1:], dtype=torch.bool, device=device)


def _objects_of(
    target: Mapping[Any, Any], size: Size, device: torch.device, class_names: Sequence[str] | None
) -> Objects:
    parts = annotation_among(target, None)
    masks = _masks_of(parts["masks"], size).to(device) if "masks" in parts else None
    labels = _labels_of(parts["labels"], class_names).to(device) if "labels" in parts else None
    boxes = None
    if "boxes" in parts:
        formats = parts.get("box_formats", ())
        boxes = (
            _from_shares(parts["boxes"], size) if "class_labels" in target and not formats else parts["boxes"]
        )
        (boxes,) = read_boxes([boxes], size, device, formats)
    counts = [len(each) for each in (boxes, masks) if each is not None]
    if labels is not None and labels.ndim == 0:
        labels = labels.expand(counts[0] if counts else 1)
    counts += [len(labels)] if labels is not None else []
    if len(set(counts)) > 1:
        raise Unclear(
            f"An image has {' and '.join(map(str, counts))} boxes, masks or labels; one each is expected."
        )
    return Objects(labels, boxes, masks)


def _labels_of(labels: Any, class_names: Sequence[str] | None) -> Tensor:
    """`(M,)`, or `()` where there is one for the whole image."""
    labels = plain(labels)
    if are_words(labels):
        is_one = isinstance(labels, str)
        labels = classes_of(labels, class_names)[0 if is_one else slice(None)]
    found = as_tensor(labels)
    if found is None or found.ndim > 1 or not _are_whole(found):
        raise Unclear(f"The labels of an image's objects must be classes (M,); got {came(labels)}.")
    return found.long()


def _masks_of(masks: Any, size: Size) -> Tensor:
    found = as_tensor(masks)
    found = found.squeeze(1) if found is not None and found.ndim == 4 and found.shape[1] == 1 else found
    found = found[None] if found is not None and found.shape == size[1:] else found
    if found is not None and found.ndim == 3 and not len(found):
        return torch.zeros(0, *size[1:], dtype=torch.bool)
    if found is None or found.ndim != 3 or tuple(found.shape[1:]) != size[1:]:
        raise Unclear(
            f"The masks of an image's objects must be (M, {size[1]}, {size[2]}); got {came(masks)}."
        )
    return found != 0


def _from_shares(boxes: Any, size: Size) -> Any:
    """Centre, width and height as shares of the image become corners in pixels; numbers beyond 1 stay as they are."""
    found = as_tensor(boxes)
    if found is None or found.shape[-1:] != (4,) or not bool((found <= 1).all()):
        return boxes
    centre, extent = found.reshape(-1, 4).float().split(2, dim=1)
    scale = centre.new_tensor([size[2], size[1]])
    return torch.cat([(centre - extent / 2) * scale, (centre + extent / 2) * scale], dim=1)


def targets_of(parts: Parts, size: Size) -> list[Parts] | None:
    """The targets of a batch that holds classes, boxes or masks of several objects in columns; None for any other.

    Hugging Face's Mask2Former has them so (`class_labels`, `mask_labels`), and torchgeo (`label`, `bbox_xyxy`).

    Args:
        parts: of a batch, as they came.
        size: N, H and W of its images.

    Raises:
        Unclear: where the columns could as well be marks of several classes.
    """
    n, labels = size[0], plain(parts.get("labels"))
    columns = {key: parts[key] for key in ("boxes", "masks") if key in parts}
    is_table = isinstance(labels, Tensor) and labels.ndim == 2 and labels.shape[1] > 1
    if not columns or not (is_table or is_list(labels)) or len(labels) != n:
        return None
    if any(not hasattr(column, "__len__") or len(column) != n for column in columns.values()):
        return None
    names = {key: _name_of(key, parts) for key in columns}
    rows = [{"labels": labels[row], **{key: each[row] for key, each in columns.items()}} for row in range(n)]
    if not all(_belong_together(row, size[1:]) for row in rows):
        return None
    if is_table and is_binary(labels):
        raise Unclear("`labels` could be marks of classes, or the class of each box.")
    return [{names.get(key, key): each for key, each in row.items()} for row in rows]


def _name_of(field: str, parts: Parts) -> str:
    """A name under which a column is read again as what its own name said."""
    formats = parts.get("box_formats", ()) if field == "boxes" else ()
    return next((f"boxes_{word}" for word, each in BOX_FORMATS.items() if each == formats), field)


def _belong_together(target: Parts, image_size: tuple[int, int]) -> bool:
    """Whether there is a class for each box `(M, 4)` and each mask `(M, H, W)`."""
    labels, shapes = target["labels"], {"boxes": (4,), "masks": image_size}
    if not are_words(labels):
        labels = as_tensor(labels)
        if labels is None or labels.ndim != 1 or not _are_whole(labels):
            return False
    columns = [(as_tensor(target[key]), shape) for key, shape in shapes.items() if key in target]
    return all(
        each is not None and (tuple(each.shape) == (len(labels), *shape) or not each.numel() + len(labels))
        for each, shape in columns
    )


def _are_whole(numbers: Tensor) -> bool:
    return not numbers.is_complex() and (
        not numbers.is_floating_point() or torch.equal(numbers, numbers.round())
    )
