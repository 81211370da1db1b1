"""Which layer of a network with logits at every position: the deepest whose positions matter to others."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_gcam.cam import find_target_layer
from lightning_gcam.cam.bottleneck import corner, reaches_beyond_corner, up_to_the_bottleneck
from tests.cam.nets import seeded


class UNet(nn.Module):
    """Down twice, up twice with skips, and a pointwise head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.down = nn.Conv2d(6, 8, 3, stride=4, padding=1)
        self.deep = nn.Conv2d(8, 8, 3, stride=2, padding=1)
        self.mixed = nn.Conv2d(8, 8, 1)  # pointwise
        self.up = nn.Conv2d(16, 8, 3, padding=1)
        self.head = nn.Conv2d(14, 4, 1)

    def forward(self, images: Tensor) -> Tensor:
        first = self.stem(images).relu()
        second = self.down(first).relu()
        third = self.mixed(self.deep(second).relu()).relu()
        fourth = self.up(torch.cat([second, resized(third, second)], dim=1)).relu()
        return self.head(torch.cat([first, resized(fourth, first)], dim=1))


def resized(features: Tensor, other: Tensor) -> Tensor:
    return nn.functional.interpolate(features, size=other.shape[2:], mode="bilinear")


def find(model: nn.Module, size: tuple[int, int] = (64, 96)) -> Any:
    return find_target_layer(
        seeded(model), torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
    )


def test_the_bottleneck_of_a_unet_is_found() -> None:
    assert find(UNet()).name == "mixed"
    assert find(UNet()).grid == (8, 12)


class Dilated(nn.Module):
    """As FCN: one grid from the backbone to the logits, which are then enlarged."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Conv2d(3, 8, 3, stride=8, padding=1)
        self.neck = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Conv2d(8, 4, 1)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"out": resized(self.head(self.neck(self.backbone(images).relu()).relu()), images)}


def test_the_logits_themselves_are_not_looked_at() -> None:
    assert find(Dilated()).name == "backbone"


def test_where_no_layer_mixes_positions_the_last_one_has_to_do() -> None:
    pointwise = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 4, 1))
    assert find(pointwise).name == "2"


def test_pools_of_a_pyramid_are_coarser_and_no_bottleneck() -> None:
    grids = [(56, 56), (7, 7), (2, 2), (3, 3), (6, 6), (7, 7), (56, 56)]
    layers = list("abcdefg")
    assert up_to_the_bottleneck(layers, grids, [True] * 7, (224, 224)) == list("abcdef")
    assert up_to_the_bottleneck(layers[2:5], grids[2:5], [True] * 3, (224, 224)) == [
        "c"
    ]  # there is nothing else


@pytest.mark.parametrize(("side", "inside"), [(4, 2), (8, 3), (7, 3), (2, 2), (3, 2)])
def test_the_corner_ends_a_cell_behind_a_quarter(side: int, inside: int) -> None:
    for dim in (2, 3):
        gradient = torch.zeros(1, 2, side, side)
        gradient.narrow(dim, 0, inside).fill_(1)
        other = torch.zeros(1, 2, side, side)
        other.narrow(dim, min(inside, side - 1), 1).fill_(1)
        others = 5 - dim
        gradient.narrow(others, inside, side - inside).fill_(0)
        other.narrow(others, inside, side - inside).fill_(0)
        assert not reaches_beyond_corner(gradient)
        assert reaches_beyond_corner(other) == (inside < side)


def test_the_corner_of_the_logits() -> None:
    logits = torch.arange(2 * 3 * 8 * 5).float().view(2, 3, 8, 5)
    torch.testing.assert_close(corner(logits), logits[:, :, :2, :2].mean(dim=(2, 3)))
