"""Convert any batch, detection targets included, into a `SaliencyBatch`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchvision.ops import box_convert  # type: ignore[import-untyped]  # it carries no types

from lightning_gcam.data.checks import Size, check_groups, check_suspect, shape_of, type_and_shape
from lightning_gcam.data.conversion import classes_of, read_boxes, read_images, read_labels
from lightning_gcam.data.masks import is_dense, read_masks
from lightning_gcam.data.readers import BOX_FORMATS, annotation_among, find_parts
from lightning_gcam.data.saliency_batch import SaliencyBatch
from lightning_gcam.data.structure import are_strings, as_tensor, is_binary, is_list, named_parts, unwrap
from lightning_gcam.data.unreadable import (
    Parts,
    UnreadableBatch,
    adapter_code,
    check_part,
    describe,
    error_message,
)
from lightning_gcam.utils.errors import InputError

Adapter = Callable[[Any], Any]
"""A callable that turns a batch of the user's own layout into a `SaliencyBatch` or any layout known here."""


def as_saliency_batch(
    batch: Any, adapter: Adapter | None = None, class_names: Sequence[str] | None = None
) -> SaliencyBatch:
    """Read images, labels, masks and boxes out of a batch as a dataloader delivers it.

    Args:
        batch: a `SaliencyBatch`; images alone; images `(N, C, H, W)`, or a list of `(C, H, W)`, and their annotation in
            a tuple or list, known by its form, or in a mapping, named tuple or dataclass, known by its name (`KEYS` in
            `lightning_gcam.data.readers`), with detection targets as torchvision has them; a list of samples; or a
            structure in which one part is such a batch. Arrays may be torch's, numpy's or `tv_tensors`.
        adapter: applied first; for every other layout.
        class_names: where labels are words, all of them in the order of the logits.

    Raises:
        InputError: where there is no reading, or more than one; the message shows what came and an `adapter` to copy.

    Example:
        >>> images, labels = torch.rand(2, 3, 8, 8), torch.tensor([1, 0])
        >>> as_saliency_batch({"pixel_values": images, "label": labels}).labels.tolist()
        [1, 0]
        >>> as_saliency_batch((images, ["cat", "dog"]), class_names=["cat", "dog"]).labels.tolist()
        [0, 1]
    """
    if adapter is not None:
        batch = _adapted(batch, adapter)
    if isinstance(batch, SaliencyBatch):
        return batch
    try:
        return _read(batch, class_names, adapted=adapter is not None)
    except InputError:
        raise
    except Exception as error:  # a container of the user's own may raise anything when it is looked into
        raise InputError(
            f"The batch could not be read: {type(batch).__name__}, which raised {type(error).__name__}: {error}. Pass "
            "`adapter=`, a function from such a batch to a SaliencyBatch."
        ) from error


def _read(batch: Any, class_names: Sequence[str] | None, *, adapted: bool) -> SaliencyBatch:
    """Read a batch without the user's adapter; an error contains the code of an adapter that would work."""
    parts: Parts | None = None
    try:
        parts = find_parts(batch)
        return _build(parts, class_names)
    except UnreadableBatch as unclear:
        unclear.parts = parts or unclear.parts
        raise InputError(error_message(batch, unclear, _read_adapted, adapted=adapted)) from None


def _read_adapted(batch: Any) -> SaliencyBatch:
    """Read what an adapter returned as it will be read in training."""
    return batch if isinstance(batch, SaliencyBatch) else _read(batch, None, adapted=True)


def adapter_for(batch: Any, images: str) -> str:
    """Write the code of an adapter for a batch that can be read, but whose images should be others.

    Args:
        batch: as it came.
        images: the code that gives them, with `{images}` for what came as these.

    Example:
        >>> adapter_for([torch.zeros(2, 3, 8, 8), torch.tensor([0, 1])], "{images}.float() / 255")
        'adapter=lambda batch: SaliencyBatch(images=batch[0].float() / 255, labels=batch[1])'
    """
    try:
        parts = find_parts(batch)
    except UnreadableBatch:
        parts = {}
    return f"adapter=lambda batch: {adapter_code(batch, UnreadableBatch(parts=parts, images=images))}"


