"""Which part of a batch each field is, by its name; its labels of several heads, and what else a model may take."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from lightning_gcam.data import structure
from lightning_gcam.data.boxes import CENTRE, CORNERS, EXTENT
from lightning_gcam.data.checks import has_rows
from lightning_gcam.data.structure import (
    CollatedPart,
    are_frames_first,
    are_objects,
    are_signals,
    are_strings,
    as_tensor,
    batch_shape,
    dimensions,
    image_dimensions,
    is_list,
    is_segmentation,
    is_segmentation_of,
    named_parts,
    unwrap,
)
from lightning_gcam.data.unreadable import Parts, UnreadableBatch
from lightning_gcam.utils import annotation

KEYS = {
    "images": (
        *("pixel_values", "x", "inputs", "input", "imgs", "data", "samples", "spectrogram", "spectrograms"),
        *structure.VIDEOS,
        *structure.VOLUMES,
        *structure.SIGNALS,
    ),
    "labels": annotation.LABELS,
    "masks": annotation.MASKS,
    "boxes": annotation.BOXES,
    "suspect": ("suspect",),
    "groups": ("groups", "group"),
    "names": ("names", "name", "filename", "filenames", "file_name", "file_names"),
}
"""For each field of a `SaliencyBatch` what it is called, in lower case: by torchvision (`boxes`, `labels`, `masks`),
timm and Hugging Face datasets (`image`, `img`, `label`, `fine_label`), Hugging Face processors (`pixel_values`,
`labels`, `class_labels`, `mask_labels`), torchgeo (`image`, `mask`, `label`, `bbox_xyxy`), MONAI (`image`, `label`),
albumentations (`bboxes`, `class_labels`, `category_ids`), anomalib (`gt_label`, `gt_mask`), WILDS (`x`, `y_true`)."""

BOX_FORMATS = {"xywh": (EXTENT,), "coco": (EXTENT,), "cxcywh": (CENTRE,), "yolo": (CENTRE,)}
"""The format that the last word in the name of boxes means: `bbox_xywh`, `boxes_cxcywh`, `bboxes_yolo`."""

_COCO = ("category_id", "category", "iscrowd")
"""What stands beside a `bbox` in COCO's annotations, where it is x, y, width, height."""

SUREST = "pixel_values"
"""The one name that by itself means that the model takes it; a raw image may stand beside it."""

_FIELD_TESTS: dict[str, Callable[[Any], bool]] = {
    "labels": lambda value: are_strings(value) or dimensions(value) < 3,
    "masks": lambda value: any(is_segmentation(value, d) for d in (2, 3)),
}
"""The test that chooses among several parts of one name."""

_FIRSTS = ("anchor", "left", "before", "first")
_NUMBERED = re.compile(r"(.+?)[_-]?(?:[0-9]|a|left|anchor|before|first)")
"""The names of the first of two pictures: `image1`, `left`, `img_a`."""


def images_among(named: Mapping[Any, Any]) -> Parts | None:
    """Return the part that is the images by its name, and the name; None where there is none.

    Of several, what has two dimensions goes before volumes, and these before signals; of two pictures the first.
    """
    candidates = {key: value for key, value in named_fields(named, "images") if not _holds_images(value)}
    if SUREST in candidates:
        return {"images": candidates[SUREST], "images_name": SUREST}
    if not candidates:
        first = next(((key, value) for key, value in named.items() if _is_first_picture(key, value)), None)
        return {"images": first[1], "images_name": ""} if first is not None else None
    of_dimensions = [
        {key: value for key, value in candidates.items() if image_dimensions(value) == d} for d in (2, 3, 1)
    ]
    likely = next(filter(None, of_dimensions), candidates)
    found = _only_candidate(likely, "images", {})
    return {
        **found,
        "images_name": next(key for key, value in likely.items() if value is found["images"]).lower(),
    }


def _is_first_picture(key: Any, value: Any) -> bool:
    """Whether a part is the first of two pictures by its name and form."""
    if not isinstance(key, str) or not image_dimensions(value):
        return False
    numbered = _NUMBERED.fullmatch(key.lower())
    is_numbered = numbered is not None and numbered[1] in (*KEYS["images"], "view")
    return key.lower() in _FIRSTS or is_numbered


