"""Convert detection targets, several objects an image, to one label, mask and set of boxes per sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torchvision.ops import box_convert  # type: ignore[import-untyped]  # it carries no types

from lightning_gcam.data.boxes import corners_with_faults, fault_of
from lightning_gcam.data.checks import Size, type_and_shape
from lightning_gcam.data.conversion import classes_of
from lightning_gcam.data.fields import BOX_FORMATS, annotation_among
from lightning_gcam.data.masks import resized_mask
from lightning_gcam.data.structure import (
    are_strings,
    as_tensor,
    has_aspect,
    is_binary,
    is_list,
    is_whole,
    named_parts,
    unwrap,
)
from lightning_gcam.data.unreadable import Parts, UnreadableBatch


@dataclass(frozen=True)
class ImageObjects:
    """The M objects of one image.

    Args:
        labels: `(M,)` int64 classes; None where they have none.
        boxes: `(M, 4)` corners in pixels, or None.
        masks: `(M, *S)` bool, or None.
        label: the class where there are no objects.
    """

    labels: Tensor | None
    boxes: Tensor | None
    masks: Tensor | None
    label: int = -1

    def __len__(self) -> int:
        return next((len(each) for each in (self.labels, self.boxes, self.masks) if each is not None), 0)

    @property
    def areas(self) -> Tensor | None:
        """The area of each object `(M,)` in pixels: of its mask, or else of its box."""
        if self.masks is not None:
            return self.masks.flatten(1).sum(dim=1)
        if self.boxes is None:
            return None
        low, high = self.boxes.chunk(2, dim=1)
        return (high - low).clamp(min=0).prod(dim=1).nan_to_num()

    def without(self, bad: Tensor) -> ImageObjects:
        """Leave out the objects at `(M,)` bool rows; where none is left and all were of one class, that is kept."""
        kept, labels = self.at(~bad), self.labels
        is_known = labels is not None and not len(kept) and len(labels.unique()) == 1
        return replace(kept, label=int(labels[0])) if is_known and labels is not None else kept

    def of_largest_class(self) -> tuple[int, ImageObjects]:
        """Return the class of the largest object and all objects of that class; -1 and none without objects."""
        if self.labels is None or not len(self):
            return self.label, self
        areas = self.areas
        if areas is None and len(self.labels.unique()) > 1:
            raise UnreadableBatch(
                "An image has objects of several classes, and nothing says how large they are."
            )
        label = int(self.labels[areas.argmax() if areas is not None else 0])
        return label, self.at(self.labels == label)

    def at(self, rows: Tensor) -> ImageObjects:
        """Return the objects at `(M,)` bool rows."""
        return ImageObjects(_rows(self.labels, rows), _rows(self.boxes, rows), _rows(self.masks, rows))


def _rows(values: Tensor | None, rows: Tensor) -> Tensor | None:
    return values[rows] if values is not None else None


def read_objects(
    targets: Sequence[Any],
    images: Tensor,
    class_names: Sequence[str] | None = None,
    faults: list[str] | None = None,
) -> Parts:
    """Convert detection targets to one label, mask and set of boxes per sample, on the images' device.

    The label is the class of the largest object, by its mask or else its box; the mask and the boxes are those of all
    objects of that class. An image without objects has the label -1, "none". Without labels all objects count.

    Args:
        targets: for each image a dict with `labels` `(M,)`, and `boxes` `(M, 4)` or `masks` `(M, H, W)` or both, as
            torchvision has them. Beside `class_labels`, boxes of at most 1 are centre, width and height as shares of
            the image, as Hugging Face's DETR has them.
        images: `(N, C, *S)`.
        class_names: where labels are words, all of them in the order of the logits.
        faults: N strings, to which what was left out is written.

    Raises:
        InputError: words that are no class names.
        UnreadableBatch: parts that do not belong together.

    Example:
        >>> target = {"labels": [4, 7], "boxes": [[0.0, 0.0, 2.0, 2.0], [2.0, 2.0, 8.0, 8.0]]}
        >>> read_objects([target], torch.zeros(1, 3, 8, 8))
        {'labels': tensor([7]), 'boxes': [tensor([[2., 2., 8., 8.]])]}
    """
    n, size, device = len(images), tuple(images.shape[2:]), images.device
    if len(targets) != n:
        raise UnreadableBatch(f"There are {len(targets)} detection targets for {n} images.")
    every = _every_object(targets, (n, *size), device, class_names, [""] * n if faults is None else faults)
    full = [each for each in every if len(each)]
    labels, kept = zip(*(each.of_largest_class() for each in every), strict=True)
    found: Parts = {}
    if any(each.labels is not None for each in every):
        if any(each.labels is None for each in full):
            raise UnreadableBatch("Only some of the images have labels for their objects.")
        found["labels"] = torch.tensor(labels, device=device)
    if full and all(each.masks is not None for each in full):
        found["masks"] = torch.stack([_union(each.masks, (1, *size), device) for each in kept])
    if full and all(each.boxes is not None for each in full):
        none = torch.zeros(0, 2 * len(size), device=device)
        found["boxes"] = [each.boxes if each.boxes is not None else none for each in kept]
    return found


def _union(masks: Tensor | None, size: Size, device: torch.device) -> Tensor:
    """The union `S` of the objects' masks `(M, *S)`; empty where there are none."""
    return masks.any(dim=0) if masks is not None else torch.zeros(size[1:], dtype=torch.bool, device=device)


