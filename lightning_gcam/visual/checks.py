"""What may be drawn together: refused here with the argument's name, before any work is done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized

import torch
from torch import Tensor

from lightning_gcam._errors import InputError, did_you_mean


def check_pictures(images: Tensor, argument: str = "images") -> None:
    """Refuse what is not a batch of displayable pictures."""
    if images.ndim != 4 or images.shape[1] != 3 or images.dtype != torch.uint8:
        raise InputError(
            f"`{argument}` must be uint8 (N, 3, H, W), but it is {images.dtype} {tuple(images.shape)}. "
            "Pass it through `to_display` first."
        )


def check_same_size(images: Tensor, maps: Tensor, argument: str) -> None:
    """Refuse maps or masks that are not on the images' grid."""
    expected = (images.shape[0], *images.shape[2:])
    if tuple(maps.shape) != expected:
        raise InputError(
            f"`{argument}` must be (N, H, W) = {expected}, as the images are, "
            f"but its shape is {tuple(maps.shape)}. Resize it to the images first."
        )


def check_figure(
    images: Tensor,
    maps: Mapping[str, Tensor],
    masks: Tensor | None,
    boxes: Sequence[Tensor] | None,
    suspect: Tensor | None,
) -> None:
    """Refuse tensors that do not belong to the same samples."""
    check_pictures(images)
    if not images.numel():
        raise InputError(f"`images` is empty: its shape is {tuple(images.shape)}. Give at least one sample.")
    for name, values in maps.items():
        check_same_size(images, values, f'maps["{name}"]')
    for argument, mask in (("masks", masks), ("suspect", suspect)):
        if mask is not None:
            check_same_size(images, mask, argument)
    check_count(boxes, len(images), "boxes", "sample")


def check_before(images: Tensor, maps: Mapping[str, Tensor], before: Mapping[str, Tensor] | None) -> None:
    """Refuse earlier maps that do not belong to these samples and maps."""
    for name, values in (before or {}).items():
        if name not in maps:
            raise InputError(f'`before` "{name}" is not one of the maps. {did_you_mean(name, maps)}')
        check_same_size(images, values, f'before["{name}"]')


def check_words(
    samples: int,
    maps: Mapping[str, Tensor],
    captions: Sequence[str],
    correct: Sequence[bool | None] | None,
    headings: Sequence[str] | None,
    notes: Mapping[str, Sequence[str]] | None,
) -> None:
    """Refuse words that do not belong to these samples and maps."""
    check_count(captions, samples, "captions", "sample")
    check_count(correct, samples, "correct", "sample")
    check_count(headings, len(maps), "headings", "map")
    for name, lines in (notes or {}).items():
        if name not in maps:
            raise InputError(f'`notes` "{name}" is not one of the maps. {did_you_mean(name, maps)}')
        check_count(lines, samples, f'notes["{name}"]', "sample")


def check_count(values: Sized | None, count: int, argument: str, what: str) -> None:
    """Refuse a sequence that does not have one entry for each sample or map."""
    if values is not None and len(values) != count:
        raise InputError(
            f"`{argument}` must have one entry for each {what}, {count}, but it has {len(values)}. "
            f"Give {count}, in the same order."
        )
