"""From any batch to a `SaliencyBatch`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_gcam.data.boxes import read_boxes
from lightning_gcam.data.conversion import read_images, read_labels
from lightning_gcam.data.detection import read_objects, targets_of
from lightning_gcam.data.masks import is_dense, read_masks
from lightning_gcam.data.readers import find_parts
from lightning_gcam.data.refusal import Parts, Unclear, adapter_code, asked, describe, refusal
from lightning_gcam.data.saliency_batch import SaliencyBatch, check_groups, check_suspect, shape_of
from lightning_gcam.data.structure import as_tensor, is_list, plain
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
    parts: Parts | None = None
    try:
        parts = find_parts(batch)
        return _build(parts, class_names)
    except Unclear as unclear:
        unclear.parts = parts or unclear.parts
        raise InputError(refusal(batch, unclear, _read_adapted, adapted=adapted)) from None


def _read_adapted(batch: Any) -> SaliencyBatch:
    """What an adapter gave, as it will be read when it is handed over."""
    return batch if isinstance(batch, SaliencyBatch) else _read(batch, None, adapted=True)


def adapter_for(batch: Any, images: str) -> str:
    """The code of an adapter for a batch that can be read, but of which the images are to be other ones.

    Args:
        batch: as it came.
        images: the code that gives them, with `{images}` for what came as these.

    Example:
        >>> adapter_for([torch.zeros(2, 3, 8, 8), torch.tensor([0, 1])], "{images}.float() / 255")
        'adapter=lambda batch: SaliencyBatch(images=batch[0].float() / 255, labels=batch[1])'
    """
    try:
        parts = find_parts(batch)
    except Unclear:
        parts = {}
    return f"adapter=lambda batch: {adapter_code(batch, Unclear(parts=parts, images=images))}"


def _adapted(batch: Any, adapter: Adapter) -> Any:
    try:
        return adapter(batch)
    except Exception as error:
        raise InputError(
            f"`adapter` failed on the batch {describe(batch)}: {type(error).__name__}: {error}"
        ) from error


def _build(parts: Parts, class_names: Sequence[str] | None) -> SaliencyBatch:
    """What the parts mean, together."""
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
    asked(check_suspect, suspect, size)
    asked(check_groups, groups, size)
    return SaliencyBatch(
        images, labels, masks, boxes, suspect, groups, _names(parts.get("names"), len(images))
    )


def _suspect(suspect: Any, device: torch.device) -> Any:
    """Whatever is not zero is in the region, where the numbers are a region's."""
    found = as_tensor(suspect)
    if found is None:
        return suspect
    found = found.squeeze(1) if found.ndim == 4 and found.shape[1] == 1 else found
    if not found.is_complex() and found.ndim in (2, 3) and is_dense(found.reshape(-1, *found.shape[-2:])):
        raise Unclear(f"`suspect` {shape_of(found)} holds a number at every pixel: it must be a region.")
    return (found != 0).to(device)


def _groups(groups: Any, device: torch.device) -> Any:
    found = as_tensor(groups)
    if found is None:
        return groups
    return (found.squeeze(1) if found.ndim == 2 and found.shape[1] == 1 else found).to(device)


def _names(names: Any, n: int) -> list[str] | None:
    """Names are for captions only: what is not one word or number for each sample is let be."""
    names = plain(names)
    if isinstance(names, Tensor):
        names = names.tolist()
    is_one_each = is_list(names) and len(names) == n and all(isinstance(each, (str, int)) for each in names)
    return [str(each) for each in names] if is_one_each else None
