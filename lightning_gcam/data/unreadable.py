"""The error for a batch that cannot be read, with the code of an adapter that was tried on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_gcam.data import checks
from lightning_gcam.data.saliency_batch import SaliencyBatch
from lightning_gcam.data.structure import (
    CollatedPart,
    are_frames_first,
    as_tensor,
    is_array,
    is_binary,
    is_list,
    named_parts,
    unwrap,
)
from lightning_gcam.utils.errors import InputError

Reads = Callable[[Any], SaliencyBatch]
"""From what an adapter gave to a batch; it raises where that cannot be read."""

Parts = dict[str, Any]
"""What was found in a batch: the fields of a `SaliencyBatch`, and `objects`, one dict per sample."""


LABELS_TWICE = "Two parts could each be the labels."
"""The problem that a model with a head for each of them does not have."""


class UnreadableBatch(Exception):
    """Raised where a batch can be read in more than one way, or in none.

    Args:
        reason: a sentence for the message.
        parts: what of it is clear.
        image_size: N, H and W of the images in the code to copy, where those are not `parts["images"]`.
        recipe: the section of `RECIPES` that is about this, as "#keypoints".
        settles: for a field, the code that gives it, with `{images}`, `{labels}`, ... for what came as these; under
            `batch` the code for the whole.
    """

    def __init__(
        self,
        reason: str = "",
        parts: Parts | None = None,
        image_size: checks.Size | None = None,
        recipe: str = "",
        **settles: str,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.parts = parts or {}
        self.image_size = image_size
        self.recipe = recipe
        self.settles = settles


def check_part(check: Callable[[Any, checks.Size], None], value: Any, size: checks.Size) -> None:
    """Run one of the checks of `SaliencyBatch` on a part of a batch, where an adapter may settle what it finds.

    Raises:
        UnreadableBatch: in the words of the check.
    """
    try:
        check(value, size)
    except InputError as error:
        raise UnreadableBatch(str(error)) from None


RECIPES = "docs/guides/batch.md"
"""Where what is not supported by itself has a worked example."""


def error_message(
    batch: Any, unclear: UnreadableBatch, reads: Reads, *, adapted: bool = False, left_out: bool = False
) -> str:
    """Write the message: what came, what is not clear about it, and what to do.

    Args:
        batch: as it came.
        unclear: what was raised on it.
        reads: what is done with a batch that an adapter gave; each code is tried with it before it is shown.
        adapted: whether `batch` is what the user's own adapter gave.
        left_out: whether only something beside the images is unclear, and the batch is read without it.
    """
    failed = "Not all of the batch could be read" if left_out else "The batch could not be read"
    came = f"{failed}: {describe(batch)}."
    reason = f" {unclear.reason}" if unclear.reason else ""
    reason += " The looks go on without it." if left_out else ""
    if adapted:
        return f"{came}{reason} This is what `adapter` gave; let it give a SaliencyBatch, or (images, labels, masks)."
    code = working_code(batch, unclear, reads)
    remedy = "Pass `adapter=`, a function from such a batch to a SaliencyBatch"
    where = f"{RECIPES}{unclear.recipe}"
    if code is None:
        return f"{came}{reason} {remedy}; no example would work here, {where} has some."
    see = f" (see {where})" if unclear.recipe else ""
    return f"{came}{reason} {remedy}{see}, for example:\n    adapter=lambda batch: {code}"


def working_code(batch: Any, unclear: UnreadableBatch, reads: Reads) -> str | None:
    """Write the body of an adapter that reads the batch, with as many fields as possible; None where none does.

    Each is run on the batch. Masks that fill every image are worse than none: all scores are then at their best.
    """
    for fields in (tuple(CHECKS), ("images", "labels"), ("images",)):
        code = adapter_code(batch, unclear, fields)
        with suppress(Exception):
            found = reads(
                eval(f"lambda batch: {code}", {"SaliencyBatch": SaliencyBatch, "torch": torch})(batch)
            )
            if found.masks is None or not bool(found.masks.all()):
                return code
    return None


def adapter_code(
    batch: Any, unclear: UnreadableBatch, fields: Sequence[str] = ("images", "labels", "masks", "boxes")
) -> str:
    """Write the body of an adapter that would settle what is unclear.

    Args:
        batch: as it came.
        unclear: what was raised on it.
        fields: those that it may name.

    Example:
        >>> import torch
        >>> batch = {"view": torch.zeros(2, 3, 8, 8), "truth": torch.tensor([0, 1])}
        >>> adapter_code(batch, UnreadableBatch())
        'SaliencyBatch(images=batch["view"], labels=batch["truth"])'
    """
    parts = {**_likely_parts(batch), **unclear.parts}
    parts = {field: value for field, value in parts.items() if value is not None}
    paths = {field: path for field, value in parts.items() if (path := path_of(batch, value)) is not None}
    if parts.get("box_formats") and "boxes" not in unclear.settles:
        paths.pop("boxes", None)  # by another name they would be read as corners
    if "batch" in unclear.settles:
        return unclear.settles["batch"].format_map(paths)
    if "images" not in paths:
        return "SaliencyBatch(images=batch[0], labels=batch[1])"
    size = unclear.image_size or _size_of(parts["images"])
    codes = {
        field: unclear.settles.get(field) or _code(field, parts[field], size)
        for field in fields
        if field in paths
    }
    if "images" not in unclear.settles and are_frames_first(parts["images"], parts.get("images_name", "")):
        codes["images"] = f"{array_code('images', parts['images'])}.transpose(1, 2)"
        codes["frames_first"] = "True"
    arguments = [f"{field}={code.format_map(paths)}" for field, code in codes.items() if code is not None]
    return f"SaliencyBatch({', '.join(arguments)})"


CHECKS = {
    "images": lambda images, size: checks.check_images(images),
    "labels": checks.check_labels,
    "masks": checks.check_masks,
    "boxes": checks.check_boxes,
}
"""The fields that an example names, and the check of `SaliencyBatch` for each."""


def _code(field: str, value: Any, size: checks.Size | None) -> str | None:
    """Write the code for a part that is clear: as it came, or as a tensor; None where `SaliencyBatch` takes neither."""
    for code, candidate in ((f"{{{field}}}", value), (array_code(field, value), as_tensor(value))):
        if isinstance(candidate, Tensor) and (candidate.is_nested or candidate.layout is not torch.strided):
            continue
        with suppress(InputError):
            CHECKS[field](candidate, size or (0, 0, 0))
            return code if candidate is not None and not _are_shares(field, candidate) else None
    return None


def _are_shares(field: str, value: Any) -> bool:
    """Whether labels are shares of classes, which `SaliencyBatch` would take as marks."""
    return field == "labels" and value.ndim == 2 and not is_binary(value)


def array_code(field: str, value: Any) -> str:
    """Write the code that converts a part to a tensor, with `{field}` for the part.

    Example:
        >>> array_code("masks", [np.zeros((8, 8))])
        'torch.stack([torch.as_tensor(each) for each in {masks}])'
    """
    part = f"{{{field}}}"
    if isinstance(value, Tensor):
        return part if value.layout is torch.strided else f"{part}.to_dense()"
    is_stack = not is_array(value) and is_list(unwrap(value)) and any(map(is_array, unwrap(value)))
    return (
        f"torch.stack([torch.as_tensor(each) for each in {part}])" if is_stack else f"torch.as_tensor({part})"
    )


def _size_of(images: Any) -> checks.Size | None:
    found = as_tensor(images)
    return (len(found), *found.shape[2:]) if found is not None and found.ndim in (3, 4, 5) else None


def _likely_parts(batch: Any) -> Parts:
    """Guess the images (the first array of four dimensions, or five) and the labels (the first whole numbers)."""
    arrays = [value for _, value in _walk(batch) if is_array(value)]
    images = next((each for ndim in (4, 5) for each in arrays if each.ndim == ndim), None)
    if images is None:
        return {}
    labels = (each for each in arrays if isinstance(each, Tensor) and each.shape == (len(images),))
    found = next((each for each in labels if not each.is_floating_point()), None)
    return {"images": images, **({"labels": found} if found is not None else {})}


def path_of(batch: Any, part: Any) -> str | None:
    """Return the code that takes `part` out of `batch`, or None where it is not in it.

    Example:
        >>> part = [1]
        >>> path_of({"inside": (0, part)}, part)
        'batch["inside"][1]'
    """
    if isinstance(part, CollatedPart):
        return part.code
    return next((path for path, value in _walk(batch) if value is part), None)


def _walk(value: Any, path: str = "batch", depth: int = 3) -> Iterator[tuple[str, Any]]:
    """Yield a batch and its parts, down to some depth, with the code that takes each."""
    yield path, value
    if depth and (named := named_parts(value)) is not None:
        for key, each in named.items():
            if type(key) in (str, int, float, bool):  # another one's `repr` need not be code that gives it
                yield from _walk(each, path + access(value, key), depth - 1)
    elif depth and is_list(value):
        for index, each in enumerate(value[:64]):
            yield from _walk(each, f"{path}[{index}]", depth - 1)


def access(value: Any, key: Any) -> str:
    """Return the code that takes the part `key` of something with named parts.

    Example:
        >>> access({"image": 1}, "image")
        '["image"]'
    """
    if isinstance(value, tuple) or not hasattr(value, "keys"):
        return f".{key}"
    return f'["{key}"]' if isinstance(key, str) and key.isidentifier() else f"[{key!r}]"


def describe(value: Any, depth: int = 0) -> str:
    """Describe the structure of a batch in a few words, with the shapes in it.

    Example:
        >>> import torch
        >>> describe([torch.zeros(2, 3), {"label": 5}])
        "list (Tensor (2, 3) float32, dict {'label': int})"
    """
    kind = type(value).__name__
    if isinstance(value, (Tensor, np.ndarray)):
        array = unwrap(value)
        return f"{kind} {checks.shape_of(array)}" if isinstance(array, Tensor) else kind
    if depth < 2 and (named := named_parts(value)) is not None:
        parts = [f"{key!r}: {describe(each, depth + 1)}" for key, each in list(named.items())[:8]]
        return f"{kind} {{{', '.join(parts)}{', ...' if len(named) > 8 else ''}}}"
    if depth < 2 and is_list(value):
        parts = [describe(each, depth + 1) for each in value[:6]]
        return f"{kind} ({', '.join(parts)}{', ...' if len(value) > 6 else ''})"
    return kind
