"""Networks for signals, spectrograms, volumes and videos, as people train them: the layer, its grid, and a map."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import video
from torchvision.models.video import mvit

from lightning_gcam import attribute
from lightning_gcam.cam import find_target_layer
from lightning_gcam.cam.layers import TargetLayer
from tests.unit.cam.test_dimensions import PooledSignals


def look(model: nn.Module, *shape: int, **options: Any) -> TargetLayer:
    """The layer that is found for two samples, whose maps are looked at, too."""
    images = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))
    layer = find_target_layer(model.eval(), images)
    found = attribute(
        model, images, methods=["guidance_cam", "layer_cam"], target_layer=layer.module, **options
    )
    for each in found.maps.values():
        assert each.shape == (2, *shape[1:])
        assert each.isfinite().all()
    assert float(found.maps["layer_cam"].max()) == 1.0
    return layer


def made(make: Callable[..., nn.Module], *args: Any, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    return make(*args, **options)


# ------------------------------------------------------------------------------------------------ signals


class Residual(nn.Module):
    """One block of the ECG network of Kachuee et al. (arXiv 1805.00794)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv1d(32, 32, 5, padding=2) for _ in range(2))

    def forward(self, signals: Tensor) -> Tensor:
        inner = self.second(self.first(signals).relu())
        return nn.functional.max_pool1d((signals + inner).relu(), 5, 2)


def ecg() -> nn.Module:
    """187 samples of a heartbeat, 5 classes."""
    blocks = [Residual() for _ in range(4)]
    head = [nn.Flatten(), nn.Linear(32 * 8, 32), nn.ReLU(), nn.Linear(32, 5)]
    return nn.Sequential(nn.Conv1d(1, 32, 5), *blocks, *head)


def test_an_ecg_network() -> None:
    layer = look(made(ecg), 1, 187)
    assert (layer.name, layer.grid) == ("4", (8,))
    assert [each.grid for each in layer.others] == [(20,), (43,), (90,), (183,)]


def test_a_network_on_raw_audio() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv1d(1, 32, 80, 16), nn.BatchNorm1d(32), nn.ReLU(), nn.MaxPool1d(4)),
        *(nn.Conv1d(32, 64, 3), nn.BatchNorm1d(64), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten()),
        nn.Linear(64, 35),
    )
    assert look(model, 1, 8000).grid == (122,)
    assert look(made(PooledSignals), 1, 8000).name == "features"


def test_a_spectrogram_that_is_not_square() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(1, 16, (8, 20), padding=(4, 10)), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 16, (4, 10), padding=(2, 5)), nn.ReLU(), nn.MaxPool2d((2, 4))),
        *(nn.Flatten(), nn.LazyLinear(12)),
    )
    model(torch.zeros(1, 1, 40, 101))
    layer = look(model, 1, 40, 101)
    assert (layer.name, layer.grid) == ("4", (21, 52))


