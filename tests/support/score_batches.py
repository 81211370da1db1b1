"""Seeded batches and fixtures that the tests of the scores share."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lightning_gcam.metrics import needs, resolve_scores

Batch = tuple[Tensor, Tensor]


def seeded_batch(n: int = 7, height: int = 9, width: int = 8, seed: int = 0) -> Batch:
    """Random maps without ties, and masks that are neither empty nor full."""
    generator = torch.Generator().manual_seed(seed)
    saliency = torch.rand(n, height, width, generator=generator)
    mask = torch.rand(n, height, width, generator=generator) < 0.3
    mask[:, 0, 0], mask[:, -1, -1] = True, False
    return saliency, mask


@pytest.fixture
def make_batch() -> Callable[..., Batch]:
    """The maker of seeded batches: `make_batch(n, height, width, seed)`."""
    return seeded_batch


@pytest.fixture
def batch() -> Batch:
    """Seven samples that all count."""
    return seeded_batch()


@pytest.fixture
def gaps() -> Batch:
    """Seven samples of which 1 (blank), 2 (empty mask), 4 (NaN) and 5 (infinite) cannot be localized."""
    saliency, mask = seeded_batch()
    saliency[1] = 0
    mask[2] = False
    saliency[4, 3, 3] = float("nan")
    saliency[5, 0, 0] = float("inf")
    return saliency, mask


def inputs_of(name: str, batch: Batch) -> tuple[Tensor, ...]:
    """What the score's `update` takes, made from maps and masks: seeded maps and probabilities of perturbed images.

    Where a mask is empty, the first probability is NaN, so that a score made of forwards leaves out the same samples.
    """
    saliency, mask = batch
    generator = torch.Generator().manual_seed(99)
    n = len(saliency)
    other = torch.rand(saliency.shape, generator=generator)
    before, after = torch.rand(2, n, generator=generator)
    curves = torch.rand(n, 21, generator=generator)
    empty = ~mask.flatten(1).any(dim=1)
    before[empty], curves[empty, 0] = float("nan"), float("nan")
    blank = ~saliency.isfinite().flatten(1).all(dim=1) | (saliency == 0).flatten(1).all(dim=1)
    required = needs(resolve_scores(name)[name])
    if name == "random_model_ssim":  # it needs larger maps
        return saliency.repeat_interleave(2, 1).repeat_interleave(2, 2), other.repeat(1, 2, 2)
    if required <= {"mask", "suspect"}:
        return saliency, mask
    if required == {"forwards", "maps"}:
        return saliency, other, before, after
    if "forwards" in required:
        return (curves, blank) if name in ("insertion", "deletion") else (before, after, blank)
    return saliency, other


@pytest.fixture
def inputs_for() -> Callable[[str, Batch], tuple[Tensor, ...]]:
    """The maker of what a score's `update` takes: `inputs_for(name, (saliency, mask))`."""
    return inputs_of


@pytest.fixture(scope="session")
def quantus():
    """The library Quantus, where it is installed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("quantus")
