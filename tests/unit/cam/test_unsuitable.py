"""What is never looked at: the output itself, a side head, what is recurrent; and outputs that are not finite."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_gcam import attribute
from lightning_gcam.cam import find_target_layer
from lightning_gcam.cam.layers import NotFinite
from tests.support.nets import CLASSES, cnn, pictures, seeded
from tests.support.toys import listening


def conv(inputs: int, outputs: int, stride: int = 1) -> nn.Module:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, padding=1), nn.ReLU())


def up(images: Tensor) -> Tensor:
    return nn.functional.interpolate(images, scale_factor=2.0)


class Supervised(nn.Module):
    """A decoder of three levels; how its heads are returned is said by `order`."""

    def __init__(self, order: str) -> None:
        super().__init__()
        self.order = order
        self.down = nn.ModuleList([conv(3, 4), conv(4, 6, 2), conv(6, 8, 2)])
        self.up = nn.ModuleList([conv(14, 6), conv(10, 4)])
        self.heads = nn.ModuleList([nn.Conv2d(width, 1, 1) for width in (8, 6, 4)])
        self.fuse = nn.Conv2d(3, 1, 1)

    def forward(self, images: Tensor) -> Any:
        first = self.down[0](images)
        second = self.down[1](first)
        third = self.down[2](second)
        decoded = self.up[0](torch.cat([second, up(third)], dim=1))
        whole = self.up[1](torch.cat([first, up(decoded)], dim=1))
        maps = [head(each) for head, each in zip(self.heads, (third, decoded, whole), strict=True)]
        if self.order in ("coarse first", "fine first"):
            return maps if self.order == "coarse first" else tuple(maps[::-1])
        maps = [nn.functional.interpolate(each, images.shape[2:], mode="bilinear") for each in maps]
        if self.order == "of one size":
            return maps
        return [self.fuse(torch.cat(maps, dim=1)).sigmoid(), *(each.sigmoid() for each in maps)]  # as U2-Net


MAIN = {"coarse first": 2, "fine first": 0, "of one size": 2, "fused first": 0}


def supervised(order: str) -> Supervised:
    model = Supervised(order)
    seeded(model)
    return model


@pytest.mark.parametrize("layer", [None, "down.0", "down.1"])
@pytest.mark.parametrize("order", MAIN)
def test_the_main_head_is_explained_at_the_bottleneck(order: str, layer: str | None) -> None:
    model, images = supervised(order), torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(3))
    masks = torch.zeros(2, 16, 16, dtype=torch.bool)
    masks[:, 2:9, 3:8] = True
    if layer is None:
        assert find_target_layer(model, images).name == "down.2"
    found = attribute(model, images, 1, masks=masks, methods="grad_cam", target_layer=layer)
    alone = attribute(
        model,
        images,
        1,
        masks=masks,
        methods="grad_cam",
        target_layer=layer or "down.2",
        forward=lambda model, images: model(images)[MAIN[order]],
    )
    torch.testing.assert_close(found.maps["grad_cam"], alone.maps["grad_cam"])
    torch.testing.assert_close(found.logits, alone.logits)
    others = [
        attribute(
            model,
            images,
            1,
            masks=masks,
            methods="grad_cam",
            target_layer="down.0",
            forward=lambda model, images, index=index: model(images)[index],
        ).logits
        for index in range(3)
        if index != MAIN[order]
    ]
    assert all((found.logits - other).abs().max() > 1e-3 for other in others)


def test_it_is_said_once_which_head_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightning_gcam.utils.lightning_compat._LOGGED", set())
    model, images = supervised("of one size"), torch.rand(1, 3, 16, 16)
    with listening() as said:
        for _ in range(2):
            found = find_target_layer(model, images)
            attribute(model, images, target_layer="down.2")
    assert said == [
        "The model returns 3 maps of logits (deep supervision). Explained is output[2], the largest and deepest one. "
        "For another one, pass `forward=`."
    ]
    assert "it is the last to run before the network goes up to the image" in found.why


class Recurrent(nn.Module):
    """A recurrent layer reads the cells of a feature map, one after the other."""

    def __init__(self, kind: type[nn.RNNBase], batch_first: bool) -> None:
        super().__init__()
        self.batch_first = batch_first
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU())
        self.rnn = kind(8, 8, batch_first=batch_first)
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.features(images).flatten(2).transpose(1, 2)
        tokens = tokens if self.batch_first else tokens.transpose(0, 1)
        tokens, _ = self.rnn(tokens)
        return self.head(self.norm(tokens).mean(dim=1 if self.batch_first else 0))


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_the_last_grid_before_a_recurrent_layer(kind: type[nn.RNNBase], batch_first: bool) -> None:
    model = seeded(Recurrent(kind, batch_first))
    found = find_target_layer(model, pictures())
    assert found.name == "features"
    assert found.grid == (12, 10)
    assert '"norm" is passed over: it is recurrent, or comes from what is' in found.why


class OnlyRecurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(3, 8, batch_first=True)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.rnn(images.flatten(2).transpose(1, 2))[0].mean(dim=1))


def test_a_network_of_nothing_else_is_looked_at_all_the_same() -> None:
    assert find_target_layer(seeded(OnlyRecurrent()), pictures()).name == "rnn"


class Rows(nn.Module):
    """A recurrent layer that mixes rows, as Sequencer's, is no reader of the whole: grids behind it are grids."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 2, 2)
        self.rnn = nn.LSTM(8, 8, batch_first=True)
        self.last = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        features = self.stem(images)
        rows = features.permute(0, 2, 3, 1)
        mixed = self.rnn(rows.flatten(0, 1))[0].unflatten(0, rows.shape[:2]).permute(0, 3, 1, 2)
        return self.head(self.last(features + mixed).relu().mean(dim=(2, 3)))


