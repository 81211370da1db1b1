"""Convert any batch, detection targets included, into a `SaliencyBatch`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from lightning_gcam.data.boxes import read_boxes
from lightning_gcam.data.checks import Kind, Size, check_groups, check_suspect, has_rows, shape_of
from lightning_gcam.data.conversion import read_images, read_labels
from lightning_gcam.data.masks import is_dense, read_masks
from lightning_gcam.data.objects import read_objects, targets_of
from lightning_gcam.data.readers import find_parts
from lightning_gcam.data.saliency_batch import SaliencyBatch
from lightning_gcam.data.structure import VIDEOS, VOLUMES, are_frames_first, as_tensor, is_list, unwrap
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
    batch: Any,
    adapter: Adapter | None = None,
    class_names: Sequence[str] | None = None,
    on_unclear: Callable[[str], None] | None = None,
) -> SaliencyBatch:
    """Read images, labels, masks and boxes out of a batch as a dataloader delivers it.

    Images may be signals `(N, C, L)`, volumes `(N, C, D, H, W)` and videos, too, the frames of which may come first:
    `(N, T, C, H, W)` is held as `(N, C, T, H, W)`. A single bad entry (a box with NaN, a mask of another size) costs
    that sample its annotation only, as `faults` has it; what else came with a row for each sample is in `inputs`.

    Args:
        batch: a `SaliencyBatch`; images alone; images `(N, C, H, W)`, or a list of `(C, H, W)`, and their annotation in
            a tuple or list, known by its form, or in a mapping, named tuple or dataclass, known by its name (`KEYS` in
            `lightning_gcam.data.fields`), with detection targets as torchvision has them; a list of samples; or a
            structure in which one part is such a batch. Arrays may be torch's, numpy's or `tv_tensors`.
        adapter: applied first; for every other layout.
        class_names: where labels are words, all of them in the order of the logits.
        on_unclear: called with a message where labels, masks, boxes or another annotation cannot be read; the batch is
            then read without it. The message shows what came and an `adapter` to copy.

    Raises:
        InputError: where there are no images, or no reading of them; without `on_unclear` also where there is none of
            the annotation, or more than one; the message shows what came and an `adapter` to copy.

    Example:
        >>> images, labels = torch.rand(2, 3, 8, 8), torch.tensor([1, 0])
        >>> as_saliency_batch({"pixel_values": images, "label": labels}).labels.tolist()
        [1, 0]
        >>> as_saliency_batch((images, ["cat", "dog"]), class_names=["cat", "dog"]).labels.tolist()
        [0, 1]
    """
    came = batch
    if adapter is not None:
        batch = _adapted(batch, adapter)
    if isinstance(batch, SaliencyBatch):
        return _with_inputs(batch, came) if adapter is not None and batch.inputs is None else batch
    try:
        return _read(batch, class_names, on_unclear, adapted=adapter is not None)
    except InputError:
        raise
    except Exception as error:  # a container of the user's own may raise anything when it is looked into
        raise InputError(
            f"The batch could not be read: {type(batch).__name__}, which raised {type(error).__name__}: {error}. Pass "
            "`adapter=`, a function from such a batch to a SaliencyBatch."
        ) from error


def _read(
    batch: Any,
    class_names: Sequence[str] | None,
    on_unclear: Callable[[str], None] | None = None,
    *,
    adapted: bool,
) -> SaliencyBatch:
    """Read a batch without the user's adapter; an error contains the code of an adapter that would work."""
    parts: Parts | None = None
    try:
        parts = find_parts(batch)
        reading = _Reading(parts, class_names)
        found = reading.build()
    except UnreadableBatch as unclear:
        unclear.parts = parts or unclear.parts
        raise InputError(error_message(batch, unclear, _read_adapted, adapted=adapted)) from None
    if reading.unclear:
        problem = reading.unclear[0]
        if isinstance(problem, UnreadableBatch):
            is_left_out = on_unclear is not None
            message = error_message(batch, problem, _read_adapted, adapted=adapted, left_out=is_left_out)
            problem = InputError(message)
        elif on_unclear is not None:
            problem = InputError(f"The looks go on without what cannot be read: {problem}")
        if on_unclear is None:
            raise problem from None
        on_unclear(str(problem))
    return found


def _with_inputs(samples: SaliencyBatch, batch: Any) -> SaliencyBatch:
    """Add what else a model may take of the batch that an adapter made the samples of."""
    with suppress(Exception):  # whatever it is, the adapter has read it
        inputs = find_parts(batch).get("inputs") or {}
        held = {key: rows for key, rows in inputs.items() if has_rows(rows, len(samples))}
        return replace(samples, inputs=held) if held else samples
    return samples


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


