"""Maps to compare the others with: three computed by captum at the images, and two that use nothing of the model."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from lightning_gcam.cam.context import (
    MethodContext,
    check_graph,
    check_takes_gradients,
    no_gradient_at_images,
)
from lightning_gcam.cam.methods.gradient import grad_cam
from lightning_gcam.cam.registry import register_model_method
from lightning_gcam.utils.dimensions import size_of
from lightning_gcam.utils.errors import InputError


@register_model_method("integrated_gradients", requires="captum", uses_layer=False)
def integrated_gradients(context: MethodContext, steps: int = 50) -> Tensor:
    r"""Integrated gradients, from an image of zeros: the positive part of each pixel's sum over the channels.

    $$ S = \mathrm{ReLU}\Big(\sum_c x_c \int_0^1 \frac{\partial y(\alpha x)}{\partial x_c} d\alpha\Big) $$

    Zeros are the mean colour where images are normalized. The map is rectified as the others are: it shows what raises
    the score of the class. The target layer plays no part.

    Cost: `steps` forwards and gradients, with the graph from the image on.

    Args:
        context: of the samples.
        steps: of the Gauss-Legendre sum that stands for the integral.

    Returns:
        `(N, *S)`, at the size of the images.

    Raises:
        InputError: where no gradient reaches the images.

    Source: Sundararajan, Taly, Yan, "Axiomatic attribution for deep networks", arXiv 1703.01365, equation 1; computed
    by captum.
    """
    from captum.attr import IntegratedGradients  # type: ignore[import-untyped]

    model = _ScoreModule(context, "integrated_gradients")

    def work(rows: Tensor, _: Tensor) -> Tensor:
        found: Tensor = IntegratedGradients(model, multiply_by_inputs=True).attribute(
            context.images[rows],
            additional_forward_args=(rows,),
            n_steps=steps,
            internal_batch_size=len(rows),
        )
        return found.sum(dim=1)

    check_takes_gradients(context, "integrated_gradients")
    return context.mean(work, 1).relu()


@register_model_method("guided_grad_cam", requires="captum")
def guided_grad_cam(context: MethodContext) -> Tensor:
    r"""Guided Grad-CAM: guided backpropagation to the image, times Grad-CAM at the target layer.

    $$ S = \mathrm{ReLU}\Big(\sum_c \frac{\partial^{+} y}{\partial x_c}\Big) \, U(\mathrm{GradCAM}) $$

    The guided gradient passes a ReLU where both its input and the gradient are positive; the ReLUs have to be
    `nn.ReLU` modules, as functions cannot be seen. Not to be confused with `guidance_cam`.

    Cost: one forward and one gradient, with the graph from the image on.

    Args:
        context: of the samples.

    Returns:
        `(N, *S)`, at the size of the images.

    Raises:
        InputError: where the model has no ReLU module, or no gradient reaches the images.

    Source: Selvaraju et al., arXiv 1610.02391, section 3.2, with guided backpropagation of Springenberg et al.,
    arXiv 1412.6806, computed by captum.
    """
    from captum.attr import GuidedBackprop

    if not any(isinstance(each, nn.ReLU) for each in context.model.modules()):
        raise InputError(
            f'`methods` "guided_grad_cam" changes the gradient of ReLU modules, and {type(context.model).__name__} has '
            "none (functions such as `torch.relu` cannot be seen, and other activations are not guided). Leave it out."
        )
    check_takes_gradients(context, "guided_grad_cam")
    model = _ScoreModule(context, "guided_grad_cam")

    def work(rows: Tensor, _: Tensor) -> Tensor:
        try:
            found: Tensor = GuidedBackprop(model).attribute(
                context.images[rows].requires_grad_(), additional_forward_args=(rows,)
            )
        except RuntimeError as error:
            if "cannot register a hook" in str(error):  # captum's, at a ReLU that no gradient passes
                raise InputError(no_gradient_at_images(context, "guided_grad_cam")) from error
            raise
        return found.detach().sum(dim=1)

    with _no_inplace_relus(context.model), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Setting backward hooks on ReLU activations")
        guided = context.mean(work, 1).relu()
    coarse = grad_cam(context.activations, context.gradients)[:, None]
    return guided * context.enlarge(coarse)[:, 0]


@register_model_method("occlusion", requires="captum", uses_layer=False)
def occlusion(context: MethodContext, windows: int | None = None) -> Tensor:
    """Occlusion: by how much a square of zeros over the image lowers the score; each pixel's mean over its squares.

    Zeros are the mean colour where images are normalized. The target layer plays no part.

    Cost: one forward a square: with 7 squares a side that overlap by half, 13 * 13, and one without; 49 intervals along
    a signal, 5 * 5 * 5 cuboids of a volume or a video.

    Args:
        context: of the samples.
        windows: how many squares cover the image side by side, along each side; they move by half of themselves. Left
            out, 7 of an image, 25 of a signal and 3 of a volume or a video.

    Returns:
        `(N, *S)`, at the size of the images.

    Source: Zeiler and Fergus, "Visualizing and understanding convolutional networks", arXiv 1311.2901, section 4.2;
    computed by captum.
    """
    from captum.attr import Occlusion

    model = _ScoreModule(context, None)
    channels = context.images.shape[1]
    windows = windows or _WINDOWS[len(context.size)]
    window = [math.ceil(side / windows) for side in context.size]
    strides = [max(side // 2, 1) for side in window]

    def work(rows: Tensor, _: Tensor) -> Tensor:
        found: Tensor = Occlusion(model).attribute(
            context.images[rows].float(),
            sliding_window_shapes=(channels, *window),
            strides=(channels, *strides),
            baselines=0,
            additional_forward_args=(rows,),
        )
        return found[:, 0]

    return context.mean(work, 1).relu()


_WINDOWS = {1: 25, 2: 7, 3: 3}
"""How many windows cover each side, by the number of dimensions, so that there are about a hundred positions."""


class _ScoreModule(nn.Module):
    """A module for captum: from images, and the rows they belong to, to the score that is explained."""

    def __init__(self, context: MethodContext, name: str | None) -> None:
        super().__init__()
        self.model = context.model
        self.context = context
        self.name = name
        self.training = False

    def forward(self, images: Tensor, rows: Tensor) -> Tensor:
        values = self.context.values(images, rows)
        if self.name is not None:  # gradients are to be taken
            check_graph(self.context, self.name, values)
        return values


@contextmanager
def _no_inplace_relus(model: nn.Module) -> Iterator[None]:
    """Run ReLUs out of place inside: the gradient of one that writes on its input cannot be changed."""
    inplace = [each for each in model.modules() if isinstance(each, nn.ReLU) and each.inplace]
    try:
        for each in inplace:
            each.inplace = False
        yield
    finally:
        for each in inplace:
            each.inplace = True


CENTRE_SIGMA = 1 / 4
"""The standard deviation of the centre map, as a share of each side."""


@register_model_method("random")
def random(context: MethodContext) -> Tensor:
    """Uniform noise on the layer's grid, as coarse as the other maps.

    It is drawn by a generator that is seeded by the sample's pixels: the same at every look, in every batch.

    Cost: none.

    Args:
        context: of the samples.

    Returns:
        `(N, *grid)` in [0, 1).
    """
    return context.uniform(size_of(context.activations))


@register_model_method("centre", uses_layer=False)
def centre(context: MethodContext) -> Tensor:
    """A Gaussian in the middle, its standard deviation a quarter of each side.

    Photographers put objects in the middle, so that this map, which uses no image, does well on many data sets.

    Cost: none.

    Args:
        context: of the samples.

    Returns:
        `(N, *grid)` in (0, 1].

    Source: the centre baseline of the pointing game (Fong et al., arXiv 1910.08485); the same as
    `lightning_gcam.metrics.functional.centre_map`, on the layer's grid.
    """
    grid = size_of(context.activations)
    found = torch.ones((), device=context.images.device)
    for side in grid:
        position = torch.arange(side, device=found.device) - (side - 1) / 2
        found = found[..., None] * torch.exp(-0.5 * (position / (CENTRE_SIGMA * side)) ** 2)
    return found.expand(len(context), *grid)
