"""Several processes look alike: they share the samples they found, and go on only where all of them can."""

from __future__ import annotations

from typing import Any

import torch.distributed

from lightning_gcam._lightning import Trainer
from lightning_gcam.batch import SaliencyBatch
from lightning_gcam.fixed_batch import FixedBatch, Sample
from lightning_gcam.record import SaliencyRecord


def gather(trainer: Trainer, fixed: FixedBatch) -> list[Sample]:
    """The samples that every process would keep, the same list in all of them."""
    own = fixed.candidates(trainer.global_rank, trainer.world_size)
    if trainer.world_size == 1:
        return own
    packed = [(sample.position, sample.group, sample.batch.state_dict()) for sample in own]
    everyone: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(everyone, packed)
    device = trainer.strategy.root_device
    return [
        Sample(position, group, SaliencyBatch(**state).to(device))
        for process in everyone
        for position, group, state in process
    ]


def agree(trainer: Trainer, record: SaliencyRecord | None) -> SaliencyRecord | None:
    """This process's record with rank zero's scores, or None in all processes where one of them has none.

    What is logged must be equal everywhere: `EarlyStopping` on a score that differs between ranks would stop some.
    """
    if trainer.world_size == 1:
        return record
    if not trainer.strategy.reduce_boolean_decision(record is not None) or record is None:
        return None
    scores = trainer.strategy.broadcast(record.scores)
    record.scores.clear()
    record.scores.update(scores)
    return record
