"""Layouts that the shape leaves open, each against maps that were computed by hand from hooks on the convolution."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lightning_gcam import attribute
from lightning_gcam.cam import find_target_layer
from lightning_gcam.cam import layout_evidence as evidence
from lightning_gcam.cam.layer_search import LayerOutput, _is_plausible
from lightning_gcam.cam.layout_evidence import ObservedShape, batch_dimension, changed_images, locality
from lightning_gcam.cam.layouts import Layout

CELL = 4
"""Pixels that a cell is wide."""


class Laid(nn.Module):
    """Lays `(N, C, h, w)` out in another order: of four dimensions, or of three behind some class tokens."""

    def __init__(self, order: tuple[int, ...], tokens: int = 0) -> None:
        super().__init__()
        self.order, self.tokens = order, tokens

    def forward(self, grid: Tensor) -> Tensor:
        if len(self.order) == 3:
            grid = grid.flatten(2)
            grid = torch.cat([torch.ones_like(grid[:, :, :1]).expand(-1, -1, self.tokens), grid], dim=2)
        return grid.permute(self.order).contiguous()


class Net(nn.Module):
    """A convolution, its output laid out in some order and put back, and a head that is not even over space."""

    def __init__(self, laid: Laid, channels: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.conv, self.laid, self.grid = nn.Conv2d(1, channels, CELL, CELL), laid, grid
        self.head = nn.Linear(channels, 2)

    def forward(self, images: Tensor) -> Tensor:
        order = self.laid.order
        back = tuple(order.index(each) for each in range(len(order)))
        grid = self.laid(self.conv(images)).permute(back).flatten(2)[:, :, self.laid.tokens :]
        return self.head(grid.tanh().square().mean(dim=2))


def by_hand(model: Net, images: Tensor) -> Tensor:
    """Grad-CAM at the convolution, class 0, scaled: from hooks, without a line of the package."""
    kept: list[Tensor] = []
    handle = model.conv.register_forward_hook(lambda *call: kept.append(call[2]))
    score = model(images)[:, 0].sum()
    handle.remove()
    (gradient,) = torch.autograd.grad(score, kept[0])
    return cam(kept[0], gradient, images)


def cam(activations: Tensor, gradient: Tensor, images: Tensor) -> Tensor:
    raw = (gradient.mean(dim=(2, 3), keepdim=True) * activations).sum(dim=1, keepdim=True).relu().detach()
    peak = raw.flatten(1).amax(dim=1)[:, None, None, None]
    large = nn.functional.interpolate(
        raw / torch.where(peak > 0, peak, 1.0), images.shape[2:], mode="bilinear"
    )[:, 0]
    most = large.flatten(1).amax(dim=1)[:, None, None]
    return large / torch.where(most > 0, most, 1.0)


ORDERS = [*itertools.permutations(range(4)), *itertools.permutations(range(3))]


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    order=st.sampled_from(ORDERS),
    n=st.integers(1, 7),
    channels=st.integers(2, 9),
    rows=st.integers(2, 6),
    columns=st.integers(2, 6),
    tokens=st.integers(0, 2),
)
def test_random_layouts(
    order: tuple[int, ...], n: int, channels: int, rows: int, columns: int, tokens: int
) -> None:
    assume(rows * columns >= 6)
    torch.manual_seed(0)
    model = Net(Laid(order, tokens if len(order) == 3 else 0), channels, (rows, columns)).eval()
    images = torch.randn(n, 1, CELL * rows, CELL * columns)
    expected = by_hand(model, images)
    for layer in ("laid", None):
        found = attribute(model, images, 0, methods="grad_cam", target_layer=layer)
        torch.testing.assert_close(found.maps["grad_cam"], expected, rtol=1e-4, atol=1e-4)


# ------------------------------------------------------------------------------- channels taken for positions


class Wave(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv1d(1, 32, 7, padding=3), nn.Linear(32, 2)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.conv(images[:, :, 0]).relu().mean(-1))


def test_the_channels_of_a_convolution_over_a_row_are_no_positions() -> None:
    torch.manual_seed(0)
    model, images, targets = Wave(), torch.randn(4, 1, 1, 256), torch.tensor([0, 1, 0, 1])
    found = attribute(model, images, targets, methods="grad_cam")
    options: dict[str, Any] = {"target_layer": "conv", "reshape_transform": lambda output: output[:, :, None]}
    named = attribute(model, images, targets, methods="grad_cam", **options)
    assert found.target_layer == "conv"
    torch.testing.assert_close(found.maps["grad_cam"], named.maps["grad_cam"], rtol=0, atol=1e-5)


class Patches(nn.Module):
    """A `Conv1d` over what a `Conv2d` gave, patch after patch; or over the channels of a mean, as ECA has it."""

    def __init__(self, *, over_channels: bool) -> None:
        super().__init__()
        self.stem, self.row, self.head = nn.Conv2d(3, 16, 8, 8), nn.Conv1d(16, 16, 1), nn.Linear(16, 2)
        self.channels = nn.Conv1d(1, 1, 3, padding=1) if over_channels else None

    def forward(self, images: Tensor) -> Tensor:
        x = self.row(self.stem(images).flatten(2)).tanh()
        if self.channels is not None:
            x = x * self.channels(x.mean(dim=2)[:, None]).transpose(1, 2).sigmoid()
        return self.head(x.square().mean(dim=2))


def test_a_convolution_over_patches_in_a_row_gives_a_grid() -> None:
    torch.manual_seed(0)
    found = find_target_layer(Patches(over_channels=False), torch.randn(1, 3, 32, 64))
    assert (found.name, found.grid, found.kind) == ("row", (4, 8), "channels first, (N, C, L)")


def test_a_convolution_over_channels_gives_none() -> None:
    torch.manual_seed(0)
    model, images = Patches(over_channels=True), torch.randn(2, 3, 32, 64)
    assert find_target_layer(model, images).name == "row"
    with pytest.raises(ValueError, match=r"gives \(2, 1, 16\).*not a grid"):
        attribute(model, images, 0, target_layer="channels")


# ------------------------------------------------------------------------------- the batch taken for the sequence


class TokensFirst(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 32, 8, 8)
        self.encoder = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0)
        self.head = nn.Linear(32, 2)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.encoder(self.conv(images).flatten(2).permute(2, 0, 1)).mean(0))


@pytest.mark.parametrize("layer", ["encoder", None])
@pytest.mark.parametrize("method", ["grad_cam", "full_grad"])
def test_as_many_images_as_patches_are_not_taken_for_them(layer: str | None, method: str) -> None:
    torch.manual_seed(0)
    model, images = TokensFirst().eval(), torch.randn(20, 3, 32, 32)

    def maps(n: int) -> Tensor:
        return attribute(model, images[:n], 0, methods=method, target_layer=layer).maps[method]

    many = maps(20)
    for n in (15, 16, 17):
        torch.testing.assert_close(maps(n), many[:n], rtol=0, atol=1e-5)


def test_where_the_batch_cannot_be_told_nothing_is_guessed() -> None:
    torch.manual_seed(0)
    model, images = TokensFirst().eval(), torch.randn(16, 3, 32, 32)

    def only_sixteen(module: nn.Module, images: Tensor) -> Tensor:
        assert len(images) == 16
        return module(images)

    with pytest.raises(
        ValueError, match=r"more than one dimension may count the images.*`reshape_transform=`"
    ):
        attribute(model, images, 0, target_layer="encoder", forward=only_sixteen)


def test_it_is_seen_once() -> None:
    torch.manual_seed(0)
    model, images = TokensFirst().eval(), torch.randn(16, 3, 32, 32)
    sizes: list[int] = []

    def counted(module: nn.Module, images: Tensor) -> Tensor:
        sizes.append(len(images))
        return module(images)

    for n in (16, 16, 9):
        attribute(model, images[:n], 0, target_layer="encoder", forward=counted)
    assert sizes == [16, 5, 16, 9]


# ------------------------------------------------------------------------------------------- any aspect ratio


def one_axis(block: type[nn.Module] | None = None) -> nn.Sequential:
    return nn.Sequential(
        *(nn.Conv2d(1, 8, 3, 1, 1), nn.ReLU(), nn.MaxPool2d((4, 1))),
        *(nn.Conv2d(8, 16, 3, 1, 1), nn.ReLU(), nn.MaxPool2d((4, 1))),
        *([] if block is None else [block()]),
        *(nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(16, 2)),
    )


class Halved(nn.Module):
    """Says nothing of its layout, and pools once more."""

    def forward(self, features: Tensor) -> Tensor:
        return nn.functional.max_pool2d(features, (2, 1))


def test_a_network_that_pools_one_axis_is_channels_first() -> None:
    found = find_target_layer(one_axis(), torch.rand(1, 1, 64, 64))
    assert (found.name, found.grid, found.kind) == ("4", (16, 64), "channels first")
    halved = find_target_layer(one_axis(Halved), torch.rand(1, 1, 64, 64))
    assert (halved.name, halved.grid, halved.kind) == ("6", (2, 64), "channels first")


@pytest.mark.parametrize("layer", ["2", "3", "4", "5", "6"])
def test_a_patch_is_found_where_it_is_after_one_axis_was_pooled(layer: str) -> None:
    torch.manual_seed(3)
    model, images = one_axis(Halved), 0.01 * torch.rand(2, 1, 64, 64)
    images[0, :, 40:56, 48:60] = 1.0
    images[1, :, 4:20, 4:16] = 1.0
    options: dict[str, Any] = {"methods": "layer_cam", "target_layer": layer}
    found = attribute(model, images, 0, **options).maps["layer_cam"]
    straight = attribute(model, images, 0, **options, reshape_transform=lambda output: output).maps[
        "layer_cam"
    ]
    assert torch.equal(found, straight)
    assert (found.flatten(1).amax(dim=1) > 0).all()


# ------------------------------------------------------------------------------------------------- the parts


def test_a_change_keeps_half_of_the_image_and_its_values() -> None:
    image = torch.arange(48.0).view(1, 1, 6, 8)
    base, top, bottom, left, right = changed_images(image, 5)
    assert torch.equal(base, image[0])
    assert torch.equal(top[:, 3:], base[:, 3:]) and not torch.equal(top[:, :3], base[:, :3])
    assert torch.equal(bottom[:, :3], base[:, :3]) and not torch.equal(bottom[:, 3:], base[:, 3:])
    assert torch.equal(left[..., 4:], base[..., 4:]) and not torch.equal(left[..., :4], base[..., :4])
    assert torch.equal(right[..., :4], base[..., :4]) and not torch.equal(right[..., 4:], base[..., 4:])
    assert set(top.flatten().tolist()) <= set(base.flatten().tolist())
    assert changed_images((image * 5).to(torch.uint8), 6).dtype == torch.uint8
    plain = changed_images(torch.zeros(1, 1, 6, 8), 5)
    assert plain[0].abs().sum() == 0 and plain[1, :, :3].abs().min() > 0


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [((3, 9, 9), (5, 9, 9), 0), ((9, 9, 3), (9, 9, 5), 2), ((3, 3), (5, 5), None), ((9, 9), (9, 9), None)],
)
def test_the_dimension_that_moves_is_the_batch(one: Any, other: Any, expected: int | None) -> None:
    assert batch_dimension(ObservedShape(torch.Size(one), 3), ObservedShape(torch.Size(other), 5)) == expected


def test_windows_are_no_batch() -> None:
    assert (
        batch_dimension(ObservedShape(torch.Size([4, 9]), 1), ObservedShape(torch.Size([20, 9]), 5)) is None
    )


def test_the_right_reading_is_more_local_than_any_other() -> None:
    torch.manual_seed(0)
    grid = nn.Conv2d(3, 6, 4, 4)(changed_images(torch.randn(1, 3, 32, 32), 5))
    moved = (grid[1:] - grid[:1]).abs().detach()
    right = locality(moved.mean(dim=1))
    assert right is not None and right > 0.99
    assert (locality(moved.mean(dim=1).transpose(1, 2)) or 0.0) < 0.1
    assert (locality(moved.mean(dim=2)) or 0.0) < evidence.FOUND
    assert (locality(moved.mean(dim=1).flatten(1).view(4, 4, 16)) or 0.0) < evidence.FOUND


@pytest.mark.parametrize("n", [1, 2, 4])
@pytest.mark.parametrize("layer", ["0", "0.1", "1", "2.0", "2.1", "2.2", "2"])
def test_an_activation_and_a_block_at_any_aspect_can_be_named(layer: str, n: int) -> None:
    """Pooled along one axis to 2 x 32: no shape of the image's aspect, and two rows beside two images."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU()),
        nn.MaxPool2d((16, 1)),
        nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()),
        nn.AdaptiveMaxPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 2),
    )
    images = torch.rand(n, 1, 32, 32)
    found, by_hand = (
        attribute(model, images, 0, methods="layer_cam", target_layer=layer, reshape_transform=way)
        for way in (None, lambda output: output)
    )
    assert torch.equal(found.maps["layer_cam"], by_hand.maps["layer_cam"])
    assert find_target_layer(model, images).name == "2"


@pytest.mark.parametrize(
    ("kind", "declared", "seen", "kept"),
    [
        (
            "channels first",
            False,
            0.37,
            False,
        ),  # (N, 8, 50, 19) of coat's relative positions, which hold convolutions
        ("channels first", False, 0.8, True),
        ("channels first", True, None, True),
        ("tokens", False, None, True),
    ],
)
def test_another_aspect_than_the_images_is_declared_or_seen(
    kind: str, declared: bool, seen: float | None, kept: bool
) -> None:
    tensor = torch.zeros(1, 8, 50, 19)
    layout = Layout(kind, (50, 19), lambda output: output, locality=seen)
    output = LayerOutput("crpe", nn.Identity(), tensor, layout, 0, declared)

    assert _is_plausible(output, layout, (224, 224)) == kept
