"""A layer that runs several times in one forward: the map is that of the images it is drawn on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_gcam import attribute
from lightning_gcam.cam import find_target_layer
from lightning_gcam.utils.errors import InputError
from tests.support.nets import CLASSES, SIZE, pictures, seeded, state_of
from tests.support.toys import listening

REFERENCE = pictures(1, seed=7)


class Pair(nn.Module):
    """One tower, two images."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.tower = nn.Sequential(
            nn.Conv2d(channels, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 9, 3, padding=1)
        )
        self.head = nn.Linear(18, CLASSES)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        both = self.tower(left).tanh().mean(dim=(2, 3)), self.tower(right).tanh().mean(dim=(2, 3))
        return self.head(torch.cat(both, dim=1))


def pair(channels: int = 3) -> Pair:
    model = Pair(channels)
    seeded(model)
    return model


def reference(images: Tensor) -> Tensor:
    return REFERENCE.expand(len(images), -1, -1, -1)


FORWARDS: dict[str, tuple[Callable[[Any, Tensor], Tensor], int]] = {
    "first": (lambda model, images: model(images, reference(images)), 0),
    "second": (lambda model, images: model(reference(images), images), 1),
    "of a fixed batch": (lambda model, images: model(images, REFERENCE.repeat(4, 1, 1, 1)), 0),
    "detached": (lambda model, images: model(images.detach(), reference(images)), 0),
    "both, one as it was": (lambda model, images: model(images, images.flip(3)), 1),
    "two in the channels": (lambda model, images: model(images[:, :3], images[:, 3:]), 0),
    "two in the channels, turned": (lambda model, images: model(images[:, 3:], images[:, :3]), 1),
    "frames of one channel": (lambda model, images: model(images[:, 1:], images[:, :1]), 1),
}


def by_hand(model: Pair, forward: Callable[[Any, Tensor], Tensor], images: Tensor, call: int) -> Tensor:
    """Grad-CAM of class 2 at one call of the tower, by a hook and a full backward."""
    kept: list[Tensor] = []
    handle = model.tower.register_forward_hook(lambda module, args, output: kept.append(output))
    score = forward(model, images)[:, 2].sum()
    handle.remove()
    (gradient,) = torch.autograd.grad(score, kept[call])
    raw = (gradient.mean(dim=(2, 3), keepdim=True) * kept[call]).sum(dim=1).relu().detach()
    return raw / raw.flatten(1).amax(dim=1).clamp(min=1e-12)[:, None, None]


@pytest.mark.parametrize("layer", [None, "tower", "tower.2"])
@pytest.mark.parametrize("how", FORWARDS)
def test_the_map_is_that_of_the_call_on_the_images(how: str, layer: str | None) -> None:
    if how == "of a fixed batch" and layer is None:
        pytest.skip("the search runs on one image, which this forward does not take")
    forward, call = FORWARDS[how]
    channels = 1 if how == "frames of one channel" else 3
    images = torch.cat([pictures(), pictures(seed=5)], dim=1)[:, : {"t": 6, "f": 2}.get(how[0], 3)]
    images = pictures() if how in ("first", "of a fixed batch") else images
    model = pair(channels)
    before = state_of(model)
    found = attribute(model, images, 2, methods="grad_cam", target_layer=layer, forward=forward)
    assert found.target_layer in ("tower", "tower.2")
    torch.testing.assert_close(found.maps["grad_cam"], by_hand(model, forward, images, call))
    other = by_hand(model, forward, images, 1 - call)
    assert (found.maps["grad_cam"] - other).abs().max() > 0.1
    assert state_of(model) == before


class OnWholeNumbers(nn.Module):
    """Images of whole numbers have no gradient: the call is seen by what moves with them."""

    def __init__(self, random: bool) -> None:
        super().__init__()
        self.random = random
        self.pair = pair()

    def forward(self, images: Tensor) -> Tensor:
        images = images.float() / 255
        other = torch.rand_like(reference(images)) if self.random else reference(images)
        return self.pair(images, other)


@pytest.mark.parametrize("random", [False, True])
def test_the_call_on_images_of_whole_numbers(random: bool) -> None:
    model = OnWholeNumbers(random).eval()
    images = torch.randint(0, 256, (4, 3, *SIZE), generator=torch.Generator().manual_seed(3)).to(torch.uint8)
    found = attribute(model, images, 2, methods="grad_cam", target_layer="pair.tower").maps["grad_cam"]
    right = by_hand(model.pair, FORWARDS["first"][0], images.float() / 255, 0)  # the head keeps the two apart
    torch.testing.assert_close(found, right)


class Frozen(Pair):
    """The tower runs under the user's own `no_grad`."""

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        with torch.no_grad():
            both = self.tower(left), self.tower(right)
        return self.head(torch.cat([each.tanh().mean(dim=(2, 3)) for each in both], dim=1))


def test_the_call_of_a_frozen_tower() -> None:
    model = Frozen()
    seeded(model)
    forward, call = FORWARDS["first"]
    found = attribute(model, pictures(), 2, methods="grad_cam", target_layer="tower", forward=forward)
    torch.testing.assert_close(found.maps["grad_cam"], by_hand(pair(), forward, pictures(), call))


