"""Networks for single images that run over the frames of a video, or the slices of a volume, folded into the batch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from lightning_gcam import SaliencyBatch, attribute
from lightning_gcam.cam import find_target_layer
from lightning_gcam.cam.layouts import find_layout
from lightning_gcam.utils.errors import InputError

T = 6


class FrameByFrame(nn.Module):
    """It sees how bright each cell of each frame is, and weighs the frames alike.

    Args:
        time_first: fold the frames in their order, all samples' first ones first.
        has_channels_first: take `(N, C, T, H, W)`.
    """

    def __init__(self, *, time_first: bool = False, has_channels_first: bool = True) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 6, 4, 4, bias=False), nn.BatchNorm2d(6))
        self.head = nn.Linear(6, 2)
        nn.init.constant_(self.features[0].weight, 0.1)
        nn.init.constant_(self.head.weight, 1.0)
        self.time_first, self.has_channels_first = time_first, has_channels_first

    def forward(self, images: Tensor) -> Tensor:
        frames = images.transpose(1, 2) if self.has_channels_first else images
        n, t = frames.shape[:2]
        if self.time_first:
            seen = self.features(frames.transpose(0, 1).flatten(0, 1)).unflatten(0, (t, n)).transpose(0, 1)
        else:
            seen = self.features(frames.flatten(0, 1)).unflatten(0, (n, t))
        return self.head(seen.mean(dim=(1, 3, 4)))


def marked(n: int = 5) -> tuple[Tensor, list[tuple[int, int, int]]]:
    """Noise with a bright cell in one frame of each sample, and which cell it is."""
    images = 0.01 * torch.rand(n, 1, T, 16, 24, generator=torch.Generator().manual_seed(0))
    cells = [((2 * row + 1) % T, row % 4, (3 * row) % 6) for row in range(n)]
    for row, (t, y, x) in enumerate(cells):
        images[row, 0, t, 4 * y : 4 * y + 4, 4 * x : 4 * x + 4] += 1
    return images, cells


@pytest.mark.parametrize("n", [1, 2, 5])
@pytest.mark.parametrize("time_first", [False, True])
def test_the_peak_lies_in_the_frame_of_the_mark(time_first: bool, n: int) -> None:
    images, cells = marked(n)
    model = FrameByFrame(time_first=time_first).eval()
    found = attribute(model, images, targets=[0] * n, methods=["grad_cam", "layer_cam"])
    assert found.target_layer.startswith("features")
    for maps in found.maps.values():
        for one, (t, y, x) in zip(maps, cells, strict=True):
            at = torch.unravel_index(one.argmax(), one.shape)
            assert (int(at[0]), int(at[1]) // 4, int(at[2]) // 4) == (t, y, x)


@pytest.mark.parametrize("time_first", [False, True])
def test_methods_that_run_the_model_again(time_first: bool) -> None:
    images, cells = marked(3)
    model = FrameByFrame(time_first=time_first).eval()
    found = attribute(model, images, targets=[0] * 3, methods=["score_cam", "ablation_cam"])
    for one, (t, *_) in zip(found.maps["ablation_cam"], cells, strict=True):
        assert int(one.flatten(1).sum(dim=1).argmax()) == t


class WithGain(FrameByFrame):
    """Frames in their order, each sample as bright as what stands beside it says."""

    def forward(self, images: Tensor, gain: Tensor) -> Tensor:
        return super().forward(images * gain[:, None, None, None, None])


@pytest.mark.parametrize("time_first", [False, True])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_other_inputs_leave_the_frames_in_their_order(time_first: bool, n: int) -> None:
    images, cells = marked(n)
    batch = SaliencyBatch(
        images, torch.zeros(n, dtype=torch.long), inputs={"gain": torch.tensor([9.0, 0.1, 4.0])[:n]}
    )
    found = attribute(WithGain(time_first=time_first).eval(), batch, "label", methods="grad_cam")
    for one, (t, *_) in zip(found.maps["grad_cam"], cells, strict=True):
        assert int(one.flatten(1).sum(dim=1).argmax()) == t


def test_it_is_the_map_of_the_reshape_that_a_user_would_write() -> None:
    images, _ = marked(4)
    model = FrameByFrame().eval()
    own = attribute(model, images, targets=[0] * 4, methods="layer_cam", target_layer="features.0")
    by_hand = attribute(
        model,
        images,
        targets=[0] * 4,
        methods="layer_cam",
        target_layer="features.0",
        reshape_transform=lambda output: output.unflatten(0, (-1, T)).transpose(1, 2),
    )
    assert torch.equal(own.maps["layer_cam"], by_hand.maps["layer_cam"])


def test_the_layer_is_found_and_named_with_its_grid() -> None:
    found = find_target_layer(FrameByFrame().eval(), marked(1)[0])
    assert found.grid == (T, 4, 6)


def test_rows_that_are_no_frames_are_not_taken_for_some() -> None:
    convolution = nn.Conv2d(1, 4, 1)
    assert find_layout(torch.zeros(12, 4, 8, 8), (6, 16, 16), 2, convolution).frames == 6
    assert find_layout(torch.zeros(10, 4, 8, 8), (6, 16, 16), 2, convolution) is None
    assert find_layout(torch.zeros(12, 4, 8, 8), (6, 16, 16), 2) is None  # of no known kind
    assert find_layout(torch.zeros(12, 4, 8, 8), (16, 16), 2, convolution) is None


def test_the_advice_for_frames_of_an_unknown_kind_can_be_copied() -> None:
    class Opaque(nn.Module):
        def forward(self, output: Tensor) -> Tensor:
            return output * 1.0

    model = FrameByFrame().eval()
    model.features.append(Opaque())
    with pytest.raises(InputError, match=r"unflatten\(0, \(-1, 6\)\)\.transpose\(1, 2\)"):
        attribute(model, marked(2)[0], targets=[0, 0], target_layer="features.2", methods="grad_cam")
