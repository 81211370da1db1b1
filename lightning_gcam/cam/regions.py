"""The score of any model output; for dense logits, one at every position, it is summed over a region."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn

from lightning_gcam.cam.outputs import Head
from lightning_gcam.cam.squashing import before_normalising
from lightning_gcam.cam.targets import (
    Labels,
    Targets,
    TargetScore,
    as_labels,
    checked_score,
    classes_of,
    explains_output,
    predict,
    score_of,
    score_of_classes,
)
from lightning_gcam.cam.whole import WHOLE, Whole
from lightning_gcam.utils.dimensions import for_each, pool_of, positions_of, size_of
from lightning_gcam.utils.errors import user_function_errors


def score_of_head(
    head: Head, targets: Targets, masks: Tensor | None = None, images: Tensor | None = None
) -> TargetScore:
    """The score of a model's output: of classes, by their logits; of anything else, by the outputs as they are.

    Without targets, or with a batch's labels, an output whose form shows that it holds no classes is explained as a
    whole, see `kind_by_form`.

    Args:
        head: the model's output.
        targets: as in `score_of`; or "whole" where labels are no classes, or one of `WHOLE`.
        masks: as in `score_of_regions`.
        images: `(N, C, *S)`, what a reconstruction is compared with.

    Raises:
        InputError: as `score_of`.

    Example:
        >>> head = Head(torch.tensor([[3.0, 4.0]]), torch.tensor([[3.0, 4.0]]))
        >>> score_of_head(head, "norm").values, score_of_head(head, None).values
        (tensor([5.]), tensor([4.]))
    """
    is_whole = isinstance(targets, str) and targets == "whole"
    if targets is None or is_whole or (isinstance(targets, Labels) and targets.of_batch):
        targets = kind_by_form(head, masks, images) or (_whole_of(head, masks) if is_whole else targets)
    if isinstance(targets, str) and targets in WHOLE:
        kind = cast(Whole, targets if targets != "error" or images is not None else "norm")
        return _score_of_whole(head, kind, images)
    if callable(targets):
        with user_function_errors("targets", head.outputs):
            found = targets(head.outputs)
        score = _score_at(head.logits, lambda _: found, masks)
    elif explains_output(as_labels(targets, head.outputs.device), head.outputs.shape[1]):
        return _score_at(head.outputs, targets, masks)
    else:
        score = _score_at(head.logits, targets, masks)
    return replace(score, squash=head.squash)


def kind_by_form(head: Head, masks: Tensor | None, images: Tensor | None) -> Whole | None:
    """What an output without classes is explained as, recognised by its form; None where it may hold classes.

    - "error", a reconstruction: it has the images' own shape, and the samples have no masks that would make it a
      segmentation; or one row as long as an image has numbers, 64 at least.
    - "norm", an embedding: its rows were divided by something, and have norm 1. (A softmax was recognised before.)
    - "norm", coordinates, and "similarity": as `whole_output` has recognised them.

    All are recognised from a single sample, so that chunks of a batch, processes and looks agree; and none depends
    on how much a network has learned.
    """
    if head.whole is not None:
        return head.whole
    shape = tuple(head.outputs.shape)
    if images is not None:
        is_picture = shape == tuple(images.shape) and masks is None
        numbers = images[0].numel()
        if is_picture or (len(shape) == 2 and shape[1] == numbers >= _FEWEST_OF_A_PICTURE):
            return "error"
    is_unit = head.squash is None and before_normalising(head.outputs) is not None
    return "norm" if is_unit else None


_FEWEST_OF_A_PICTURE = 64


def _whole_of(head: Head, masks: Tensor | None) -> str | None:
    """What an output is explained as beside labels that are no classes: heat maps, one map, one number, or a vector.

    None behind a softmax, and for several maps where the samples have masks: these may be classes after all.
    """
    if head.squash is not None and "softmax" in head.squash:
        return None
    if head.outputs.shape[1] == 1:
        return "output"
    if head.outputs.ndim == 2:
        return "norm"
    return "peaks" if masks is None else None


def _score_of_whole(head: Head, explains: Whole, images: Tensor | None) -> TargetScore:
    """The score of a whole output, see `WHOLE`."""
    means = (
        head.outputs if head.outputs.ndim == 2 else head.outputs.float().mean(dim=positions_of(head.outputs))
    )
    against = images.detach() if explains == "error" and images is not None else None
    return TargetScore(_of_whole(head.outputs, explains, against), None, means, explains, images=against)


def _of_whole(outputs: Tensor, explains: str, images: Tensor | None) -> Tensor:
    """The score of whole outputs, `(N,)`; the norm is that of each row before it was normalized to 1."""
    rows = outputs.flatten(1)
    if explains == "similarity":
        return rows[:, 0].float()
    if explains == "peaks":
        return outputs.float().flatten(2).amax(dim=2).sum(dim=1)
    if images is not None:
        return (rows.float() - images.flatten(1).float()).square().mean(dim=1)
    before = before_normalising(outputs)
    norms: Tensor = (rows if before is None else before).float().norm(dim=1)
    return norms


def _score_at(logits: Tensor, targets: Targets, masks: Tensor | None) -> TargetScore:
    """The score of logits or outputs, over regions where there is one at every position."""
    return score_of(logits, targets) if logits.ndim == 2 else score_of_regions(logits, targets, masks)


def score_of_regions(logits: Tensor, targets: Targets, masks: Tensor | None = None) -> TargetScore:
    r"""The logit of each sample's class, summed over a region of the sample.

    $$ s = \sum_{(i, j) \in M} y^c_{ij} $$

    The region M is the sample's mask where it has one, else the positions that the network itself gives to the class
    (none at all, if it gives it none: the map is blank then). The logits that are recorded are the mean over M.

    Args:
        logits: `(N, K, *grid)`.
        targets: as in `score_of`. None stands for the class that is predicted for the region (without a mask: for most
            positions); for a single logit for class 1, the object. A callable gets all logits. The
            output of a regression (a depth, say) without a mask is summed over the whole image.
        masks: `(N, *S)` bool at the images' size, True on the object.

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
    whole = masks | for_each(~in_mask, masks)
    if callable(targets):
        values = checked_score(targets(logits), len(logits))
        return TargetScore(values, None, _mean(logits, whole), "score", in_mask)
    targets = as_labels(targets, logits.device)
    if explains_output(targets, logits.shape[1]):
        mean = _mean(logits, whole)
        return TargetScore(mean[:, 0] * _cells(whole), None, mean, "output", in_mask, whole)
    if targets is None and logits.shape[1] == 1:
        targets = 1
    votes = predict(logits.detach())
    predicted = torch.where(
        in_mask, predict(_mean(logits.detach(), whole)), votes.flatten(1).mode(dim=1).values
    )
    classes = classes_of(targets, predicted, logits.shape[1])
    region = torch.where(for_each(in_mask, masks), masks, _predicted_region(classes, votes))
    score = score_of_classes(_mean(logits, region), classes)
    values = score.values * _cells(region)
    return TargetScore(values, score.targets, score.logits, in_mask=in_mask, region=region)


