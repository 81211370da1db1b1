"""Layouts and wrappers as they occur: what is no grid is not taken for one, and a wrapper hides nothing."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import peft
import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork

from lightning_gcam import attribute
from lightning_gcam.cam import find_target_layer
from tests.support.nets import CLASSES, cnn, pictures, state_of
from tests.unit.cam.test_layers import ClassToken, Mixer, square, vision_transformer


def alive(model: nn.Module, images: Tensor, **options: Any) -> bool:
    """Whether a gradient reaches the layer that is found, by the way that a look takes."""
    return bool((attribute(model, images, 0, methods="layer_cam", **options).peaks["layer_cam"] > 0).all())


# ------------------------------------------------------------------------------------------ what is no grid


class Windows(nn.Module):
    """Looks inside of windows of 4 x 4 cells, with a layer that never sees the whole grid."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 4, stride=4)
        self.inside = nn.Linear(12, 12)
        self.head = nn.Linear(12, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images).unflatten(2, (-1, 4)).unflatten(4, (-1, 4))  # N, C, rows, 4, columns, 4
        windows = x.permute(0, 2, 4, 3, 5, 1).flatten(0, 2)  # (N * windows, 4, 4, C)
        return self.head(self.inside(windows).relu().unflatten(0, (len(images), -1)).mean(dim=(1, 2, 3)))


@pytest.mark.parametrize("size", [32, 48])
def test_windows_are_not_taken_for_images(size: int) -> None:
    found = find_target_layer(Windows(), square(size=size))
    assert (found.name, found.grid) == ("stem", (size // 4, size // 4))


def test_a_layer_inside_of_windows_is_refused_by_its_shape() -> None:
    with pytest.raises(
        ValueError, match=r"gives \(8, 4, 4, 12\) for images \(2, 3, 32, 32\).*reshape_transform"
    ):
        attribute(Windows(), square(), 0, target_layer="inside")


class TalkingHeads(ClassToken):
    """Mixes the attention of its heads by a convolution over a map of tokens times tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.attentions[1] = Talking()


class Talking(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.proj, self.mix = nn.Linear(12, 36), nn.Linear(12, 12), nn.Conv2d(2, 2, 1)

    def forward(self, tokens: Tensor) -> Tensor:
        query, key, value = (
            each.unflatten(2, (2, 6)).transpose(1, 2) for each in self.qkv(tokens).chunk(3, dim=-1)
        )
        weights = self.mix((query @ key.transpose(2, 3)).softmax(dim=-1))
        return self.proj((weights @ value).transpose(1, 2).flatten(2))


def test_the_weights_of_an_attention_are_no_grid() -> None:
    assert find_target_layer(TalkingHeads(), square()).name == "norms.1"  # 17 x 17 weights of 17 tokens


class Table(nn.Module):
    """A learned value for each position, like a bias of relative positions: the image has no part in it."""

    def __init__(self) -> None:
        super().__init__()
        self.values = nn.Parameter(torch.ones(1, 6, 8, 8))

    def forward(self) -> Tensor:
        return self.values * 1.0


class WithTable(nn.Module):
    def __init__(self, *, detached: bool = False) -> None:
        super().__init__()
        self.conv, self.table, self.head = nn.Conv2d(3, 6, 4, stride=4), Table(), nn.Linear(6, CLASSES)
        self.detached = detached

    def forward(self, images: Tensor) -> Tensor:
        features = self.conv(images.detach() if self.detached else images)
        return self.head((features * self.table()).relu().mean(dim=(2, 3)))


def test_a_table_of_positions_is_passed_over() -> None:
    assert find_target_layer(WithTable(), square()).name == "conv"


def test_where_nothing_is_traced_to_the_image_the_rule_does_without() -> None:
    assert find_target_layer(WithTable(detached=True), square()).name == "table"


# ------------------------------------------------------------------------------------- what modules return


class Pooled(nn.Module):
    """Returns its features, and what it pooled from them; the head takes the second."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.last = nn.Conv2d(3, 6, 4, stride=4), nn.Conv2d(6, 6, 1)

    def forward(self, images: Tensor) -> dict[str, Any]:
        features = self.last(self.stem(images).relu())
        return {"features": features, "hidden": (features,), "pooled": features.mean(dim=(2, 3))}


class Classifier(nn.Module):
    def __init__(self, takes: Callable[[dict[str, Any]], Tensor]) -> None:
        super().__init__()
        self.backbone, self.head, self.takes = Pooled(), nn.Linear(6, CLASSES), takes

    def forward(self, images: Tensor) -> tuple[str, Tensor]:
        return "logits", self.head(self.takes(self.backbone(images)))


@pytest.mark.parametrize(
    ("takes", "layer"),
    [
        (
            lambda output: output["pooled"],
            "backbone.last",
        ),  # the features that the backbone returns lead nowhere
        (lambda output: output["features"].amax(dim=(2, 3)), "backbone"),
    ],
    ids=["pooled", "features"],
)
def test_features_that_the_score_passes_by_are_passed_over(takes: Any, layer: str) -> None:
    model = Classifier(takes)
    assert find_target_layer(model, square()).name == layer
    assert alive(model, square())


class Pyramid(nn.Module):
    """A pyramid of three grids over two layers; the head takes one of them, or all."""

    def __init__(self, levels: list[str]) -> None:
        super().__init__()
        self.stages = nn.ModuleList([nn.Conv2d(3, 4, 4, stride=4), nn.Conv2d(4, 6, 2, stride=2)])
        self.pyramid = FeaturePyramidNetwork([4, 6], 5)
        self.head = nn.Linear(5, CLASSES)
        self.levels = levels

    def forward(self, images: Tensor) -> Tensor:
        fine = self.stages[0](images).relu()
        coarse = self.stages[1](fine).relu()
        maps = self.pyramid(OrderedDict(fine=fine, coarse=coarse))
        return self.head(sum(maps[level].amax(dim=(2, 3)) for level in self.levels))


@pytest.mark.parametrize(
    ("levels", "layer", "grid"),
    [
        (["fine"], "pyramid", (8, 8)),
        (["fine", "coarse"], "pyramid", (8, 8)),
        (["coarse"], "pyramid.layer_blocks.1", (4, 4)),
    ],
)
def test_a_feature_pyramid(levels: list[str], layer: str, grid: tuple[int, int]) -> None:
    found = find_target_layer(Pyramid(levels), square())
    assert (found.name, found.grid) == (layer, grid)
    assert alive(Pyramid(levels), square())


class Shared(nn.Module):
    """One block, run three times; only the class token leaves the last run."""

    def __init__(self) -> None:
        super().__init__()
        once = ClassToken()
        self.stem, self.token, self.head = once.stem, once.token, once.head
        self.norm, self.attention, self.mlp = once.norms[0], once.attentions[0], nn.Linear(12, 12)

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], dim=1)
        for _ in range(3):
            x = x + self.attention(self.norm(x))
            x = x + self.mlp(x)
        return self.head(x[:, 0])


