"""The layer is found in every family of networks, before any training, and finding it touches nothing."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from lightning_gcam import attribute
from lightning_gcam.cam import find_target_layer, resolve_target_layer
from lightning_gcam.cam.forward import random_weights_for_zeros
from lightning_gcam.cam.layers import TargetLayer
from tests.support.nets import CLASSES, GRID, bits, cnn, pictures, seeded, state_of


def square(n: int = 2, size: int = 32) -> Tensor:
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(2))


# ------------------------------------------------------------------------------------------------ small networks


@pytest.mark.parametrize("head", ["pooled", "max", "flat"])
@pytest.mark.parametrize("inplace", [False, True])
def test_the_last_layer_before_the_pooling(head: str, inplace: bool) -> None:
    model = cnn(head, inplace=inplace)
    found = find_target_layer(model, pictures())
    assert found.name == "features"  # it returns what its last ReLU returns, and is done after it
    assert found.module is model.features
    assert found.grid == GRID
    assert str(found) == '"features" (6 x 5 grid, channels first)'


def test_earlier_layers_are_the_last_of_each_finer_grid() -> None:
    model = cnn()
    assert find_target_layer(model, pictures()).earlier == ("features.2",)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.Conv2d(4, 4, 3, stride=2, padding=1),
        nn.Conv2d(4, 4, 3, padding=1),
        nn.Conv2d(4, 4, 3, stride=2, padding=1),
        nn.Flatten(),
        nn.LazyLinear(3),
    )
    net(square())
    found = find_target_layer(net, square())
    assert found.name == "3"
    assert found.earlier == ("2", "0")  # 16 x 16 first, then 32 x 32


class Order(nn.Module):
    """The layer that runs last is the first one of `named_modules()`."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Conv2d(4, 4, 3, padding=1)
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.never = nn.Conv2d(4, 4, 3, padding=1)
        self.aside = nn.Conv2d(4, 4, 3, padding=1)
        self.head = nn.Linear(4, CLASSES)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        features = self.last(self.first(images).relu())
        reconstruction = self.aside(features)  # it leads to no logit
        return {"logits": self.head(features.mean(dim=(2, 3))), "reconstruction": reconstruction}


def test_last_means_in_the_order_of_execution_and_on_the_way_to_the_logits() -> None:
    assert find_target_layer(Order(), pictures()).name == "last"


def test_one_cell_is_not_spatial() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(8),
        nn.Conv2d(4, 4, 1),
        nn.Flatten(),
        nn.Linear(4, 3),
    )
    found = find_target_layer(net, square(size=8))
    assert found.name == "1"


