"""Each sample counts once, however many processes there are, and whatever deals the samples to them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightning_fabric.utilities.distributed import DistributedSamplerWrapper
from pytorch_lightning.overrides.distributed import UnrepeatedDistributedSampler
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler, SequentialSampler, TensorDataset

from lightning_gcam import SaliencyBatch, SaliencyEvaluation
from lightning_gcam.callbacks.evaluation_table import _Share, _warn_of_own_data
from lightning_gcam.callbacks.positions import StreamPositions, checksum, digests_of
from tests.support.toys import Toy, toy_samples, toy_trainer


class Alone:
    """As much of a Trainer as a dataloader without a sampler of several processes needs."""

    global_rank, world_size = 0, 1


def counted(loaders: list[DataLoader[Any]]) -> list[tuple[int, int]]:
    """The position and the number of each sample that counts, over all processes."""
    found = []
    for loader in loaders:
        places = StreamPositions.of(Alone(), loader)  # type: ignore[arg-type]
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


# --------------------------------------------------------------------------------- failures, and batch samplers


class Uneven:
    """Batches of sizes of its own, of samples in an order of its own; it has neither a sampler nor a batch size."""

    def __init__(self, *batches: list[int]) -> None:
        self.batches = batches

    def __iter__(self) -> Any:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


def loader_of(how: str) -> DataLoader[Any]:
    """21 samples in batches of four, or of several sizes."""
    data = TensorDataset(*toy_samples(21))
    if how == "batch_size":
        return DataLoader(data, batch_size=4)
    if how == "batch_sampler":
        return DataLoader(data, batch_sampler=BatchSampler(SequentialSampler(data), 4, drop_last=False))
    order = [*range(20, -1, -1)]
    return DataLoader(data, batch_sampler=Uneven(order[:4], order[4:7], order[7:15], order[15:]))  # type: ignore[arg-type]


SIZES = {"batch_size": [4] * 5 + [1], "batch_sampler": [4] * 5 + [1], "uneven": [4, 3, 8, 6]}


@pytest.mark.filterwarnings("ignore:.*the test goes on without it")
@pytest.mark.filterwarnings("ignore:.* samples could not be evaluated")
@pytest.mark.parametrize("where", ["reading", "noting", "measuring"])
@pytest.mark.parametrize("how", SIZES)
def test_a_batch_that_fails_costs_its_own_samples_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, where: str
) -> None:
    """The second and the last batch: neither moves the positions of others, and each sample is counted once."""
    from lightning_gcam.callbacks import evaluation_runner as stream

    broken, seen = {1, len(SIZES[how]) - 1}, [-1]
    taken: list[list[int]] = []

    def fails(name: str) -> bool:
        return name == where and seen[0] in broken

    def adapter(batch: Any) -> Any:
        seen[0] += 1
        if fails("reading"):
            raise OSError("cannot be read")
        return batch

    real_digests, real_measure = stream.digests_of, stream.BatchEvaluator.measure

    def digests(samples: SaliencyBatch) -> Any:
        if fails("noting"):
            raise OSError("cannot be noted")
        return real_digests(samples)

    def measure(self: Any, samples: SaliencyBatch, *arguments: Any) -> Any:
        if fails("measuring"):
            raise OSError("cannot be measured")
        return real_measure(self, samples, *arguments)

    real_take = StreamPositions.take

    def take(self: StreamPositions, n: int) -> Any:
        found = real_take(self, n)
        taken.append(found.tolist())
        return found

    monkeypatch.setattr(stream, "digests_of", digests)
    monkeypatch.setattr(stream.BatchEvaluator, "measure", measure)
    monkeypatch.setattr(StreamPositions, "take", take)
    evaluation = SaliencyEvaluation(
        scores=["energy"],
        resamples=20,
        directory=tmp_path,
        adapter=adapter,
        target_layer="network.2",
        baselines=False,
    )

    toy_trainer(tmp_path, evaluation).test(Toy(), loader_of(how), verbose=False)

    lost = sum(SIZES[how][number] for number in broken)
    assert evaluation.result.facts.failed == lost
    assert evaluation.result.facts.samples == 21 - lost
    assert [len(each) for each in taken] == SIZES[how]
    assert [position for each in taken for position in each] == list(range(21))

    broken.clear()
    again = SaliencyEvaluation(
        scores=["energy"],
        resamples=20,
        directory=tmp_path,
        adapter=adapter,
        target_layer="network.2",
        baselines=False,
    )
    toy_trainer(tmp_path, again).test(Toy(), loader_of(how), verbose=False)
    assert (again.result.facts.failed, again.result.facts.samples) == (0, 21)


def test_a_loader_in_order_that_every_process_has_whole_is_shared() -> None:
    """Without a sampler for several processes each is handed everything, and counts its part."""
    loader = DataLoader(TensorDataset(torch.arange(7)), 3)
    found = []
    for rank in range(2):
        trainer = Alone()
        trainer.global_rank, trainer.world_size = rank, 2
        places = StreamPositions.of(trainer, loader)  # type: ignore[arg-type]
        for (numbers,) in loader:
            positions = places.take(len(numbers))
            keep = places.counts(positions)
            found += list(
                zip(positions[keep].tolist(), numbers[torch.from_numpy(keep)].tolist(), strict=True)
            )
        assert places.reached == 7
    assert sorted(found) == [(row, row) for row in range(7)]


def test_a_batch_sampler_of_ones_own_is_taken_to_deal_them_out() -> None:
    loader = DataLoader(TensorDataset(torch.arange(4)), batch_sampler=Uneven([0, 1], [2, 3]))  # type: ignore[arg-type]
    trainer = Alone()
    trainer.global_rank, trainer.world_size = 1, 2

    places = StreamPositions.of(trainer, loader)  # type: ignore[arg-type]

    assert places.take(2).tolist() == [1, 3]
    assert places.counts(np.array([1, 3])).all()


@pytest.mark.parametrize(("firsts", "told"), [((7, 7), False), ((7, 8), True), ((7, None), False)])
def test_processes_with_data_of_their_own_are_told_what_is_left_out(
    firsts: tuple[int | None, ...], told: bool, recwarn: pytest.WarningsRecorder
) -> None:
    """A loader in order is taken to hand all samples to every process, of which each counts its share."""
    nothing = np.zeros(0, dtype=np.int64)
    _warn_of_own_data([_Share(nothing, [], [], 0.0, 0.0, 0, 0, [], first) for first in firsts])

    assert ["counted one in 2 of the samples" in str(each.message) for each in recwarn] == [True] * told
