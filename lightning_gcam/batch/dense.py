"""Whether numbers at every pixel are a mask, or a dense target: a depth map, a second image, a measured field."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_gcam._lightning import rank_zero_warn

MANY = 64
"""More different whole numbers in one image are no classes: a photograph of 8 bits, or a depth in millimetres."""


def is_whole(numbers: Tensor) -> bool:
    """Whether all numbers are whole, of whatever dtype."""
    return not numbers.is_floating_point() or torch.equal(numbers, numbers.round())


def is_dense(stack: Tensor) -> bool:
    """Whether numbers at every pixel are a measurement and no mask, in which what is not zero is the object.

    A mask is boolean, holds few whole numbers (0 and 1, 255, classes, instances), or is soft: between 0 and 1, at least
    half of it exactly 0, and what is not 0 in whole areas (the points of a laser scanner are not); or only its edges
    are, as where a mask was resized.

    Args:
        stack: `(N, H, W)` finite real numbers.

    Example:
        >>> ramp = torch.linspace(0, 1, 64).reshape(1, 8, 8)
        >>> is_dense(ramp), is_dense((ramp - 0.75).clamp(min=0)), is_dense(ramp.round())
        (True, False, False)
    """
    if stack.dtype == torch.bool or not stack.numel() or has_soft_edges(stack):
        return False
    return has_many_numbers(stack) if is_whole(stack) else not is_soft_mask(stack)


def has_soft_edges(stack: Tensor) -> bool:
    """Whether `(N, H, W)` is a mask of 0 and 1, or 0 and 255, that was resized: only some pixels lie between the two.

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
    """Whether `(N, H, W)` holds numbers between 0 and 1, half of them exactly 0, and the others in whole areas."""
    inside = stack != 0
    return (
        bool(((stack >= 0) & (stack <= 1)).all())
        and 2 * int(inside.sum()) <= inside.numel()
        and is_area(inside)
    )


def is_area(inside: Tensor) -> bool:
    """Whether the pixels of `(N, H, W)` bool lie beside each other, along rows or columns, and are not scattered.

    Of scattered ones the next pixel is inside as often as any; a third of the way from there to "always" is enough.
    """
    share = float(inside.float().mean())
    along = [
        float((first & second).sum()) / max(int(first.sum()), 1)
        for first, second in (
            (inside[..., :-1], inside[..., 1:]),
            (inside[..., :-1, :], inside[..., 1:, :]),
        )
    ]
    return not share or max(along) >= share + (1 - share) / 3


def has_many_numbers(stack: Tensor) -> bool:
    """Most of the first images hold more than `MANY` numbers; of small ones, more than one to four pixels."""
    some, most = stack[:_ENOUGH], min(MANY, max(8, stack[0].numel() // 4))
    return sum(how_many(each) > most for each in some) * 2 > len(some)


_ENOUGH, _COUNTED = 8, 1 << 16


def how_many(numbers: Tensor) -> int:
    """How many different whole numbers there are; counted one by one where they lie close, which sorting is not.

    Example:
        >>> how_many(torch.tensor([[0, 255], [255, 7]])), how_many(torch.tensor([1.0, 1e9]))
        (3, 2)
    """
    low, high = numbers.min(), numbers.max()
    if float(high) - float(low) >= _COUNTED:
        return len(numbers.unique())
    return int(torch.bincount((numbers - low).flatten().long()).count_nonzero())


def warn_of_full_masks(masks: Tensor | None) -> None:
    """Warn where the object fills every image of several: each score of localization is then at its chance level.

    Args:
        masks: `(N, H, W)` bool, or None.
    """
    if masks is not None and len(masks) > 1 and bool(masks.all()):
        rank_zero_warn(
            f"The object fills each of the {len(masks)} images, so that energy and pointing game are 1.0 whatever the "
            "maps show. Are the masks (or boxes) something else, such as marks of valid pixels? Then leave them out, "
            "with `adapter=`."
        )