def test_dropout_and_identities_are_passed_over() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Dropout2d(0.5), nn.Identity(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    assert find_target_layer(net, square()).name == "1"


def test_softmax_and_zero_sums_of_logits_hide_nothing() -> None:
    class Probabilities(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = cnn()

        def forward(self, images: Tensor) -> Tensor:
            return self.net(images).softmax(dim=1)  # sums to 1, whatever the image

    assert find_target_layer(Probabilities(), pictures()).name == "net.features"


@pytest.mark.parametrize("zero", ["head", "body"])
def test_weights_that_start_at_zero_hide_nothing(zero: str) -> None:
    model = cnn()
    nn.init.zeros_(model.head[3].weight if zero == "head" else model.features[3].weight)
    before = state_of(model)
    assert find_target_layer(model, pictures()).name == "features"
    assert state_of(model) == before


def test_only_weights_at_zero_are_replaced_in_the_probe() -> None:
    model = cnn()
    assert random_weights_for_zeros(model) == {}
    nn.init.zeros_(model.features[3].bias)
    nn.init.zeros_(model.head[3].weight)
    replaced = random_weights_for_zeros(model)
    assert list(replaced) == ["head.3.weight"]
    assert replaced["head.3.weight"].count_nonzero() == model.head[3].weight.numel()


def test_a_frozen_model_has_a_layer() -> None:
    assert find_target_layer(cnn().requires_grad_(False), pictures()).name == "features"


def test_a_layer_under_the_users_own_no_grad() -> None:
    class FrozenBackbone(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = cnn()

        @torch.no_grad()
        def embed(self, images: Tensor) -> Any:
            return self.net.features(images)

        def forward(self, images: Tensor) -> Tensor:
            return self.net.head(self.embed(images))

    model = FrozenBackbone()
    assert find_target_layer(model, pictures()).name == "net.features"
    assert attribute(model, pictures()).peaks["guidance_cam"].max() > 0


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
@pytest.mark.parametrize("made_in_inference_mode", [False, True])
def test_it_is_found_in_any_grad_mode(mode: Any, made_in_inference_mode: bool) -> None:
    with torch.inference_mode(made_in_inference_mode):
        images = pictures()
    model = cnn()
    with mode():
        assert find_target_layer(model, images).name == "features"


def test_forward_and_reshape_of_the_users_are_used() -> None:
    class Columns(nn.Module):
        """One long column of cells, row by row: a layout that nobody can guess."""

        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 7, 3, padding=1)
            self.flatten_rows = Rows()
            self.head = nn.Linear(7, CLASSES)

        def classify(self, images: Tensor) -> Tensor:
            return self.head(self.flatten_rows(self.conv(images)).tanh().mean(dim=0))

    class Rows(nn.Module):
        def forward(self, features: Tensor) -> Tensor:
            return features.flatten(2).permute(2, 0, 1)  # (cells, N, C)

    model = Columns()
    found = find_target_layer(
        model,
        pictures(),
        forward=lambda module, images: module.classify(images),
        reshape_transform=lambda output: output.permute(1, 2, 0).unflatten(2, (12, 10)),
    )
    assert found.name == "flatten_rows"
    assert found.grid == (12, 10)
    assert str(found) == '"flatten_rows" (12 x 10 grid, by `reshape_transform`)'


# ---------------------------------------------------------------------------------------- well-known families


def vision_transformer() -> nn.Module:
    """Torchvision's, whose head is zero until it has been trained."""
    return torchvision.models.VisionTransformer(
        image_size=32, patch_size=8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=CLASSES
    )


def swin() -> nn.Module:
    return torchvision.models.SwinTransformer(
        patch_size=[2, 2],
        embed_dim=12,
        depths=[1, 1],
        num_heads=[2, 2],
        window_size=[4, 4],
        num_classes=CLASSES,
    )


def vgg() -> nn.Module:
    """Torchvision's vgg11_bn, with a small head."""
    features = torchvision.models.vgg.make_layers(
        [64, "M", 128, "M", 256, 256, "M", 512, 512, "M"], batch_norm=True
    )
    return nn.Sequential(
        features, nn.Flatten(), nn.Linear(512 * 2 * 2, 64), nn.ReLU(), nn.Linear(64, CLASSES)
    )


class Mixer(nn.Module):
    """Tokens without a class token, a zero-initialised head: an MLP-Mixer in small."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 8, stride=8)
        self.tokens = nn.Linear(16, 16)
        self.norm = nn.LayerNorm(12)
        self.head = nn.Linear(12, CLASSES)
        nn.init.zeros_(self.head.weight)

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images).flatten(2)
        x = (x + self.tokens(x)).transpose(1, 2)
        return self.head(self.norm(x).mean(dim=1))


class Attention(nn.Module):
    """As timm writes it: one projection for queries, keys and values."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(12, 36)
        self.proj = nn.Linear(12, 12)

    def forward(self, tokens: Tensor) -> Tensor:
        query, key, value = self.qkv(tokens).chunk(3, dim=-1)
        return self.proj((query @ key.transpose(1, 2)).softmax(dim=-1) @ value)


class ClassToken(nn.Module):
    """Two blocks, whose last one only the class token leaves."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 8, stride=8)
        self.token = nn.Parameter(torch.ones(1, 1, 12))
        self.norms = nn.ModuleList(nn.LayerNorm(12) for _ in range(2))
        self.attentions = nn.ModuleList(Attention() for _ in range(2))
        self.head = nn.Linear(12, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], dim=1)
        for norm, attention in zip(self.norms, self.attentions, strict=True):
            x = x + attention(norm(x))
        return self.head(x[:, 0])


FAMILIES = {
    "resnet18": (
        lambda: torchvision.models.resnet18(num_classes=CLASSES),
        64,
        "layer4",
        (2, 2),
        "channels first",
    ),
    "resnet18 on small images": (
        lambda: torchvision.models.resnet18(num_classes=CLASSES, zero_init_residual=True),
        32,
        "layer3",
        (2, 2),
        "channels first",
    ),
    "vgg11_bn": (vgg, 32, "0", (2, 2), "channels first"),
    "mobilenet_v3_small": (
        lambda: torchvision.models.mobilenet_v3_small(num_classes=CLASSES),
        64,
        "features",
        (2, 2),
        "channels first",
    ),
    "vision transformer": (
        vision_transformer,
        32,
        "encoder.layers.encoder_layer_1.ln_1",
        (4, 4),
        "tokens, 1 before the patches",
    ),
    "swin": (swin, 32, "permute", (8, 8), "channels first"),
    "attention with one projection": (ClassToken, 32, "norms.1", (4, 4), "tokens, 1 before the patches"),
    "mixer": (Mixer, 32, "norm", (4, 4), "tokens"),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_layer_of_a_family(family: str) -> None:
    make, size, name, grid, kind = FAMILIES[family]
    model = make().train()
    images = square(size=size)
    before = state_of(model)
    found = find_target_layer(model, images)
    assert (found.name, found.grid, found.kind) == (name, grid, kind)
    assert state_of(model) == before

    for parameter in model.parameters():  # as after a first step: a head at zero has no gradient to give
        if not parameter.count_nonzero():
            nn.init.normal_(parameter, std=0.5)
    attribution = attribute(model, images, 0, methods="layer_cam", target_layer=found.module)
    assert (attribution.peaks["layer_cam"] > 0).all()


def test_behind_the_last_block_of_a_vision_transformer_every_map_would_be_blank() -> None:
    model = vision_transformer()
    nn.init.normal_(model.heads.head.weight)
    blind = attribute(model, square(), 0, target_layer="encoder.ln", methods="layer_cam")
    assert blind.peaks["layer_cam"].tolist() == [0, 0]
    assert (attribute(model, square(), 0, methods="layer_cam").peaks["layer_cam"] > 0).all()


def test_a_vision_transformer_that_is_not_trained_yet_is_drawn_blank() -> None:
    attribution = attribute(vision_transformer(), square())
    assert attribution.target_layer == "encoder.layers.encoder_layer_1.ln_1"
    assert attribution.peaks["guidance_cam"].tolist() == [0, 0]
    assert not attribution.maps["guidance_cam"].any()


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(nn.Flatten(), nn.Linear(360, 16), nn.ReLU(), nn.Linear(16, CLASSES)),
        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(3, CLASSES, 1), nn.Flatten()),
        nn.Sequential(nn.Linear(10, 10), nn.Flatten(), nn.Linear(360, CLASSES), nn.Threshold(1e9, 0.0)),
    ],
    ids=["fully connected", "pooled first", "a score that depends on nothing"],
)
def test_a_model_without_a_spatial_layer_is_refused(model: nn.Module) -> None:
    before = state_of(model)
    with pytest.raises(
        ValueError, match=r"Sequential has no spatial layer that influences its output.*`target_layer`"
    ):
        find_target_layer(model, pictures())
    assert state_of(model) == before


# ------------------------------------------------------------------------------------------- the model as it was


class Restless(nn.Module):
    """Its forward draws random numbers and counts in a buffer, in eval mode too."""

    def __init__(self) -> None:
        super().__init__()
        self.net = cnn()
        self.register_buffer("count", torch.zeros(()))

    def forward(self, images: Tensor) -> Tensor:
        self.count += 1
        return self.net(images + 0.01 * torch.randn_like(images))


def test_the_model_and_the_images_are_left_as_they_were() -> None:
    model, images = Restless().train(), pictures()
    model.net.features[1].eval()  # a frozen BatchNorm
    model.net.head[3].weight.grad = torch.full_like(model.net.head[3].weight, 0.25)
    before, pixels = state_of(model), bits(images)
    find_target_layer(model, images)
    assert state_of(model) == before
    assert bits(images) == pixels
    assert not images.requires_grad


def test_hooks_are_gone_after_an_error() -> None:
    model = Restless().train()
    before = state_of(model)

    def forward(module: Any, images: Tensor) -> Tensor:
        module(images)
        raise ArithmeticError("in the user's forward")

    with pytest.raises(ArithmeticError, match="in the user's forward"):
        find_target_layer(model, pictures(), forward=forward)
    assert state_of(model) == before


def test_the_same_layer_is_found_each_time_and_in_each_mode() -> None:
    model = vision_transformer()
    found = {
        find_target_layer(each, square()).name for each in (model, model.train(), copy.deepcopy(model).eval())
    }
    assert len(found) == 1


# ------------------------------------------------------------------------------------------------- a named layer


def test_a_layer_by_name_and_by_itself() -> None:
    model = cnn()
    assert resolve_target_layer(model, "features.3") == ("features.3", model.features[3])
    assert resolve_target_layer(model, model.features[3]) == ("features.3", model.features[3])


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (
            "feature.3",
            r'`target_layer` "feature.3" is not a module of Cnn. Did you mean "features.3".*Leave it out',
        ),
        ("layer4", r'`target_layer` "layer4" is not a module of Cnn. Known: "features", "features.0"'),
        ("", r'`target_layer` "" is not a module of Cnn'),
        (nn.ReLU(), r"`target_layer` ReLU is not a module of Cnn. Name it instead"),
        (["features.3"], r"`target_layer` must be one layer, a name or a module; got \['features.3'\]"),
        (-1, r"`target_layer` must be one layer, a name or a module; got -1"),
    ],
)
def test_what_is_no_layer_of_the_model_is_refused(layer: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        resolve_target_layer(cnn(), layer)


def test_a_layer_that_was_not_probed_is_shown_by_its_name() -> None:
    assert str(TargetLayer("layer4", nn.ReLU())) == '"layer4"'


def test_the_seeded_nets_are_what_they_claim() -> None:
    assert all(torch.equal(a, b) for a, b in zip(cnn().parameters(), cnn().parameters(), strict=True))
    assert not torch.equal(next(seeded(cnn(), 1).parameters()), next(cnn().parameters()))


# --------------------------------------------------------------------------------------------------- what it costs


@pytest.mark.parametrize(
    ("name", "layer", "forwards"),
    [
        ("resnet18", "layer4", [1]),
        (
            "vit_b_32",
            "encoder.layers.encoder_layer_11.ln_1",
            [1, 5],
        ),  # the image, and its changes for the layout
    ],
)
def test_the_search_takes_one_forward_and_one_where_a_layout_is_measured(
    name: str, layer: str, forwards: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, sizes, gradients = getattr(torchvision.models, name)(), list[int](), list[int]()
    model.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    grad = torch.autograd.grad

    def counted(*args: Any, **options: Any) -> Any:
        gradients.append(1)
        return grad(*args, **options)

    monkeypatch.setattr(torch.autograd, "grad", counted)
    assert find_target_layer(model, torch.rand(1, 3, 224, 224)).name == layer
    assert sizes == forwards
    assert len(gradients) == 1
