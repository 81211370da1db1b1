"""Methods that show the model its own activations as masks, and weight each channel by the score of what it shows."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_gcam.cam.methods import register_scored_method
from lightning_gcam.cam.scorer import Scorer


@register_scored_method("score_cam")
def score_cam(scorer: Scorer) -> Tensor:
    r"""Score-CAM: each channel weighted by the score of the image behind the channel as a mask.

    $$ H_k = s(U(A_k)), \quad w = \mathrm{softmax}_k(y^c(X \circ H_k) - y^c(X_b)), \quad
       S = \mathrm{ReLU}(\sum_k w_k A_k) $$

    U brings a channel to the size of the image, s scales it to [0, 1]. The score of the baseline $X_b$ is the same for
    all channels and drops out of the softmax, so that it is never asked for. A channel that is constant over space is
    no mask and gets no weight, as in the authors' code.

    Cost: one forward a channel that is not constant.

    Args:
        scorer: of the samples.

    Returns:
        `(N, h, w)`, >= 0.

    Source: Wang et al., "Score-CAM: Score-weighted visual explanations for convolutional neural networks",
    arXiv 1910.01279, equations 4 to 6 and algorithm 1 (which takes logits).
    """

    def masked(rows: Tensor, channels: Tensor) -> Tensor:
        return scorer.images[rows] * masks_of(scorer, rows, channels)

    varies = varying_channels(scorer.activations)
    return _weighted(scorer, scorer.scores(masked, varies.shape[1], varies), varies)


def masks_of(scorer: Scorer, rows: Tensor, channels: Tensor) -> Tensor:
    """Channels at the images' size, each scaled to [0, 1]: `(B, 1, H, W)`; those that do not vary are zero."""
    maps = scorer.activations[rows, channels][:, None]
    masks = nn.functional.interpolate(maps, scorer.size, mode="bilinear", align_corners=False)
    least, most = (each[:, None, None, None] for each in masks.flatten(1).aminmax(dim=1))
    return (masks - least) / torch.where(most > least, most - least, 1.0)


def varying_channels(activations: Tensor) -> Tensor:
    """Which channels are not constant over space, `(N, C)` bool."""
    least, most = activations.flatten(2).aminmax(dim=2)
    return most > least


def _weighted(scorer: Scorer, scores: Tensor, varies: Tensor) -> Tensor:
    """The channels weighted by the softmax of their scores, over those that vary."""
    weights = torch.where(varies, scores, -torch.inf).softmax(dim=1)
    weights = torch.where(varies.any(dim=1, keepdim=True), weights, 0.0)
    return torch.einsum("nc,nchw->nhw", weights, scorer.activations).relu()
