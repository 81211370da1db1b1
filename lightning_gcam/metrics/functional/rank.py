"""Of as many of the highest pixels as the object has, how many lie on it?"""

from torch import Tensor

from lightning_gcam.metrics.functional.inputs import prepare
from lightning_gcam.metrics.functional.mean import PerSample, mean_counted


def _relevance_rank_accuracy_update(saliency: Tensor, mask: Tensor) -> PerSample:
    """Share of each map's K highest pixels that lie in its mask of K pixels, ties by expectation."""
    batch = prepare(saliency, mask)
    saliency, mask = batch.saliency.flatten(1), batch.mask.flatten(1)
    size = mask.sum(dim=1, keepdim=True)
    ranked = saliency.sort(dim=1, descending=True).values
    lowest = ranked.gather(1, (size - 1).clamp(min=0))
    above, tied = saliency > lowest, saliency == lowest
    free_places = (size[:, 0] - above.sum(dim=1)).float()
    tied_hits = free_places * (tied & mask).sum(dim=1).float() / tied.sum(dim=1).float()
    hits = (above & mask).sum(dim=1).float() + tied_hits
    return batch.scored(hits / size[:, 0].float())


def relevance_rank_accuracy(saliency: Tensor, mask: Tensor) -> Tensor:
    """Average, over the samples, the share of the |M| highest pixels that lie in the object M.

    Where pixels tie for the last of these places, their expected share counts (the share that a random order
    would give on average), so the result does not depend on the order of a sort. A sample whose map is blank
    (all zero, or not finite) or whose mask is empty is left out.

    Args:
        saliency: ``(N, H, W)``, floating, at least 0, of any scale.
        mask: ``(N, H, W)`` bool, True on the object.

    Returns:
        A float32 scalar in [0, 1], on the saliency's device; NaN if every sample was left out.

    Raises:
        TypeError: If ``saliency`` is not floating or ``mask`` is not bool.
        ValueError: If the shapes are not both ``(N, H, W)``, or ``saliency`` has negative values.

    Example:
        >>> import torch
        >>> from lightning_gcam.metrics.functional import relevance_rank_accuracy
        >>> saliency = torch.tensor([[[4.0, 3.0], [2.0, 1.0]]])
        >>> mask = torch.tensor([[[True, False], [True, False]]])
        >>> relevance_rank_accuracy(saliency, mask)
        tensor(0.5000)

    Source:
        Arras et al., 2020, arXiv 2003.07258.
    """
    return mean_counted(_relevance_rank_accuracy_update(saliency, mask))
