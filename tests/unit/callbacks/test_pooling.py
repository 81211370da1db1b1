"""What one process would keep arrives in the others whole."""

from __future__ import annotations

import torch

from lightning_gcam import SaliencyBatch
from lightning_gcam.callbacks.distributed import _packed, _unpacked
from lightning_gcam.data.fixed_samples import Candidates, FixedBatch


def candidates(labels: list[int], positions: list[int]) -> Candidates:
    fixed = FixedBatch(1)
    images = torch.tensor(positions).float().reshape(-1, 1, 1, 1)
    fixed.offer(SaliencyBatch(images, labels=torch.tensor(labels)), positions)
    return fixed.candidates()


def test_all_that_is_known_of_the_candidates_is_pooled() -> None:
    first, second = candidates([0, 7, -1], [0, 2, 4]), candidates([3, 1], [1, 3])

    pooled = _unpacked([_packed(first), _packed(second)], torch.device("cpu"))

    assert [(each.position, each.group) for each in pooled.samples] == [(0, 0), (1, 3)]
    assert [each.batch.images.item() for each in pooled.samples] == [0, 1]
    assert pooled.delivered == {(1, 1, 1): 4}
    assert (pooled.unlabelled, pooled.largest_label) == (1, 7)
