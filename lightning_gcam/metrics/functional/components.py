"""Connected components of thresholded maps, on the maps' own device, and their boxes."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d


class Components(NamedTuple):
    """Each map's connected components; a place of the second axis that names none has the area 0."""

    boxes: Tensor
    """``(N, H * W, 4)`` float32 xyxy, the far edges past the last pixel: one pixel is a box of area 1."""
    areas: Tensor
    """``(N, H * W)`` int64: how many pixels."""


def label_components(region: Tensor, labels: Tensor | None = None) -> Tensor:
    """Give each pixel of a region the highest index of a pixel that it is connected with.

    Neighbours are the eight around a pixel. Each round, every component takes the highest label beside it, and
    labels of labels are followed to their end; the rounds it takes grow with the logarithm of the size.

    Args:
        region: ``(N, H, W)`` bool.
        labels: ``(N, H, W)`` int64, what this function gave for smaller regions within: a start that saves
            rounds.

    Returns:
        ``(N, H, W)`` int64: an index into the flattened grid, -1 outside of the region.
    """
    n, height, width = region.shape
    own = torch.arange(height * width, device=region.device).expand(n, -1)
    inside = region.flatten(1)
    start = own if labels is None else torch.where(labels.flatten(1) >= 0, labels.flatten(1), own)
    labels = torch.where(inside, start, -1)
    while True:
        # float32 holds every index of a grid of up to 4096 x 4096 exactly, and each device can pool it.
        grid = labels.float().reshape(n, 1, height, width)
        around = max_pool2d(grid, 3, stride=1, padding=1).flatten(1).long()
        parents = own.scatter_reduce(
            1, labels.clamp(min=0), torch.where(inside, around, -1), "amax", include_self=True
        )
        while not torch.equal(further := parents.gather(1, parents), parents):
            parents = further
        merged = torch.where(inside, parents.gather(1, labels.clamp(min=0)), -1)
        if torch.equal(merged, labels):
            return merged.reshape(region.shape)
        labels = merged


def component_boxes(labels: Tensor) -> Components:
    """Find each component's box and area.

    Args:
        labels: ``(N, H, W)`` int64, as :func:`label_components` gives them.
    """
    n, height, width = labels.shape
    device = labels.device
    # What is in no component goes to one more place, which is cut off.
    places = torch.where(labels >= 0, labels, height * width).flatten(1)
    rows = torch.arange(height, device=device)[:, None].expand(height, width).reshape(1, -1).expand(n, -1)
    columns = torch.arange(width, device=device).expand(height, width).reshape(1, -1).expand(n, -1)
    none = torch.zeros(n, height * width + 1, dtype=torch.int64, device=device)
    near = [none.scatter_reduce(1, places, at, "amin", include_self=False) for at in (columns, rows)]
    far = [none.scatter_reduce(1, places, at + 1, "amax", include_self=False) for at in (columns, rows)]
    areas = none.scatter_add(1, places, torch.ones_like(places))
    return Components(torch.stack([*near, *far], dim=2)[:, :-1].float(), areas[:, :-1])