def _every_object(
    targets: Sequence[Any],
    size: Size,
    device: torch.device,
    class_names: Sequence[str] | None,
    faults: list[str],
) -> list[ImageObjects]:
    """Convert the targets of all images; what is broken among others is left out, and noted."""
    parts = [_clear_parts(each) for each in targets]
    formats = next((each["box_formats"] for each in parts if "box_formats" in each), ())
    boxes, bad = corners_with_faults(
        [_plain_boxes(each, target, size) for each, target in zip(parts, targets, strict=True)],
        size,
        device,
        formats,
    )
    every: list[ImageObjects] = []
    problems: list[UnreadableBatch] = []
    for row, each in enumerate(parts):
        try:
            found = _objects_of(
                each, boxes[row] if "boxes" in each else None, (1, *size[1:]), device, class_names
            )
            every.append(found.without(bad[row] != 0) if len(bad[row]) else found)
            faults[row] = faults[row] or fault_of(bad[row])
        except UnreadableBatch as problem:
            problems.append(problem)
            every.append(ImageObjects(None, None, None))
            faults[row] = faults[row] or "a target whose parts do not belong together"
    if problems and not any(len(each) for each in every):
        raise problems[0]
    return every


def _clear_parts(target: Any) -> Parts:
    """Return the parts of a target by their names.

    Raises:
        UnreadableBatch: where two could be the same field.
    """
    parts = annotation_among(named_parts(target) or {}, None)
    if "unclear" in parts:
        raise parts["unclear"][0]
    return parts


def _plain_boxes(parts: Parts, target: Mapping[Any, Any], size: Size) -> Any:
    """Return the boxes of a target, none where it has none; shares beside `class_labels` as corners in pixels."""
    if "boxes" not in parts:
        return torch.zeros(0, 2 * (len(size) - 1))
    is_hugging_face = "class_labels" in target and "box_formats" not in parts
    return _shares_to_corners(parts["boxes"], size) if is_hugging_face else parts["boxes"]


def _objects_of(
    parts: Parts,
    boxes: Tensor | None,
    size: Size,
    device: torch.device,
    class_names: Sequence[str] | None,
) -> ImageObjects:
    """Convert the detection target of one image, whose boxes are read."""
    masks = _masks_of(parts["masks"], size).to(device) if "masks" in parts else None
    labels = _labels_of(parts["labels"], class_names).to(device) if "labels" in parts else None
    counts = [len(each) for each in (boxes, masks) if each is not None]
    if labels is not None and labels.ndim == 0:
        labels = labels.expand(counts[0] if counts else 1)
    counts += [len(labels)] if labels is not None else []
    if len(set(counts)) > 1:
        raise UnreadableBatch(
            f"An image has {' and '.join(map(str, counts))} boxes, masks or labels; one each is expected."
        )
    return ImageObjects(labels, boxes, masks)


