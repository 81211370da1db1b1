"""Convert masks in any form to `(N, *S)` bool, and distinguish them from dense targets, which are none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from lightning_gcam.data.checks import Size, shape_of, type_and_shape
from lightning_gcam.data.structure import as_tensor, has_aspect, is_list, is_whole, unwrap
from lightning_gcam.data.unreadable import UnreadableBatch, array_code
from lightning_gcam.utils.lightning_compat import rank_zero_warn

MANY = 64
"""More different whole numbers in one image are no classes: a photograph of 8 bits, or a depth in millimetres."""


def is_dense(stack: Tensor) -> bool:
    """Whether numbers at every pixel are a measurement, and no mask in which what is not zero is the object.

    A mask is boolean, holds few whole numbers (0 and 1, 255, classes, instances), or is soft: between 0 and 1, at least
    half of it exactly 0, and what is not 0 in whole areas (the points of a laser scanner are not); or only its edges
    are, as where a mask was resized.

    Args:
        stack: `(N, *S)` finite real numbers.

    Example:
        >>> ramp = torch.linspace(0, 1, 64).reshape(1, 8, 8)
        >>> is_dense(ramp), is_dense((ramp - 0.75).clamp(min=0)), is_dense(ramp.round())
        (True, False, False)
    """
    if stack.dtype == torch.bool or not stack.numel() or has_soft_edges(stack):
        return False
    return has_many_numbers(stack) if is_whole(stack) else not is_soft_mask(stack)


def has_soft_edges(stack: Tensor) -> bool:
    """Whether `(N, *S)` is a mask of 0 and 1, or 0 and 255, that was resized: few pixels lie between the two.

    Of the pixels three in four are empty or full and one in twenty is empty; half of those that are not empty are full.

    Example:
        >>> edge = torch.tensor([[[0, 0, 0, 0, 128, 255, 255, 255]]])
        >>> has_soft_edges(edge), has_soft_edges(edge / 255), has_soft_edges(edge.cumsum(2))
        (True, True, False)
    """
    top = float(stack.max())
    if float(stack.min()) < 0 or not any(abs(top - full) <= 1e-4 * full for full in (1, 255)):
        return False
    n, empty, full = stack.numel(), int((stack == 0).sum()), int((stack >= top * (1 - 1e-4)).sum())
    return 4 * (empty + full) >= 3 * n and 20 * empty >= n and 2 * full >= n - empty


def is_soft_mask(stack: Tensor) -> bool:
    """Whether `(N, *S)` holds numbers between 0 and 1, half of them exactly 0, and the others in whole areas."""
    inside = stack != 0
    return (
        bool(((stack >= 0) & (stack <= 1)).all())
        and 2 * int(inside.sum()) <= inside.numel()
        and is_area(inside)
    )


def is_area(inside: Tensor) -> bool:
    """Whether the pixels of `(N, *S)` bool lie beside each other, along some dimension, and are not scattered.

    Of scattered ones the next pixel is inside as often as any; a third of the way from there to "always" is enough.
    """
    share = float(inside.float().mean())
    along = []
    for axis in range(1, inside.ndim):
        length = inside.shape[axis] - 1
        first, second = inside.narrow(axis, 0, length), inside.narrow(axis, 1, length)
        along.append(float((first & second).sum()) / max(int(first.sum()), 1))
    return not share or max(along) >= share + (1 - share) / 3


def has_many_numbers(stack: Tensor) -> bool:
    """Whether most of the first images hold more than `MANY` numbers; of small ones, more than one to four pixels."""
    some, most = stack[:_ENOUGH], min(MANY, max(8, stack[0].numel() // 4))
    return sum(count_distinct(each) > most for each in some) * 2 > len(some)


_ENOUGH, _COUNTED = 8, 1 << 16


def count_distinct(numbers: Tensor) -> int:
    """Count the different whole numbers; one by one where they lie close, which is quicker than sorting.

    Example:
        >>> count_distinct(torch.tensor([[0, 255], [255, 7]])), count_distinct(torch.tensor([1.0, 1e9]))
        (3, 2)
    """
    low, high = numbers.min(), numbers.max()
    if float(high) - float(low) >= _COUNTED:
        return len(numbers.unique())
    return int(torch.bincount((numbers - low).flatten().long()).count_nonzero())


def warn_of_full_masks(masks: Tensor | None) -> None:
    """Warn where the object fills every image of several: each score of localization is then at its chance level.

    Args:
        masks: `(N, *S)` bool, or None.
    """
    if masks is not None and len(masks) > 1 and bool(masks.all()):
        rank_zero_warn(
            f"The object fills each of the {len(masks)} images, so that energy and pointing game are 1.0 whatever the "
            "maps show. Are the masks (or boxes) something else, such as marks of valid pixels? Then leave them out, "
            "with `adapter=`."
        )


VOID = 255
"""The number of pixels that nobody could name, as in Pascal VOC."""


_FEW = 1 << 16
"""Up to here numbers are counted one by one; beyond they are sorted, which takes longer."""


@dataclass(frozen=True)
class Segmentation:
    """`(N, *S)` int64 numbers of classes; 0 is the background, and 255 and negative ones are void."""

    numbers: Tensor

    @property
    def foreground(self) -> list[int]:
        """The numbers that occur, without background and void; 255 is one where there is no other."""
        found = _counted(self.numbers)[0].tolist()
        inside = [each for each in found if each > 0 and each != VOID]
        return inside or [each for each in found if each == VOID]

    def of(self, labels: Tensor) -> Tensor:
        """Return the pixels of each sample's class `(N,)` or classes `(N, K)`; none where all is background."""
        if labels.ndim == 1:
            shows_any = ((self.numbers > 0) & (self.numbers != VOID)).flatten(1).any(dim=1)
            column = (len(labels), *(1,) * (self.numbers.ndim - 1))
            return (self.numbers == labels.reshape(column)) & (shows_any & (labels >= 0)).reshape(column)
        known = (self.numbers > 0) & (self.numbers < labels.shape[1])
        places = torch.where(known, self.numbers, 0).flatten(1)
        return (labels > 0).gather(1, places).reshape(known.shape) & known

    def largest(self) -> Tensor:
        """Return the class with the most pixels in each sample `(N,)`, not background or void; -1 for none."""
        return torch.tensor([_largest(each) for each in self.numbers], device=self.numbers.device)


