"""uint8 images: the forward gets them as they came, and the maps are those of the same images as floats."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_gcam import SaliencyBatch, attribute
from lightning_gcam.cam import find_target_layer
from lightning_gcam.pipeline.run import record_saliency
from lightning_gcam.utils.errors import InputError

IMAGES = torch.randint(256, (3, 3, 12, 10), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


class Net(nn.Module):
    """It scales what it gets, in its forward or in its first submodule."""

    def __init__(self, scale: nn.Module | None = None) -> None:
        super().__init__()
        self.scale = scale or nn.Identity()
        self.features = nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Conv2d(4, 5, 3), nn.ReLU()
        )
        self.head = nn.Linear(5, 4)

    def forward(self, images: Tensor) -> Tensor:
        scaled = self.scale(images) if not isinstance(self.scale, nn.Identity) else images.float() / 255
        return self.head(self.features(scaled).mean(dim=(2, 3)))


class Scale(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.float() / 255


@pytest.fixture(params=["in the forward", "in a submodule"])
def net(request: Any) -> Net:
    torch.manual_seed(0)
    return Net(Scale() if request.param == "in a submodule" else None).train()


@pytest.mark.parametrize(
    "frozen", [(), ("features",), ("features", "head")], ids=["trained", "frozen", "all frozen"]
)
@pytest.mark.parametrize("zero_head", [False, True])
def test_the_same_layer_is_found(net: Net, frozen: tuple[str, ...], zero_head: bool) -> None:
    for name in frozen:
        getattr(net, name).requires_grad_(False)
    if zero_head:
        nn.init.zeros_(net.head.weight)
    before = {name: value.clone() for name, value in net.state_dict().items()}

    found = find_target_layer(net, IMAGES)

    assert found.name == find_target_layer(net, IMAGES.float()).name == "features"
    assert found.earlier[0] == find_target_layer(net, IMAGES.float()).earlier[0] == "features.2"
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())


@pytest.mark.parametrize("layer", [None, "features.0"])
def test_the_maps_are_those_of_floats(net: Net, layer: str | None) -> None:
    methods = ["guidance_cam", "grad_cam", "layer_cam"]

    found = attribute(net, IMAGES, [0, 1, 2], methods=methods, target_layer=layer)
    floats = attribute(net, IMAGES.float(), [0, 1, 2], methods=methods, target_layer=layer)

    assert all(torch.equal(found.maps[each], floats.maps[each]) for each in methods)
    assert torch.equal(found.logits, floats.logits)


def test_a_picture_of_them_is_them(net: Net) -> None:
    """The display knows 0 to 255; as floats they would be stretched."""
    grey = torch.full_like(IMAGES, 100)

    overlay = record_saliency(net, SaliencyBatch(grey, torch.tensor([0, 1, 2]))).overlay

    assert (overlay == 100).all(axis=2).sum() >= grey[:, 0].numel()


@pytest.mark.parametrize("look", [attribute, find_target_layer])
def test_a_forward_that_takes_floats_only_is_told(net: Net, look: Any) -> None:
    with pytest.raises(
        InputError, match=r"the forward of Sequential takes; got torch.uint8 \(N, .*type.*Convert them"
    ):
        look(net.features, IMAGES)


def test_another_error_is_left_alone() -> None:
    class Broken(Net):
        def forward(self, images: Tensor) -> Tensor:
            raise RuntimeError("DefaultCPUAllocator: not enough memory")

    with pytest.raises(RuntimeError, match="not enough memory"):
        attribute(Broken(), IMAGES, target_layer="features")


def test_complex_numbers_are_no_images(net: Net) -> None:
    with pytest.raises(InputError, match=r"`images` must be real numbers"):
        attribute(net, IMAGES.to(torch.complex64))
