"""Class activation maps from the first principal component of a layer's channels."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_gcam.cam.methods.registry import register_method


@register_method("eigen_cam")
def eigen_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    r"""Eigen-CAM: the activations' first principal component, whatever the class.

    Let X (hw, C) hold the activations of one sample, each channel less its mean over the positions:

    $$ X = U \Sigma V^T, \quad P = X v_1, \quad S = \mathrm{ReLU}(\pm P) $$

    The sign of a principal component means nothing by itself. Here it is the one with which P rises where the sum over
    the channels rises: the side on which the layer is active.

    Args:
        activations: `(N, C, h, w)`.
        gradients: `(N, C, h, w)`; not used, the map says nothing of a class.

    Returns:
        `(N, h, w)`, >= 0; zero where no channel varies over space.

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
    $\sum_k A_k g_k$ rises, which speaks for the class.

    Args:
        activations: `(N, C, h, w)`.
        gradients: `(N, C, h, w)`.

    Returns:
        `(N, h, w)`, >= 0; zero where no channel varies over space.

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