def _labels_of(labels: Any, class_names: Sequence[str] | None) -> Tensor:
    """Convert the classes of an image's objects: `(M,)`, or `()` where there is one for the whole image."""
    labels = unwrap(labels)
    if are_strings(labels):
        is_one = isinstance(labels, str)
        labels = classes_of(labels, class_names)[0 if is_one else slice(None)]
    found = as_tensor(labels)
    if found is None or found.ndim > 1 or found.is_complex() or not is_whole(found):
        raise UnreadableBatch(
            f"The labels of an image's objects must be classes (M,); got {type_and_shape(labels)}."
        )
    return found.long()


def _masks_of(masks: Any, size: Size) -> Tensor:
    """Convert the masks of an image's objects to `(M, *S)` bool; those of another size and its aspect are resized."""
    found, d = as_tensor(masks), len(size) - 1
    found = found.squeeze(1) if found is not None and found.ndim == d + 2 and found.shape[1] == 1 else found
    found = found[None] if found is not None and found.shape == size[1:] else found
    if found is not None and found.ndim == d + 1 and not len(found):
        return torch.zeros(0, *size[1:], dtype=torch.bool)
    if found is not None and found.ndim == d + 1 and has_aspect(found.shape[1:], size[1:]):
        found = resized_mask(found, size[1:]) if tuple(found.shape[1:]) != size[1:] else found
    if found is None or found.ndim != d + 1 or tuple(found.shape[1:]) != size[1:]:
        shape = ", ".join(map(str, ("M", *size[1:])))
        raise UnreadableBatch(
            f"The masks of an image's objects must be ({shape}); got {type_and_shape(masks)}."
        )
    return found != 0


def _shares_to_corners(boxes: Any, size: Size) -> Any:
    """Convert centre, width and height as shares of the image to corners in pixels; numbers beyond 1 stay."""
    found = as_tensor(boxes)
    if found is None or len(size) != 3 or found.shape[-1:] != (4,) or not bool((found <= 1).all()):
        return boxes
    corners = box_convert(found.reshape(-1, 4).float(), in_fmt="cxcywh", out_fmt="xyxy")
    return corners * corners.new_tensor([size[2], size[1]] * 2)


def targets_of(parts: Parts, size: Size) -> list[Parts] | None:
    """Split a batch with columns of classes, boxes or masks of several objects into targets; None for any other.

    Hugging Face's Mask2Former has them so (`class_labels`, `mask_labels`), and torchgeo (`label`, `bbox_xyxy`).

    Args:
        parts: of a batch, as they came.
        size: N, H and W of its images.

    Raises:
        UnreadableBatch: where the columns could as well be marks of several classes.
    """
    n, labels = size[0], unwrap(parts.get("labels"))
    columns = {key: parts[key] for key in ("boxes", "masks") if key in parts}
    is_table = isinstance(labels, Tensor) and labels.ndim == 2 and labels.shape[1] > 1
    if not columns or not (is_table or is_list(labels)) or len(labels) != n:
        return None
    if any(not hasattr(column, "__len__") or len(column) != n for column in columns.values()):
        return None
    names = {key: _format_name(key, parts) for key in columns}
    rows = [{"labels": labels[row], **{key: each[row] for key, each in columns.items()}} for row in range(n)]
    if not all(_belong_together(row, size[1:]) for row in rows):
        return None
    if is_table and is_binary(labels):
        raise UnreadableBatch("`labels` could be marks of classes, or the class of each box.")
    return [{names.get(key, key): each for key, each in row.items()} for row in rows]


def _format_name(field: str, parts: Parts) -> str:
    """A name under which a column of boxes is read in the format that its own name stated."""
    formats = parts.get("box_formats", ()) if field == "boxes" else ()
    return next((f"boxes_{word}" for word, each in BOX_FORMATS.items() if each == formats), field)


def _belong_together(target: Parts, image_size: tuple[int, ...]) -> bool:
    """Whether there is a class for each box `(M, 4)` and each mask `(M, H, W)`."""
    labels, shapes = target["labels"], {"boxes": (2 * len(image_size),), "masks": image_size}
    if not are_strings(labels):
        labels = as_tensor(labels)
        if labels is None or labels.ndim != 1 or labels.is_complex() or not is_whole(labels):
            return False
    columns = [(as_tensor(target[key]), shape) for key, shape in shapes.items() if key in target]
    return all(
        each is not None and (tuple(each.shape) == (len(labels), *shape) or not each.numel() + len(labels))
        for each, shape in columns
    )
