"""What `comparison.py` puts beside the package's methods: two controls, and other readings of the same abstract.

Controls say what squaring alone does: guidance is a product of two maps, so a part of what it gains any map would gain
by being squared. Variants are other ways to read "the guidance map rectifies the weighted aggregation". All but the
last are pure functions of `(activations, gradients)`, as every method of the package.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

from lightning_gcam import attribute
from lightning_gcam.cam.methods import grad_cam, guidance_cam, hires_cam, hires_cam_squared
from lightning_gcam.cam.registry import Method
from lightning_gcam.pipeline.attribution import Attribution

# ----------------------------------------------------------------------------------------------- controls


def grad_cam_squared(activations: Tensor, gradients: Tensor) -> Tensor:
    """ReLU(sum_k w_k A_k)^2: sharper, and nothing else; what guidance is under a pooled linear head."""
    return grad_cam(activations, gradients).square()


# ----------------------------------------------------------------------------------------------- variants


def guidance_root(activations: Tensor, gradients: Tensor) -> Tensor:
    """sqrt(S), the geometric mean of Grad-CAM and HiResCAM: guidance without what squaring adds."""
    return guidance_cam(activations, gradients).sqrt()


def guidance_rectified_terms(activations: Tensor, gradients: Tensor) -> Tensor:
    """sum_k ReLU(w_k A_k) * G: each channel's term is rectified before the sum."""
    weights = gradients.mean(dim=(2, 3), keepdim=True)
    return (weights * activations).relu().sum(dim=1) * hires_cam(activations, gradients)


def guidance_own_terms(activations: Tensor, gradients: Tensor) -> Tensor:
    """sum_k ReLU(w_k A_k) * ReLU(A_k g_k): each channel's term is rectified by its own guidance."""
    weights = gradients.mean(dim=(2, 3), keepdim=True)
    return ((weights * activations).relu() * (activations * gradients).relu()).sum(dim=1)


def guidance_softened(activations: Tensor, gradients: Tensor) -> Tensor:
    """ReLU(sum_k w_k A_k) * (1 + G / max G): a normalised guidance that raises what it marks, and removes nothing."""
    guidance = hires_cam(activations, gradients)
    highest = guidance.amax(dim=(1, 2), keepdim=True)
    return grad_cam(activations, gradients) * (1 + guidance / torch.where(highest > 0, highest, 1.0))


CONTROLS: dict[str, Method] = {each.__name__: each for each in (grad_cam_squared, hires_cam_squared)}
VARIANTS: dict[str, Method] = {
    each.__name__: each
    for each in (guidance_root, guidance_rectified_terms, guidance_own_terms, guidance_softened)
}
FROM_EARLIER = "guidance_from_earlier"


def with_guidance_from_earlier(
    attribution: Attribution, network: nn.Module, images: Tensor, classes: Tensor, layers: tuple[str, str]
) -> Attribution:
    """The same attribution, and one map more: Grad-CAM of the later layer times the guidance map of the earlier one.

    Both are brought to the size of the image first, as every map is, so that the finer grid is kept.

    Args:
        attribution: the maps of the later layer.
        network: what is explained.
        images: `(N, C, H, W)`.
        classes: `(N,)`.
        layers: the earlier layer and the later one.
    """
    both = attribute(network, images, classes, methods=["grad_cam", "hires_cam"], target_layer=layers)
    earlier, later = layers
    product = both.maps[f"grad_cam@{later}"] * both.maps[f"hires_cam@{earlier}"]
    peaks = product.flatten(1).amax(dim=1)
    scaled = product / torch.where(peaks > 0, peaks, 1.0)[:, None, None]
    return replace(
        attribution,
        maps={**attribution.maps, FROM_EARLIER: scaled},
        peaks={**attribution.peaks, FROM_EARLIER: peaks},
    )
