"""Seeded batches that the tests of the scores share."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

Batch = tuple[Tensor, Tensor]


def _make_batch(n: int = 7, height: int = 9, width: int = 8, seed: int = 0) -> Batch:
    """Random maps without ties, and masks that are neither empty nor full."""
    generator = torch.Generator().manual_seed(seed)
    saliency = torch.rand(n, height, width, generator=generator)
    mask = torch.rand(n, height, width, generator=generator) < 0.3
    mask[:, 0, 0], mask[:, -1, -1] = True, False
    return saliency, mask


@pytest.fixture
def make_batch() -> Callable[..., Batch]:
    """The maker of seeded batches: `make_batch(n, height, width, seed)`."""
    return _make_batch


@pytest.fixture
def batch() -> Batch:
    """Seven samples that all count."""
    return _make_batch()


@pytest.fixture
def gaps() -> Batch:
    """Seven samples of which 1 (blank), 2 (empty mask), 4 (NaN) and 5 (infinite) cannot be localized."""
    saliency, mask = _make_batch()
    saliency[1] = 0
    mask[2] = False
    saliency[4, 3, 3] = float("nan")
    saliency[5, 0, 0] = float("inf")
    return saliency, mask