def test_the_last_call_of_a_module_counts() -> None:
    model = Shared()
    assert find_target_layer(model, square()).name == "norm"  # not the MLP, whose earlier calls do matter
    assert alive(model, square())


class TokensFirst(nn.Module):
    """`(L, N, C)`, as `nn.TransformerEncoderLayer` takes it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 8, stride=8)
        self.block = nn.TransformerEncoderLayer(12, 2, 24, dropout=0.0)
        self.head = nn.Linear(12, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.block(self.stem(images).flatten(2).permute(2, 0, 1)).amax(dim=0))


def test_tokens_may_come_before_the_samples() -> None:
    model, images = TokensFirst(), torch.randn(3, 3, 32, 64)
    found = find_target_layer(model, images)
    assert (found.name, found.grid, found.kind) == ("block", (4, 8), "tokens, (L, N, C)")
    together = attribute(model, images, 0, methods="layer_cam")
    alone = attribute(model, images[2:], 0, methods="layer_cam")
    assert together.maps["layer_cam"].shape == (3, 32, 64)
    torch.testing.assert_close(together.maps["layer_cam"][2:], alone.maps["layer_cam"], rtol=1e-4, atol=1e-4)


# ----------------------------------------------------------------------------------------------- wrappers


def test_a_compiled_module() -> None:
    torch._dynamo.reset()
    model = torch.compile(cnn(), backend="eager")
    model(pictures())  # warm
    assert find_target_layer(model, pictures()).name == "_orig_mod.features"
    plain = attribute(cnn(), pictures(), 0).maps["guidance_cam"]
    assert torch.equal(attribute(model, pictures(), 0).maps["guidance_cam"], plain)


def test_data_parallel() -> None:
    model = nn.DataParallel(cnn())
    assert find_target_layer(model, pictures()).name == "module.features"
    plain = attribute(cnn(), pictures(), 0).maps["guidance_cam"]
    assert torch.equal(attribute(model, pictures(), 0).maps["guidance_cam"], plain)


def test_lora_on_a_vision_transformer() -> None:
    """Its second matrix is zero at first; the layer stays the one of the network below."""
    config = peft.LoraConfig(r=2, target_modules=["qkv", "proj"])
    model = peft.get_peft_model(ClassToken(), config)
    before = state_of(model)
    assert find_target_layer(model, square()).name == "base_model.model.norms.1"
    assert state_of(model) == before
    assert alive(model, square())


def test_lora_on_a_convolution_that_is_last() -> None:
    net = nn.Sequential(
        OrderedDict(body=nn.Conv2d(3, 4, 3), last=nn.Conv2d(4, 8, 3), pool=nn.AdaptiveMaxPool2d(1))
    )
    model = peft.get_peft_model(
        nn.Sequential(net, nn.Flatten()), peft.LoraConfig(r=2, target_modules=["last"])
    )
    found = find_target_layer(model, square())
    assert found.name == "base_model.model.0.last"  # the sum of both branches, not the small one
    assert alive(model, square())


@pytest.mark.parametrize("trained", [False, True])
def test_fake_quantization(trained: bool) -> None:
    model = cnn().train()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.qconfig = torch.ao.quantization.get_default_qat_qconfig("fbgemm")
        torch.ao.quantization.prepare_qat(model, inplace=True)
    if trained:
        model(pictures())
    before = {name: each.clone() for name, each in model.state_dict().items()}
    assert find_target_layer(model, pictures()).name == "features"
    assert attribute(model, pictures(), 0).maps["guidance_cam"].isfinite().all()
    after = model.state_dict()
    assert all(torch.equal(after[name], each) for name, each in before.items())
    model(pictures())  # the observers, whose shape was put back, still observe


# ---------------------------------------------------------------------------------- what is said of the choice


def test_the_choice_is_explained() -> None:
    found = find_target_layer(torchvision.models.resnet18(num_classes=CLASSES), square(size=64))
    assert found.describe().splitlines() == [
        '"layer4" (2 x 2 grid, channels first)',
        f"Why: {found.why}.",
        'Others that would do: "layer3" (4 x 4 grid, channels first), "layer2" (8 x 8 grid, channels first), "layer1" '
        '(16 x 16 grid, channels first), "relu" (32 x 32 grid, channels first).',
    ]
    assert "it is the last to run" in found.why
    assert "constant over space" in found.why


def test_the_norm_of_a_vision_transformer_is_explained() -> None:
    found = find_target_layer(vision_transformer(), square())
    assert found.earlier[0] == "encoder.layers.encoder_layer_0.ln_2"
    assert "it is the last to run" in found.why  # its attention is run by functions, not by its parts
    assert 'behind it, "encoder" is spatial too, but its positions no longer matter' in found.why
    assert '"heads.head.weight"' in found.why
    assert "stood in with random numbers" in found.why


def test_the_norm_is_explained_where_it_is_not_the_last_to_run() -> None:
    why = find_target_layer(ClassToken(), square()).why
    assert why.startswith('"attentions.1.qkv", the last to run that is spatial')
    assert "is a part of an attention; this is the norm before it, which holds the residual stream" in why


class PooledHidden(nn.Module):
    """A perceptron behind a norm, whose hidden numbers are averaged over the tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 8, stride=8)
        self.norm = nn.LayerNorm(12)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(12, 24), "fc2": nn.Linear(24, CLASSES)})

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.mlp["fc1"](self.norm(self.stem(images).flatten(2).transpose(1, 2)))
        return self.mlp["fc2"](hidden.relu().mean(dim=1))


