"""Which sample of the dataset each one is that a process is handed, so that none is counted twice."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DistributedSampler

from lightning_gcam._lightning import Trainer
from lightning_gcam.batch import SaliencyBatch

Numbers = npt.NDArray[np.int64]


@dataclass
class Places:
    """The positions of the samples that one process is handed, one batch after the other.

    Several processes are dealt the samples in turn. So that all are handed as many, `DistributedSampler` deals some of
    them a second time at the end: their positions lie behind the last.

    Args:
        rank: of this process among those that the samples are dealt to.
        processes: how many these are.
        last: how many samples there are; None where that is not known, and none is dealt twice.
    """

    rank: int = 0
    processes: int = 1
    last: int | None = None
    delivered: int = 0

    @staticmethod
    def of(trainer: Trainer, loader: Any) -> Places:
        """Those of a dataloader, from its start."""
        sampler = getattr(getattr(loader, "batch_sampler", None), "sampler", None)
        sampler = sampler if sampler is not None else getattr(loader, "sampler", None)
        if isinstance(sampler, DistributedSampler):
            return Places(sampler.rank, sampler.num_replicas, len(sampler.dataset))  # type: ignore[arg-type]
        return Places(trainer.global_rank, trainer.world_size)

    def take(self, n: int) -> Numbers:
        """The positions of the next n samples.

        Example:
            >>> places = Places(rank=1, processes=2, last=5)
            >>> places.take(2), places.take(1)
            (array([1, 3]), array([5]))
        """
        own = np.arange(self.delivered, self.delivered + n, dtype=np.int64)
        self.delivered += n
        found: Numbers = own * self.processes + self.rank
        return found

    def counts(self, positions: Numbers) -> npt.NDArray[np.bool_]:
        """Which of them are not a second time of another.

        Example:
            >>> Places(rank=1, processes=2, last=5).counts(np.array([3, 5]))
            array([ True, False])
        """
        return positions >= 0 if self.last is None else positions < self.last


def digests_of(batch: SaliencyBatch) -> Numbers:
    """A number `(N,)` for each sample, the same where its image and its annotation are, bit by bit."""
    fields = [batch.images, batch.labels, batch.object_masks, batch.groups]
    if batch.suspect is not None:
        fields.append(batch.suspect.expand(len(batch), -1, -1))
    there = [_bytes(field) for field in fields if field is not None]
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


def _digest(pieces: list[npt.NDArray[np.uint8]]) -> int:
    state = hashlib.blake2b(digest_size=8)
    for piece in pieces:
        state.update(np.ascontiguousarray(piece).data)
    return int.from_bytes(state.digest(), "little", signed=True)
