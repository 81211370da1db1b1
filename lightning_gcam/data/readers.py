"""Find which part of a batch is which field: by its key, by its order, by its form."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lightning_gcam.data import checks, structure
from lightning_gcam.data.conversion import CENTRE, CORNERS, EXTENT
from lightning_gcam.data.structure import (
    are_objects,
    are_strings,
    as_tensor,
    dimensions,
    is_image_batch,
    is_list,
    is_segmentation,
    is_segmentation_of,
    named_parts,
    unwrap,
)
from lightning_gcam.data.unreadable import CollatedPart, Parts, UnreadableBatch, access

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
"""The format that the last word in the name of boxes means: `bbox_xywh`, `boxes_cxcywh`, `bboxes_yolo`."""

_COCO = ("category_id", "category", "iscrowd")
"""What stands beside a `bbox` in COCO's annotations, where it is x, y, width, height."""

SUREST = "pixel_values"
"""The one name that by itself means that the model takes it; a raw image may stand beside it."""

_FIELD_TESTS: dict[str, Callable[[Any], bool]] = {
    "images": is_image_batch,
    "labels": lambda value: are_strings(value) or dimensions(value) < 3,
    "masks": is_segmentation,
}
"""The test that chooses among several parts of one name."""


def images_among(named: Mapping[Any, Any]) -> Any | None:
    """Return the part that is the images by its name, or None.

    Raises:
        UnreadableBatch: where two could be.
    """
    candidates = {key: value for key, value in _named_fields(named, "images") if not _holds_images(value)}
    if SUREST in candidates:
        return candidates[SUREST]
    return _only_candidate(candidates, "images", {}) if candidates else None


def annotation_among(named: Mapping[Any, Any], images: Any) -> Parts:
    """Return every other field by its name; a label that is as large as the image is a segmentation.

    Raises:
        UnreadableBatch: where two different parts could be the same field.

    Example:
        >>> import torch
        >>> images, segmentation = torch.zeros(2, 3, 8, 8), torch.zeros(2, 8, 8)
        >>> list(annotation_among({"label": segmentation}, images))
        ['masks']
    """
    candidates = {field: dict(_named_fields(named, field)) for field in KEYS if field != "images"}
    candidates["objects"] = {}
    for key, value in list(candidates["labels"].items()):
        for field, fits in (("objects", are_objects), ("masks", _segmentation_of(images))):
            if fits(value):
                candidates[field][key] = candidates["labels"].pop(key)
                break
    found: Parts = {}
    for field, values in candidates.items():
        if values:
            found[field] = _only_candidate(values, field, {"images": images, **found})
    formats = _box_formats(named, found.get("boxes"))
    return {**found, "box_formats": formats} if formats else found


def _box_formats(named: Mapping[Any, Any], boxes: Any) -> tuple[str, ...]:
    """Return the formats that the name of the boxes states; none where there are no boxes, or they are corners."""
    name = next(
        (str(key).lower() for key, value in named.items() if boxes is not None and value is boxes), ""
    )
    if name == "bbox" and any(key in named for key in _COCO):
        return (EXTENT, CORNERS)
    return BOX_FORMATS.get(name.rpartition("_")[2], ())


def _segmentation_of(images: Any) -> Callable[[Any], bool]:
    """Return a test whether a part is a segmentation of `images`; of any, where there are none."""
    if images is None:
        return is_segmentation
    size = size_of_first(images)
    return lambda value: is_segmentation_of(value, size)


def size_of_first(images: Any) -> tuple[int, int]:
    """Return the height and width of the first image; 0 and 0 where it is none.

    Example:
        >>> import torch
        >>> size_of_first([torch.zeros(3, 6, 8), torch.zeros(3, 9, 9)])
        (6, 8)
    """
    images = unwrap(images)
    if not is_list(images) and dimensions(images) < 1:
        return 0, 0
    first = as_tensor(images[0]) if len(images) else None
    shape = first.shape if first is not None and first.ndim > 1 else (0, 0)
    return shape[-2], shape[-1]


def _named_fields(named: Mapping[Any, Any], field: str) -> Iterator[tuple[Any, Any]]:
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
    return is_list(value) and any(is_image_batch(each) for each in value)


