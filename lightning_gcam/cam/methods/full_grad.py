"""FullGrad: the contributions of the input and of every bias of the network to the score."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lightning_gcam.cam.context import MethodContext, gradients_from
from lightning_gcam.cam.layout_evidence import measure_and_remember, remembered_layout
from lightning_gcam.cam.layouts import Reshape, find_layout, main_tensor, with_main_tensor
from lightning_gcam.cam.registry import register_model_method


@register_model_method("full_grad")
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
        `(N, H, W)`, >= 0, at the size of the images.

    Raises:
        InputError: where no gradient reaches the images.

    Source: Srinivas and Fleuret, "Full-gradient representation for neural network visualization", arXiv 1905.00780,
    equations 3 and 5, scaled as in the authors' code (pytorch-grad-cam scales each channel by itself).
    """
    return _full_gradient(context, "full_grad", lambda rows, _: context.images[rows].float(), 1)


@register_model_method("smooth_full_grad")
def smooth_full_grad(context: MethodContext, draws: int = 25, spread: float = 0.15) -> Tensor:
    """Smooth FullGrad: FullGrad of contributions that are averaged over noise on the image.

    Cost: `draws` forwards and gradients, with the graph from the image on.

    Args:
        context: of the samples.
        draws: how many times noise is added to the image.
        spread: the standard deviation of the noise, as a share of the image's range.

    Returns:
        `(N, H, W)`, >= 0, at the size of the images.

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
        found += _rescaled(part.unflatten(1, shape), context.size)
    return found


def contributions(context: MethodContext, name: str, images: Tensor, rows: Tensor) -> list[Tensor]:
    """The contributions of the input and of the biases to the score, `(B, C, h, w)` each, the input's first."""
    measure_and_remember(biased_layers(context.model), images, context.run)
    with _biases_recorded(context.model, images) as biased:
        gradients = gradients_from(context, name, images, rows, lambda: [output for output, _, _ in biased])
    parts = [gradients[0] * images] if gradients[0] is not None else []
    for (_, bias, reshape), gradient in zip(biased, gradients[1:], strict=True):
        if gradient is not None:
            parts.append(reshape(gradient).float() * bias[:, None, None].float())
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
        size, n = (images.shape[-2], images.shape[-1]), len(images)
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


def _rescaled(part: Tensor, size: tuple[int, int]) -> Tensor:
    """The psi of the paper, summed over the channels: `(B, H, W)`."""
    values = part.abs()
    least, most = (each[:, None, None, None] for each in values.flatten(1).aminmax(dim=1))
    unit = (values - least) / torch.where(most > least, most - least, 1.0)
    summed = unit.sum(dim=1, keepdim=True)  # the sum and the bilinear resizing may be taken in any order
    return nn.functional.interpolate(summed, size, mode="bilinear", align_corners=False)[:, 0]
