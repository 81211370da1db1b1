"""Which layer of a network with logits at every position: the deepest whose positions matter to others."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_gcam.cam import find_target_layer
from lightning_gcam.cam.outputs import corner
from lightning_gcam.cam.suitability import reaches_beyond_corner, up_to_the_bottleneck
from tests.support.nets import seeded


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


def test_where_no_layer_mixes_positions_the_last_one_before_the_output_has_to_do() -> None:
    pointwise = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 4, 1))
    assert find(pointwise).name == "1"


def test_pools_of_a_pyramid_are_coarser_and_no_bottleneck() -> None:
    sides = [56, 7, 2, 3, 6, 7, 56]
    gradients, layers = [torch.ones(1, 2, side, side) for side in sides], list("abcdefg")
    assert up_to_the_bottleneck(layers, gradients, (224, 224), (56, 56)) == list("abcdef")
    assert up_to_the_bottleneck(layers[2:5], gradients[2:5], (224, 224), (56, 56)) == [
        "c"
    ]  # there is nothing else


def test_a_layer_whose_positions_matter_to_themselves_only_is_passed_over() -> None:
    local = torch.zeros(1, 2, 8, 8)
    local[:, :, :2, :2] = 1
    gradients, layers = [torch.ones(1, 2, 8, 8), torch.ones(1, 2, 8, 8), local], ["a", "b", "c"]
    assert up_to_the_bottleneck(layers, gradients, (64, 64), (64, 64)) == ["a", "b"]
    assert up_to_the_bottleneck(layers[2:], gradients[2:], (64, 64), (64, 64)) == ["c"]


@pytest.mark.parametrize("side", range(2, 15))
@pytest.mark.parametrize("scale", [1, 2, 3, 8])
@pytest.mark.parametrize("how", ["bilinear", "nearest"])
def test_resizing_alone_does_not_reach_beyond(side: int, scale: int, how: str) -> None:
    grid = torch.zeros(1, 2, side, side + 1, requires_grad=True)
    dense = nn.functional.interpolate(grid, scale_factor=scale, mode=how)
    (gradient,) = torch.autograd.grad(corner(dense).sum(), grid)
    assert gradient.any()
    assert not reaches_beyond_corner(gradient, (dense.shape[2], dense.shape[3]))


@pytest.mark.parametrize("side", range(4, 15))
@pytest.mark.parametrize("scale", [1, 2, 3, 8])
def test_a_convolution_before_it_does(side: int, scale: int) -> None:
    grid = torch.zeros(1, 2, side, side, requires_grad=True)
    mixed = nn.functional.conv2d(grid, torch.ones(2, 2, 3, 3), padding=1)
    dense = nn.functional.interpolate(mixed, scale_factor=scale, mode="bilinear")
    (gradient,) = torch.autograd.grad(corner(dense).sum(), grid)
    assert reaches_beyond_corner(gradient, (dense.shape[2], dense.shape[3]))


def test_the_corner_of_the_logits() -> None:
    logits = torch.arange(2 * 3 * 8 * 5).float().view(2, 3, 8, 5)
    torch.testing.assert_close(corner(logits), logits[:, :, :2, :1].mean(dim=(2, 3)))