def _only_candidate(candidates: Mapping[Any, Any], field: str, parts: Parts) -> Any:
    """Return the only part that can be the field, numbers before words; the first where they are the same."""
    fits = _FIELD_TESTS.get(field, lambda value: True)
    likely = {key: value for key, value in candidates.items() if len(candidates) == 1 or fits(value)}
    if field == "labels" and not all(map(are_strings, likely.values())):
        likely = {key: value for key, value in likely.items() if not are_strings(value)}
    keys, values = list(likely or candidates), list((likely or candidates).values())
    if field == "names" or all(are_equal(values[0], each) for each in values[1:]):
        return values[0]
    raise UnreadableBatch(
        f"{' and '.join(map(repr, keys))} could each be the {field}, and they differ.",
        {**parts, field: values[0]},
    )


def are_equal(left: Any, right: Any) -> bool:
    """Whether two parts hold the same."""
    first, second = as_tensor(left), as_tensor(right)
    if first is None or second is None:
        return left is right or (are_strings(left) and are_strings(right) and list(left) == list(right))
    return first.shape == second.shape and bool((first.cpu() == second.cpu()).all())


Reader = Callable[[Any], Parts | None]
"""From a batch to its parts, or None where it has another structure."""


def find_parts(batch: Any) -> Parts:
    """Return the parts of a batch, as they came.

    Raises:
        UnreadableBatch: where there is no reading, or more than one.

    Example:
        >>> import torch
        >>> list(find_parts((torch.zeros(2, 3, 8, 8), torch.tensor([0, 1]))))
        ['images', 'labels']
    """
    found = _first_reading(READERS, batch)
    if found is None:
        raise UnreadableBatch()
    return found


def _first_reading(readers: Sequence[Reader], batch: Any) -> Parts | None:
    """Return the parts that the first fitting reader finds, or None."""
    return next((found for read in readers if (found := read(batch)) is not None), None)


# ------------------------------------------------------------------------------------------- the structures


def _images_alone(batch: Any) -> Parts | None:
    """Read images without annotation."""
    return {"images": batch} if structure.is_array(batch) else None


def _by_name(batch: Any) -> Parts | None:
    """Read parts with names, some of them perhaps one level deeper: `{"image": ..., "target": {"label": ...}}`."""
    named = named_parts(batch)
    images = images_among(named) if named is not None else None
    if named is None or images is None:
        return None
    found = {"images": images, **annotation_among(named, images)}
    return {**_nested_fields(named.values(), found), **found}


def _nested_fields(values: Any, found: Parts) -> Parts:
    """Return the fields that stand one level deeper, beside the images; what has images of its own is another batch."""
    nested: Parts = {}
    for inner in filter(None, map(named_parts, values)):
        if images_among(inner) is not None:
            continue
        for field, value in annotation_among(inner, found["images"]).items():
            if field not in found and not are_equal(nested.setdefault(field, value), value):
                raise UnreadableBatch(
                    f"Two parts further in could each be the {field}, and they differ.", found
                )
    return nested


def _named_samples(batch: Any) -> Parts | None:
    """Read a list of samples that were not collated, each with names: `[{"image": ..., "label": ...}, ...]`."""
    if not isinstance(batch, list) or not batch:
        return None
    names = [named_parts(each) or {} for each in batch]
    if not all(_is_one_image(images_among(each)) for each in names):
        return None
    keys = [key for key in names[0] if all(key in each for each in names)]
    return _by_name({key: _column([each[key] for each in names], access(batch[0], key)) for key in keys})


def _unnamed_samples(batch: Any) -> Parts | None:
    """Read a list of samples that were not collated, each a tuple: `[(image, label), ...]`."""
    if not isinstance(batch, list) or not batch:
        return None
    if not all(isinstance(each, tuple) and len(each) > 1 and _is_one_image(each[0]) for each in batch):
        return None
    columns = [list(column) for column in zip(*batch, strict=False)]
    if len(columns) == len(batch) and all(_is_one_image(part) for column in columns for part in column):
        by_row, by_column = (len({part.shape for part in parts}) for parts in (batch[0], columns[0]))
        if by_row == by_column == 1:
            raise UnreadableBatch(
                "It could be a list of samples, or a list of images and a list of masks.",
                batch="SaliencyBatch(images=torch.stack(list(batch[0])))",
            )
        if by_column > 1:
            return None
    return _in_order([_column(column, f"[{index}]") for index, column in enumerate(columns)])


def _is_one_image(value: Any) -> bool:
    return structure.dimensions(value) == 3


def _column(parts: list[Any], code: str) -> CollatedPart:
    return CollatedPart(parts, f"[each{code} for each in batch]")