@pytest.mark.parametrize("method", ["ablation_cam", "smooth_grad_cam_plus_plus"])
def test_methods_that_run_the_model_again_use_the_same_call(method: str) -> None:
    model = pair()
    maps, turned = (
        attribute(model, pictures(), 2, methods=method, target_layer="tower", forward=forward).maps[method]
        for forward in (
            FORWARDS["first"][0],
            lambda model, images: swapped(model)(reference(images), images),
        )
    )
    torch.testing.assert_close(maps, turned, rtol=1e-3, atol=1e-4)


def swapped(model: Pair) -> Callable[[Tensor, Tensor], Tensor]:
    """The same function of the two images, with the tower run on them in the other order."""

    def run(left: Tensor, right: Tensor) -> Tensor:
        first, second = (model.tower(each).tanh().mean(dim=(2, 3)) for each in (left, right))
        return model.head(torch.cat([second, first], dim=1))

    return run


# ------------------------------------------------------------------------------------------- what costs and is said


class Again(nn.Module):
    """One activation that several places share, as in torchvision's ResNet."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.relu = nn.ReLU()
        self.head = nn.Linear(6, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.relu(self.second(self.relu(self.first(images)))).mean(dim=(2, 3)))


def test_where_the_last_call_is_computed_from_the_others_there_is_no_other_forward_and_no_word() -> None:
    model, sizes = Again().eval(), list[int]()
    with listening() as said:
        attribute(
            model,
            pictures(),
            target_layer="relu",
            forward=lambda model, images: sizes.append(len(images)) or model(images),
        )
    assert sizes == [4]
    assert said == []


def test_otherwise_it_is_one_forward_of_one_image() -> None:
    sizes: list[int] = []

    def forward(model: Any, images: Tensor) -> Tensor:
        sizes.append(len(images))
        return model(images, reference(images))

    attribute(pair(), pictures(), target_layer="tower", forward=forward)
    assert sizes == [4, 1]


@pytest.mark.parametrize("method", ["smooth_grad_cam_plus_plus", "cameras"])
def test_methods_that_capture_again_do_not_search_for_the_call_again(method: str) -> None:
    sizes: list[int] = []

    def forward(model: Any, images: Tensor) -> Tensor:
        sizes.append(len(images))
        return model(images, reference(images))

    attribute(pair(), pictures(), methods=method, target_layer="tower", forward=forward)
    assert len(sizes) > 3
    assert sizes.count(1) == 1


@pytest.mark.parametrize(
    ("how", "words"),
    [
        (
            "first",
            'Layer "tower" is called 2 times in one forward. The maps are those of call 1, the only one that',
        ),
        ("two in the channels", "of call 1, which is computed from the channels that a picture shows."),
        ("both, one as it was", "of call 2, the last of 2 that are computed from what a picture shows"),
    ],
)
def test_it_is_said_once_which_call_is_shown(how: str, words: str) -> None:
    images = torch.cat([pictures(), pictures(seed=5)], dim=1)[:, : 6 if how[0] == "t" else 3]
    model = pair()
    with listening() as said:
        for _ in range(2):
            attribute(model, images, target_layer="tower", forward=FORWARDS[how][0])
    assert len(said) == 1
    assert words in said[0]


def test_the_layer_of_a_pair_is_found_by_the_call_on_the_images() -> None:
    assert find_target_layer(pair(), pictures(), forward=FORWARDS["first"][0]).name == "tower"


# ------------------------------------------------------------------------------------ several images in the batch


class InTheBatch(nn.Module):
    """The tower runs once, on frames or on a pair that are folded into the batch."""

    def __init__(self, frames: bool) -> None:
        super().__init__()
        self.frames = frames
        self.tower = nn.Conv2d(1 if frames else 3, 4, 3, padding=1)
        self.head = nn.Linear(12 if frames else 8, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        if self.frames:
            features = self.tower(images.flatten(0, 1)[:, None]).tanh().mean(dim=(2, 3))
            return self.head(features.unflatten(0, (-1, 3)).flatten(1))
        features = self.tower(torch.cat([images, reference(images)])).tanh().mean(dim=(2, 3))
        return self.head(torch.cat(features.chunk(2), dim=1))


@pytest.mark.parametrize("frames", [True, False])
def test_what_is_folded_into_the_batch_is_refused_with_a_reshape_that_works(frames: bool) -> None:
    model, images = seeded(InTheBatch(frames)), pictures()
    with pytest.raises(InputError, match="name the layer that they leave"):
        find_target_layer(model, images)
    with pytest.raises(InputError, match=f"There are {3 if frames else 2} rows for each image") as error:
        attribute(model, images, 2, target_layer="tower")
    lines = [each.strip() for each in str(error.value).splitlines() if "reshape_transform=lambda" in each]
    reshape = eval(lines[0 if frames else 1].removeprefix("reshape_transform="))
    found = attribute(model, images, 2, methods="grad_cam", reshape_transform=reshape)

    kept: list[Tensor] = []
    handle = model.tower.register_forward_hook(lambda module, args, output: kept.append(output))
    score = model(images)[:, 2].sum()
    handle.remove()
    (gradient,) = torch.autograd.grad(score, kept[0])
    each = (gradient.mean(dim=(2, 3), keepdim=True) * kept[0]).sum(dim=1).detach()
    raw = (each.unflatten(0, (4, 3)).sum(dim=1) if frames else each[:4]).relu()
    expected = raw / raw.flatten(1).amax(dim=1).clamp(min=1e-12)[:, None, None]
    torch.testing.assert_close(found.maps["grad_cam"], expected)
    assert found.maps["grad_cam"].amax() == 1
