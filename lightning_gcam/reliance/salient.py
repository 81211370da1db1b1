"""The most salient region outside the object, and one of the same shape at a random place outside of it."""

from __future__ import annotations

import torch
from torch import Tensor

_MOST = 1 / 4
"""How much of what lies outside of the object's surroundings is replaced at most."""


def most_salient(maps: Tensor, masks: Tensor, around: Tensor) -> Tensor:
    """The most salient pixels outside the region around the object, as many as the object has.

    Args:
        maps: `(N, H, W)` saliency, at least 0.
        masks: `(N, H, W)` bool, the objects.
        around: `(N, H, W)` bool, the regions around them.

    Returns:
        `(N, H, W)` bool: at most a quarter of what lies outside, and only pixels that are salient at all; so it is
        empty where all saliency lies around the object.

    Example:
        >>> maps = torch.tensor([[[5.0, 0.0, 1.0, 3.0, 2.0, 0.0, 0.0, 0.0, 0.0]]])
        >>> mask = torch.tensor([[[True] + [False] * 8]])
        >>> most_salient(maps, mask, mask).int().tolist()
        [[[0, 0, 0, 1, 0, 0, 0, 0, 0]]]
    """
    outside = ~around
    maps = torch.where(outside, maps, -1.0).flatten(1)
    most = (outside.flatten(1).sum(dim=1) * _MOST).long()
    area = torch.minimum(masks.flatten(1).sum(dim=1), most)
    order = maps.argsort(dim=1, descending=True, stable=True)
    among_the_first = torch.arange(maps.shape[1], device=maps.device) < area[:, None]
    first = torch.zeros_like(among_the_first).scatter(1, order, among_the_first)
    return (first & (maps > 0)).reshape(around.shape)


def same_elsewhere(regions: Tensor, around: Tensor, seed: int = 0) -> Tensor:
    """Each region moved to a random place, over the image's edges, where it neither meets the object nor itself.

    Of all places where at most half of it meets itself, the ones are taken at which it meets the region around the
    object least, and of these the ones at which it meets itself least; of them, one by chance. How much it would meet
    at every place at once is a correlation.

    Args:
        regions: `(N, H, W)` bool.
        around: `(N, H, W)` bool, the regions around the objects. What would still meet them is left out.
        seed: of the chance; no other random stream moves.

    Returns:
        `(N, H, W)` bool.

    Example:
        >>> region = torch.tensor([[[False, True, True, False, False, False]]])
        >>> around = torch.tensor([[[True, False, False, False, False, False]]])
        >>> same_elsewhere(region, around).int().tolist() in ([[[0, 0, 0, 1, 1, 0]]], [[[0, 0, 0, 0, 1, 1]]])
        True
    """
    generator = torch.Generator().manual_seed(seed)
    moved = [_moved(*each, generator) for each in zip(regions, around, strict=True)]
    return torch.stack(moved) & ~around


def _moved(region: Tensor, around: Tensor, generator: torch.Generator) -> Tensor:
    """One region `(H, W)` at another place: one at a time, since a correlation takes many times a region's memory."""
    size = region.shape
    conjugate = torch.fft.rfft2(region.cpu().double()).conj()
    met = [
        torch.fft.irfft2(conjugate * torch.fft.rfft2(each.cpu().double()), s=size)
        for each in (around, region)
    ]
    with_object, with_itself = (each.round().long() for each in met)
    is_itself = 2 * with_itself > region.cpu().sum()
    cost = ((with_object + size.numel() * is_itself) * size.numel() + with_itself).flatten()
    best = cost == cost.amin()
    shift = divmod(int(best.double().multinomial(1, generator=generator)), size[1])
    return region.roll(shift, dims=(0, 1))
