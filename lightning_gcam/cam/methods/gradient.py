"""CAM methods that are functions of one layer's activations and gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_gcam.cam.registry import register_method
from lightning_gcam.utils.dimensions import positions_of


@register_method("guidance_cam")
def guidance_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    r"""Guidance-rectified saliency: Grad-CAM, weighted at each position by the global guidance map.

    $$ w_k = \frac{1}{hw} \sum_{ij} g_k, \quad G = \mathrm{ReLU}(\sum_k A_k g_k), \quad
       S = \mathrm{ReLU}(\sum_k w_k A_k) \, G $$

    Both factors are rectified: without it two negative ones would make a positive. The product is taken on the
    layer's grid, before the map is brought to the size of the image.

    Args:
        activations: `(N, C, *grid)`.
        gradients: `(N, C, *grid)`.

    Returns:
        `(N, *grid)`, >= 0.

    Example:
        >>> A, g = torch.tensor([[[[1.0, 2.0]]]]), torch.tensor([[[[3.0, 1.0]]]])
        >>> guidance_cam(A, g)  # w = 2; [1*2, 2*2] * [1*3, 2*1]
        tensor([[[6., 8.]]])

    Source: a reading of the abstract of Fahim, Saqib, Siam, Jung, "Rethinking gradient weights' influence over
    saliency map estimation", arXiv 2207.05374 (its text could not be had). Not to be confused with Guided Grad-CAM.
    """
    return grad_cam(activations, gradients) * hires_cam(activations, gradients)


@register_method("grad_cam")
def grad_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Grad-CAM: activations weighted by each channel's mean gradient, rectified.

    Args:
        activations: `(N, C, *grid)`.
        gradients: `(N, C, *grid)`.

    Returns:
        `(N, *grid)`, >= 0.

    Example:
        >>> grad_cam(torch.tensor([[[[1.0, 2.0]]]]), torch.tensor([[[[3.0, 1.0]]]]))
        tensor([[[2., 4.]]])

    Source: Selvaraju et al., arXiv 1610.02391, equations 1 and 2.
    """
    return _weighted_sum(gradients.mean(dim=positions_of(gradients)), activations).relu()


@register_method("grad_cam_plus_plus")
def grad_cam_plus_plus(activations: Tensor, gradients: Tensor) -> Tensor:
    r"""Grad-CAM++: each position's positive gradient counts with its own weight.

    $$ \alpha = \frac{g^2}{2 g^2 + (\sum_{ij} A) \, g^3} \text{ (0 where g is 0)}, \quad
       w_k = \sum_{ij} \alpha_k \, \mathrm{ReLU}(g_k), \quad S = \mathrm{ReLU}(\sum_k w_k A_k) $$

    Args:
        activations: `(N, C, *grid)`.
        gradients: `(N, C, *grid)`.

    Returns:
        `(N, *grid)`, >= 0.

    Example:
        >>> grad_cam_plus_plus(torch.tensor([[[[1.0, 1.0]]]]), torch.tensor([[[[1.0, 0.0]]]]))  # alpha = 1 / (2 + 2)
        tensor([[[0.2500, 0.2500]]])

    Source: Chattopadhay et al., arXiv 1710.11063, equations 5, 10 and 19 (the class score through an exponential,
    whose common factor is left out, as it changes no map).
    """
    square = gradients.square()
    denominator = (
        2 * square + activations.sum(dim=positions_of(activations), keepdim=True) * square * gradients
    )
    alpha = torch.where((gradients != 0) & (denominator != 0), square / denominator, 0.0)
    return _weighted_sum((alpha * gradients.relu()).sum(dim=positions_of(gradients)), activations).relu()