class _Reading:
    """Convert the parts of a batch into a `SaliencyBatch`; annotation that cannot be read is left out, and noted.

    Args:
        parts: as `find_parts` gives them.
        class_names: as in `as_saliency_batch`.
    """

    def __init__(self, parts: Parts, class_names: Sequence[str] | None) -> None:
        self.parts = {field: value for field, value in parts.items() if value is not None}
        self.class_names = class_names
        self.unclear: list[UnreadableBatch | InputError] = list(parts.get("unclear", []))

    def build(self) -> SaliencyBatch:
        """Read every part; of the images alone an error is raised."""
        parts, name = self.parts, self.parts.get("images_name", "")
        images = read_images(parts["images"], parts.get("labels"), name)
        frames_first = are_frames_first(images, name)
        images = images.transpose(1, 2) if frames_first else images
        size, device = (len(images), *images.shape[2:]), images.device
        faults = [""] * len(images)
        targets = parts.get("objects") or self._attempt(lambda: targets_of(parts, size), parts)
        if targets is not None:
            read = self._attempt(lambda: read_objects(targets, images, self.class_names, faults), parts)
            self.parts = parts = {**parts, **(read or {})}
        labels = self._read("labels", lambda each: read_labels(each, images, self.class_names, faults))
        masks = self._read("masks", lambda each: read_masks(each, labels, size, device, faults))
        formats = parts.get("box_formats", ())
        return SaliencyBatch(
            images,
            masks[1] if masks is not None else labels,
            masks[0] if masks is not None else None,
            self._read("boxes", lambda each: read_boxes(each, size, device, formats, faults)),
            self._read("suspect", lambda each: _checked(check_suspect, _suspect(each, size, device), size)),
            self._read("groups", lambda each: _checked(check_groups, _groups(each, device), size)),
            _names(parts.get("names"), len(images)),
            kind=_kind_of(images, name, frames_first),
            frames_first=frames_first,
            head_labels=self._head_labels(labels, images, faults),
            inputs=parts.get("inputs") or None,
            faults=faults if any(faults) else None,
            no_classes=labels is None and masks is None and targets is None and self._holds_numbers(images),
        )

    def _head_labels(
        self, labels: Tensor | None, images: Tensor, faults: list[str]
    ) -> dict[str, Tensor] | None:
        """Read the columns that could each be the label of a head; None where the labels are the only one.

        What is missing in a column that stands beside labels is no fault: the column may be of no head.
        """
        found: dict[str, Tensor] = {}
        for key, value in self.parts.get("columns", {}).items():
            noted = [""] * len(images)
            with suppress(UnreadableBatch, InputError):
                found[str(key)] = read_labels(value, images, self.class_names, noted)
            if labels is None:
                faults[:] = [old or new for old, new in zip(faults, noted, strict=True)]
        return found if len(found) > (labels is not None) else None

    def _holds_numbers(self, images: Tensor) -> bool:
        """Whether in the labels' place there came several numbers a sample, such as keypoints: they name no classes."""
        inputs = self.parts.get("inputs") or {}
        named = [value for name, value in inputs.items() if name.lower() in _POINTS]
        is_unclear = any(isinstance(each, UnreadableBatch) for each in self.unclear)  # and not words
        unclear = [self.parts.get("labels"), *inputs.values()] if is_unclear else []
        if len(self.parts.get("columns", {})) > 1:  # each could be the classes
            return False
        arrays = (as_tensor(each) for each in [*named, *unclear])
        return any(each is not None and each.ndim > 1 and each.shape != images.shape for each in arrays)

    def _read(self, field: str, read: Callable[[Any], Any]) -> Any:
        """Read a part of the batch; None where there is none, or it cannot be read."""
        return self._attempt(lambda: read(self.parts[field]), self.parts) if field in self.parts else None

    def _attempt(self, read: Callable[[], Any], parts: Parts) -> Any:
        try:
            return read()
        except UnreadableBatch as problem:
            problem.parts = parts or problem.parts
            self.unclear.append(problem)
        except InputError as problem:  # words that are no class names
            self.unclear.append(problem)
        return None


_POINTS = ("keypoints", "keypoint", "landmarks", "landmark", "joints", "heatmaps", "heatmap", "heat_maps")
"""What labels are called that name places in an image."""


def _checked(check: Callable[[Any, Size], None], value: Any, size: Size) -> Any:
    check_part(check, value, size)
    return value


def _kind_of(images: Tensor, name: str, frames_first: bool) -> Kind | None:
    """Return the kind that three dimensions are by the name of the images; None where it does not matter."""
    if images.ndim != 5:
        return None
    return "video" if frames_first or name in VIDEOS else "volume" if name in VOLUMES else None


def _suspect(suspect: Any, size: Size, device: torch.device) -> Any:
    """Convert a suspect region to bool: every number but zero is inside."""
    found = as_tensor(suspect)
    if found is None:
        return suspect
    d = len(size) - 1
    found = found.squeeze(1) if found.ndim == d + 2 and found.shape[1] == 1 else found
    if not found.is_complex() and found.ndim in (d, d + 1) and is_dense(found.reshape(-1, *found.shape[-d:])):
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
