"""What every score refuses, and what it says."""

from __future__ import annotations

import pytest
import torch

from lightning_gcam.metrics import available_scores, needs, resolve_scores

SALIENCY = torch.ones(2, 3, 4)
MASK = torch.ones(2, 3, 4, dtype=torch.bool)

# What takes maps and masks; the scores that take something else are refused theirs in their own files.
ON_MAPS = [name for name in available_scores() if needs(resolve_scores(name)[name]) <= {"mask", "suspect"}]
ON_MASKS = [name for name in ON_MAPS if needs(resolve_scores(name)[name])]

SHAPE = (
    r"`saliency` must have the shape \(N, \*spatial\) with one to three dimensions, such as \(N, H, W\), got "
)
WRONG_SALIENCY = [
    (SALIENCY.numpy(), TypeError, r"`saliency` must be a tensor \(N, \*spatial\), got ndarray"),
    (SALIENCY.long(), TypeError, r"`saliency` must be floating, got torch.int64.*`saliency.float\(\)`"),
    (SALIENCY[0, 0], ValueError, SHAPE + r"\(4,\)"),
    (SALIENCY[:, None, None], ValueError, SHAPE + r"\(2, 1, 1, 3, 4\)"),
    (SALIENCY[:, :0], ValueError, SHAPE + r"\(2, 0, 4\)"),
    (SALIENCY * -0.5, ValueError, r"`saliency` must be at least 0, got a minimum of -0.5.*clamp\(min=0\)"),
]
WRONG_MASK = [
    (None, TypeError, r"`mask` must be a bool tensor \(N, \*spatial\), got NoneType"),
    (MASK.to(torch.uint8), TypeError, r"`mask` must be bool, .*got torch.uint8.*`mask.bool\(\)`"),
    (MASK.float(), TypeError, r"`mask` must be bool, .*got torch.float32"),
    (MASK[:1], ValueError, r"`mask` must have the shape of `saliency` \(2, 3, 4\), got \(1, 3, 4\)"),
    (MASK[:, :2], ValueError, r"`mask` must have the shape of `saliency` \(2, 3, 4\), got \(2, 2, 4\)"),
]


@pytest.mark.parametrize("name", ON_MAPS)
@pytest.mark.parametrize(("saliency", "error", "message"), WRONG_SALIENCY)
def test_wrong_saliency_is_refused(name, saliency, error, message) -> None:
    metric = resolve_scores(name)[name]
    # The mask fits where it can, so that it is the saliency that is refused.
    mask = MASK.expand(saliency.shape) if saliency.shape == MASK.shape else MASK
    with pytest.raises(error, match=message):
        metric.update(saliency, mask)
    assert (metric.n, metric.left_out) == (0, 0)


@pytest.mark.parametrize("name", ON_MASKS)
@pytest.mark.parametrize(("mask", "error", "message"), WRONG_MASK)
def test_wrong_mask_is_refused(name, mask, error, message) -> None:
    metric = resolve_scores(name)[name]
    with pytest.raises(error, match=message):
        metric.update(SALIENCY, mask)
    assert (metric.n, metric.left_out) == (0, 0)


def test_a_negative_value_in_a_map_that_is_blank_anyway_is_no_error() -> None:
    saliency = SALIENCY.clone()
    saliency[0, 0, 0], saliency[0, 0, 1] = float("nan"), -1.0
    metric = resolve_scores("energy")["energy"]
    metric.update(saliency, MASK)
    assert (metric.n, metric.left_out) == (1, 1)