def annotation_among(named: Mapping[Any, Any], images: Any, name: str = "") -> Parts:
    """Return every other field by its name; a label that is as large as the image is a segmentation.

    Where two different parts could be the same field, the error that says so is under `unclear`.

    Args:
        named: the parts of a batch, or of one sample's target.
        images: those of the batch; None for a target.
        name: the key of the images.

    Example:
        >>> import torch
        >>> images, segmentation = torch.zeros(2, 3, 8, 8), torch.zeros(2, 8, 8)
        >>> list(annotation_among({"label": segmentation}, images))
        ['masks']
    """
    candidates = {field: dict(named_fields(named, field)) for field in KEYS if field != "images"}
    candidates["objects"] = {}
    for key, value in list(candidates["labels"].items()):
        for field, fits in (("objects", are_objects), ("masks", _segmentation_of(images, name))):
            if fits(value):
                candidates[field][key] = candidates["labels"].pop(key)
                break
    found: Parts = {}
    for field, values in candidates.items():
        if values:
            merge(found, _only_candidate(values, field, {"images": images, **found}))
    if "unclear" in found and "labels" in found and len(candidates["labels"]) > 1:
        found["columns"] = {str(key): value for key, value in candidates["labels"].items()}
    formats = _box_formats(named, found.get("boxes"))
    return {**found, "box_formats": formats} if formats else found


def merge(found: Parts, new: Parts) -> None:
    """Add fields to those that were found; what is unclear is kept in order."""
    unclear = [*found.get("unclear", []), *new.get("unclear", [])]
    found.update(new)
    if unclear:
        found["unclear"] = unclear


def _box_formats(named: Mapping[Any, Any], boxes: Any) -> tuple[str, ...]:
    """Return the formats that the name of the boxes states; none where there are no boxes, or they are corners."""
    name = next(
        (str(key).lower() for key, value in named.items() if boxes is not None and value is boxes), ""
    )
    if name == "bbox" and any(key in named for key in _COCO):
        return (EXTENT, CORNERS)
    return BOX_FORMATS.get(name.rpartition("_")[2], ())


def _segmentation_of(images: Any, name: str) -> Callable[[Any], bool]:
    """Return a test whether a part is a segmentation of `images`; of any, where there are none."""
    if images is None:
        return is_segmentation
    size = size_of_first(images, name)
    return lambda value: is_segmentation_of(value, size)


def size_of_first(images: Any, name: str = "") -> tuple[int, ...]:
    """Return the size S of the first image; 0 and 0 where it is none.

    Example:
        >>> import torch
        >>> size_of_first([torch.zeros(3, 6, 8), torch.zeros(3, 9, 9)]), size_of_first(torch.zeros(2, 1, 50))
        ((6, 8), (50,))
    """
    shape = batch_shape(images)
    if len(shape) < 3:
        return 0, 0
    if len(shape) == 3 and not are_signals(shape, name):
        return shape[1:]  # without a channel
    first = shape[1] if are_frames_first(images, name) else shape[2]
    return (first, *shape[3:])


def named_fields(named: Mapping[Any, Any], field: str) -> Iterator[tuple[Any, Any]]:
    """Yield the parts that go by one of a field's names, without None and what has parts of its own."""
    for key, value in named.items():
        is_known = isinstance(key, str) and (key.lower() in KEYS[field] or _is_format(field, key.lower()))
        if is_known and value is not None and named_parts(value) is None:
            yield key, value


def _is_format(field: str, key: str) -> bool:
    """Whether a key is a name of boxes with their format behind it, or the format alone."""
    name, _, last = key.rpartition("_")
    return field == "boxes" and last in BOX_FORMATS and (not name or name in KEYS["boxes"])


def _holds_images(value: Any) -> bool:
    """Whether a list holds images, and so is a whole batch: some call it `data`."""
    return is_list(value) and not image_dimensions(value) and any(map(image_dimensions, value))


