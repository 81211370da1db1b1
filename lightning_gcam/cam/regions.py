"""The score of a dense head, which gives logits at every position: a class's logits, summed over a region."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_gcam.cam.targets import (
    Score,
    Targets,
    as_labels,
    asks_for_output,
    checked_score,
    classes_of,
    predict,
    score_of_classes,
)


def score_of_regions(logits: Tensor, targets: Targets, masks: Tensor | None = None) -> Score:
    r"""The logit of each sample's class, summed over a region of the sample.

    $$ s = \sum_{(i, j) \in M} y^c_{ij} $$

    The region M is the sample's mask where it has one, else the positions that the network itself gives to the class
    (none at all, if it gives it none: the map is blank then). The logits that are recorded are the mean over M.

    Args:
        logits: `(N, K, h, w)`.
        targets: as in `score_of`. None stands for the class that is predicted for the region (without a mask: for most
            positions); for a single logit for class 1, the object. A callable gets all logits, `(N, K, h, w)`. The
            output of a regression (a depth, say) without a mask is summed over the whole image.
        masks: `(N, H, W)` bool at the images' size, True on the object.

    Raises:
        InputError: as `score_of`.

    Example:
        >>> logits = torch.tensor([[[[1.0, 2.0]], [[3.0, 4.0]]]])  # one sample, two classes, two positions
        >>> mask = torch.tensor([[[True, False]]])
        >>> score_of_regions(logits, 0, mask).values, score_of_regions(logits, 1).values
        (tensor([1.]), tensor([7.]))

    Source: Vinogradova, Dibrov, Myers, "Towards interpretable semantic segmentation via gradient-weighted class
    activation mapping" (Seg-Grad-CAM), arXiv 2002.11434.
    """
    masks = _on_grid(masks, logits)
    in_mask = masks.flatten(1).any(dim=1)
    whole = masks | ~in_mask[:, None, None]
    if callable(targets):
        values = checked_score(targets(logits), len(logits))
        return Score(values, None, _mean(logits, whole), "score", in_mask)
    targets = as_labels(targets, logits.device)
    if asks_for_output(targets, logits.shape[1]):
        mean = _mean(logits, whole)
        return Score(mean[:, 0] * _cells(whole), None, mean, "output", in_mask, whole)
    if targets is None and logits.shape[1] == 1:
        targets = 1
    votes = predict(logits.detach())
    predicted = torch.where(
        in_mask, predict(_mean(logits.detach(), whole)), votes.flatten(1).mode(dim=1).values
    )
    classes = classes_of(targets, predicted, logits.shape[1])
    region = torch.where(in_mask[:, None, None], masks, _given_to(classes, votes))
    score = score_of_classes(_mean(logits, region), classes)
    values = score.values * _cells(region)
    return Score(values, score.targets, score.logits, in_mask=in_mask, region=region)


def same_score(logits: Tensor, score: Score, rows: Tensor, targets: Targets = None) -> Tensor:
    """The number that `score` holds of its samples, read from the logits of changed images of them.

    It is of the same classes, whatever is predicted for the changed images, and over the same regions.

    Args:
        logits: `(B, K)`, or `(B, K, h, w)` from a dense head, on a grid of any size.
        score: of the N samples as they were.
        rows: `(B,)`, of which sample each is a change.
        targets: what was asked for, of which only a callable counts; it gets all B rows.

    Returns:
        `(B,)`, with the logits' graph.

    Example:
        >>> from lightning_gcam.cam.targets import score_of
        >>> score = score_of(torch.tensor([[1.0, 5.0], [7.0, 2.0]]), None)  # classes 1 and 0
        >>> same_score(torch.tensor([[3.0, 4.0], [6.0, 0.0]]), score, torch.tensor([1, 1]))
        tensor([3., 6.])
    """
    if callable(targets):
        return checked_score(targets(logits), len(logits))
    if logits.ndim == 4:
        assert score.region is not None, "a dense head stays one"
        region = _on_grid(score.region[rows], logits)[:, None]
        wide = torch.promote_types(logits.dtype, torch.float32)
        logits = torch.where(region, logits, 0).sum(dim=(2, 3), dtype=wide)
    if score.explains == "output":
        return logits[:, 0]
    assert score.targets is not None, "what explains no class is an output or a callable"
    return score_of_classes(logits, score.targets[rows]).values


def _on_grid(masks: Tensor | None, logits: Tensor) -> Tensor:
    """The masks at the logits' size, by the nearest pixel; an object that falls between them is where it touches."""
    n, _, *size = logits.shape
    if masks is None:
        return torch.zeros(n, *size, dtype=torch.bool, device=logits.device)
    values = masks.to(logits.device).float()[:, None]
    nearest = nn.functional.interpolate(values, size=size, mode="nearest-exact")[:, 0] > 0
    touched = nn.functional.adaptive_max_pool2d(values, size)[:, 0] > 0
    return torch.where(nearest.flatten(1).any(dim=1)[:, None, None], nearest, touched)


def _given_to(classes: Tensor, votes: Tensor) -> Tensor:
    """The positions `(N, h, w)` whose class is the sample's, or one of those marked."""
    if classes.ndim == 1:
        return votes == classes[:, None, None]
    return classes.bool().gather(1, votes.flatten(1)).view_as(votes)


def _cells(region: Tensor) -> Tensor:
    return region.flatten(1).sum(dim=1)


def _mean(logits: Tensor, region: Tensor) -> Tensor:
    """The mean over each sample's region `(N, K)`; over everything, where that is empty."""
    region = region | ~region.flatten(1).any(dim=1)[:, None, None]
    wide = torch.promote_types(logits.dtype, torch.float32)
    return torch.where(region[:, None], logits, 0).sum(dim=(2, 3), dtype=wide) / _cells(region)[:, None]
