"""CAMERAS: activations and gradients averaged over the sizes at which the image is shown."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from lightning_gcam._errors import InputError
from lightning_gcam.cam.methods import register_scored_method
from lightning_gcam.cam.scorer import Scorer
from lightning_gcam.pieces import is_out_of_memory


@register_scored_method("cameras")
def cameras(scorer: Scorer, steps: int = 4, largest: float = 2.0) -> Tensor:
    r"""CAMERAS: HiResCAM of activations and gradients that are averaged over several sizes of the image.

    $$ \bar A = \frac{1}{T} \sum_{t} U(A(X_t)), \quad \bar g = \frac{1}{T} \sum_{t} U(g(X_t)), \quad
       S = \mathrm{ReLU}(\sum_k \bar A_k \bar g_k) $$

    $X_t$ is the image at the size t, bicubically resized, from its own size to `largest` times that; U brings a layer
    to the size of the image, bilinearly. At its own size alone it is HiResCAM of the layer enlarged.

    Cost: `steps` forwards and gradients, of images up to `largest` times as wide and high (in all 9.6 images' worth of
    pixels where 4 steps end at twice the size). The authors take 8 steps, to 4 times the size.

    Args:
        scorer: of the samples.
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
        scorer.mean(partial(_at_size, scorer, size), 1) for size in _sizes(scorer.size, steps, largest)
    ]
    channels = at_sizes[0].shape[2]
    together = max(_CELLS // (len(scorer) * scorer.size[0] * scorer.size[1]), 1)
    product = torch.zeros(len(scorer), *scorer.size, device=scorer.images.device)
    for first in range(0, channels, together):
        enlarged = [_enlarged(each[:, :, first : first + together], scorer.size) for each in at_sizes]
        activations, gradients = torch.stack(enlarged).mean(dim=0).unbind(dim=1)
        product += (activations * gradients).sum(dim=1)
    return product.relu()


_CELLS = 2**24
"""How many numbers a layer enlarged to the size of the image may have at once: 64 MiB."""


def _sizes(size: tuple[int, int], steps: int, largest: float) -> list[tuple[int, int]]:
    """From the size itself to `largest` times that."""
    factors = [1 + (largest - 1) * step / max(steps - 1, 1) for step in range(steps)]
    return [(round(size[0] * factor), round(size[1] * factor)) for factor in factors]


def _at_size(scorer: Scorer, size: tuple[int, int], rows: Tensor, _: Tensor) -> Tensor:
    """Activations and gradients `(B, 2, C, h, w)` of samples that are shown at another size."""
    images = scorer.images[rows]
    if size != scorer.size:
        images = nn.functional.interpolate(images.float(), size, mode="bicubic", align_corners=False)
    try:
        captured = scorer.capture(images, rows)
    except (RuntimeError, ValueError, AssertionError, TypeError, IndexError) as error:
        if size == scorer.size or is_out_of_memory(error):
            raise
        raise InputError(
            f'`methods` "cameras" shows the model its images at several sizes, and {type(scorer.model).__name__} does '
            f"not take {tuple(images.shape)} ({type(error).__name__}: {error}). Leave it out for a model that takes "
            "images of one size only."
        ) from error
    if captured.activations.shape[1] != scorer.activations.shape[1]:
        raise InputError(
            f'`methods` "cameras" cannot tell the channels of the target layer from its grid: it is read as '
            f"{tuple(scorer.activations.shape[1:])} for images {scorer.size}, and as "
            f"{tuple(captured.activations.shape[1:])} for images {size}. Pass `reshape_transform=`."
        )
    return torch.stack([captured.activations, captured.gradients], dim=1)


def _enlarged(pairs: Tensor, size: tuple[int, int]) -> Tensor:
    """`(N, 2, C, h, w)` as `(N, 2, C, H, W)`."""
    flat = nn.functional.interpolate(pairs.flatten(0, 1), size, mode="bilinear", align_corners=False)
    enlarged: Tensor = flat.unflatten(0, pairs.shape[:2])
    return enlarged
