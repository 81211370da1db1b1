"""CAM methods that add up maps: of noisy images, of several image sizes, or of all layers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lightning_gcam.cam.context import MethodContext, gradients_from
from lightning_gcam.cam.layout_evidence import measure_and_remember, remembered_layout
from lightning_gcam.cam.layouts import Reshape, find_layout, main_tensor, with_main_tensor
from lightning_gcam.cam.registry import register_model_method
from lightning_gcam.utils.chunking import is_out_of_memory
from lightning_gcam.utils.dimensions import Size, for_each, positions_of, resize, size_of
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
        `(N, *grid)`, >= 0.

    Source: Omeiza et al., "Smooth Grad-CAM++: An enhanced inference level visualization technique for deep
    convolutional neural network models", arXiv 1908.01224.
    """

    def powers(rows: Tensor, numbers: Tensor) -> Tensor:
        gradients = context.capture(context.noisy_images(rows, numbers, spread), rows).gradients
        return torch.stack([gradients, gradients**2, gradients**3], dim=1)

    first, second, third = context.mean(powers, draws).unbind(dim=1)
    denominator = 2 * second + context.activations.sum(dim=positions_of(first), keepdim=True) * third
    alpha = torch.where((second != 0) & (denominator != 0), second / denominator, 0.0)
    weights = (alpha * first.relu()).sum(dim=positions_of(first))
    return torch.einsum("nc,nc...->n...", weights, context.activations).relu()


