"""Connected components of regions that only grow, and their boxes, on the regions' own device."""

from typing import NamedTuple

import torch
from torch import Tensor


class Components(NamedTuple):
    """The connected components of a batch of regions."""

    samples: Tensor
    """``(R,)`` int64: whose region each is in."""
    boxes: Tensor
    """``(R, 4)`` float32 xyxy, the far edges past the last pixel: one pixel is a box of area 1."""
    areas: Tensor
    """``(R,)`` int64: how many pixels."""


class GrowingRegions:
    """Regions on N grids, at first empty, to which pixels are added; two that touch become one component.

    Neighbours are the eight around a pixel. Each pixel names another one of its component, and in the end the
    component's root; only pixels that are added are ever looked at, so that thresholding a map at any number
    of falling thresholds costs little more than at one.

    Args:
        shape: ``(N, H, W)``.
        device: Where the pixels are.

    Example:
        >>> import torch
        >>> from lightning_gcam.metrics.functional.components import GrowingRegions
        >>> regions = GrowingRegions((1, 2, 4), "cpu")
        >>> regions.add(torch.tensor([0, 1, 3])).boxes.tolist()
        [[0.0, 0.0, 2.0, 1.0], [3.0, 0.0, 4.0, 1.0]]
        >>> regions.add(torch.tensor([6])).boxes.tolist()
        [[0.0, 0.0, 4.0, 2.0]]
    """

    def __init__(self, shape: tuple[int, int, int], device: torch.device | str) -> None:
        n, self.height, self.width = shape
        pixels = torch.arange(n * self.height * self.width, device=device)
        column, row = pixels % self.width, pixels // self.width % self.height
        self.parents = pixels
        self.boxes = torch.stack([column, row, column + 1, row + 1], dim=1).float()
        self.areas = torch.ones_like(pixels)
        self.inside = torch.zeros_like(pixels, dtype=torch.bool)
        self.roots = pixels[:0]

    def add(self, pixels: Tensor) -> Components:
        """Add pixels, by their index into the flattened batch, and give the components that there are now.

        Args:
            pixels: ``(K,)`` int64, none of them added before.
        """
        self.inside[pixels] = True
        self._join(*self._neighbours(pixels))
        parts = torch.cat([self.roots, pixels])
        roots = self.root_of(parts)
        merged = roots != parts
        # What is no root any more gives its box and its pixels to its root, once.
        into, lost = roots[merged], parts[merged]
        columns = into[:, None].expand(-1, 2)
        self.boxes[:, :2].scatter_reduce_(0, columns, self.boxes[lost, :2], "amin")
        self.boxes[:, 2:].scatter_reduce_(0, columns, self.boxes[lost, 2:], "amax")
        self.areas.scatter_add_(0, into, self.areas[lost])
        self.roots = parts[~merged].sort().values
        size = self.height * self.width
        return Components(self.roots // size, self.boxes[self.roots], self.areas[self.roots])

    def root_of(self, pixels: Tensor) -> Tensor:
        """Follow each pixel to the root of its component, and let it name that from now on."""
        roots = self.parents[pixels]
        while not torch.equal(further := self.parents[roots], roots):
            roots = further
        self.parents[pixels] = roots
        return roots

    def _join(self, first: Tensor, second: Tensor) -> None:
        """Make one component of the two ends of each pair: the lower root names the highest beside it."""
        while True:
            first, second = self.root_of(first), self.root_of(second)
            apart = first != second
            if not apart.any():
                return
            first, second = first[apart], second[apart]
            lower, higher = torch.minimum(first, second), torch.maximum(first, second)
            self.parents.scatter_reduce_(0, lower, higher, "amax")

    def _neighbours(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Each pixel with each of its neighbours that is inside."""
        column, row = pixels % self.width, pixels // self.width % self.height
        pairs = []
        for down in (-1, 0, 1):
            for right in (-1, 0, 1):
                on_grid = (row + down >= 0) & (row + down < self.height)
                on_grid &= (column + right >= 0) & (column + right < self.width)
                mine = pixels[on_grid]
                other = mine + down * self.width + right
                there = self.inside[other] & (other != mine)
                pairs.append(torch.stack([mine[there], other[there]]))
        first, second = torch.cat(pairs, dim=1)
        return first, second