@register_method("xgrad_cam")
def xgrad_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    r"""XGrad-CAM: gradients are pooled with the activations as weights.

    $$ w_k = \sum_{ij} \frac{A_k}{\sum_{ij} A_k} \, g_k, \quad S = \mathrm{ReLU}(\sum_k w_k A_k) $$

    A channel whose activations sum to zero gets no weight.

    Args:
        activations: `(N, C, *grid)`.
        gradients: `(N, C, *grid)`.

    Returns:
        `(N, *grid)`, >= 0.

    Example:
        >>> xgrad_cam(torch.tensor([[[[1.0, 3.0]]]]), torch.tensor([[[[4.0, 0.0]]]]))  # w = 1/4 * 4
        tensor([[[1., 3.]]])

    Source: Fu et al., "Axiom-based Grad-CAM", arXiv 2008.02312, equation 8.
    """
    total = activations.sum(dim=positions_of(activations))
    weights = (activations * gradients).sum(dim=positions_of(gradients)) / torch.where(total != 0, total, 1.0)
    return _weighted_sum(torch.where(total != 0, weights, 0.0), activations).relu()


@register_method("layer_cam")
def layer_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    """LayerCAM: every position weighted by its own positive gradient.

    Args:
        activations: `(N, C, *grid)`.
        gradients: `(N, C, *grid)`.

    Returns:
        `(N, *grid)`, >= 0.

    Example:
        >>> layer_cam(torch.tensor([[[[1.0, 2.0]]]]), torch.tensor([[[[3.0, -1.0]]]]))
        tensor([[[3., 0.]]])

    Source: Jiang et al., "LayerCAM", IEEE TIP 2021, equations 4 to 6.
    """
    return (gradients.relu() * activations).sum(dim=1).relu()


@register_method("hires_cam")
def hires_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    """HiResCAM: activations times gradients, position by position, rectified. It is the guidance map by itself.

    Args:
        activations: `(N, C, *grid)`.
        gradients: `(N, C, *grid)`.

    Returns:
        `(N, *grid)`, >= 0.

    Example:
        >>> hires_cam(torch.tensor([[[[1.0, 2.0]]]]), torch.tensor([[[[3.0, -1.0]]]]))
        tensor([[[3., 0.]]])

    Source: Draelos and Carin, arXiv 2011.08891.
    """
    return (activations * gradients).sum(dim=1).relu()


@register_method("hires_cam_squared")
def hires_cam_squared(activations: Tensor, gradients: Tensor) -> Tensor:
    r"""HiResCAM squared: the same order of positions as HiResCAM, with less of the saliency on the weak ones.

    $$ S = \mathrm{ReLU}(\sum_k A_k g_k)^2 $$

    `guidance_cam` is the geometric mean of this map and of Grad-CAM squared. Like it, the map is squared on the
    layer's grid, before it is brought to the size of the image.

    Args:
        activations: `(N, C, *grid)`.
        gradients: `(N, C, *grid)`.

    Returns:
        `(N, *grid)`, >= 0.

    Example:
        >>> hires_cam_squared(torch.tensor([[[[1.0, 2.0]]]]), torch.tensor([[[[3.0, 1.0]]]]))
        tensor([[[9., 4.]]])

    Source: ours, measured in `docs/methods_on_photographs.md`; HiResCAM is that of Draelos and Carin, arXiv 2011.08891.
    """
    return hires_cam(activations, gradients).square()


@register_method("layer_cam_squared")
def layer_cam_squared(activations: Tensor, gradients: Tensor) -> Tensor:
    r"""LayerCAM squared: the same order of positions as LayerCAM, with less of the saliency on the weak ones.

    $$ S = \mathrm{ReLU}(\sum_k A_k \, \mathrm{ReLU}(g_k))^2 $$

    As `guidance_cam`, the map is squared on the layer's grid, before it is brought to the size of the image.

    Args:
        activations: `(N, C, *grid)`.
        gradients: `(N, C, *grid)`.

    Returns:
        `(N, *grid)`, >= 0.

    Example:
        >>> layer_cam_squared(torch.tensor([[[[1.0, 2.0]]]]), torch.tensor([[[[3.0, -1.0]]]]))
        tensor([[[9., 0.]]])

    Source: ours, measured in `docs/methods_on_photographs.md`; LayerCAM is that of Jiang et al., IEEE TIP 2021.
    """
    return layer_cam(activations, gradients).square()