def same_score(head: Head, score: TargetScore, rows: Tensor, targets: Targets = None) -> Tensor:
    """The same score as `score` of the samples, for perturbed images of them: `(B,)`.

    It is of the same classes, whatever is predicted for the perturbed images, and over the same regions.

    Args:
        head: `(B, K)`, or `(B, K, *grid)` from a dense head, on a grid of any size.
        score: of the N samples as they were.
        rows: `(B,)`, of which sample each is a perturbation.
        targets: as in `attribute`; only a callable counts, and gets all B rows.

    Returns:
        `(B,)`, with the logits' graph.

    Example:
        >>> from lightning_gcam.cam.targets import score_of
        >>> score = score_of(torch.tensor([[1.0, 5.0], [7.0, 2.0]]), None)  # classes 1 and 0
        >>> changed = torch.tensor([[3.0, 4.0], [6.0, 0.0]])
        >>> same_score(Head(changed, changed), score, torch.tensor([1, 1]))
        tensor([3., 6.])
    """
    if callable(targets):
        return checked_score(targets(head.outputs), len(head))
    if score.explains in WHOLE:
        images = score.images[rows] if score.images is not None else None
        return _of_whole(head.outputs, score.explains, images)
    logits = head.outputs if score.explains == "output" else head.logits
    if logits.ndim > 2:
        assert score.region is not None, "a dense head stays one"
        region = _on_grid(score.region[rows], logits)[:, None]
        wide = torch.promote_types(logits.dtype, torch.float32)
        logits = torch.where(region, logits, 0).sum(dim=positions_of(logits), dtype=wide)
    if score.explains == "output":
        return logits[:, 0]
    assert score.targets is not None, "what explains no class is an output or a callable"
    return score_of_classes(logits, score.targets[rows]).values


def _on_grid(masks: Tensor | None, logits: Tensor) -> Tensor:
    """Resize masks to the logits' size by the nearest pixel; an object between these is kept where it touches any."""
    size = size_of(logits)
    if masks is None:
        return torch.zeros(len(logits), *size, dtype=torch.bool, device=logits.device)
    values = masks.to(logits.device).float()[:, None]
    nearest = nn.functional.interpolate(values, size=size, mode="nearest-exact")[:, 0] > 0
    touched = pool_of("adaptive_max", len(size))(values, size)[:, 0] > 0
    return torch.where(for_each(nearest.flatten(1).any(dim=1), nearest), nearest, touched)


def _predicted_region(classes: Tensor, votes: Tensor) -> Tensor:
    """The positions `(N, *grid)` whose predicted class is the sample's, or one of those marked."""
    if classes.ndim == 1:
        return votes == for_each(classes, votes)
    return classes.bool().gather(1, votes.flatten(1)).view_as(votes)


def _cells(region: Tensor) -> Tensor:
    """The number of positions in each sample's region: `(N,)`."""
    return region.flatten(1).sum(dim=1)


def _mean(logits: Tensor, region: Tensor) -> Tensor:
    """The mean of the logits over each sample's region, `(N, K)`; over all positions where that is empty."""
    region = region | for_each(~region.flatten(1).any(dim=1), region)
    wide = torch.promote_types(logits.dtype, torch.float32)
    summed = torch.where(region[:, None], logits, 0).sum(dim=positions_of(logits), dtype=wide)
    return summed / _cells(region)[:, None]
