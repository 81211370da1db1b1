"""Signals, volumes and videos: what holds for images of two dimensions holds for one and three."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_gcam import attribute
from lightning_gcam.cam import available_methods, find_target_layer
from lightning_gcam.cam.calling import WrappedForward
from lightning_gcam.cam.capture import LayerCall, activations_replaced, capture
from lightning_gcam.cam.layout_evidence import changed_images, fewest_images, locality
from lightning_gcam.cam.layouts import find_layout, find_patches, fits
from lightning_gcam.data import SaliencyBatch
from lightning_gcam.pipeline.attribution import attribute_in_chunks
from lightning_gcam.utils.errors import InputError

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
POOLS = {1: nn.AdaptiveAvgPool1d, 2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d}
SIZES = {1: (24,), 2: (10, 12), 3: (6, 8, 10)}
LABELS = [0, 2]


def cnn(dims: int, kernel: int | tuple[int, ...] = 3, stride: int | tuple[int, ...] = 2) -> nn.Sequential:
    """Two convolutions and a linear layer on what they pool."""
    torch.manual_seed(dims)
    convolution = CONVOLUTIONS[dims]
    padding = kernel // 2 if isinstance(kernel, int) else tuple(each // 2 for each in kernel)
    return nn.Sequential(
        convolution(2, 6, kernel, stride, padding),  # type: ignore[arg-type]
        nn.ReLU(),
        convolution(6, 8, kernel, 1, padding),  # type: ignore[arg-type]
        nn.ReLU(),
        POOLS[dims](1),
        nn.Flatten(),
        nn.Linear(8, 3),
    ).eval()


def images(dims: int, n: int = 2) -> Tensor:
    return torch.rand(n, 2, *SIZES[dims], generator=torch.Generator().manual_seed(dims))


def copied(source: nn.Sequential, target: nn.Sequential, change: Callable[[Tensor], Tensor]) -> nn.Sequential:
    """The target with the source's weights, those of convolutions changed."""
    weights = source.state_dict()
    target.load_state_dict({name: change(each) if each.ndim > 2 else each for name, each in weights.items()})
    return target


# ------------------------------------------------------------------------------------------------ properties

METHODS = [each for each in available_methods() if not each.startswith("attention")]
"""Those that explain a network of convolutions."""

UNLIKE_IMAGES = ("random", "cameras", "occlusion")
"""Drawn for another shape; resized bicubically; with windows that are finer along a signal."""


@pytest.mark.parametrize("dims", [1, 3])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_gives_a_map_of_the_images_size(method: str, dims: int) -> None:
    model = cnn(dims)
    found = attribute(model, images(dims), LABELS, methods=method, target_layer="2").maps[method]
    assert found.shape == (2, *SIZES[dims])
    assert found.isfinite().all()
    assert found.min() >= 0
    assert set(found.flatten(1).amax(dim=1).tolist()) <= {0.0, 1.0}


@pytest.mark.parametrize("method", [each for each in METHODS if each not in UNLIKE_IMAGES])
def test_a_signal_is_an_image_of_height_one(method: str) -> None:
    signal, image = cnn(1), cnn(2, (1, 3), (1, 2))
    image = copied(signal, image, lambda weight: weight.unsqueeze(2))
    ours = attribute(signal, images(1), LABELS, methods=method, target_layer="2").maps[method]
    flat = attribute(image, images(1)[:, :, None], LABELS, methods=method, target_layer="2").maps[method]
    torch.testing.assert_close(ours, flat[:, 0], rtol=1e-4, atol=1e-5)


DETERMINISTIC = [
    "guidance_cam",
    "grad_cam",
    "grad_cam_plus_plus",
    "layer_cam",
    "eigen_cam",
    "score_cam",
    "full_grad",
]


