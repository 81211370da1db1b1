"""The adapters: from a batch as a dataloader delivers it to a `SaliencyBatch`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_gcam._errors import InputError
from lightning_gcam.batch.checks import shape_of
from lightning_gcam.batch.saliency_batch import SaliencyBatch

Adapter = Callable[[Any], Any]
"""A callable that turns a batch of the user's own layout into a `SaliencyBatch` or any layout known here."""

_KEYS = {
    "images": ("images", "image", "pixel_values", "x", "inputs", "input", "img", "imgs"),
    "labels": ("labels", "label", "targets", "target", "y"),
    "masks": ("masks", "mask", "segmentation"),
    "boxes": ("boxes", "box", "bboxes", "bbox"),
    "suspect": ("suspect",),
    "groups": ("groups", "group"),
    "names": ("names", "name"),
}


def as_saliency_batch(batch: Any, adapter: Adapter | None = None) -> SaliencyBatch:
    """Read images, labels, masks and boxes out of a batch as a dataloader delivers it.

    Args:
        batch: a `SaliencyBatch`; images alone; a tuple or list `(images, labels)`, `(images, labels, masks)` or
            `(images, labels, boxes)`; or a mapping with the usual keys (`image`, `images`, `pixel_values`, ...;
            `label`, `labels`, `target`, ...; `mask`, `masks`; `boxes`; `suspect`; `groups`; `names`).
        adapter: applied first; for every other layout.

    Raises:
        InputError: where the layout is not understood; the message shows what came and an `adapter` to start from.

    Example:
        >>> images, labels = torch.rand(2, 3, 8, 8), torch.tensor([1, 0])
        >>> as_saliency_batch({"pixel_values": images, "label": labels}).labels.tolist()
        [1, 0]
    """
    if adapter is not None:
        batch = _adapted(batch, adapter)
    if isinstance(batch, SaliencyBatch):
        return batch
    if isinstance(batch, Tensor):
        return SaliencyBatch(batch)
    if isinstance(batch, Mapping):
        return _from_mapping(batch)
    if isinstance(batch, (tuple, list)) and batch and isinstance(batch[0], Tensor):
        return _from_sequence(batch)
    raise InputError(_not_understood(batch))


def _adapted(batch: Any, adapter: Adapter) -> Any:
    try:
        return adapter(batch)
    except Exception as error:
        raise InputError(
            f"`adapter` failed on the batch {_describe(batch)}: {type(error).__name__}: {error}"
        ) from error


def _from_mapping(batch: Mapping[Any, Any]) -> SaliencyBatch:
    found = {
        field: next(batch[key] for key in keys if key in batch)
        for field, keys in _KEYS.items()
        if any(key in batch for key in keys)
    }
    if "images" not in found:
        raise InputError(_not_understood(batch))
    return _build(**found)


def _from_sequence(batch: Sequence[Any]) -> SaliencyBatch:
    images, rest = batch[0], list(batch[1:])
    found: dict[str, Any] = {"images": images}
    if rest:
        found["labels"] = rest[0]
    if len(rest) > 1:
        kind = _kind_of_third(rest[1], images)
        if kind is None or len(rest) > 2:
            raise InputError(_not_understood(batch))
        found[kind] = rest[1]
    return _build(**found)


def _kind_of_third(value: Any, images: Tensor) -> str | None:
    """What stands behind images and labels: masks have the images' size, boxes four columns."""
    if isinstance(value, Tensor) and value.ndim in (3, 4) and value.shape[-2:] == images.shape[-2:]:
        return "masks"
    if isinstance(value, Tensor) and value.ndim in (3, 4) and value.shape[-1] != 4:
        return "masks"  # of another size: refused by name when the batch is built
    if isinstance(value, Tensor) and value.ndim in (2, 3) and value.shape[-1] == 4:
        return "boxes"
    if isinstance(value, (list, tuple)) and all(
        isinstance(each, Tensor) and each.shape[-1:] == (4,) for each in value
    ):
        return "boxes"
    return None


def _build(images: Any, **found: Any) -> SaliencyBatch:
    if found.get("masks") is not None:
        found["masks"] = _as_masks(found["masks"])
    if found.get("boxes") is not None:
        found["boxes"] = _as_boxes(found["boxes"])
    if isinstance(found.get("labels"), Tensor):
        found["labels"] = _as_labels(found["labels"])
    elif found.get("labels") is not None:
        found["labels"] = _labels_from_list(found["labels"], images)
    if isinstance(found.get("names"), tuple):
        found["names"] = list(found["names"])
    return SaliencyBatch(images, **found)


def _as_masks(masks: Any) -> Any:
    """Masks with a channel of one, or of another dtype than bool: nonzero is the object."""
    if not isinstance(masks, Tensor):
        return masks
    if masks.ndim == 4 and masks.shape[1] == 1:
        masks = masks.squeeze(1)
    return masks if masks.dtype == torch.bool else masks != 0


def _as_boxes(boxes: Any) -> Any:
    """One box a sample as `(N, 4)`, several as `(N, M, 4)`, or a sequence of `(M, 4)` and `(4,)`."""
    if isinstance(boxes, Tensor) and boxes.ndim == 2:
        boxes = boxes[:, None]
    if not isinstance(boxes, (Tensor, list, tuple)):
        return boxes
    return [each[None] if isinstance(each, Tensor) and each.ndim == 1 else each for each in boxes]


def _as_labels(labels: Tensor) -> Tensor:
    """A column of classes is a vector of classes."""
    return labels.squeeze(1) if labels.ndim == 2 and labels.shape[1] == 1 else labels


def _labels_from_list(labels: Any, images: Any) -> Any:
    if isinstance(labels, (list, tuple)) and all(isinstance(each, int) for each in labels):
        return torch.tensor(labels, device=images.device if isinstance(images, Tensor) else None)
    return labels


def _not_understood(batch: Any) -> str:
    return (
        f"The batch could not be read: {_describe(batch)}. Pass `adapter=`, a function from such a batch to a "
        "SaliencyBatch, for example:\n"
        "    adapter=lambda batch: SaliencyBatch(images=batch[0], labels=batch[1])"
    )


def _describe(value: Any, depth: int = 0) -> str:
    """The structure of a batch in a few words, with the shapes that were seen."""
    if isinstance(value, Tensor):
        return f"Tensor {shape_of(value)}"
    if depth < 2 and isinstance(value, Mapping):
        inside = ", ".join(f"{key!r}: {_describe(each, depth + 1)}" for key, each in list(value.items())[:8])
        return f"{type(value).__name__} {{{inside}}}"
    if depth < 2 and isinstance(value, (tuple, list)):
        inside = ", ".join(_describe(each, depth + 1) for each in value[:6])
        return f"{type(value).__name__} ({inside}{', ...' if len(value) > 6 else ''})"
    return type(value).__name__
