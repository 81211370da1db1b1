"""Find the parts of a batch in its structure: by their keys, by their order, by their form."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lightning_gcam.data import checks, structure
from lightning_gcam.data.fields import (
    KEYS,
    annotation_among,
    are_equal,
    images_among,
    is_label,
    label_columns,
    len_of,
    merge,
    named_fields,
    other_inputs,
    size_of_first,
)
from lightning_gcam.data.masks import is_dense
from lightning_gcam.data.structure import (
    CollatedPart,
    as_tensor,
    batch_shape,
    dimensions,
    image_dimensions,
    is_list,
    named_parts,
    unwrap,
)
from lightning_gcam.data.unreadable import LABELS_TWICE, Parts, UnreadableBatch, access

Reader = Callable[[Any], Parts | None]
"""From a batch to its parts, or None where it has another structure."""


def find_parts(batch: Any) -> Parts:
    """Return the parts of a batch, as they came.

    Raises:
        UnreadableBatch: where there is no reading, or more than one.

    Example:
        >>> import torch
        >>> find_parts((torch.zeros(2, 3, 8, 8), torch.tensor([0, 1])))["labels"]
        tensor([0, 1])
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
    found = images_among(named) if named is not None else None
    if named is None or found is None:
        return None
    images = found["images"]
    merge(found, annotation_among(named, images, found["images_name"]))
    deeper = {key: parts for key, value in named.items() if (parts := named_parts(value))}
    inner = {key: parts for key, parts in deeper.items() if images_among(parts) is None}
    merge(found, _nested_fields(list(inner.values()), found))
    of_labels = [parts for key, parts in inner.items() if str(key).lower() in KEYS["labels"]]
    columns = dict(pair for parts in (named, *of_labels) for pair in label_columns(parts, len_of(images)))
    return {
        **found,
        "columns": {**columns, **found.get("columns", {})},
        "inputs": other_inputs(named, images),
    }


def _nested_fields(inners: Sequence[Mapping[Any, Any]], found: Parts) -> Parts:
    """Return the fields that stand one level deeper, beside the images."""
    nested: Parts = {}
    for inner in inners:
        new = annotation_among(inner, found["images"], found["images_name"])
        merge(nested, {"unclear": new.pop("unclear", [])})
        for field in new.keys() - found.keys() - {"columns"}:
            if not are_equal(nested.setdefault(field, new[field]), new[field]):
                problem = f"Two parts further in could each be the {field}, and they differ."
                merge(nested, {field: None, "unclear": [UnreadableBatch(problem, found)]})
    return nested


def _named_samples(batch: Any) -> Parts | None:
    """Read a list of samples that were not collated, each with names: `[{"image": ..., "label": ...}, ...]`."""
    if not isinstance(batch, list) or not batch:
        return None
    names = [named_parts(each) or {} for each in batch]
    found = [_one_image_among(each) for each in names]
    if not _are_samples([each for each in found if each is not None], names):
        return None
    keys = list(dict.fromkeys(key for each in names for key in each if key in names[0] or key in _OPTIONAL))
    columns = {
        key: _column([each.get(key) for each in names], access(batch[0] if key in names[0] else {}, key))
        for key in keys
    }
    return _by_name(columns)


_OPTIONAL = tuple(key for field in ("labels", "masks", "boxes") for key in KEYS[field])
"""What only some samples may have."""


def _one_image_among(named: Mapping[Any, Any]) -> Any:
    """Return the part of a single sample that is its image by its name, or None."""
    found = next(
        ((key, value) for key, value in named_fields(named, "images") if dimensions(value) > 1), None
    )
    return None if found is None else found[1]


def _are_samples(images: Sequence[Any], samples: Sequence[Mapping[Any, Any]]) -> bool:
    """Whether these are the images of single samples; volumes and signals only where their labels are a number each."""
    counts = {dimensions(each) for each in images}
    if len(images) < len(samples) or len(counts) != 1:
        return False
    (d,) = counts
    is_alone = d in (2, 4) and len(samples) > 1 and len({as_tensor(each).shape for each in images}) == 1  # type: ignore[union-attr]
    has_columns = any(dimensions(part) == 1 for each in samples for part in each.values())
    if d == 3 and len(samples) == 1 and structure.are_signals(shape := batch_shape(images[0])):
        return not any(is_label(part, shape[0]) for part in samples[0].values())  # else a batch of signals
    return d == 3 or (is_alone and not has_columns)


def _unnamed_samples(batch: Any) -> Parts | None:
    """Read a list of samples that were not collated, each a tuple: `[(image, label), ...]`."""
    if not isinstance(batch, list) or not batch:
        return None
    if not all(isinstance(each, tuple) and len(each) > 1 for each in batch):
        return None
    samples = [dict(enumerate(each)) for each in batch]
    if not _are_samples([each[0] for each in batch], samples):
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
    return dimensions(value) == 3


def _column(parts: list[Any], code: str) -> CollatedPart:
    return CollatedPart(parts, f"[each{code} for each in batch]")


def _in_order(batch: Any) -> Parts | None:
    """Read parts without names: the first that has the form of images, and the others by `PART_TESTS`."""
    if not isinstance(batch, (tuple, list)):
        return None
    batch = _flattened(batch)
    place = _place_of_images(batch)
    if place is None:
        return None
    found: Parts = {"images": batch[place], "images_name": "", "columns": {}}
    for value in [*batch[:place], *batch[place + 1 :]]:
        if value is not None:
            try:
                _add_part(found, value)
            except UnreadableBatch as unclear:
                merge(found, {"unclear": [unclear]})
    parts = {str(index): value for index, value in enumerate(batch) if value is not None}
    found["inputs"] = other_inputs(parts, batch[place])
    return _words_are_names(_one_label(found))