@pytest.mark.parametrize(
    "method", [*DETERMINISTIC, "ablation_cam", "integrated_gradients", "guided_grad_cam"]
)
def test_a_volume_of_depth_one_has_the_map_of_the_image(method: str) -> None:
    image = cnn(2)
    volume = copied(image, cnn(3), lambda weight: nn.functional.pad(weight.unsqueeze(2), (0, 0, 0, 0, 1, 1)))
    flat = attribute(image, images(2), LABELS, methods=method, target_layer="2").maps[method]
    deep = attribute(volume, images(2)[:, :, None], LABELS, methods=method, target_layer="2").maps[method]
    torch.testing.assert_close(deep[:, 0], flat, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", DETERMINISTIC)
def test_a_volume_whose_slices_are_all_the_same_has_the_map_of_one_in_each(method: str) -> None:
    image = cnn(2)
    volume = copied(image, cnn(3, (1, 3, 3), (1, 2, 2)), lambda weight: weight.unsqueeze(2))
    flat = attribute(image, images(2), LABELS, methods=method, target_layer="2").maps[method]
    stack = images(2)[:, :, None].expand(-1, -1, 5, -1, -1)
    deep = attribute(volume, stack, LABELS, methods=method, target_layer="2").maps[method]
    for each in deep.unbind(dim=1):
        torch.testing.assert_close(each, flat, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dims", [1, 3])
@pytest.mark.parametrize("method", METHODS)
def test_a_batch_is_its_samples_one_by_one(method: str, dims: int) -> None:
    model, batch = cnn(dims), images(dims)
    whole = attribute(model, batch, LABELS, methods=method, target_layer="2").maps[method]
    for row, label in enumerate(LABELS):
        one = attribute(model, batch[row : row + 1], label, methods=method, target_layer="2").maps[method]
        torch.testing.assert_close(one[0], whole[row], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("dims", [1, 3])
def test_permuting_the_channels_of_the_layer_changes_no_map(dims: int) -> None:
    model, other, order = cnn(dims), cnn(dims), torch.randperm(8, generator=torch.Generator().manual_seed(0))
    for name in ("weight", "bias"):
        setattr(other[2], name, nn.Parameter(getattr(model[2], name)[order]))
    other[6].weight = nn.Parameter(model[6].weight[:, order])
    for method in DETERMINISTIC:
        first, second = (
            attribute(each, images(dims), LABELS, methods=method, target_layer="2") for each in (model, other)
        )
        torch.testing.assert_close(first.maps[method], second.maps[method], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dims", [1, 3])
@pytest.mark.parametrize("fuse", ["product", "mean"])
def test_maps_of_two_layers_are_fused(fuse: Any, dims: int) -> None:
    model = cnn(dims)
    found = attribute(model, images(dims), LABELS, methods="layer_cam", target_layer=["1", "3"], fuse=fuse)
    each = attribute(model, images(dims), LABELS, methods="layer_cam", target_layer=["1", "3"])
    both = torch.stack([each.maps["layer_cam@1"], each.maps["layer_cam@3"]])
    expected = both.prod(dim=0) if fuse == "product" else both.mean(dim=0)
    peaks = expected.flatten(1).amax(dim=1).view(-1, *[1] * dims)
    torch.testing.assert_close(found.maps["layer_cam"], expected / peaks)


# ------------------------------------------------------------------------------------------------ finding the layer


@pytest.mark.parametrize(("dims", "grid"), [(1, (12,)), (3, (3, 4, 5))])
def test_the_layer_is_found_and_described(dims: int, grid: tuple[int, ...]) -> None:
    layer = find_target_layer(cnn(dims), images(dims))
    assert (layer.name, layer.grid, layer.kind) == ("3", grid, "channels first")
    words = "grid of 12 cells" if dims == 1 else "3 x 4 x 5 grid"
    assert str(layer) == f'"3" ({words}, channels first)'


class PooledSignals(nn.Module):
    """A head on `(N, 1, C)`, as in torchaudio's tutorial: its output `(N, 1, K)` looks like a signal of one channel."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv1d(1, 16, 8, 4), nn.BatchNorm1d(16), nn.ReLU())
        self.head = nn.Linear(16, 35)

    def forward(self, signals: Tensor) -> Tensor:
        pooled = self.features(signals).mean(dim=2, keepdim=True)
        return self.head(pooled.transpose(1, 2)).log_softmax(dim=2).squeeze(1)


def test_logits_of_one_position_are_no_signal() -> None:
    torch.manual_seed(0)
    assert find_target_layer(PooledSignals().eval(), torch.randn(1, 1, 400)).name == "features"


def test_logits_of_a_convolution_are_no_slices() -> None:
    """As in S3D: classes by a convolution on what was pooled to a single cell."""
    torch.manual_seed(0)
    head = nn.Sequential(nn.Dropout(), nn.Conv3d(8, 5, 1))
    model = nn.Sequential(nn.Conv3d(2, 8, 3), nn.ReLU(), nn.AvgPool3d((4, 6, 8)), head, nn.Flatten()).eval()
    assert find_target_layer(model, images(3)).name == "1"


class SignalTransformer(nn.Module):
    """Patches of a signal, or of a volume, behind a class token, tokens first or not."""

    def __init__(self, patches: nn.Module, count: int, *, tokens_first: bool = False) -> None:
        super().__init__()
        self.patches, self.tokens_first = patches, tokens_first
        self.token = nn.Parameter(torch.randn(1, 1, 32))
        self.positions = nn.Parameter(torch.randn(1, count + 1, 32) / 10)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(32, 4, 64, batch_first=not tokens_first) for _ in range(2)
        )
        self.head = nn.Linear(32, 4)

    def forward(self, signals: Tensor) -> Tensor:
        tokens = self.patches(signals).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(len(tokens), -1, -1), tokens], dim=1) + self.positions
        tokens = tokens.transpose(0, 1) if self.tokens_first else tokens
        for block in self.blocks:
            tokens = block(tokens)
        return self.head(tokens[0] if self.tokens_first else tokens[:, 0])


@pytest.mark.parametrize("tokens_first", [False, True])
def test_tokens_of_a_signal_behind_a_class_token(tokens_first: bool) -> None:
    torch.manual_seed(0)
    model = SignalTransformer(nn.Conv1d(2, 32, 10, 10), 20, tokens_first=tokens_first).eval()
    layer = find_target_layer(model, torch.rand(2, 2, 200))
    assert layer.grid == (20,)
    assert layer.kind.startswith("tokens, 1 before the patches")
    assert attribute(model, torch.rand(2, 2, 200)).maps["guidance_cam"].shape == (2, 200)


@pytest.mark.parametrize(
    ("size", "patch", "grid"),
    [((16, 16, 16), 4, (4, 4, 4)), ((8, 32, 32), (2, 8, 8), (4, 4, 4)), ((4, 48, 32), (2, 8, 8), (2, 6, 4))],
)
def test_tokens_of_a_volume_behind_a_class_token(size: Any, patch: Any, grid: Any) -> None:
    torch.manual_seed(0)
    model = SignalTransformer(nn.Conv3d(2, 32, patch, patch), torch.Size(grid).numel()).eval()
    layer = find_target_layer(model, torch.rand(1, 2, *size))
    assert (layer.grid, layer.kind) == (grid, "tokens, 1 before the patches")


def test_the_graph_of_a_volume_starts_late() -> None:
    """Not one of the outputs of the first layers, which are the largest, is kept for the search."""
    torch.manual_seed(0)
    first = nn.Conv3d(1, 4, 3, padding=1)
    model = nn.Sequential(
        first, nn.ReLU(), nn.MaxPool3d(2), *cnn(3)[2:4], nn.AdaptiveAvgPool3d(1), nn.Flatten()
    )
    model[3] = nn.Conv3d(4, 8, 3, padding=1)
    graphs: list[bool] = []
    hook = first.register_forward_hook(lambda _, __, output: graphs.append(output.requires_grad))
    assert find_target_layer(model.eval(), torch.rand(1, 1, 16, 16, 16)).name == "4"
    hook.remove()
    assert graphs
    assert not any(graphs)


# ------------------------------------------------------------------------------------------------ parts


def test_layouts_by_shape() -> None:
    assert find_layout(torch.zeros(2, 64, 25), (200,)).kind == "channels first"  # type: ignore[union-attr]
    assert find_layout(torch.zeros(2, 25, 512), (200,)).kind == "tokens"  # type: ignore[union-attr]
    assert find_layout(torch.zeros(2, 64, 4, 7, 7), (16, 112, 112)).grid == (4, 7, 7)  # type: ignore[union-attr]
    last = find_layout(torch.zeros(2, 4, 7, 7, 96), (8, 112, 112))
    assert last is not None
    assert (last.kind, last.grid) == ("channels last", (4, 7, 7))
    assert last.reshape(torch.zeros(2, 4, 7, 7, 96)).shape == (2, 96, 4, 7, 7)
    assert find_layout(torch.zeros(2, 1000), (200,)) is None


def test_patches_of_signals_and_volumes() -> None:
    assert find_patches(101, (1000,)) == (1, (100,))
    assert find_patches(217, (96, 96, 96)) == (1, (6, 6, 6))
    assert find_patches(2, (4,)) == (0, (2,))
    assert not fits((7, 7, 9), (7, 70, 70), slack=1.0)


@pytest.mark.parametrize("dims", [1, 3])
def test_changed_images_and_locality(dims: int) -> None:
    image = images(dims, 1)
    count = fewest_images(image)
    assert count == 2 * dims + 1
    changed = changed_images(image, count)
    assert torch.equal(changed[0], image[0])
    moved = (changed[1:] != image).any(dim=1).float()
    assert locality(moved) == pytest.approx(1.0, abs=0.05)
    assert torch.equal(changed_images(image, 2, slice(1, 2))[1], changed[2])


def test_dense_heads_are_summed_over_the_mask() -> None:
    for dims in (1, 3):
        torch.manual_seed(0)
        convolution = CONVOLUTIONS[dims]
        model = nn.Sequential(convolution(2, 4, 3, padding=1), nn.ReLU(), convolution(4, 3, 1)).eval()
        masks = torch.zeros(2, *SIZES[dims], dtype=torch.bool)
        masks[0].view(-1)[:7] = True
        found = attribute(model, images(dims), 1, target_layer="1", masks=masks)
        logits = model(images(dims))[0, 1].flatten()[:7]
        torch.testing.assert_close(found.values[0], logits.sum())  # type: ignore[index]
        assert found.in_mask is not None
        assert found.in_mask.tolist() == [True, False]
        assert found.maps["guidance_cam"].shape == (2, *SIZES[dims])


def test_tokens_of_an_image_are_no_dense_head() -> None:
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Flatten(2))
    with pytest.raises(InputError, match=r"holds no logits \(1, K\)"):
        attribute(model, images(2))


@pytest.mark.parametrize("dims", [1, 3])
def test_activations_are_replaced_in_place(dims: int) -> None:
    model, signals = nn.Sequential(nn.ReLU(), nn.Flatten()), images(dims)
    call = LayerCall(model[0], 0, lambda output: output)
    with activations_replaced(call, lambda activations: activations * 2):
        assert torch.equal(model(signals), signals.flatten(1) * 2)


@pytest.mark.parametrize("dims", [1, 3])
def test_a_reshape_that_gives_another_number_of_dimensions_is_refused(dims: int) -> None:
    letters = {1: r"\(N, C, l\)", 3: r"\(N, C, d, h, w\)"}[dims]
    with pytest.raises(InputError, match=rf"`reshape_transform` must give {letters}; got \(2, 8, "):
        attribute(
            cnn(dims), images(dims), target_layer="2", reshape_transform=lambda output: output[..., None]
        )


def test_occlusion_of_a_signal_is_what_its_zeros_take_away() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False))
    model[1].weight = nn.Parameter(torch.tensor([[1.0, 2.0, 0.0, -3.0], [0.0] * 4]))
    conv = nn.Conv1d(1, 1, 1, bias=False)
    conv.weight = nn.Parameter(torch.ones(1, 1, 1))
    found = attribute(
        nn.Sequential(conv, *model), torch.ones(1, 1, 4), 0, methods="occlusion", target_layer="0"
    )
    assert found.maps["occlusion"].tolist() == [[0.5, 1.0, 0.0, 0.0]]


def test_a_single_volume_without_a_batch_is_refused() -> None:
    with pytest.raises(InputError, match=r"`images` \(2, 6, 8, 10\) look like one.*`image\[None\]`"):
        attribute(cnn(3), images(3)[0])


# ------------------------------------------------------------------------------------------------ other inputs


@dataclass(frozen=True)
class Shifted(WrappedForward):
    """A forward that adds to each image's logits what belongs to its sample."""

    shifts: Tensor

    def __call__(self, model: nn.Module, images: Tensor) -> Any:
        assert len(images) == len(self.shifts)
        return model(images * self.shifts.view(-1, *[1] * (images.ndim - 1)))

    def at(self, rows: Any) -> Shifted:
        return replace(self, shifts=self.shifts[rows])


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("method", [each for each in METHODS if each != "random"])
def test_perturbed_images_are_run_with_the_rows_that_they_are_of(method: str, dims: int) -> None:
    model, batch, shifts = cnn(dims), images(dims), torch.tensor([1.0, -2.0])
    forward = Shifted(None, shifts)
    whole = attribute(model, batch, LABELS, methods=method, forward=forward)
    chunks, _ = attribute_in_chunks(
        model, SaliencyBatch(batch), LABELS, methods=method, forward=forward, chunk_size=1
    )
    torch.testing.assert_close(whole.maps[method], chunks.maps[method], rtol=1e-3, atol=1e-4)


def test_captured_activations_are_those_of_the_layer() -> None:
    for dims in (1, 3):
        model = cnn(dims)
        found = capture(model, images(dims), model[2], LABELS)
        assert torch.equal(found.activations, model[:3](images(dims)))
        weights = model[6].weight[LABELS] / found.activations[0, 0].numel()
        expected = torch.where(found.activations > 0, weights.view(2, 8, *[1] * dims), 0.0)
        torch.testing.assert_close(found.gradients, expected)


class Spectra(nn.Module):
    """Convolutions over the spectrum of a signal, `(N, 1, frequency, time)` or with the time first."""

    def __init__(self, *, time_first: bool = False, frequencies: int = 5) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU())
        self.head, self.time_first, self.frequencies = nn.Linear(4, 2), time_first, frequencies
        for weight in (self.features[0].weight, self.head.weight):
            nn.init.constant_(weight, 0.1)

    def forward(self, signals: Tensor) -> Tensor:
        spectra = signals.unfold(2, 8, 4)[..., : self.frequencies]  # (N, 1, time, frequency)
        planes = spectra if self.time_first else spectra.transpose(2, 3)
        return self.head(self.features(planes).square().mean(dim=(2, 3)))


@pytest.mark.parametrize(
    ("model", "dim"),
    [(Spectra(), 2), (Spectra(frequencies=1), 2), (Spectra(time_first=True, frequencies=1), 3)],
)
def test_of_planes_over_a_signal_it_is_said_how_they_are_read_and_that_works(
    model: Spectra, dim: int
) -> None:
    signals = 0.01 * torch.rand(2, 1, 200)
    signals[0, :, 140:160], signals[1, :, 40:60] = 3.0, 3.0
    with pytest.raises(InputError, match=r'Spectra makes planes .* "features') as raised:
        attribute(model.eval(), signals)
    code = f"lambda output: output.mean(dim={dim})"
    assert f"    reshape_transform={code}\n" in str(raised.value)
    found = attribute(model, signals, 0, methods="layer_cam", reshape_transform=eval(code))
    for one, low in zip(found.maps["layer_cam"], (140, 40), strict=True):
        assert low - 8 <= int(one.argmax()) < low + 28
