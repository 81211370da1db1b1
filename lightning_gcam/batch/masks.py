"""What masks mean: the object, or a segmentation with the number of a class in each pixel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_gcam.batch.checks import Size, came, shape_of
from lightning_gcam.batch.dense import has_many_numbers, how_many, is_area, is_dense, is_whole
from lightning_gcam.batch.plain import as_tensor
from lightning_gcam.batch.refusal import Unclear, array_code

VOID = 255
"""The number of pixels that nobody could name, as in Pascal VOC."""


_FEW = 1 << 16
"""Up to here numbers are counted one by one; beyond they are sorted, which takes longer."""


@dataclass(frozen=True)
class Segmentation:
    """`(N, H, W)` int64 numbers of classes; 0 is the background, and 255 and negative ones are void."""

    numbers: Tensor

    @property
    def foreground(self) -> list[int]:
        """The numbers that occur, without background and void; 255 is one where there is no other."""
        found = _counted(self.numbers)[0].tolist()
        inside = [each for each in found if each > 0 and each != VOID]
        return inside or [each for each in found if each == VOID]

    def of(self, labels: Tensor) -> Tensor:
        """The pixels of each sample's class `(N,)` or classes `(N, K)`; none where all is background."""
        if labels.ndim == 1:
            shows_any = ((self.numbers > 0) & (self.numbers != VOID)).flatten(1).any(dim=1)
            return (self.numbers == labels[:, None, None]) & (shows_any & (labels >= 0))[:, None, None]
        known = (self.numbers > 0) & (self.numbers < labels.shape[1])
        places = torch.where(known, self.numbers, 0).flatten(1)
        return (labels > 0).gather(1, places).reshape(known.shape) & known

    def largest(self) -> Tensor:
        """The class with the most pixels in each sample `(N,)`, neither background nor void; -1 where there is none."""
        return torch.tensor([_largest(each) for each in self.numbers], device=self.numbers.device)


def _counted(numbers: Tensor) -> tuple[Tensor, Tensor]:
    """The numbers from 0 that occur, and how often."""
    numbers = numbers[numbers >= 0]
    if not numbers.numel() or int(numbers.max()) >= _FEW:
        found, counts = numbers.unique(return_counts=True)
        return found, counts
    counts = torch.bincount(numbers)
    found = counts.nonzero()[:, 0]
    return found, counts[found]


def _largest(numbers: Tensor) -> int:
    classes, counts = _counted(numbers[(numbers > 0) & (numbers != VOID)])
    return int(classes[counts.argmax()]) if len(classes) else -1


def read_masks(
    masks: Any, labels: Tensor | None, size: Size, device: torch.device | str = "cpu"
) -> tuple[Tensor, Tensor | None]:
    """Masks in any form as objects `(N, H, W)` bool, and the labels: those that came, or else the segmentation's.

    A mask of one number beside the background is the object. In a segmentation of several, the object is the pixels
    of the sample's label; where there are no labels, the label is the class with the most pixels that is neither 0
    (background) nor 255 (void).

    Args:
        masks: an array `(N, H, W)`, with one channel or without, or a list.
        labels: `(N,)` or `(N, K)`, as `read_labels` gives them.
        size: N, H and W of the images.
        device: where the labels are, and the result is held.

    Raises:
        Unclear: another form or size, or numbers that do not belong to the labels.

    Example:
        >>> read_masks([[[0, 7], [7, 3]]], None, (1, 2, 2))
        (tensor([[[False,  True],
                 [ True, False]]]), tensor([7]))
    """
    stack = _as_stack(masks, labels, size).to(device)
    if stack.dtype == torch.bool:
        return stack, labels
    if is_dense(stack):
        raise _of_a_dense_target(masks, stack)
    if not is_whole(stack) or has_many_numbers(stack):
        return _read_shares(masks, stack, labels), labels
    segmentation = Segmentation(stack.long())
    foreground = segmentation.foreground
    if labels is None and foreground != [VOID]:
        labels = segmentation.largest()
        return segmentation.of(labels), labels
    if labels is None or len(foreground) < 2:
        return segmentation.numbers == (foreground or [VOID])[0], labels  # void where there is nothing at all
    return _of_labels(masks, segmentation, labels), labels


