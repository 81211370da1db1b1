"""What holds for every method there is, on every kind of grid: a batch is its samples, and nothing is touched.

Those of attention weights are tried on transformers, here and in `test_attention.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_gcam import attribute
from lightning_gcam.cam import ModelMethod, available_methods
from lightning_gcam.cam.registry import resolve_methods
from lightning_gcam.utils.errors import InputError
from tests.models.test_heads import scene, segmenter
from tests.support.nets import CLASSES, OF_TRANSFORMERS, bits, cnn, pictures, seeded, state_of
from tests.unit.cam.test_layers import ClassToken, Mixer, Restless, square
from tests.unit.cam.test_layouts import Shared, TokensFirst

METHODS = [name for name in available_methods() if name not in OF_TRANSFORMERS]
"""The methods for any network."""
RUN_AGAIN = [name for name, each in resolve_methods(METHODS).items() if isinstance(each, ModelMethod)]
"""The methods that run the model again."""
BY_PURE_FUNCTIONS = [name for name in METHODS if name not in RUN_AGAIN]
AT_IMAGES = ("full_grad", "smooth_full_grad", "integrated_gradients", "guided_grad_cam")
"""They take gradients at the images."""


class ChannelsLast(nn.Module):
    """A stage that gives `(N, h, w, C)`, as Swin's do, and is read by a ReLU module behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.stage = nn.Conv2d(3, 6, 4, stride=4), nn.Linear(6, 20)
        self.relu, self.head = nn.ReLU(), nn.Linear(20, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        features = self.relu(self.stage(self.stem(images).permute(0, 2, 3, 1)))
        return self.head(features.square().mean(dim=(1, 2)))


def plain(model: nn.Module, layer: str, images: Tensor, targets: Any) -> tuple[Any, ...]:
    return seeded(model), layer, images, targets, None


NETS: dict[str, Callable[[], tuple[Any, ...]]] = {
    "pooled": lambda: (cnn(), "features.3", pictures(3), [0, 3, 1], None),
    "in place": lambda: (cnn("max", inplace=True), "features.3", pictures(3), [0, 3, 1], None),
    "channels last": lambda: plain(ChannelsLast(), "stage", square(3), [1, 4, 0]),
    "class token": lambda: plain(ClassToken(), "norms.1", square(3), [2, 3, 1]),
    "tokens first": lambda: plain(TokensFirst(), "block", square(3), [1, 4, 0]),
    "called three times": lambda: plain(Shared(), "norm", square(3), [1, 4, 0]),
    "dense": lambda: (segmenter(), "mix", scene(3)[0], [1, 4, 0], scene(3)[1]),
    "multi-hot": lambda: (cnn(), "features.3", pictures(3), torch.eye(5)[:3] + torch.eye(5)[1:4], None),
    "one logit": lambda: (cnn(classes=1), "features.4", pictures(3), [0, 1, 0], None),
    "output": lambda: (cnn(classes=1), "features.4", pictures(3), torch.tensor([0.1, 2.0, 3.0]), None),
    "a callable": lambda: (cnn(), "features.4", pictures(3), lambda logits: logits[:, :2].sum(1), None),
}
WITHOUT_RELU = ("class token", "tokens first", "called three times", "dense")
TRANSFORMERS = ("class token", "tokens first")


@pytest.mark.parametrize("net", NETS)
def test_a_batch_is_its_samples_one_by_one(net: str) -> None:
    model, layer, images, targets, masks = NETS[net]()
    left_out = ("guided_grad_cam",) if net in WITHOUT_RELU else ()
    left_out += OF_TRANSFORMERS if net not in TRANSFORMERS else ()
    methods = [each for each in available_methods() if each not in left_out]

    def look(rows: slice) -> Any:
        own = targets if callable(targets) else targets[rows]
        options = {
            "methods": methods,
            "target_layer": layer,
            "masks": masks[rows] if masks is not None else None,
        }
        if isinstance(own, Tensor) and own.is_floating_point() and own.ndim == 1:
            own = "output"
        return attribute(model, images[rows], own, **options)

    together = look(slice(None))
    assert all(each.isfinite().all() for each in together.maps.values())
    blank = [name for name, peaks in together.peaks.items() if not (peaks > 0).any()]
    assert not blank
    for row in range(len(images)):
        alone = look(slice(row, row + 1))
        for name in methods:
            torch.testing.assert_close(
                alone.maps[name][0],
                together.maps[name][row],
                rtol=1e-3,
                atol=1e-4,
                msg=lambda m, n=name: f"{n}: {m}",
            )
            torch.testing.assert_close(
                alone.peaks[name][0],
                together.peaks[name][row],
                rtol=1e-3,
                atol=1e-5,
                msg=lambda m, n=name: f"{n}: {m}",
            )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_the_model_and_the_images_are_left_as_they_were(method: str, mode: Any) -> None:
    model = Restless().train()
    model.net.features[1].eval()  # a frozen BatchNorm
    model.net.head[3].weight.grad = torch.full_like(model.net.head[3].weight, 0.25)
    before = state_of(model)
    with mode():
        images = pictures()
        pixels = bits(images)
        inside = (torch.is_grad_enabled(), torch.is_inference_mode_enabled())
        found = attribute(model, images, [0, 3, 1, 1], methods=method, target_layer="net.features.3")
        assert (torch.is_grad_enabled(), torch.is_inference_mode_enabled()) == inside
    assert state_of(model) == before
    assert bits(images) == pixels
    assert not found.maps[method].requires_grad
    assert not found.maps[method].is_inference()


@pytest.mark.parametrize("method", RUN_AGAIN)
def test_hooks_and_flags_are_as_before_after_an_error(method: str) -> None:
    model, calls = cnn("flat", inplace=True).train(), []
    before = state_of(model)

    def breaks(module: nn.Module, images: Tensor) -> Tensor:
        calls.append(1)
        if len(calls) > 1:
            raise ArithmeticError("in the user's forward")
        return module(images)

    if method in ("random", "centre"):
        return  # they ask nothing
    with pytest.raises(ArithmeticError, match="in the user's forward"):
        attribute(model, pictures(), 0, methods=method, target_layer="features.3", forward=breaks)
    assert state_of(model) == before


@pytest.mark.parametrize("method", METHODS)
def test_two_looks_are_the_same_bit_for_bit(method: str) -> None:
    options: dict[str, Any] = {"methods": method, "target_layer": "features.3"}
    torch.manual_seed(1)
    first = attribute(cnn(), pictures(), 0, **options)
    torch.manual_seed(2)
    second = attribute(cnn(), pictures(), 0, **options)
    assert bits(first.maps[method]) == bits(second.maps[method])


def test_all_methods_share_one_call_and_the_pure_ones_are_as_without_the_others() -> None:
    options: dict[str, Any] = {"target_layer": ["features.2", "features.3"]}
    alone = attribute(cnn(), pictures(), 0, methods=BY_PURE_FUNCTIONS, **options)
    mixed = attribute(cnn(), pictures(), 0, methods=METHODS[::-1], **options)
    assert next(iter(mixed.maps)) == METHODS[-1] == "centre"  # for which the layer plays no part
    for name, maps in alone.maps.items():
        assert bits(mixed.maps[name]) == bits(maps)


@pytest.mark.parametrize("method", METHODS)
def test_the_maps_of_two_layers_can_be_fused(method: str) -> None:
    layers = ["features.2", "features.3"]
    apart = attribute(cnn(), pictures(), 0, methods=method, target_layer=layers)
    fused = attribute(cnn(), pictures(), 0, methods=method, target_layer=layers, fuse="mean")
    mean = torch.stack([*apart.maps.values()]).mean(dim=0)  # of one where no layer plays a part
    largest = mean.amax(dim=(1, 2), keepdim=True)
    torch.testing.assert_close(fused.maps[method], mean / torch.where(largest > 0, largest, 1.0))


@pytest.mark.parametrize("method", METHODS)
def test_through_a_forward_of_the_users_and_their_reshape(method: str) -> None:
    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = cnn()

        def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
            return {"logits": self.net(batch["image"])}

    expected = attribute(cnn(), pictures(), 0, methods=method, target_layer="features.3")
    found = attribute(
        Wrapped(),
        pictures(),
        0,
        methods=method,
        target_layer="net.features.3",
        forward=lambda module, images: module({"image": images}),
        reshape_transform=lambda output: output.contiguous().clone(),
    )
    torch.testing.assert_close(found.maps[method], expected.maps[method], rtol=1e-4, atol=1e-5)


# ------------------------------------------------------------------------------------- where one cannot


@pytest.mark.parametrize("method", AT_IMAGES)
def test_whole_numbers_have_no_gradient(method: str) -> None:
    images = (255 * torch.rand(2, 3, 12, 10)).to(torch.uint8)
    options: dict[str, Any] = {"forward": lambda model, images: model(images.float() / 255)}
    with pytest.raises(
        InputError, match=f'`methods` "{method}" takes the gradient at the images, and images of torch.u'
    ):
        attribute(cnn(), images, 0, methods=method, target_layer="features.3", **options)


@pytest.mark.parametrize("method", [each for each in RUN_AGAIN if each not in AT_IMAGES])
def test_whole_numbers_are_asked_as_whole_numbers(method: str) -> None:
    images, kinds = (255 * torch.rand(2, 3, 12, 10)).to(torch.uint8), set()

    def forward(model: nn.Module, images: Tensor) -> Tensor:
        kinds.add(images.dtype)
        return model(images.float() / 255)

    found = attribute(cnn(), images, 0, methods=method, target_layer="features.3", forward=forward)
    assert kinds == {torch.uint8}
    floats = attribute(cnn(), images.float() / 255, 0, methods=method, target_layer="features.3")
    if method in (
        "score_cam",
        "is_cam",
        "occlusion",
        "ablation_cam",
        "centre",
    ):  # noise is drawn from the pixels
        torch.testing.assert_close(found.maps[method], floats.maps[method], rtol=0.05, atol=0.02)


@pytest.mark.parametrize("method", AT_IMAGES)
def test_a_model_that_detaches_its_images_is_refused(method: str) -> None:
    def forward(model: nn.Module, images: Tensor) -> Tensor:
        return model(images.detach())

    model, none_reaches = (
        cnn().requires_grad_(False),
        f'"{method}" takes the gradient at the images, and none',
    )
    with pytest.raises(InputError, match=none_reaches):
        attribute(model, pictures(), 0, methods=method, target_layer="features.3", forward=forward)


def test_a_model_of_one_size_is_refused_by_cameras() -> None:
    model = seeded(Mixer())
    with pytest.raises(
        InputError, match=r'`methods` "cameras" shows .* Mixer does not take \(2, 3, 43, 43\)'
    ):
        attribute(model, square(), 0, methods="cameras", target_layer="norm")


def test_a_grid_whose_shape_is_that_of_channels_is_read_rightly_by_cameras() -> None:
    """`(N, 8, 8, 7)` may be either; at each size of image it is seen which."""
    model = seeded(nn.Sequential(nn.Conv2d(3, 7, 4, stride=4), Last(), Pool(), nn.Linear(7, CLASSES)))
    last, first = (
        attribute(model, square(), 0, methods="cameras", target_layer=layer).maps["cameras"]
        for layer in ("1", "0")
    )
    torch.testing.assert_close(last, first, rtol=1e-4, atol=1e-5)


class Last(nn.Module):
    def forward(self, features: Tensor) -> Tensor:
        return features.permute(0, 2, 3, 1)


class Pool(nn.Module):
    def forward(self, features: Tensor) -> Tensor:
        return features.square().mean(dim=(1, 2))


def test_a_model_without_a_relu_module_is_refused_by_guided_grad_cam() -> None:
    with pytest.raises(
        InputError, match=r'`methods` "guided_grad_cam" changes the gradient of ReLU modules, and Class'
    ):
        attribute(seeded(ClassToken()), square(), 0, methods="guided_grad_cam", target_layer="norms.1")


def test_a_reshape_that_computes_is_refused_by_ablation_cam() -> None:
    options: dict[str, Any] = {"target_layer": "features.3", "reshape_transform": lambda output: output * 2.0}
    attribute(cnn(), pictures(), 0, methods="score_cam", **options)
    with pytest.raises(InputError, match=r"`methods` that replace .* only picks and reorders"):
        attribute(cnn(), pictures(), 0, methods="ablation_cam", **options)


def test_a_class_that_is_nowhere_predicted_is_blank_for_all() -> None:
    images, _ = scene(2)
    model = segmenter()
    nn.init.constant_(model.head.bias, 0.0)
    model.head.bias.data[4] = -1e4
    methods = [each for each in METHODS if each != "guided_grad_cam"]
    found = attribute(model, images, 4, methods=methods, target_layer="mix")
    class_free = ("eigen_cam",)
    assert all(found.peaks[name].tolist() == [0, 0] for name in methods if name not in class_free)
