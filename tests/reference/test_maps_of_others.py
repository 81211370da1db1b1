"""The maps of `attribute()` against grad-cam, captum and torchcam where those are right, and where they are not."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lightning_gcam import attribute
from lightning_gcam.cam.capture import capture
from lightning_gcam.cam.methods import grad_cam_plus_plus
from tests.support.nets import SIZE, cnn, pictures

LABELS = [0, 3, 1, 1]
LAYERS = ["features.2", "features.4"]
HEADS = ["pooled", "max", "flat"]


def imported(name: str) -> ModuleType:
    """Another explainer; what it warns about while it is imported is its own affair."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(name)


def by_grad_cam(method: str, model: Any, layer: str, images: Tensor) -> Tensor:
    package = imported("pytorch_grad_cam")
    target = imported("pytorch_grad_cam.utils.model_targets").ClassifierOutputTarget
    module = model.get_submodule(layer)
    with getattr(package, method)(model=model, target_layers=[module]) as explainer:
        explainer(images, [target(label) for label in LABELS])
        hooks = explainer.activations_and_grads
        activations, gradients = (each[0].numpy() for each in (hooks.activations, hooks.gradients))
        raw = explainer.get_cam_image(images, module, LABELS, activations, gradients, eigen_smooth=False)
    return torch.from_numpy(np.maximum(raw, 0))


def by_captum(method: str, model: Any, layer: str, images: Tensor) -> Tensor:
    explainer = getattr(imported("captum.attr"), method)(model, model.get_submodule(layer))
    return explainer.attribute(images, target=LABELS, relu_attributions=True)[:, 0].detach()


def by_torchcam(method: str, model: Any, layer: str, images: Tensor) -> Tensor:
    with getattr(imported("torchcam.methods"), method)(model, target_layer=layer) as explainer:
        return explainer(LABELS, model(images), normalized=False)[0].detach()


REFERENCES = {
    "grad-cam GradCAM": (by_grad_cam, "GradCAM", "grad_cam"),
    "grad-cam HiResCAM": (by_grad_cam, "HiResCAM", "hires_cam"),
    "grad-cam LayerCAM": (by_grad_cam, "LayerCAM", "layer_cam"),
    "grad-cam XGradCAM": (by_grad_cam, "XGradCAM", "xgrad_cam"),
    "captum LayerGradCam": (by_captum, "LayerGradCam", "grad_cam"),
    "torchcam GradCAM": (by_torchcam, "GradCAM", "grad_cam"),
    "torchcam LayerCAM": (by_torchcam, "LayerCAM", "layer_cam"),
    "torchcam XGradCAM": (by_torchcam, "XGradCAM", "xgrad_cam"),
}


def as_maps(raw: Tensor, size: tuple[int, int] = SIZE) -> Tensor:
    """Raw maps at the layer's size as `attribute` hands them out: at the images' size, each one's maximum 1."""
    resized = nn.functional.interpolate(raw[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]
    largest = resized.amax(dim=(1, 2), keepdim=True)
    return resized / torch.where(largest > 0, largest, 1.0)


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("reference", REFERENCES)
def test_against(reference: str, head: str, layer: str) -> None:
    explain: Callable[[str, Any, str, Tensor], Tensor]
    explain, theirs, ours = REFERENCES[reference]
    model, images = cnn(head), pictures()
    found = attribute(model, images, LABELS, methods=ours, target_layer=layer)
    expected = explain(theirs, model, layer, images)
    assert expected.max() > 0
    torch.testing.assert_close(found.peaks[ours], expected.amax(dim=(1, 2)), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found.maps[ours], as_maps(expected), rtol=1e-3, atol=1e-4)


def test_torchcam_has_another_grad_cam_plus_plus() -> None:
    """It never divides by the denominator of alpha; the paper's formula, written out, agrees with ours alone."""
    model, images = cnn("flat"), pictures()
    captured = capture(model, images, model.features[4], LABELS)
    activations, gradients = captured.activations.double(), captured.gradients.double()
    paper = torch.zeros(len(images), *activations.shape[2:], dtype=torch.float64)
    for n in range(len(images)):
        for a, g in zip(activations[n], gradients[n], strict=True):
            alpha = [[v**2 / (2 * v**2 + a.sum() * v**3) if v else 0.0 for v in row] for row in g.tolist()]
            weight = sum((torch.tensor(alpha) * g.relu()).flatten())
            paper[n] += weight * a
    paper = paper.relu().float()
    theirs = by_torchcam("GradCAMpp", model, "features.4", images)

    torch.testing.assert_close(grad_cam_plus_plus(captured.activations, captured.gradients), paper)
    assert (as_maps(paper) - as_maps(theirs)).abs().max() > 0.05


def test_grad_cam_is_misled_by_an_in_place_relu_behind_the_layer() -> None:
    images = pictures()
    plain, inplace = (cnn("flat", inplace=each) for each in (False, True))
    theirs = [by_grad_cam("GradCAM", model, "features.1", images) for model in (plain, inplace)]
    ours = [
        attribute(model, images, LABELS, methods="grad_cam", target_layer="features.1").maps["grad_cam"]
        for model in (plain, inplace)
    ]
    assert (as_maps(theirs[0]) - as_maps(theirs[1])).abs().max() > 0.05
    assert torch.equal(ours[0], ours[1])
    torch.testing.assert_close(ours[1], as_maps(theirs[0]), rtol=1e-3, atol=1e-4)
