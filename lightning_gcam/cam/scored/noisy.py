"""Smooth Grad-CAM++: gradients averaged over noise on the image."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_gcam.cam.methods import register_scored_method
from lightning_gcam.cam.scorer import Scorer


@register_scored_method("smooth_grad_cam_plus_plus")
def smooth_grad_cam_plus_plus(scorer: Scorer, draws: int = 25, spread: float = 0.15) -> Tensor:
    r"""Smooth Grad-CAM++: Grad-CAM++ with the powers of the gradient averaged over noise on the image.

    $$ D_p = \frac{1}{n} \sum_{m=1}^{n} g(X + \epsilon_m)^p, \quad
       \alpha = \frac{D_2}{2 D_2 + (\sum_{ij} A) \, D_3} \text{ (0 where } D_2 \text{ is 0)} $$
    $$ w_k = \sum_{ij} \alpha_k \, \mathrm{ReLU}(D_1), \quad S = \mathrm{ReLU}(\sum_k w_k A_k) $$

    A are the activations of the image as it is. Without noise it is Grad-CAM++, whose numerator of alpha this is, as in
    torch-cam. (torch-cam 0.5 has the sum over the positions of $A D_3$ in the denominator, and the last draw's gradient
    for $D_1$.)

    Cost: `draws` forwards and gradients.

    Args:
        scorer: of the samples.
        draws: n, how many times noise is added to the image.
        spread: the standard deviation of the noise, as a share of the image's range, as in SmoothGrad.

    Returns:
        `(N, h, w)`, >= 0.

    Source: Omeiza et al., "Smooth Grad-CAM++: An enhanced inference level visualization technique for deep
    convolutional neural network models", arXiv 1908.01224.
    """

    def powers(rows: Tensor, numbers: Tensor) -> Tensor:
        gradients = scorer.capture(noisy(scorer, rows, numbers, spread), rows).gradients
        return torch.stack([gradients, gradients**2, gradients**3], dim=1)

    first, second, third = scorer.mean(powers, draws).unbind(dim=1)
    denominator = 2 * second + scorer.activations.sum(dim=(2, 3), keepdim=True) * third
    alpha = torch.where((second != 0) & (denominator != 0), second / denominator, 0.0)
    weights = (alpha * first.relu()).sum(dim=(2, 3))
    return torch.einsum("nc,nchw->nhw", weights, scorer.activations).relu()


def noisy(scorer: Scorer, rows: Tensor, numbers: Tensor, spread: float) -> Tensor:
    """Samples with normal noise, `(B, C, H, W)` float32.

    Args:
        scorer: of the samples.
        rows: `(B,)`, which samples.
        numbers: `(B,)`, which draw.
        spread: the standard deviation, as a share of each sample's own range.
    """
    images = scorer.images[rows].float()
    least, most = images.flatten(1).aminmax(dim=1)
    sigma = spread * (most - least)
    noise = scorer.noise(rows, numbers, tuple(images.shape[1:]))
    return images + sigma[:, None, None, None] * noise