def _in_order(batch: Any) -> Parts | None:
    """Read parts without names: the first that has the form of images, and the others by `PART_TESTS`."""
    if not isinstance(batch, (tuple, list)):
        return None
    place = next((index for index, each in enumerate(batch) if structure.is_image_batch(each)), None)
    if place is None and batch and structure.is_array(batch[0]) and batch[0].ndim > 2:
        place = 0  # refused by its shape when the batch is built
    if place is None:
        return None
    found: Parts = {"images": batch[place]}
    for value in [*batch[:place], *batch[place + 1 :]]:
        if value is not None:
            _add_part(found, value)
    return _words_are_names(found)


def _add_part(found: Parts, value: Any) -> None:
    """Add a part without a name to those that were found."""
    inner, images = named_parts(value), _ImageShape.of(found["images"])
    if inner is not None:
        new = annotation_among(inner, found["images"])
    else:
        field = next((field for field, fits in PART_TESTS if fits(value, images)), None)
        if field is None:
            raise _unknown_part(found, value, images)
        new = {field: value}
    twice = next((field for field in new if field in found), None)
    if twice is not None:
        raise UnreadableBatch(f"Two parts could each be the {twice}.", found)
    found.update(new)


def _unknown_part(found: Parts, value: Any, images: _ImageShape) -> UnreadableBatch:
    """The error for a part that is no field, such as keypoints `(N, P, 2)` and poses."""
    if not structure.is_array(value):
        return UnreadableBatch("Not every part of it is known.", found)
    fits = (
        f"{checks.shape_of(unwrap(value))} fits neither masks of images of {images.size} nor boxes nor labels"
    )
    recipe = "#keypoints" if structure.dimensions(value) == 3 else ""
    return UnreadableBatch(f"Not every part of it is known: {fits}.", found, recipe=recipe)


def _words_are_names(found: Parts) -> Parts:
    """Use strings beside numeric labels as names, and strings alone as labels."""
    if "words" in found:
        found["names" if {"labels", "objects"} & found.keys() else "labels"] = found.pop("words")
    return found


def _nested_batch(batch: Any) -> Parts | None:
    """Read a batch inside of another structure, where nothing else there is an array."""
    named = named_parts(batch)
    parts = {access(batch, key): each for key, each in named.items()} if named is not None else {}
    if named is None and is_list(batch):
        parts = {f"[{index}]": each for index, each in enumerate(batch)}
    if any(structure.is_array(each) for each in parts.values()):
        return None
    found = {
        code: inner
        for code, each in parts.items()
        if (inner := _first_reading(READERS[:-1], each)) is not None
    }
    if len(found) > 1:
        raise UnreadableBatch(
            f"{len(found)} parts of it could each be the batch.", batch=f"batch{next(iter(found))}"
        )
    return next(iter(found.values()), None)


READERS: tuple[Reader, ...] = (
    _images_alone,
    _by_name,
    _named_samples,
    _unnamed_samples,
    _in_order,
    _nested_batch,
)
"""The structures in order; the first that fits wins."""


# ------------------------------------------------------------------------------------- parts without names


@dataclass(frozen=True)
class _ImageShape:
    """How many images there are, and the height and width of the first."""

    n: int
    size: tuple[int, int]

    @staticmethod
    def of(images: Any) -> _ImageShape:
        return _ImageShape(len(unwrap(images)), size_of_first(images))


def _are_masks_as_narrow_as_boxes(value: Any, images: _ImageShape) -> bool:
    """Whether a part `(N, M, 4)` beside images of M x 4 pixels is masks: it is, unless it could be corners."""
    array = as_tensor(value)
    if array is None or array.ndim < 3 or tuple(array.shape[-2:]) != images.size:
        return False
    if structure.are_boxes(value, images.n) and structure.are_single_boxes(array.reshape(-1, 4), images.size):
        raise UnreadableBatch("A part of it could be masks as well as boxes.")
    return True


PART_TESTS: tuple[tuple[str, Callable[[Any, _ImageShape], bool]], ...] = (
    ("boxes", lambda value, images: structure.are_tv_boxes(value)),
    ("masks", lambda value, images: structure.is_tv_mask(value)),
    ("objects", lambda value, images: structure.are_objects(value, images.n)),
    ("words", lambda value, images: structure.are_strings_for(value, images.n)),
    ("masks", _are_masks_as_narrow_as_boxes),
    ("boxes", lambda value, images: structure.are_boxes(value, images.n)),
    ("masks", lambda value, images: structure.is_segmentation_of(value, images.size)),
    ("boxes", lambda value, images: structure.are_single_boxes(value, images.size)),
    ("labels", lambda value, images: structure.are_labels(value, images.n)),
)
"""The field that a part without a name is, by its form; the first test that fits wins."""
