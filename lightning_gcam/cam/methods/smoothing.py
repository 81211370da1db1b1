"""CAM methods that average activations and gradients over noise on the image or over its sizes."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from lightning_gcam.cam.context import MethodContext
from lightning_gcam.cam.registry import register_model_method
from lightning_gcam.utils.chunking import is_out_of_memory
from lightning_gcam.utils.errors import InputError


@register_model_method("smooth_grad_cam_plus_plus")
def smooth_grad_cam_plus_plus(context: MethodContext, draws: int = 25, spread: float = 0.15) -> Tensor:
    r"""Smooth Grad-CAM++: Grad-CAM++ with the powers of the gradient averaged over noise on the image.

    $$ D_p = \frac{1}{n} \sum_{m=1}^{n} g(X + \epsilon_m)^p, \quad
       \alpha = \frac{D_2}{2 D_2 + (\sum_{ij} A) \, D_3} \text{ (0 where } D_2 \text{ is 0)} $$
    $$ w_k = \sum_{ij} \alpha_k \, \mathrm{ReLU}(D_1), \quad S = \mathrm{ReLU}(\sum_k w_k A_k) $$

    A are the activations of the image as it is. Without noise it is Grad-CAM++, whose numerator of alpha this is, as in
    torch-cam. (torch-cam 0.5 has the sum over the positions of $A D_3$ in the denominator, and the last draw's gradient
    for $D_1$.)

    Cost: `draws` forwards and gradients.

    Args:
        context: of the samples.
        draws: n, how many times noise is added to the image.
        spread: the standard deviation of the noise, as a share of the image's range, as in SmoothGrad.

    Returns:
        `(N, h, w)`, >= 0.

    Source: Omeiza et al., "Smooth Grad-CAM++: An enhanced inference level visualization technique for deep
    convolutional neural network models", arXiv 1908.01224.
    """

    def powers(rows: Tensor, numbers: Tensor) -> Tensor:
        gradients = context.capture(context.noisy_images(rows, numbers, spread), rows).gradients
        return torch.stack([gradients, gradients**2, gradients**3], dim=1)

    first, second, third = context.mean(powers, draws).unbind(dim=1)
    denominator = 2 * second + context.activations.sum(dim=(2, 3), keepdim=True) * third
    alpha = torch.where((second != 0) & (denominator != 0), second / denominator, 0.0)
    weights = (alpha * first.relu()).sum(dim=(2, 3))
    return torch.einsum("nc,nchw->nhw", weights, context.activations).relu()


@register_model_method("cameras")
def cameras(context: MethodContext, steps: int = 4, largest: float = 2.0) -> Tensor:
    r"""CAMERAS: HiResCAM of activations and gradients that are averaged over several sizes of the image.

    $$ \bar A = \frac{1}{T} \sum_{t} U(A(X_t)), \quad \bar g = \frac{1}{T} \sum_{t} U(g(X_t)), \quad
       S = \mathrm{ReLU}(\sum_k \bar A_k \bar g_k) $$

    $X_t$ is the image at the size t, bicubically resized, from its own size to `largest` times that; U brings a layer
    to the size of the image, bilinearly. At its own size alone it is HiResCAM of the layer enlarged.

    Cost: `steps` forwards and gradients, of images up to `largest` times as wide and high (in all 9.6 images' worth of
    pixels where 4 steps end at twice the size). The authors take 8 steps, to 4 times the size.

    Args:
        context: of the samples.
        steps: T, how many sizes, in even steps.
        largest: the largest size, as a multiple of the image's.

    Returns:
        `(N, H, W)`, >= 0, at the size of the images.

    Raises:
        InputError: where the model does not take images of another size, or the layer's output is no grid then.

    Source: Jalwana, Akhtar, Bennamoun, Mian, "CAMERAS: Enhanced resolution and sanity preserving class activation
    mapping for image saliency", CVPR 2021, arXiv 2106.10649, algorithm 1.
    """
    at_sizes = [
        context.mean(partial(_at_size, context, size), 1) for size in _sizes(context.size, steps, largest)
    ]
    channels = at_sizes[0].shape[2]
    together = max(_CELLS // (len(context) * context.size[0] * context.size[1]), 1)
    product = torch.zeros(len(context), *context.size, device=context.images.device)
    for first in range(0, channels, together):
        enlarged = [_enlarged(each[:, :, first : first + together], context.size) for each in at_sizes]
        activations, gradients = torch.stack(enlarged).mean(dim=0).unbind(dim=1)
        product += (activations * gradients).sum(dim=1)
    return product.relu()


_CELLS = 2**24
"""How many numbers a layer enlarged to the size of the image may have at once: 64 MiB."""


def _sizes(size: tuple[int, int], steps: int, largest: float) -> list[tuple[int, int]]:
    """The sizes in even steps, from the size itself to `largest` times that."""
    factors = [1 + (largest - 1) * step / max(steps - 1, 1) for step in range(steps)]
    return [(round(size[0] * factor), round(size[1] * factor)) for factor in factors]


def _at_size(context: MethodContext, size: tuple[int, int], rows: Tensor, _: Tensor) -> Tensor:
    """Activations and gradients `(B, 2, C, h, w)` of samples resized to another size."""
    images = context.images[rows]
    if size != context.size:
        images = nn.functional.interpolate(images.float(), size, mode="bicubic", align_corners=False)
    try:
        captured = context.capture(images, rows)
    except (RuntimeError, ValueError, AssertionError, TypeError, IndexError) as error:
        if size == context.size or is_out_of_memory(error):
            raise
        raise InputError(
            f'`methods` "cameras" shows the model its images at several sizes, and {type(context.model).__name__} does '
            f"not take {tuple(images.shape)} ({type(error).__name__}: {error}). Leave it out for a model that takes "
            "images of one size only."
        ) from error
    if captured.activations.shape[1] != context.activations.shape[1]:
        raise InputError(
            f'`methods` "cameras" cannot tell the channels of the target layer from its grid: it is read as '
            f"{tuple(context.activations.shape[1:])} for images {context.size}, and as "
            f"{tuple(captured.activations.shape[1:])} for images {size}. Pass `reshape_transform=`."
        )
    return torch.stack([captured.activations, captured.gradients], dim=1)


def _enlarged(pairs: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize `(N, 2, C, h, w)` bilinearly to `(N, 2, C, H, W)`."""
    flat = nn.functional.interpolate(pairs.flatten(0, 1), size, mode="bilinear", align_corners=False)
    enlarged: Tensor = flat.unflatten(0, pairs.shape[:2])
    return enlarged
