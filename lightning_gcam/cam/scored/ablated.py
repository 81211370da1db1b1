"""Ablation-CAM: what the score loses without a channel."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_gcam.cam.methods import register_scored_method
from lightning_gcam.cam.scorer import Scorer


@register_scored_method("ablation_cam")
def ablation_cam(scorer: Scorer) -> Tensor:
    r"""Ablation-CAM: each channel weighted by the share of the score that goes when the channel is set to zero.

    $$ w_k = \frac{y^c - y^c_k}{|y^c|}, \quad S = \mathrm{ReLU}(\sum_k w_k A_k) $$

    The paper divides by $y^c$, which only scales the map where the score is positive, and turns what speaks for the
    class into what speaks against it where the score is negative, as a logit may be; hence the absolute value. A score
    of exactly 0 is not divided by.

    Cost: one forward a channel that is not all zero.

    Args:
        scorer: of the samples.

    Returns:
        `(N, h, w)`, >= 0.

    Raises:
        InputError: where a `reshape_transform` computes new numbers, so that activations cannot be put back.

    Source: Desai and Ramaswamy, "Ablation-CAM: Visual explanations for deep convolutional network via gradient-free
    localization", WACV 2020, equations 3 and 4.
    """

    def without(activations: Tensor, rows: Tensor, channels: Tensor) -> Tensor:
        left = activations.clone()
        left[torch.arange(len(left), device=left.device), channels] = 0
        return left

    alive = (scorer.activations != 0).flatten(2).any(dim=2)
    scores = scorer.scores_with(without, alive.shape[1], alive)
    whole = scorer.explained[:, None]
    lost = torch.where(alive, whole - scores, 0.0) / torch.where(whole != 0, whole.abs(), 1.0)
    return torch.einsum("nc,nchw->nhw", lost, scorer.activations).relu()