def test_a_recurrent_layer_over_rows_hides_nothing() -> None:
    assert find_target_layer(seeded(Rows()), pictures()).name == "last"


# ---------------------------------------------------------------------------------------- what is not finite


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_output_that_is_not_finite_is_named(value: float) -> None:
    model = cnn()
    with torch.no_grad():
        model.head[3].weight.fill_(value)
    with pytest.raises(
        NotFinite, match=r"output of Cnn is not finite: it holds NaN or infinity.*It is found once"
    ):
        find_target_layer(model, pictures())


def test_a_bias_that_is_not_finite_hides_no_layer() -> None:
    model = cnn()
    with torch.no_grad():
        model.head[3].bias[0] = torch.nan
    assert find_target_layer(model, pictures()).name == "features"


def of_a_grid(*last: nn.Module) -> nn.Sequential:
    return nn.Sequential(conv(3, 4, 2), nn.Flatten(), nn.LazyLinear(10), *last)


class Wrapped(nn.Module):
    """A network as a part of another, which gives its output as coordinates, perhaps in pixels."""

    def __init__(self, net: nn.Module, scale: float = 1.0) -> None:
        super().__init__()
        self.net, self.scale = net, scale

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images).unflatten(-1, (5, 2)).flatten(1, -2) * self.scale


@pytest.mark.parametrize(
    ("model", "layer"),
    [
        (of_a_grid(nn.Unflatten(1, (5, 2))), "0"),
        (Wrapped(of_a_grid()), "net.0"),
        (Wrapped(nn.Sequential(of_a_grid(), nn.Unflatten(1, (1, 5, 2)), nn.Flatten(2)), 32.0), "net.0.0"),
        (nn.Sequential(of_a_grid(nn.Unflatten(1, (5, 2)), nn.Tanh())), "0.0"),
    ],
)
def test_coordinates_are_no_layer(model: nn.Module, layer: str) -> None:
    images = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    model(images)
    found = find_target_layer(model, images)
    assert (found.name, found.grid) == (layer, (8, 8))
    attribution = attribute(model, images, methods="grad_cam")
    assert attribution.target_layer == layer
    torch.testing.assert_close(attribution.values, model(images).flatten(1).norm(dim=1))


def test_coordinates_of_a_network_without_a_grid_have_no_layer() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 10), nn.Unflatten(1, (5, 2)))
    with pytest.raises(ValueError, match="no spatial layer"):
        find_target_layer(model, torch.rand(2, 3, 4, 4))


class OneNumberAToken(nn.Module):
    """Nine classes, each the number of one of nine tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 4, 4)
        self.mix = nn.Linear(16, 9)
        self.head = nn.Linear(6, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.mix(self.stem(images).flatten(2)).transpose(1, 2))[..., 0]


def test_logits_are_no_layer_and_features_in_a_row_are() -> None:
    images = torch.rand(2, 3, 16, 16)
    found = find_target_layer(OneNumberAToken(), images)
    assert "head" not in (found.name, *found.earlier)
    flat = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten())  # an embedding of all features
    assert find_target_layer(flat, images).name == "1"


class Decoder(nn.Module):
    """Queries that read of the feature map, and of which the classes are computed: all together, or one each."""

    def __init__(self, queries: int, *, with_norm: bool = True) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.ReLU(), nn.Conv2d(8, 16, 2, 2), nn.ReLU())
        self.queries = nn.Parameter(torch.randn(1, queries, 16))
        self.norm = nn.LayerNorm(16) if with_norm else nn.Identity()
        self.read = nn.MultiheadAttention(16, 2, batch_first=True)
        self.wide = nn.Linear(16, 24)
        self.head = nn.Linear(24, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.stem(images).flatten(2).transpose(1, 2)
        queries = self.norm(self.queries.expand(len(images), -1, -1))
        read = queries + self.read(queries, tokens, tokens)[0]
        return self.head(self.wide(read).relu().mean(dim=1))


@pytest.mark.parametrize("queries", [9, 14, 16, 25, 64, 100])
def test_queries_are_no_grid_over_the_image(queries: int) -> None:
    model, images = (
        seeded(Decoder(queries)),
        torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)),
    )
    sizes: list[int] = []
    model.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    found = find_target_layer(model, images)
    assert (found.name, found.grid) == ("stem", (8, 8))
    assert sizes == [1, 5]


def test_queries_that_nothing_shows_to_be_such_are_said_once() -> None:
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with listening() as said:
        names = {find_target_layer(seeded(Decoder(100, with_norm=False)), images).name for _ in range(2)}
    (message,) = [each for each in said if "by its shape alone" in each]
    assert names == {"wide"}
    assert message.startswith('The output of "wide" is read as a 10 x 10 grid, tokens, by its shape alone')