def _adapted(batch: Any, adapter: Adapter) -> Any:
    """Call the user's adapter; an error names it and the batch."""
    try:
        return adapter(batch)
    except Exception as error:
        raise InputError(
            f"`adapter` failed on the batch {describe(batch)}: {type(error).__name__}: {error}"
        ) from error


def _build(parts: Parts, class_names: Sequence[str] | None) -> SaliencyBatch:
    """Convert the parts of a batch into a `SaliencyBatch`."""
    images = read_images(parts["images"], parts.get("labels"))
    size, device = (len(images), images.shape[-2], images.shape[-1]), images.device
    targets = parts.get("objects") or targets_of(parts, size)
    if targets is not None:
        parts = {**parts, **read_objects(targets, images, class_names)}
    labels = read_labels(parts["labels"], images, class_names) if "labels" in parts else None
    masks = None
    if "masks" in parts:
        masks, labels = read_masks(parts["masks"], labels, size, device)
    formats = parts.get("box_formats", ())
    boxes = read_boxes(parts["boxes"], size, device, formats) if "boxes" in parts else None
    suspect, groups = _suspect(parts.get("suspect"), device), _groups(parts.get("groups"), device)
    check_part(check_suspect, suspect, size)
    check_part(check_groups, groups, size)
    return SaliencyBatch(
        images, labels, masks, boxes, suspect, groups, _names(parts.get("names"), len(images))
    )


def _suspect(suspect: Any, device: torch.device) -> Any:
    """Convert a suspect region to bool: every number but zero is inside."""
    found = as_tensor(suspect)
    if found is None:
        return suspect
    found = found.squeeze(1) if found.ndim == 4 and found.shape[1] == 1 else found
    if not found.is_complex() and found.ndim in (2, 3) and is_dense(found.reshape(-1, *found.shape[-2:])):
        raise UnreadableBatch(
            f"`suspect` {shape_of(found)} holds a number at every pixel: it must be a region."
        )
    return (found != 0).to(device)


def _groups(groups: Any, device: torch.device) -> Any:
    """Convert group numbers `(N,)` or `(N, 1)` to `(N,)`."""
    found = as_tensor(groups)
    if found is None:
        return groups
    return (found.squeeze(1) if found.ndim == 2 and found.shape[1] == 1 else found).to(device)


def _names(names: Any, n: int) -> list[str] | None:
    """Return N names, or None where the part has not one word or number for each sample: they only caption."""
    names = unwrap(names)
    if isinstance(names, Tensor):
        names = names.tolist()
    is_one_each = is_list(names) and len(names) == n and all(isinstance(each, (str, int)) for each in names)
    return [str(each) for each in names] if is_one_each else None


@dataclass(frozen=True)
class ImageObjects:
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
        """The area of each object `(M,)` in pixels: of its mask, or else of its box."""
        if self.masks is not None:
            return self.masks.flatten(1).sum(dim=1)
        if self.boxes is None:
            return None
        return (self.boxes[:, 2:] - self.boxes[:, :2]).clamp(min=0).prod(dim=1).nan_to_num()

    def of_largest_class(self) -> tuple[int, ImageObjects]:
        """Return the class of the largest object and all objects of that class; -1 and none without objects."""
        if self.labels is None or not len(self):
            return -1, self
        areas = self.areas
        if areas is None and len(self.labels.unique()) > 1:
            raise UnreadableBatch(
                "An image has objects of several classes, and nothing says how large they are."
            )
        label = int(self.labels[areas.argmax() if areas is not None else 0])
        rows = self.labels == label
        return label, ImageObjects(self.labels[rows], _rows(self.boxes, rows), _rows(self.masks, rows))


def _rows(values: Tensor | None, rows: Tensor) -> Tensor | None:
    return values[rows] if values is not None else None