def _flattened(batch: Sequence[Any]) -> Sequence[Any]:
    """Put two pictures of one form, `((left, right), label)`, into one sequence with the others."""
    first = batch[0] if batch else None
    if not is_list(first) or len(first) < 2 or not all(structure.is_array(each) for each in first):
        return batch
    is_one_form = len({tuple(each.shape) for each in first}) == 1 and first[0].ndim in (4, 5)
    return [*first, *batch[1:]] if is_one_form else batch


def _place_of_images(batch: Sequence[Any]) -> int | None:
    """Return the place of the images among parts without names, or None.

    It is the first image or volume, or else the first signal; a volume goes before a segmentation of it.
    """
    counts = [image_dimensions(each) for each in batch]
    place = next((index for index, d in enumerate(counts) if d > 1), None)
    if place is not None and counts[place] == 2 and 3 in counts:
        volume = counts.index(3)
        place = volume if size_of_first(batch[volume]) == batch_shape(batch[place])[1:] else place
    if place is None and 1 in counts:
        place = counts.index(1)
    if place is None and batch and structure.is_array(batch[0]) and batch[0].ndim > 1:
        array = unwrap(batch[0])
        place = 0 if array.ndim > 2 or array.is_floating_point() else None  # refused by its shape later
    return place


def _one_label(found: Parts) -> Parts:
    """Choose the label among the parts without names that have its form: the only one that is classes or marks."""
    parts = found.pop("label_parts", [])
    n = len_of(found["images"])
    likely = [each for each in parts if is_label(each, n)] if len(parts) > 1 else parts
    likely = likely or parts[:1]
    others = [
        each
        for each in parts
        if not any(each is one for one in likely) and not structure.has_numbers(each, n)
    ]
    found["columns"] = {**{str(index): each for index, each in enumerate(likely)}, **found["columns"]}
    if len(likely) > 1 or others or (likely and "labels" in found):
        first = {"labels": likely[0]} if likely else {}
        merge(found, {"unclear": [UnreadableBatch(LABELS_TWICE, {**first, **found})]})
        found["labels"] = None
    elif likely:
        found["labels"] = likely[0]
    return found


def _add_part(found: Parts, value: Any) -> None:
    """Add a part without a name to those that were found."""
    inner, images = named_parts(value), _ImageShape.of(found["images"])
    if inner is not None:
        new = annotation_among(inner, found["images"])
        found["columns"].update(label_columns(inner, images.n))
    elif _is_second_picture(value, found["images"]):
        return
    else:
        field = next((field for field, fits in PART_TESTS if fits(value, images)), None)
        if field is None and _is_signal_beside(value, images):
            return
        if field is None:
            raise _unknown_part(found, value, images)
        new = {field: value}
    if new.keys() == {"labels"} and inner is None:
        found.setdefault("label_parts", []).append(value)
        return
    twice = next((field for field in new if field in found and field not in ("unclear", "columns")), None)
    if twice is not None:
        raise UnreadableBatch(f"Two parts could each be the {twice}.", found)
    merge(found, new)


def _is_second_picture(value: Any, images: Any) -> bool:
    """Whether a part has the form of the images, numbers of their kind, and is no mask: the other one of a pair."""
    if structure.is_tv_mask(value) or batch_shape(value) != batch_shape(images):
        return False
    first, second = as_tensor(images), as_tensor(value)
    if first is None or second is None or second.shape != first.shape:
        return False
    is_alike = (
        second.dtype == first.dtype and first.ndim > 2 and not second.is_complex() and second.numel() > 0
    )
    return is_alike and is_dense(second[:4].flatten(0, 1))  # some are enough


def _is_signal_beside(value: Any, images: _ImageShape) -> bool:
    """Whether a part is signals that a model takes beside images."""
    return images.dimensions > 1 and image_dimensions(value) == 1 and structure.is_signal(batch_shape(value))


def _unknown_part(found: Parts, value: Any, images: _ImageShape) -> UnreadableBatch:
    """The error for a part that is no field, such as keypoints `(N, P, 2)` and poses."""
    if not structure.is_array(value):
        return UnreadableBatch("Not every part of it is known.", found)
    fits = (
        f"{checks.shape_of(unwrap(value))} fits neither masks of images of {images.size} nor boxes nor labels"
    )
    recipe = "#keypoints" if dimensions(value) == 3 else ""
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
    """How many images there are, and the size S of the first."""

    n: int
    size: tuple[int, ...]

    @staticmethod
    def of(images: Any) -> _ImageShape:
        return _ImageShape(len(unwrap(images)), size_of_first(images))

    @property
    def dimensions(self) -> int:
        return len(self.size)


def _are_masks_as_narrow_as_boxes(value: Any, images: _ImageShape) -> bool:
    """Whether a part `(N, M, 4)` beside images of M x 4 pixels is masks: it is, unless it could be corners."""
    array = as_tensor(value)
    if array is None or array.ndim < 3 or images.dimensions != 2 or tuple(array.shape[-2:]) != images.size:
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
    ("boxes", lambda value, images: structure.are_boxes(value, images.n, images.dimensions)),
    ("masks", lambda value, images: structure.is_segmentation_of(value, images.size)),
    ("boxes", lambda value, images: structure.are_single_boxes(value, images.size)),
    ("labels", lambda value, images: structure.are_labels(value, images.n)),
)
"""The field that a part without a name is, by its form; the first test that fits wins."""