def _as_stack(masks: Any, labels: Tensor | None, size: Size) -> Tensor:
    """One `(H, W)` for each sample."""
    found = as_tensor(masks)
    found = (
        found.squeeze(-1)
        if found is not None and found.ndim == 4 and _has_last_channel(found, size)
        else found
    )
    found = found.squeeze(-3) if found is not None and found.ndim > 3 and found.shape[-3] == 1 else found
    if found is not None and found.shape == size[1:] and size[0] == 1:
        found = found[None]
    if found is None or tuple(found.shape) != size:
        raise _another_form(masks, found, labels, size)
    if found.is_complex() or not bool(torch.isfinite(found).all()):
        raise Unclear(f"`masks` {shape_of(found)} hold NaN or infinity, or are complex.")
    return found


def _has_last_channel(masks: Tensor, size: Size) -> bool:
    return tuple(masks.shape) == (*size, 1) and size[2] != 1


def _another_form(masks: Any, found: Tensor | None, labels: Tensor | None, size: Size) -> Unclear:
    expected = f"`masks` must have the size of the images, {size}; got"
    if found is None or found.ndim not in (3, 4) or len(found) != size[0]:
        return Unclear(f"{expected} {came(masks)}.")
    code = array_code("masks", masks)
    if found.is_complex() or is_dense(found.flatten(0, -3)):
        return Unclear(f"{expected} {shape_of(found)}, whose numbers are no mask's either.")
    if found.ndim == 4 and tuple(found.shape[2:]) == size[1:]:
        reason = f"{expected} {shape_of(found)}. Its {found.shape[1]} channels may be instances or classes."
        return Unclear(reason, masks=f"({code} != 0).any(dim=1)")
    reason = f'{expected} {shape_of(found)}. Resize them first, with mode "nearest".'
    shape = (-1, 1 if found.ndim == 3 else found.shape[1], *found.shape[-2:])
    resized = f"torch.nn.functional.interpolate({code}.float().reshape{shape}, size={size[1:]})"
    if found.ndim == 3 and is_whole(found) and len(Segmentation(found.long()).foreground) > 1:
        return Unclear(reason, batch=f"({{images}}, {'{labels}, ' if labels is not None else ''}{resized})")
    return Unclear(reason, masks=f"({resized} != 0).any(dim=1)")


def _of_a_dense_target(masks: Any, stack: Tensor) -> Unclear:
    what = "numbers that are not whole"
    if is_whole(stack):
        what = f"{how_many(stack[0])} different numbers in an image"
    reason = (
        f"`masks` {shape_of(stack)} hold {what}: neither classes nor an object's mask, but a dense target (a depth "
        "map, a second image), which is left out here. A soft mask is one where `> 0.5`."
    )
    inside = stack != 0
    is_of_larger_numbers = (
        bool((stack >= 0).all()) and 2 * int(inside.sum()) <= inside.numel() and is_area(inside)
    )
    if is_of_larger_numbers and not is_whole(stack):
        return Unclear(reason, masks=f"{array_code('masks', masks)}.reshape{(-1, *stack.shape[1:])} != 0")
    return Unclear(reason)


def _read_shares(masks: Any, stack: Tensor, labels: Tensor | None) -> Tensor:
    """Numbers between 0 and 1, or 255, most of them 0: a mask that was resized, or drawn with soft edges."""
    if labels is None:
        raise Unclear(
            f"`masks` {shape_of(stack)} hold numbers that are not whole, and nothing else came with the images.",
            masks=f"{array_code('masks', masks)}.reshape{(-1, *stack.shape[1:])} != 0",
        )
    return stack != 0


def _of_labels(masks: Any, segmentation: Segmentation, labels: Tensor) -> Tensor:
    """The object of each label, if these numbers are the labels': most of the samples must show theirs."""
    found = segmentation.of(labels)
    labelled = labels >= 0 if labels.ndim == 1 else (labels > 0).any(dim=1)
    seen = found.flatten(1).any(dim=1) & labelled
    if int(seen.sum()) * 2 < int(labelled.sum()):
        numbers = ", ".join(map(str, segmentation.foreground[:6]))
        raise Unclear(
            f"`masks` {shape_of(segmentation.numbers)} hold the numbers {numbers}, which are not the labels'.",
            masks=f"{array_code('masks', masks)}.reshape{(-1, *found.shape[1:])} != 0",
        )
    return found