def _counted(numbers: Tensor) -> tuple[Tensor, Tensor]:
    """Return the numbers from 0 that occur, and how often."""
    numbers = numbers[numbers >= 0]
    if not numbers.numel() or int(numbers.max()) >= _FEW:
        found, counts = numbers.unique(return_counts=True)
        return found, counts
    counts = torch.bincount(numbers)
    found = counts.nonzero()[:, 0]
    return found, counts[found]


def _largest(numbers: Tensor) -> int:
    """Return the class with the most pixels in one segmentation; -1 where there is none."""
    classes, counts = _counted(numbers[(numbers > 0) & (numbers != VOID)])
    return int(classes[counts.argmax()]) if len(classes) else -1


def read_masks(
    masks: Any,
    labels: Tensor | None,
    size: Size,
    device: torch.device | str = "cpu",
    faults: list[str] | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Convert masks to objects `(N, *S)` bool, and give the labels: those that came, or the segmentation's.

    A mask of another size and the aspect of its image is resized. A sample without a mask has an empty one.

    A mask of one number beside the background is the object. In a segmentation of several, the object is the pixels
    of the sample's label; where there are no labels, the label is the class with the most pixels that is neither 0
    (background) nor 255 (void).

    Args:
        masks: an array `(N, *S)`, with one channel or without, or a list.
        labels: `(N,)` or `(N, K)`, as `read_labels` gives them.
        size: N, H and W of the images, or of signals and volumes.
        device: where the labels are, and the result is held.
        faults: N strings, to which what was left out is written.

    Raises:
        UnreadableBatch: another form or size, or numbers that do not belong to the labels.

    Example:
        >>> read_masks([[[0, 7], [7, 3]]], None, (1, 2, 2))
        (tensor([[[False,  True],
                 [ True, False]]]), tensor([7]))
    """
    stack = _as_stack(_one_each(masks, size, faults), labels, size, faults).to(device)
    if stack.dtype == torch.bool:
        return stack, labels
    if is_dense(stack):
        raise _dense_target(masks, stack)
    if not is_whole(stack) or has_many_numbers(stack):
        return _read_shares(masks, stack, labels), labels
    segmentation = Segmentation(stack.long())
    foreground = segmentation.foreground
    if labels is None and foreground != [VOID]:
        labels = segmentation.largest()
        return segmentation.of(labels), labels
    if labels is None or len(foreground) < 2:
        return segmentation.numbers == (foreground or [VOID])[0], labels  # void where there is nothing at all
    return _masks_of_labels(masks, segmentation, labels), labels


def _one_each(masks: Any, size: Size, faults: list[str] | None) -> Any:
    """Make masks of one size of a list in which some are None, or of another size than their image.

    What is of another size and aspect becomes an empty mask, where there are others.
    """
    masks = unwrap(masks)
    if not is_list(masks) or len(masks) != size[0] or as_tensor(masks) is not None:
        return masks
    found = [None if each is None else _one_mask(as_tensor(each), size[1:]) for each in masks]
    given = [each for each in found if each is not None]
    if not given:
        return masks
    for row, each in enumerate(masks):
        if each is not None and found[row] is None and faults is not None:
            faults[row] = faults[row] or "a mask of another size"
    return as_tensor([torch.zeros_like(given[0]) if each is None else each for each in found])


def _one_mask(mask: Tensor | None, size: Size) -> Tensor | None:
    """Convert one sample's mask to the size S of its image; None where its shape does not fit."""
    if mask is None:
        return None
    if mask.ndim == len(size) + 1 and 1 in (mask.shape[0], mask.shape[-1]):
        mask = mask.squeeze(0 if mask.shape[0] == 1 else -1)
    if tuple(mask.shape) == size:
        return mask
    return (
        resized_mask(mask[None], size)[0] if mask.ndim == len(size) and has_aspect(mask.shape, size) else None
    )


def resized_mask(masks: Tensor, size: Size) -> Tensor:
    """Resize `(N, *S)` to another size by the nearest pixel, in the dtype they have.

    Example:
        >>> resized_mask(torch.tensor([[0, 7]]), (4,))
        tensor([[0, 0, 7, 7]])
    """
    return functional.interpolate(masks[:, None].double(), size, mode="nearest")[:, 0].to(masks.dtype)


def _as_stack(masks: Any, labels: Tensor | None, size: Size, faults: list[str] | None) -> Tensor:
    """Convert masks to one `S` for each sample."""
    found, d = as_tensor(masks), len(size) - 1
    if found is not None and found.ndim == d + 2 and _has_last_channel(found, size):
        found = found.squeeze(-1)
    if found is not None and found.ndim > d + 1 and found.shape[-d - 1] == 1:
        found = found.squeeze(-d - 1)
    if found is not None and found.shape[:2] == size[:2] and found.ndim == 5 == d + 2 and found.shape[2] == 1:
        found = found.squeeze(2)  # of videos with their frames first
    if found is not None and found.shape == size[1:] and size[0] == 1:
        found = found[None]
    if found is not None and _is_of_another_size(found, size):
        found = resized_mask(found, size[1:])
    if found is None or tuple(found.shape) != size:
        raise _wrong_shape(masks, found, labels, size)
    return _without_nan(found, faults)


def _without_nan(masks: Tensor, faults: list[str] | None) -> Tensor:
    """Make the masks with NaN empty, where others are not."""
    is_whole_mask = torch.isfinite(masks).flatten(1).all(dim=1)
    bad = (~is_whole_mask).nonzero()[:, 0].tolist()
    if masks.is_complex() or len(bad) == len(masks):
        raise UnreadableBatch(f"`masks` {shape_of(masks)} hold NaN or infinity, or are complex.")
    for row in bad:
        if faults is not None:
            faults[row] = faults[row] or "a mask with NaN"
    return torch.where(is_whole_mask.reshape(-1, *(1,) * (masks.ndim - 1)), masks, 0) if bad else masks


def _is_of_another_size(masks: Tensor, size: Size) -> bool:
    """Whether masks `(N, *S)` have another size than their images, of the same aspect, and are no dense target."""
    is_alike = masks.ndim == len(size) and len(masks) == size[0] and not masks.is_complex()
    return (
        is_alike
        and tuple(masks.shape) != size
        and has_aspect(masks.shape[1:], size[1:])
        and not is_dense(masks)
    )


def _has_last_channel(masks: Tensor, size: Size) -> bool:
    return tuple(masks.shape) == (*size, 1) and size[-1] != 1


def _wrong_shape(masks: Any, found: Tensor | None, labels: Tensor | None, size: Size) -> UnreadableBatch:
    """The error for masks of another size or form, with the code that settles it."""
    expected, d = f"`masks` must have the size of the images, {size}; got", len(size) - 1
    if found is None or found.ndim not in (d + 1, d + 2) or len(found) != size[0]:
        return UnreadableBatch(f"{expected} {type_and_shape(masks)}.")
    code = array_code("masks", masks)
    if found.is_complex() or is_dense(found.flatten(0, -d - 1)):
        return UnreadableBatch(f"{expected} {shape_of(found)}, whose numbers are no mask's either.")
    if found.ndim == d + 2 and tuple(found.shape[2:]) == size[1:]:
        reason = f"{expected} {shape_of(found)}. Its {found.shape[1]} channels may be instances or classes."
        return UnreadableBatch(reason, masks=f"({code} != 0).any(dim=1)")
    reason = f'{expected} {shape_of(found)}. Resize them first, with mode "nearest".'
    shape = (-1, 1 if found.ndim == d + 1 else found.shape[1], *found.shape[-d:])
    resized = f"torch.nn.functional.interpolate({code}.float().reshape{shape}, size={size[1:]})"
    if found.ndim == d + 1 and is_whole(found) and len(Segmentation(found.long()).foreground) > 1:
        return UnreadableBatch(
            reason, batch=f"({{images}}, {'{labels}, ' if labels is not None else ''}{resized})"
        )
    return UnreadableBatch(reason, masks=f"({resized} != 0).any(dim=1)")


def _dense_target(masks: Any, stack: Tensor) -> UnreadableBatch:
    """The error for masks that are a dense target."""
    what = "numbers that are not whole"
    if is_whole(stack):
        what = f"{count_distinct(stack[0])} different numbers in an image"
    reason = (
        f"`masks` {shape_of(stack)} hold {what}: neither classes nor an object's mask, but a dense target (a depth "
        "map, a second image), which is left out here. A soft mask is one where `> 0.5`."
    )
    inside = stack != 0
    is_of_larger_numbers = (
        bool((stack >= 0).all()) and 2 * int(inside.sum()) <= inside.numel() and is_area(inside)
    )
    if is_of_larger_numbers and not is_whole(stack):
        return UnreadableBatch(
            reason,
            masks=f"{array_code('masks', masks)}.reshape{(-1, *stack.shape[1:])} != 0",
            recipe="#dense-targets",
        )
    return UnreadableBatch(reason, recipe="#dense-targets")


def _read_shares(masks: Any, stack: Tensor, labels: Tensor | None) -> Tensor:
    """Convert numbers between 0 and 1, or 255, most of them 0: a mask that was resized, or drawn with soft edges."""
    if labels is None:
        raise UnreadableBatch(
            f"`masks` {shape_of(stack)} hold numbers that are not whole, and nothing else came with the images.",
            masks=f"{array_code('masks', masks)}.reshape{(-1, *stack.shape[1:])} != 0",
        )
    return stack != 0


def _masks_of_labels(masks: Any, segmentation: Segmentation, labels: Tensor) -> Tensor:
    """Return the object of each label, if these numbers are the labels': most of the samples must show theirs."""
    found = segmentation.of(labels)
    labelled = labels >= 0 if labels.ndim == 1 else (labels > 0).any(dim=1)
    seen = found.flatten(1).any(dim=1) & labelled
    if int(seen.sum()) * 2 < int(labelled.sum()):
        numbers = ", ".join(map(str, segmentation.foreground[:6]))
        raise UnreadableBatch(
            f"`masks` {shape_of(segmentation.numbers)} hold the numbers {numbers}, which are not the labels'.",
            masks=f"{array_code('masks', masks)}.reshape{(-1, *found.shape[1:])} != 0",
        )
    return found