@register_model_method("cameras")
def cameras(context: MethodContext, steps: int = 4, largest: float = 2.0) -> Tensor:
    r"""CAMERAS: HiResCAM of activations and gradients that are averaged over several sizes of the image.

    $$ \bar A = \frac{1}{T} \sum_{t} U(A(X_t)), \quad \bar g = \frac{1}{T} \sum_{t} U(g(X_t)), \quad
       S = \mathrm{ReLU}(\sum_k \bar A_k \bar g_k) $$

    $X_t$ is the image at the size t, bicubically resized (signals and volumes linearly), from its own size to `largest`
    times that; U brings a layer to the size of the image, bilinearly. At its own size alone it is HiResCAM of the layer
    enlarged.

    Cost: `steps` forwards and gradients, of images up to `largest` times as wide and high (in all 9.6 images' worth of
    pixels where 4 steps end at twice the size). The authors take 8 steps, to 4 times the size.

    Args:
        context: of the samples.
        steps: T, how many sizes, in even steps.
        largest: the largest size, as a multiple of the image's.

    Returns:
        `(N, *S)`, >= 0, at the size of the images.

    Raises:
        InputError: where the model does not take images of another size, or the layer's output is no grid then.

    Source: Jalwana, Akhtar, Bennamoun, Mian, "CAMERAS: Enhanced resolution and sanity preserving class activation
    mapping for image saliency", CVPR 2021, arXiv 2106.10649, algorithm 1.
    """
    at_sizes = [
        context.mean(partial(_at_size, context, size), 1) for size in _sizes(context.size, steps, largest)
    ]
    channels = at_sizes[0].shape[2]
    together = max(_CELLS // (len(context) * math.prod(context.size)), 1)
    product = torch.zeros(len(context), *context.size, device=context.images.device)
    for first in range(0, channels, together):
        parts = [each[:, :, first : first + together] for each in at_sizes]
        enlarged = [context.enlarge(each.flatten(0, 1)).unflatten(0, each.shape[:2]) for each in parts]
        activations, gradients = torch.stack(enlarged).mean(dim=0).unbind(dim=1)
        product += (activations * gradients).sum(dim=1)
    return product.relu()


_CELLS = 2**24
"""How many numbers a layer enlarged to the size of the image may have at once: 64 MiB."""


def _sizes(size: Size, steps: int, largest: float) -> list[Size]:
    """The sizes in even steps, from the size itself to `largest` times that."""
    factors = [1 + (largest - 1) * step / max(steps - 1, 1) for step in range(steps)]
    return [tuple(round(side * factor) for side in size) for factor in factors]


def _at_size(context: MethodContext, size: Size, rows: Tensor, _: Tensor) -> Tensor:
    """Activations and gradients `(B, 2, C, *grid)` of samples resized to another size."""
    images = context.images[rows]
    if size != context.size:
        images = _resized(images.float(), size)
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


def _resized(images: Tensor, size: Size) -> Tensor:
    """Resize images bicubically, as the authors do; signals and volumes linearly."""
    if len(size) != 2:
        return resize(images, size)
    return nn.functional.interpolate(images, size, mode="bicubic", align_corners=False)


@register_model_method("full_grad", uses_layer=False)
def full_grad(context: MethodContext) -> Tensor:
    r"""FullGrad: the gradient times the input, and the gradients at every bias times the bias, each layer scaled.

    $$ S = \sum_c \psi(\nabla_x y \odot x)_c + \sum_l \sum_c \psi(\nabla_{z_l} y \odot b_l)_c, \quad
       \psi = U \circ \mathrm{rescale} \circ |\cdot| $$

    $z_l$ is the output of a layer with the bias $b_l$, on its grid; of a batch normalization $b = \beta - \mu \gamma /
    \sqrt{\sigma^2 + \epsilon}$, which is what it adds in eval mode. `rescale` brings each layer's values of a sample to
    [0, 1], U to the size of the image. In a network of linear layers, ReLUs and max-pools the terms in $\psi$ add up to
    the score, but for the biases behind the last grid, which have no place in the image. Other networks (with GELUs,
    attention) have a map too, which does not add up. The map is of the whole network: the target layer plays no part.

    Cost: one forward and one gradient, with the graph from the image on.

    Args:
        context: of the samples.

    Returns:
        `(N, *S)`, >= 0, at the size of the images.

    Raises:
        InputError: where no gradient reaches the images.

    Source: Srinivas and Fleuret, "Full-gradient representation for neural network visualization", arXiv 1905.00780,
    equations 3 and 5, scaled as in the authors' code (pytorch-grad-cam scales each channel by itself).
    """
    return _full_gradient(context, "full_grad", lambda rows, _: context.images[rows].float(), 1)


@register_model_method("smooth_full_grad", uses_layer=False)
def smooth_full_grad(context: MethodContext, draws: int = 25, spread: float = 0.15) -> Tensor:
    """Smooth FullGrad: FullGrad of contributions that are averaged over noise on the image.

    Cost: `draws` forwards and gradients, with the graph from the image on.

    Args:
        context: of the samples.
        draws: how many times noise is added to the image.
        spread: the standard deviation of the noise, as a share of the image's range.

    Returns:
        `(N, *S)`, >= 0, at the size of the images.

    Raises:
        InputError: where no gradient reaches the images.

    Source: the authors' code to arXiv 1905.00780, with its `draws` and `spread`.
    """
    change = lambda rows, numbers: context.noisy_images(rows, numbers, spread)  # noqa: E731
    return _full_gradient(context, "smooth_full_grad", change, draws)


def _full_gradient(
    context: MethodContext, name: str, change: Callable[[Tensor, Tensor], Tensor], count: int
) -> Tensor:
    """The map of contributions that are averaged over `count` perturbations of each sample."""
    shapes: list[torch.Size] = []

    def flat(rows: Tensor, numbers: Tensor) -> Tensor:
        parts = contributions(context, name, change(rows, numbers), rows)
        shapes[:] = [each.shape[1:] for each in parts]
        return torch.cat([each.flatten(1) for each in parts], dim=1)

    means = context.mean(flat, count)
    parts = means.split([shape.numel() for shape in shapes], dim=1)
    found = torch.zeros(len(context), *context.size, device=means.device)
    for part, shape in zip(parts, shapes, strict=True):
        found += _rescaled(part.unflatten(1, shape), context)
    return found


def contributions(context: MethodContext, name: str, images: Tensor, rows: Tensor) -> list[Tensor]:
    """The contributions of the input and of the biases to the score, `(B, C, *grid)` each, the input's first."""

    def run(changed: Tensor) -> Any:
        """Call the model with images that are all made of the first one."""
        return context.run(changed, rows[:1].expand(len(changed)))

    measure_and_remember(biased_layers(context.model), images, run)
    with _biases_recorded(context.model, images) as biased:
        gradients = gradients_from(context, name, images, rows, lambda: [output for output, _, _ in biased])
    parts = [gradients[0] * images] if gradients[0] is not None else []
    for (_, bias, reshape), gradient in zip(biased, gradients[1:], strict=True):
        if gradient is not None:
            grid = reshape(gradient).float()
            parts.append(grid * for_each(bias, grid[0]).float())
    return parts


Biased = tuple[Tensor, Tensor, Reshape]
"""A layer's output, its bias, and the reshape of the output to a grid."""


@contextmanager
def _biases_recorded(model: nn.Module, images: Tensor) -> Iterator[list[Biased]]:
    """Collect the outputs of all layers that add a bias on a grid; the network goes on with clones of them."""
    found: list[Biased] = []

    def collect(module: nn.Module, _: Any, output: Any) -> Any:
        tensor, bias = main_tensor(output), bias_of(module)
        if tensor is None or bias is None or not tensor.requires_grad:
            return None
        size, n = size_of(images), len(images)
        layout = remembered_layout(module, tensor.shape, size, n) or find_layout(tensor, size, n, module)
        if layout is None or layout.reshape(tensor).shape[1] != len(bias):
            return None
        found.append((tensor, bias.detach(), layout.reshape))
        return with_main_tensor(
            output, tensor.clone()
        )  # an in-place operation would write on the one that is kept

    with ExitStack() as stack:
        for module in biased_layers(model):
            stack.callback(module.register_forward_hook(collect).remove)
        yield found


def biased_layers(model: nn.Module) -> list[nn.Module]:
    """The submodules that add a bias."""
    return [module for module in model.modules() if bias_of(module) is not None]


def bias_of(module: nn.Module) -> Tensor | None:
    """The bias that a layer adds to each channel, `(C,)`; None where it adds nothing.

    Example:
        >>> norm = nn.BatchNorm2d(1, eps=0.0)
        >>> norm.running_mean.fill_(3.0), norm.running_var.fill_(4.0), nn.init.ones_(norm.bias).shape
        (tensor([3.]), tensor([4.]), torch.Size([1]))
        >>> bias_of(norm)  # 1 - 3 / 2
        tensor([-0.5000], grad_fn=<SubBackward0>)
    """
    bias, weight = (_vector(getattr(module, name, None)) for name in ("bias", "weight"))
    mean, variance = (_vector(getattr(module, name, None)) for name in ("running_mean", "running_var"))
    if mean is None or variance is None:
        return bias
    shift = mean * (variance + getattr(module, "eps", 0.0)).rsqrt()
    shift = shift * weight if weight is not None else shift
    return bias - shift if bias is not None else -shift


def _vector(value: Any) -> Tensor | None:
    """A value that is a one-dimensional tensor of floating point; None for any other."""
    return value if isinstance(value, Tensor) and value.ndim == 1 and value.is_floating_point() else None


def _rescaled(part: Tensor, context: MethodContext) -> Tensor:
    """The psi of the paper, summed over the channels: `(B, *S)`."""
    values = part.abs()
    least, most = (for_each(each, values) for each in values.flatten(1).aminmax(dim=1))
    unit = (values - least) / torch.where(most > least, most - least, 1.0)
    summed = unit.sum(dim=1, keepdim=True)  # the sum and the linear resizing may be taken in any order
    return (summed if size_of(summed) == context.size else context.enlarge(summed))[:, 0]
