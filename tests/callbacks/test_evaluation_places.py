"""Each sample counts once, however many processes there are, and whatever deals the samples to them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightning_fabric.utilities.distributed import DistributedSamplerWrapper
from pytorch_lightning.overrides.distributed import UnrepeatedDistributedSampler
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler, SequentialSampler, TensorDataset

from lightning_gcam import SaliencyBatch
from lightning_gcam.callbacks.places import Places, checksum, digests_of


class Alone:
    """As much of a Trainer as a dataloader without a sampler of several processes needs."""

    global_rank, world_size = 0, 1


def counted(loaders: list[DataLoader[Any]]) -> list[tuple[int, int]]:
    """The position and the number of each sample that counts, over all processes."""
    found = []
    for loader in loaders:
        places = Places.of(Alone(), loader)  # type: ignore[arg-type]
        for (numbers,) in loader:
            positions = places.take(len(numbers))
            keep = places.counts(positions)
            found += list(
                zip(positions[keep].tolist(), numbers[torch.from_numpy(keep)].tolist(), strict=True)
            )
    return sorted(found)


@given(n=st.integers(1, 13), world=st.integers(1, 4), batch_size=st.integers(1, 5), shuffle=st.booleans())
def test_all_samples_once(n: int, world: int, batch_size: int, shuffle: bool) -> None:
    data = TensorDataset(torch.arange(n))
    for kind in (DistributedSampler, DistributedSamplerWrapper, UnrepeatedDistributedSampler):
        if kind is UnrepeatedDistributedSampler and n < world:
            continue  # it refuses a process without a sample
        source = SequentialSampler(data) if kind is DistributedSamplerWrapper else data
        samplers = [kind(source, num_replicas=world, rank=rank, shuffle=shuffle) for rank in range(world)]
        plain = [DataLoader(data, batch_size, sampler=sampler) for sampler in samplers]
        batched = [DataLoader(data, batch_sampler=BatchSampler(each, batch_size, False)) for each in samplers]
        for loaders in (plain, batched):
            found = counted(loaders)
            assert [position for position, _ in found] == list(range(n))
            assert sorted(number for _, number in found) == list(range(n))


def test_without_processes_the_positions_are_the_order() -> None:
    loader = DataLoader(TensorDataset(torch.arange(7) + 10), 3)
    assert counted([loader]) == [(row, row + 10) for row in range(7)]


def batch(**fields: Any) -> SaliencyBatch:
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(3, 1, 4, 4, generator=generator)
    masks = torch.zeros(3, 4, 4, dtype=torch.bool)
    masks[:, 1] = True
    return SaliencyBatch(**{"images": images, "labels": torch.arange(3), "masks": masks, **fields})


def test_a_digest_is_of_one_sample_whatever_stands_beside_it() -> None:
    whole = digests_of(batch())
    assert len(set(whole.tolist())) == 3
    assert np.array_equal(digests_of(batch().select([2, 0])), whole[[2, 0]])
    assert np.array_equal(digests_of(batch()), whole)


@pytest.mark.parametrize("field", ["images", "labels", "masks", "suspect", "groups"])
def test_a_digest_tells_of_each_change(field: str) -> None:
    given: dict[str, Any] = {
        "suspect": torch.zeros(3, 4, 4, dtype=torch.bool),
        "groups": torch.zeros(3).long(),
    }
    before = batch(**given)
    changed = {**given, field: getattr(before, field).clone()}
    changed[field][1] = ~changed[field][1] if changed[field].dtype == torch.bool else changed[field][1] + 1
    same = digests_of(batch(**changed)) == digests_of(before)
    assert same.tolist() == [True, False, True]


def test_a_checksum_tells_of_each_weight() -> None:
    state = {"w": torch.zeros(2, 2), "n": torch.tensor(3), "none": torch.zeros(0), "extra": object()}
    first = checksum(state)
    assert checksum({**state, "extra": object()}) == first
    for name, other in (("w", torch.full((2, 2), -0.0)), ("n", torch.tensor(4)), ("none", torch.zeros(0, 2))):
        assert checksum({**state, name: other}) != first