class Recurrent(nn.Module):
    """Convolutions, and a GRU on what they give."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv1d(12, 32, 7, 4, 3), nn.BatchNorm1d(32), nn.ReLU())
        self.gru, self.head = nn.GRU(32, 16, batch_first=True), nn.Linear(16, 4)

    def forward(self, signals: Tensor) -> Tensor:
        return self.head(self.gru(self.features(signals).transpose(1, 2))[0][:, -1])


def test_a_recurrent_network_is_explained_by_its_features() -> None:
    layer = look(made(Recurrent), 12, 400)
    assert (layer.name, layer.grid) == ("features", (100,))


# ------------------------------------------------------------------------------------------------ dense heads


class UNet(nn.Module):
    """Two levels, of any number of dimensions."""

    def __init__(self, dims: int) -> None:
        super().__init__()
        convolution = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[dims]
        up = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}[dims]
        self.pool = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}[dims](2)

        def block(inside: int, outside: int) -> nn.Module:
            both = [convolution(each, outside, 3, padding=1) for each in (inside, outside)]
            return nn.Sequential(both[0], nn.ReLU(), both[1], nn.ReLU())

        self.first, self.second, self.bottom = block(1, 8), block(8, 16), block(16, 32)
        self.up_second, self.after_second = up(32, 16, 2, 2), block(32, 16)
        self.up_first, self.after_first = up(16, 8, 2, 2), block(16, 8)
        self.head = convolution(8, 3, 1)

    def forward(self, images: Tensor) -> Tensor:
        first = self.first(images)
        second = self.second(self.pool(first))
        up = self.up_second(self.bottom(self.pool(second)))
        up = self.up_first(self.after_second(torch.cat([up, second], dim=1)))
        return self.head(self.after_first(torch.cat([up, first], dim=1)))


@pytest.mark.parametrize("size", [(64,), (16, 24), (8, 12, 16)])
def test_a_u_net_is_explained_at_its_bottom(size: tuple[int, ...]) -> None:
    masks = torch.zeros(2, *size, dtype=torch.bool)
    masks[:, : size[0] // 2] = True
    layer = look(made(UNet, len(size)), 1, *size, masks=masks)
    assert (layer.name, layer.grid) == ("bottom", tuple(side // 4 for side in size))


# ------------------------------------------------------------------------------------------------ videos


@pytest.mark.parametrize(
    ("make", "shape", "name", "grid"),
    [
        (video.r3d_18, (8, 64, 64), "layer4", (1, 4, 4)),
        (video.mc3_18, (4, 32, 32), "layer4", (4, 2, 2)),
        pytest.param(video.s3d, (16, 224, 224), "features", (2, 7, 7), marks=pytest.mark.slow),
        pytest.param(video.swin3d_t, (4, 64, 64), "norm", (2, 2, 2), marks=pytest.mark.slow),
    ],
)
def test_networks_for_videos(make: Any, shape: Any, name: str, grid: Any) -> None:
    layer = look(made(make, num_classes=5), 3, *shape)
    assert (layer.name, layer.grid) == (name, grid)


@pytest.mark.slow
def test_a_multiscale_vision_transformer(monkeypatch: pytest.MonkeyPatch) -> None:
    """`mvit_v1_b` for clips smaller than its own: tokens behind a class token, pooled to 4 x 2 x 2."""
    whole = mvit.MViT
    monkeypatch.setattr(
        mvit, "MViT", lambda **options: whole(**options | {"spatial_size": (64, 64), "temporal_size": 8})
    )
    layer = look(made(video.mvit_v1_b, num_classes=5), 3, 8, 64, 64)
    assert (layer.name, layer.grid) == ("blocks.15.norm1", (4, 2, 2))
    assert layer.kind == "tokens, 1 before the patches"


# ------------------------------------------------------------------------------------------------ MONAI


MONAI = {
    "DenseNet121": ({"in_channels": 1, "out_channels": 2}, (64, 64, 64), "class_layers.relu", (2, 2, 2)),
    "UNet": (
        {"in_channels": 1, "out_channels": 2, "channels": (8, 16, 32), "strides": (2, 2)},
        (16, 24, 32),
        "model.1.submodule.1",
        (4, 6, 8),
    ),
    "SwinUNETR": (
        {"in_channels": 1, "out_channels": 3, "feature_size": 12},
        (32, 32, 64),
        "encoder10",
        (1, 1, 2),
    ),
    "ViT": (
        {
            "in_channels": 1,
            "img_size": (32, 48, 48),
            "patch_size": (8, 8, 8),
            "hidden_size": 48,
            "mlp_dim": 96,
            "num_layers": 3,
            "num_heads": 4,
            "classification": True,
            "num_classes": 3,
            "post_activation": None,
        },
        (32, 48, 48),
        "blocks.2.norm1",
        (4, 6, 6),
    ),
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", MONAI)
def test_networks_of_monai(name: str) -> None:
    nets = pytest.importorskip("monai.networks.nets")
    if name in ("SwinUNETR", "ViT"):
        pytest.importorskip("einops")
    options, size, layer, grid = MONAI[name]
    found = look(made(getattr(nets, name), spatial_dims=3, **options), 1, *size)  # type: ignore[arg-type]
    assert (found.name, found.grid) == (layer, grid)
