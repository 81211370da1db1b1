"""The names under which datasets deliver images and their annotation, and how parts are picked by them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from lightning_gcam.batch.boxes import CENTRE, CORNERS, EXTENT
from lightning_gcam.batch.forms import (
    are_objects,
    are_words,
    dimensions,
    is_image_batch,
    is_segmentation,
    is_segmentation_of,
)
from lightning_gcam.batch.plain import as_tensor, is_list, named_parts, plain
from lightning_gcam.batch.refusal import Parts, Unclear

KEYS = {
    "images": ("images", "image", "pixel_values", "x", "inputs", "input", "imgs", "img", "data", "samples"),
    "labels": (
        *("labels", "label", "targets", "target", "y", "gt_label", "gt_labels", "classes", "class", "cls"),
        *("class_labels", "class_label", "class_id", "class_ids", "class_idx", "category", "category_id"),
        *("category_ids", "label_id", "label_ids", "fine_label", "y_true"),
    ),
    "masks": (
        *("masks", "mask", "segmentation", "segmentations", "segmentation_mask", "segmentation_masks", "seg"),
        *("segmentation_map", "segmentation_maps", "semantic_mask", "object_mask", "gt_mask", "gt_masks"),
        *("mask_labels", "annotation_mask"),
    ),
    "boxes": ("boxes", "box", "bboxes", "bbox", "bbox_xyxy", "boxes_xyxy", "gt_boxes", "gt_bboxes"),
    "suspect": ("suspect",),
    "groups": ("groups", "group"),
    "names": ("names", "name", "filename", "filenames", "file_name", "file_names"),
}
"""For each field of a `SaliencyBatch` what it is called, in lower case: by torchvision (`boxes`, `labels`, `masks`),
timm and Hugging Face datasets (`image`, `img`, `label`, `fine_label`), Hugging Face processors (`pixel_values`,
`labels`, `class_labels`, `mask_labels`), torchgeo (`image`, `mask`, `label`, `bbox_xyxy`), MONAI (`image`, `label`),
albumentations (`bboxes`, `class_labels`, `category_ids`), anomalib (`gt_label`, `gt_mask`), WILDS (`x`, `y_true`)."""

BOX_FORMATS = {"xywh": (EXTENT,), "coco": (EXTENT,), "cxcywh": (CENTRE,), "yolo": (CENTRE,)}
"""What the last word in the name of boxes says of them: `bbox_xywh`, `boxes_cxcywh`, `bboxes_yolo`."""

_COCO = ("category_id", "category", "iscrowd")
"""What stands beside a `bbox` in COCO's annotations, where it is x, y, width, height."""

SUREST = "pixel_values"
"""The one name that says by itself that the model takes it; a raw image may stand beside it."""

_FORMS: dict[str, Callable[[Any], bool]] = {
    "images": is_image_batch,
    "labels": lambda value: are_words(value) or dimensions(value) < 3,
    "masks": is_segmentation,
}
"""What tells several parts of one name apart."""


def images_among(named: Mapping[Any, Any]) -> Any | None:
    """The part that is the images by its name, or None.

    Raises:
        Unclear: where two could be.
    """
    candidates = {key: value for key, value in _called(named, "images") if not _holds_images(value)}
    if SUREST in candidates:
        return candidates[SUREST]
    return _one_of(candidates, "images", {}) if candidates else None


def annotation_among(named: Mapping[Any, Any], images: Any) -> Parts:
    """Every other field, where its name says so; a label that is as large as the image is a segmentation.

    Raises:
        Unclear: where two different parts could be the same field.

    Example:
        >>> import torch
        >>> images, segmentation = torch.zeros(2, 3, 8, 8), torch.zeros(2, 8, 8)
        >>> list(annotation_among({"label": segmentation}, images))
        ['masks']
    """
    candidates = {field: dict(_called(named, field)) for field in KEYS if field != "images"}
    candidates["objects"] = {}
    for key, value in list(candidates["labels"].items()):
        for field, fits in (("objects", are_objects), ("masks", _segmentation_of(images))):
            if fits(value):
                candidates[field][key] = candidates["labels"].pop(key)
                break
    found: Parts = {}
    for field, values in candidates.items():
        if values:
            found[field] = _one_of(values, field, {"images": images, **found})
    formats = _box_formats(named, found.get("boxes"))
    return {**found, "box_formats": formats} if formats else found


def _box_formats(named: Mapping[Any, Any], boxes: Any) -> tuple[str, ...]:
    """What the name of the boxes says of their numbers; nothing where there are none, or it leaves corners."""
    name = next(
        (str(key).lower() for key, value in named.items() if boxes is not None and value is boxes), ""
    )
    if name == "bbox" and any(key in named for key in _COCO):
        return (EXTENT, CORNERS)
    return BOX_FORMATS.get(name.rpartition("_")[2], ())


def _segmentation_of(images: Any) -> Callable[[Any], bool]:
    """Whether a part is a segmentation of `images`; of any, where there are none."""
    if images is None:
        return is_segmentation
    size = size_of_first(images)
    return lambda value: is_segmentation_of(value, size)


def size_of_first(images: Any) -> tuple[int, int]:
    """The height and width of the first image; 0 and 0 where it is none.

    Example:
        >>> import torch
        >>> size_of_first([torch.zeros(3, 6, 8), torch.zeros(3, 9, 9)])
        (6, 8)
    """
    images = plain(images)
    if not is_list(images) and dimensions(images) < 1:
        return 0, 0
    first = as_tensor(images[0]) if len(images) else None
    shape = first.shape if first is not None and first.ndim > 1 else (0, 0)
    return shape[-2], shape[-1]


def _called(named: Mapping[Any, Any], field: str) -> Iterator[tuple[Any, Any]]:
    """The parts that go by one of a field's names. A part that is None is none; one with parts is looked into later."""
    for key, value in named.items():
        is_known = isinstance(key, str) and (key.lower() in KEYS[field] or _is_format(field, key.lower()))
        if is_known and value is not None and named_parts(value) is None:
            yield key, value


def _is_format(field: str, key: str) -> bool:
    """Whether a key is a name of boxes with their format behind it, or the format alone."""
    name, _, last = key.rpartition("_")
    return field == "boxes" and last in BOX_FORMATS and (not name or name in KEYS["boxes"])


def _holds_images(value: Any) -> bool:
    """A whole batch may be called `data`."""
    return is_list(value) and any(is_image_batch(each) for each in value)


def _one_of(candidates: Mapping[Any, Any], field: str, parts: Parts) -> Any:
    """The only one that can be it, numbers before words; the first where they are the same."""
    fits = _FORMS.get(field, lambda value: True)
    likely = {key: value for key, value in candidates.items() if len(candidates) == 1 or fits(value)}
    if field == "labels" and not all(map(are_words, likely.values())):
        likely = {key: value for key, value in likely.items() if not are_words(value)}
    keys, values = list(likely or candidates), list((likely or candidates).values())
    if field == "names" or all(same(values[0], each) for each in values[1:]):
        return values[0]
    raise Unclear(
        f"{' and '.join(map(repr, keys))} could each be the {field}, and they differ.",
        {**parts, field: values[0]},
    )


def same(left: Any, right: Any) -> bool:
    """Whether two parts hold the same."""
    first, second = as_tensor(left), as_tensor(right)
    if first is None or second is None:
        return left is right or (are_words(left) and are_words(right) and list(left) == list(right))
    return first.shape == second.shape and bool((first.cpu() == second.cpu()).all())
