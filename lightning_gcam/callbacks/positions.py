"""The position in the dataset of each sample that a process receives, so that none is counted twice."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass, is_dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DistributedSampler, SequentialSampler

from lightning_gcam.data import SaliencyBatch
from lightning_gcam.utils.lightning_compat import Trainer

Numbers = npt.NDArray[np.int64]


@dataclass
class StreamPositions:
    """The positions of the samples that one process receives, one batch after the other.

    Several processes are dealt the samples in turn. So that all are handed as many, `DistributedSampler` deals some of
    them a second time at the end: their positions lie behind the last. Without it (`use_distributed_sampler=False`),
    a loader that goes through its dataset in order hands all of it to every process: each counts its share of it.

    Args:
        rank: of this process among those that the samples are dealt to.
        processes: how many these are.
        last: how many samples there are; None where that is not known, and none is dealt twice.
        delivered: how many samples this process was handed so far.
        all_to_each: whether every process is handed every sample.
    """

    rank: int = 0
    processes: int = 1
    last: int | None = None
    delivered: int = 0
    all_to_each: bool = False

    @staticmethod
    def of(trainer: Trainer, loader: Any) -> StreamPositions:
        """The positions of a dataloader's samples, from its start."""
        batch_sampler = getattr(loader, "batch_sampler", None)
        sampler = getattr(batch_sampler if batch_sampler is not None else loader, "sampler", None)
        if isinstance(sampler, DistributedSampler):
            return StreamPositions(sampler.rank, sampler.num_replicas, len(sampler.dataset))  # type: ignore[arg-type]
        in_order = type(sampler) is SequentialSampler and type(batch_sampler) in (BatchSampler, type(None))
        return StreamPositions(trainer.global_rank, trainer.world_size, all_to_each=in_order)

    def size_of(self, batch: Any, loader: Any) -> int:
        """The number of samples of a batch that could not be read, so that later ones keep their positions.

        Args:
            batch: as the dataloader delivered it.
            loader: the dataloader; one that makes batches of one size determines how many are left for the last.
        """
        batch_sampler = getattr(loader, "batch_sampler", None)
        size = getattr(loader, "batch_size", None)
        if size is None and type(batch_sampler) is BatchSampler:
            size = batch_sampler.batch_size
        if size is None:
            return _commonest(_lengths(batch)) or getattr(batch_sampler, "batch_size", None) or 1
        sampler = getattr(batch_sampler, "sampler", None)
        left = len(sampler) - self.delivered if isinstance(sampler, Sized) else size
        return min(size, left) if left > 0 else int(size)

    def take(self, n: int) -> Numbers:
        """The positions of the next n samples.

        Example:
            >>> positions = StreamPositions(rank=1, processes=2, last=5)
            >>> positions.take(2), positions.take(1)
            (array([1, 3]), array([5]))
        """
        own = np.arange(self.delivered, self.delivered + n, dtype=np.int64)
        self.delivered += n
        found: Numbers = own if self.all_to_each else own * self.processes + self.rank
        return found

    @property
    def reached(self) -> int:
        """The number of samples that all processes together received, computed from this process's count."""
        return self.delivered if self.all_to_each else self.delivered * self.processes

    def counts(self, positions: Numbers) -> npt.NDArray[np.bool_]:
        """Whether each position counts in this process, and is no repetition.

        Example:
            >>> StreamPositions(rank=1, processes=2, last=5).counts(np.array([3, 5]))
            array([ True, False])
        """
        if self.all_to_each:
            mine: npt.NDArray[np.bool_] = positions % self.processes == self.rank
            return mine
        return positions >= 0 if self.last is None else positions < self.last


def num_samples_in(batch: Any) -> int:
    """The number of samples of a batch: of its images, else as most of its parts have it; 1 where nothing shows it.

    Example:
        >>> num_samples_in({"image": torch.zeros(8, 3, 4, 4), "boxes": [torch.zeros(1, 4)] * 8, "size": (4, 4)})
        8
        >>> num_samples_in(([torch.zeros(3, 4, 4), torch.zeros(3, 5, 6)], [{"labels": torch.zeros(7)}] * 2))
        2
    """
    return _num_images(batch) or _commonest(_lengths(batch)) or 1


_MOST_CHANNELS = 4
"""Arrays of three dimensions with a longer first one are whole batches, and no single images."""


def _num_images(part: Any) -> int:
    """The number of images in a part of a batch: in an array of three dimensions at least, or in a list of images."""
    if isinstance(part, (Tensor, np.ndarray)):
        return len(part) if part.ndim >= 3 else 0
    if isinstance(part, Mapping):
        return next(filter(None, map(_num_images, part.values())), 0)
    if isinstance(part, (list, tuple)):
        shapes = [tuple(each.shape) for each in part if isinstance(each, (Tensor, np.ndarray))]
        are_images = all(len(shape) == 3 and shape[0] <= _MOST_CHANNELS for shape in shapes)
        if shapes and len(shapes) == len(part) and are_images:
            return len(part)
        return next(filter(None, map(_num_images, part)), 0)
    return _num_images(list(vars(part).values())) if is_dataclass(part) else 0


def _lengths(part: Any) -> Iterator[int]:
    """The first dimension of each array in a batch, and the length of each list of words or numbers."""
    if isinstance(part, (Tensor, np.ndarray)):
        if part.ndim:
            yield len(part)
    elif isinstance(part, Mapping):
        for each in part.values():
            yield from _lengths(each)
    elif isinstance(part, (list, tuple)):
        if all(isinstance(each, (str, int, float)) for each in part):
            yield len(part)
        else:
            for each in part:
                yield from _lengths(each)


def _commonest(numbers: Iterable[int]) -> int:
    """The number that comes most often, the first of several; 0 where there is none."""
    return next((number for number, _ in Counter(numbers).most_common(1)), 0)


def digests_of(batch: SaliencyBatch) -> Numbers:
    """A number `(N,)` for each sample, the same where its image, annotation and other inputs are, bit by bit."""
    fields = [batch.images, batch.labels, batch.object_masks, batch.groups, batch.suspect_masks]
    fields += [*(batch.head_labels or {}).values(), *(batch.inputs or {}).values()]
    there = [_bytes(field) for field in fields if isinstance(field, Tensor)]
    return np.array([_digest([field[row] for field in there]) for row in range(len(batch))], dtype=np.int64)


def checksum(tensors: Mapping[str, Any]) -> str:
    """A short text, the same where all tensors are, bit by bit; what is no tensor is passed over."""
    state = hashlib.blake2b(digest_size=8)
    for name, tensor in tensors.items():
        if isinstance(tensor, Tensor):
            state.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
            state.update(np.ascontiguousarray(_bytes(tensor[None])[0]).data)
    return state.hexdigest()


def _bytes(tensor: Tensor) -> npt.NDArray[np.uint8]:
    """`(N, bytes of each)`."""
    flat = tensor.detach().cpu().contiguous().reshape(len(tensor), tensor[0].numel())
    found: npt.NDArray[np.uint8] = flat.view(torch.uint8).numpy()
    return found


def _digest(chunks: list[npt.NDArray[np.uint8]]) -> int:
    state = hashlib.blake2b(digest_size=8)
    for chunk in chunks:
        state.update(np.ascontiguousarray(chunk).data)
    return int.from_bytes(state.digest(), "little", signed=True)
