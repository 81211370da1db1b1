"""Seeded batches and fixtures that the tests of the scores share."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lightning_gcam.metrics import needs, resolve_scores

Batch = tuple[Tensor, Tensor]


def seeded_batch(n: int = 7, size: tuple[int, ...] = (9, 8), seed: int = 0) -> Batch:
    """Random maps without ties, and masks that are neither empty nor full."""
    generator = torch.Generator().manual_seed(seed)
    saliency = torch.rand(n, *size, generator=generator)
    mask = torch.rand(n, *size, generator=generator) < 0.3
    pixels = mask.flatten(1)
    pixels[:, 0], pixels[:, -1] = True, False
    return saliency, mask


def batch_with_gaps(size: tuple[int, ...] = (9, 8)) -> Batch:
    """Seven samples of which 1 (blank), 2 (empty mask), 4 (NaN) and 5 (infinite) cannot be localized."""
    saliency, mask = seeded_batch(size=size)
    saliency[1] = 0
    mask[2] = False
    pixels = saliency.flatten(1)
    pixels[4, pixels.shape[1] // 3], pixels[5, 0] = float("nan"), float("inf")
    return saliency, mask


@pytest.fixture
def make_batch() -> Callable[..., Batch]:
    """The maker of seeded batches: `make_batch(n, size, seed)`."""
    return seeded_batch


@pytest.fixture
def batch() -> Batch:
    """Seven samples that all count."""
    return seeded_batch()


@pytest.fixture
def gaps() -> Batch:
    """Seven samples of which 1 (blank), 2 (empty mask), 4 (NaN) and 5 (infinite) cannot be localized."""
    return batch_with_gaps()


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
        for axis in range(1, saliency.ndim):
            saliency = saliency.repeat_interleave(2, axis)
        return saliency, other.repeat(1, *[2] * (other.ndim - 1))
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