def test_a_part_of_a_perceptron_is_no_part_of_an_attention() -> None:
    found = find_target_layer(PooledHidden(), square())
    assert found.name == "norm"
    assert found.why.startswith(
        '"mlp.fc1", the last to run that is spatial and whose positions influence the output, is a part of a block; '
        "this is the norm before it"
    )


class Mixed(nn.Module):
    """Each token is computed from the whole image, so that no evidence can say where it lies."""

    def __init__(self) -> None:
        super().__init__()
        self.all = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 16 * 12), nn.Unflatten(1, (16, 12)))
        self.head = nn.Linear(12, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.all(images).relu().mean(dim=1))


def test_a_layout_that_is_read_off_the_shape_alone_is_said_to_be() -> None:
    torch.manual_seed(0)
    found = find_target_layer(Mixed(), square(size=16))
    assert found.describe().splitlines()[0] == '"all" (4 x 4 grid, tokens)'
    assert "its layout is read off its shape: its cells do not follow the halves of the image" in found.why
    assert "read off its shape" not in find_target_layer(ClassToken(), square()).why


def test_the_last_to_run_before_a_decoder_is_said_to_be() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Upsample(scale_factor=2), nn.Conv2d(8, 4, 1)
    )
    found = find_target_layer(model, square(size=16))
    assert found.name == "1"
    assert found.why.startswith(
        "of 2 layers that are spatial and whose positions influence the output, it is the last"
    )
    assert "to run before the network goes up to the image's size again" in found.why


def test_where_all_grids_are_alike_an_earlier_layer_with_other_gradients_is_named() -> None:
    """A global pool over tokens makes the gradients constant; behind a layer's normalisation they are not."""
    model = nn.Sequential(
        nn.Conv2d(3, 12, 8, stride=8), nn.Flatten(2), Transposed(), nn.LayerNorm(12), MeanHead()
    )
    found = find_target_layer(model, square())
    assert found.name == "3"
    assert "constant over space" in found.why
    assert found.earlier == ("2",)
    assert attribute(model, square(), 0).even_gradients
    assert not attribute(model, square(), 0, target_layer=found.earlier[0]).even_gradients


class Transposed(nn.Module):
    def forward(self, features: Tensor) -> Tensor:
        return features.transpose(1, 2)


class MeanHead(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(12, CLASSES)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.linear(tokens.mean(dim=1))


def test_the_layer_before_another_kind_of_grid_is_named_too() -> None:
    assert find_target_layer(Mixer(), square()).earlier == ("stem",)
