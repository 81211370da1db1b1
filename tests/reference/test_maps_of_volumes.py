"""Grad-CAM of signals, volumes and videos against captum and MONAI."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_gcam import attribute
from tests.reference.test_maps_of_others import imported
from tests.unit.cam.test_dimensions import CONVOLUTIONS, LABELS, SIZES, cnn, images

LAYERS = ["0", "2"]


def as_maps(raw: Tensor, size: tuple[int, ...]) -> Tensor:
    """Raw maps at the layer's size as `attribute` hands them out: at the images' size, each one's maximum 1."""
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(size)]
    resized = nn.functional.interpolate(raw[:, None], size=size, mode=mode, align_corners=False)[:, 0]
    return resized / resized.flatten(1).amax(dim=1).view(-1, *[1] * len(size))


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_against_captum(dims: int, layer: str) -> None:
    model, batch = cnn(dims), images(dims)
    explainer = imported("captum.attr").LayerGradCam(model, model.get_submodule(layer))
    theirs = explainer.attribute(batch, target=LABELS, relu_attributions=True)[:, 0].detach()
    ours = attribute(model, batch, LABELS, methods="grad_cam", target_layer=layer)
    torch.testing.assert_close(ours.peaks["grad_cam"], theirs.flatten(1).amax(dim=1), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ours.maps["grad_cam"], as_maps(theirs, SIZES[dims]), rtol=1e-5, atol=1e-5)


def inverted_and_rescaled(raw: Tensor) -> Tensor:
    """Maps as MONAI's `default_normalizer` gives them: 1 at the least, and 0 at the largest of the whole batch."""
    return (raw.max() - raw) / (raw.max() - raw.min())


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_against_monai(dims: int, layer: str) -> None:
    """Its maps are upsampled, then inverted and rescaled over the batch; undone up to the scale of each map."""
    pytest.importorskip("monai")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from monai.visualize import GradCAM

        model, batch = cnn(dims), images(dims)
        explainer: Any = GradCAM(nn_module=model, target_layers=layer)
        for row, label in enumerate(LABELS):
            theirs = explainer(batch[row : row + 1], class_idx=label)[:, 0].detach()
            ours = attribute(model, batch[row : row + 1], label, methods="grad_cam", target_layer=layer)
            assert theirs.min() < theirs.max()
            torch.testing.assert_close(
                inverted_and_rescaled(ours.maps["grad_cam"]), theirs, rtol=1e-5, atol=1e-5
            )


@pytest.mark.parametrize("dims", [1, 3])
def test_dense_logits_against_captum(dims: int) -> None:
    """A segmentation network as captum sees it: wrapped, so that the logits are summed over the mask."""
    torch.manual_seed(0)
    convolution = CONVOLUTIONS[dims]
    model = nn.Sequential(
        convolution(2, 6, 3, 2, 1), nn.ReLU(), nn.Upsample(SIZES[dims]), convolution(6, 3, 3, padding=1)
    ).eval()
    masks = torch.rand(2, *SIZES[dims], generator=torch.Generator().manual_seed(0)) > 0.5

    class Summed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, batch: Tensor) -> Tensor:
            return (self.model(batch) * masks[:, None]).flatten(2).sum(dim=2)

    explainer = imported("captum.attr").LayerGradCam(Summed(), model[1])
    theirs = explainer.attribute(images(dims), target=LABELS, relu_attributions=True)[:, 0].detach()
    ours = attribute(
        model, images(dims), torch.tensor(LABELS), methods="grad_cam", target_layer="1", masks=masks
    )
    torch.testing.assert_close(ours.peaks["grad_cam"], theirs.flatten(1).amax(dim=1), rtol=1e-5, atol=1e-5)
    assert (theirs.flatten(1).amax(dim=1) > 0).any()
    alive = theirs.flatten(1).amax(dim=1) > 0
    torch.testing.assert_close(
        ours.maps["grad_cam"][alive], as_maps(theirs[alive], SIZES[dims]), rtol=1e-5, atol=1e-5
    )