@register_method("element_wise_grad_cam")
def element_wise_grad_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    r"""Element-wise Grad-CAM: the positive part of activations times gradients in each channel, summed.

    $$ S = \sum_k \mathrm{ReLU}(A_k g_k) $$

    HiResCAM rectifies the sum, this the terms of the sum.

    Args:
        activations: `(N, C, *grid)`.
        gradients: `(N, C, *grid)`.

    Returns:
        `(N, *grid)`, >= 0.

    Example:
        >>> A, g = torch.tensor([[[[1.0]], [[2.0]]]]), torch.tensor([[[[3.0]], [[-1.0]]]])
        >>> element_wise_grad_cam(A, g), hires_cam(A, g)  # 3 + 0, and ReLU(3 - 2)
        (tensor([[[3.]]]), tensor([[[1.]]]))

    Source: `GradCAMElementWise` of pytorch-grad-cam (Gildenblat and contributors, 2021), by which name the field knows
    it; no paper introduces it.
    """
    return (activations * gradients).relu().sum(dim=1)


def _weighted_sum(weights: Tensor, activations: Tensor) -> Tensor:
    """The channels `(N, C, *grid)` summed with one weight `(N, C)` each."""
    return torch.einsum("nc,nc...->n...", weights, activations)


@register_method("eigen_cam")
def eigen_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    r"""Eigen-CAM: the activations' first principal component, whatever the class.

    Let X (hw, C) hold the activations of one sample, each channel less its mean over the positions:

    $$ X = U \Sigma V^T, \quad P = X v_1, \quad S = \mathrm{ReLU}(\pm P) $$

    The sign of a principal component means nothing by itself. Here it is the one with which P rises where the sum over
    the channels rises: the side on which the layer is active.

    Args:
        activations: `(N, C, *grid)`.
        gradients: `(N, C, *grid)`; not used, the map is the same for every class.

    Returns:
        `(N, *grid)`, >= 0; zero where no channel varies over space.

    Example:
        >>> A = torch.tensor([[[[1.0, 5.0]]]])
        >>> eigen_cam(A, A)  # 1 - 3 and 5 - 3
        tensor([[[0., 2.]]])

    Source: Muhammad and Yeasin, "Eigen-CAM: Class activation map using principal components", arXiv 2008.00299,
    equation 3; centred as in pytorch-grad-cam, which leaves the sign to the decomposition, so that its maps may be
    those of the background.
    """
    return _first_component(activations)


@register_method("eigen_grad_cam")
def eigen_grad_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    r"""Eigen-Grad-CAM: the first principal component of activations times gradients.

    As Eigen-CAM, with $A_k g_k$ for $A_k$; the sign is the one with which the component rises where the sum
    $\sum_k A_k g_k$ rises, which is evidence for the class.

    Args:
        activations: `(N, C, *grid)`.
        gradients: `(N, C, *grid)`.

    Returns:
        `(N, *grid)`, >= 0; zero where no channel varies over space.

    Example:
        >>> A, g = torch.tensor([[[[1.0, 5.0]]]]), torch.tensor([[[[-1.0, -1.0]]]])
        >>> eigen_grad_cam(A, g)  # -1 and -5, less their mean
        tensor([[[2., 0.]]])

    Source: `EigenGradCAM` of pytorch-grad-cam (Gildenblat and contributors, 2021), after arXiv 2008.00299.
    """
    return _first_component(activations * gradients)


def _first_component(channels: Tensor) -> Tensor:
    """The projection on the first principal component, its sign that of the channels' sum, rectified."""
    n, _, *grid = channels.shape
    rows = torch.nan_to_num(channels, posinf=0.0, neginf=0.0).flatten(2).transpose(1, 2)
    rows = rows - rows.mean(dim=1, keepdim=True)
    _, _, right = torch.linalg.svd(rows, full_matrices=False)
    projection = torch.einsum("npc,nc->np", rows, right[:, 0])
    agreement = (projection * rows.sum(dim=2)).sum(dim=1, keepdim=True)
    return (projection * torch.where(agreement < 0, -1.0, 1.0)).relu().reshape(n, *grid)
