"""CAM methods that weight each channel by the score of masked images or of activations without the channel."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_gcam.cam.context import Change, MethodContext
from lightning_gcam.cam.registry import register_model_method
from lightning_gcam.utils.dimensions import for_each


@register_model_method("score_cam")
def score_cam(context: MethodContext) -> Tensor:
    r"""Score-CAM: each channel weighted by the score of the image behind the channel as a mask.

    $$ H_k = s(U(A_k)), \quad w = \mathrm{softmax}_k(y^c(X \circ H_k) - y^c(X_b)), \quad
       S = \mathrm{ReLU}(\sum_k w_k A_k) $$

    U brings a channel to the size of the image, s scales it to [0, 1]. The score of the baseline $X_b$ is the same for
    all channels and drops out of the softmax, so that it is never computed. A channel that is constant over space is
    no mask and gets no weight, as in the authors' code.

    Cost: one forward a channel that is not constant.

    Args:
        context: of the samples.

    Returns:
        `(N, *grid)`, >= 0.

    Source: Wang et al., "Score-CAM: Score-weighted visual explanations for convolutional neural networks",
    arXiv 1910.01279, equations 4 to 6 and algorithm 1 (which takes logits).
    """

    def masked(rows: Tensor, channels: Tensor) -> Tensor:
        return context.images[rows] * masks_of(context, rows, channels)

    varies = varying_channels(context.activations)
    return _weighted(context, context.scores(masked, varies.shape[1], varies), varies)


@register_model_method("ss_cam")
def ss_cam(context: MethodContext, draws: int = 35, sigma: float = 2.0) -> Tensor:
    r"""SS-CAM: Score-CAM with the scores averaged over noise on the masks.

    $$ w = \mathrm{softmax}_k\Big(\frac{1}{D} \sum_{d=1}^{D} y^c(X \circ (H_k + \epsilon_d)) - y^c(X_b)\Big), \quad
       \epsilon_d \sim N(0, \sigma^2), \quad S = \mathrm{ReLU}(\sum_k w_k A_k) $$

    Cost: `draws` forwards a channel that is not constant, the number of the paper and more than a training has
    to spare: `ModelMethod(functools.partial(ss_cam, draws=4), "ss_cam")` is a cheaper one.

    Args:
        context: of the samples.
        draws: D, how many times noise is added to each mask.
        sigma: the standard deviation of the noise.

    Returns:
        `(N, *grid)`, >= 0.

    Source: Wang et al., "SS-CAM: Smoothed Score-CAM for sharper visual feature localization", arXiv 2006.14255: the
    variant with noise on the feature map, with the D and the sigma of the paper.
    """

    def masked(rows: Tensor, numbers: Tensor) -> Tensor:
        noise = context.noise(rows, numbers, (1, *context.size))
        return context.images[rows] * (masks_of(context, rows, numbers // draws) + sigma * noise)

    return _weighted_by_mean(context, masked, draws)


@register_model_method("is_cam")
def is_cam(context: MethodContext, steps: int = 10) -> Tensor:
    r"""IS-CAM: Score-CAM with the scores averaged on the way from no mask to the whole mask.

    $$ w = \mathrm{softmax}_k\Big(\frac{1}{D} \sum_{d=1}^{D} y^c(X \circ \tfrac{d}{D} H_k) - y^c(X_b)\Big), \quad
       S = \mathrm{ReLU}(\sum_k w_k A_k) $$

    Cost: `steps` forwards a channel that is not constant.

    Args:
        context: of the samples.
        steps: D, in how many steps a mask grows.

    Returns:
        `(N, *grid)`, >= 0.

    Source: Naidu et al., "IS-CAM: Integrated Score-CAM for axiomatic-based explanations", arXiv 2010.03023, read as an
    integral along a straight path. torch-cam 0.5 sums the steps up as it goes (1/D, 3/D, 6/D, ...), so that most of its
    masks brighten the image up to (D + 1) / 2 times.
    """

    def masked(rows: Tensor, numbers: Tensor) -> Tensor:
        masks = masks_of(context, rows, numbers // steps)
        return context.images[rows] * (for_each((numbers % steps + 1) / steps, masks) * masks)

    return _weighted_by_mean(context, masked, steps)


def masks_of(context: MethodContext, rows: Tensor, channels: Tensor) -> Tensor:
    """Channels at the images' size, each scaled to [0, 1]: `(B, 1, *S)`; those that do not vary are zero."""
    maps = context.activations[rows, channels][:, None]
    masks = context.enlarge(maps)
    least, most = (for_each(each, masks) for each in masks.flatten(1).aminmax(dim=1))
    return (masks - least) / torch.where(most > least, most - least, 1.0)


def varying_channels(activations: Tensor) -> Tensor:
    """Which channels are not constant over space, `(N, C)` bool."""
    least, most = activations.flatten(2).aminmax(dim=2)
    return most > least


def _weighted(context: MethodContext, scores: Tensor, varies: Tensor) -> Tensor:
    """The channels weighted by the softmax of their scores, over those that vary."""
    weights = torch.where(varies, scores, -torch.inf).softmax(dim=1)
    weights = torch.where(varies.any(dim=1, keepdim=True), weights, 0.0)
    return torch.einsum("nc,nc...->n...", weights, context.activations).relu()


def _weighted_by_mean(context: MethodContext, change: Change, times: int) -> Tensor:
    """The channels weighted by the softmax of their scores' means over `times` changes, in a row for each channel."""
    varies = varying_channels(context.activations)
    where = varies.repeat_interleave(times, dim=1)
    scores = context.scores(change, where.shape[1], where)
    return _weighted(context, scores.unflatten(1, (-1, times)).mean(dim=2), varies)


@register_model_method("ablation_cam")
def ablation_cam(context: MethodContext) -> Tensor:
    r"""Ablation-CAM: each channel weighted by the share of the score that goes when the channel is set to zero.

    $$ w_k = \frac{y^c - y^c_k}{|y^c|}, \quad S = \mathrm{ReLU}(\sum_k w_k A_k) $$

    The paper divides by $y^c$, which only scales the map where the score is positive, and turns evidence for the
    class into evidence against it where the score is negative, as a logit may be; hence the absolute value. A score
    of exactly 0 is not divided by.

    Cost: one forward a channel that is not all zero.

    Args:
        context: of the samples.

    Returns:
        `(N, *grid)`, >= 0.

    Raises:
        InputError: where a `reshape_transform` computes new numbers, so that activations cannot be put back.

    Source: Desai and Ramaswamy, "Ablation-CAM: Visual explanations for deep convolutional network via gradient-free
    localization", WACV 2020, equations 3 and 4.
    """

    def without(activations: Tensor, rows: Tensor, channels: Tensor) -> Tensor:
        left = activations.clone()
        left[torch.arange(len(left), device=left.device), channels] = 0
        return left

    alive = (context.activations != 0).flatten(2).any(dim=2)
    scores = context.scores_with(without, alive.shape[1], alive)
    whole = context.explained[:, None]
    lost = torch.where(alive, whole - scores, 0.0) / torch.where(whole != 0, whole.abs(), 1.0)
    return torch.einsum("nc,nc...->n...", lost, context.activations).relu()