def _only_candidate(candidates: Mapping[Any, Any], field: str, parts: Parts) -> Parts:
    """Return the only part that can be the field, numbers before words; the first where they are the same.

    Where they differ it is the first image, or none of the others, with the error under `unclear`.
    """
    fits = _FIELD_TESTS.get(field, lambda value: True)
    likely = {key: value for key, value in candidates.items() if len(candidates) == 1 or fits(value)}
    if field == "labels" and not all(map(are_strings, likely.values())):
        likely = {key: value for key, value in likely.items() if not are_strings(value)}
    keys, values = list(likely or candidates), list((likely or candidates).values())
    if field == "names" or all(are_equal(values[0], each) for each in values[1:]):
        return {field: values[0]}
    clear = {key: part for key, part in parts.items() if key != "unclear"}
    taken = f": {keys[0]!r} is taken" if field == "images" else ""
    unclear = UnreadableBatch(
        f"{' and '.join(map(repr, keys))} could each be the {field}, and they differ{taken}.",
        {**clear, field: values[0]},
    )
    return {field: values[0] if field == "images" else None, "unclear": [unclear]}


def are_equal(left: Any, right: Any) -> bool:
    """Whether two parts hold the same."""
    first, second = as_tensor(left), as_tensor(right)
    if first is None or second is None:
        return left is right or (are_strings(left) and are_strings(right) and list(left) == list(right))
    return first.shape == second.shape and bool((first.cpu() == second.cpu()).all())


_BESIDE = ("id", "ids", "idx", "index", "indices", "size", "height", "width", "length", "lengths", "mask")


def label_columns(named: Mapping[Any, Any], n: int) -> Iterator[tuple[str, Any]]:
    """Yield the parts that can be labels of a head by their form, but for what counts or names samples."""
    others = {key for field, keys in KEYS.items() if field != "labels" for key in keys}
    for key, value in named.items():
        name = key.lower() if isinstance(key, str) else "id"
        is_known = name.rpartition("_")[2] in _BESIDE and name not in KEYS["labels"]
        if not is_known and name not in others and is_label(value, n):
            yield key, value


def is_label(value: Any, n: int) -> bool:
    """Whether a part holds a number, or a row of marks or shares, for each of `n` samples.

    Example:
        >>> import torch
        >>> is_label(torch.tensor([3, 4]), 2), is_label(torch.zeros(2, 14), 2), is_label(torch.rand(2, 10) + 1, 2)
        (True, True, False)
    """
    if not structure.are_labels(value, n) or (array := as_tensor(value)) is None or array.is_complex():
        return False
    if array.ndim == 0 or len(array) != n:
        return False
    is_column = array.ndim == 1 or array.shape[1:] == (1,)
    return is_column or (array.numel() > 0 and (structure.is_binary(array) or structure.are_shares(array)))


def len_of(images: Any) -> int:
    """How many images there are; 0 for what has no length."""
    return next(iter(batch_shape(images)), 0)


def other_inputs(parts: Mapping[Any, Any], images: Any) -> Parts:
    """Return what else a model may take, by its name: all that has a row for each sample; also one level deeper."""
    n, found = len_of(images), {}
    for key, value in parts.items():
        if value is images or (rows := _rows_of(value, n)) is None:
            continue
        found[str(key)] = rows
        if isinstance(rows, dict):
            found = {**rows, **found}
    return found


def _rows_of(value: Any, n: int) -> Any:
    """Convert a part to what a batch holds as an input, without a copy of tensors; None where it has no `n` rows."""
    if (named := named_parts(value)) is not None:
        rows = {str(key): _rows_of(each, n) for key, each in named.items()}
        return {key: each for key, each in rows.items() if each is not None} or None
    value = unwrap(value)
    if isinstance(value, CollatedPart) and (array := as_tensor(value)) is not None:
        value = array
    if is_list(value):
        named_rows = [named_parts(each) for each in value]
        value = [
            unwrap(each) if names is None else {str(key): unwrap(part) for key, part in names.items()}
            for each, names in zip(value, named_rows, strict=True)
        ]
    return value if has_rows(value, n) else None