def read_objects(targets: Sequence[Any], images: Tensor, class_names: Sequence[str] | None = None) -> Parts:
    """Convert detection targets to one label, mask and set of boxes per sample, on the images' device.

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
        UnreadableBatch: parts that do not belong together.

    Example:
        >>> target = {"labels": [4, 7], "boxes": [[0.0, 0.0, 2.0, 2.0], [2.0, 2.0, 8.0, 8.0]]}
        >>> read_objects([target], torch.zeros(1, 3, 8, 8))
        {'labels': tensor([7]), 'boxes': [tensor([[2., 2., 8., 8.]])]}
    """
    if len(targets) != len(images):
        raise UnreadableBatch(f"There are {len(targets)} detection targets for {len(images)} images.")
    size, device = (1, images.shape[-2], images.shape[-1]), images.device
    every = [_objects_of(named_parts(each) or {}, size, device, class_names) for each in targets]
    full = [each for each in every if len(each)]
    labels, kept = zip(*(each.of_largest_class() for each in every), strict=True)
    found: Parts = {}
    if any(each.labels is not None for each in every):
        if any(each.labels is None for each in full):
            raise UnreadableBatch("Only some of the images have labels for their objects.")
        found["labels"] = torch.tensor(labels, device=device)
    if full and all(each.masks is not None for each in full):
        found["masks"] = torch.stack([_union(each.masks, size, device) for each in kept])
    if full and all(each.boxes is not None for each in full):
        none = torch.zeros(0, 4, device=device)
        found["boxes"] = [each.boxes if each.boxes is not None else none for each in kept]
    return found


def _union(masks: Tensor | None, size: Size, device: torch.device) -> Tensor:
    """The union `(H, W)` of the objects' masks `(M, H, W)`; empty where there are none."""
    return masks.any(dim=0) if masks is not None else torch.zeros(size[1:], dtype=torch.bool, device=device)


def _objects_of(
    target: Mapping[Any, Any], size: Size, device: torch.device, class_names: Sequence[str] | None
) -> ImageObjects:
    """Convert the detection target of one image."""
    parts = annotation_among(target, None)
    masks = _masks_of(parts["masks"], size).to(device) if "masks" in parts else None
    labels = _labels_of(parts["labels"], class_names).to(device) if "labels" in parts else None
    boxes = None
    if "boxes" in parts:
        formats = parts.get("box_formats", ())
        boxes = (
            _shares_to_corners(parts["boxes"], size)
            if "class_labels" in target and not formats
            else parts["boxes"]
        )
        (boxes,) = read_boxes([boxes], size, device, formats)
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
    if found is None or found.ndim > 1 or not _are_whole(found):
        raise UnreadableBatch(
            f"The labels of an image's objects must be classes (M,); got {type_and_shape(labels)}."
        )
    return found.long()


def _masks_of(masks: Any, size: Size) -> Tensor:
    """Convert the masks of an image's objects to `(M, H, W)` bool."""
    found = as_tensor(masks)
    found = found.squeeze(1) if found is not None and found.ndim == 4 and found.shape[1] == 1 else found
    found = found[None] if found is not None and found.shape == size[1:] else found
    if found is not None and found.ndim == 3 and not len(found):
        return torch.zeros(0, *size[1:], dtype=torch.bool)
    if found is None or found.ndim != 3 or tuple(found.shape[1:]) != size[1:]:
        raise UnreadableBatch(
            f"The masks of an image's objects must be (M, {size[1]}, {size[2]}); got {type_and_shape(masks)}."
        )
    return found != 0


def _shares_to_corners(boxes: Any, size: Size) -> Any:
    """Convert centre, width and height as shares of the image to corners in pixels; numbers beyond 1 stay."""
    found = as_tensor(boxes)
    if found is None or found.shape[-1:] != (4,) or not bool((found <= 1).all()):
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


def _belong_together(target: Parts, image_size: tuple[int, int]) -> bool:
    """Whether there is a class for each box `(M, 4)` and each mask `(M, H, W)`."""
    labels, shapes = target["labels"], {"boxes": (4,), "masks": image_size}
    if not are_strings(labels):
        labels = as_tensor(labels)
        if labels is None or labels.ndim != 1 or not _are_whole(labels):
            return False
    columns = [(as_tensor(target[key]), shape) for key, shape in shapes.items() if key in target]
    return all(
        each is not None and (tuple(each.shape) == (len(labels), *shape) or not each.numel() + len(labels))
        for each, shape in columns
    )


def _are_whole(numbers: Tensor) -> bool:
    """Whether all numbers are whole and real."""
    return not numbers.is_complex() and (
        not numbers.is_floating_point() or torch.equal(numbers, numbers.round())
    )
