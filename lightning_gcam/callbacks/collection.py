"""Collect the fixed samples from the batches that Lightning delivers, and see whether they are still the same later."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lightning_gcam._lightning import Trainer, rank_zero_info
from lightning_gcam.batch import Adapter, SaliencyBatch, as_saliency_batch
from lightning_gcam.callbacks.loaders import check_index, delivered_by, loaders_of, number_of
from lightning_gcam.callbacks.processes import pool_candidates
from lightning_gcam.fixed_batch import FixedBatch, Selection


@dataclass(frozen=True)
class Taken:
    """The samples of a batch, and what they were read from; None for samples given by hand."""

    samples: SaliencyBatch
    part: Any


class Collection:
    """The way of the fixed samples from a stream of batches into a `FixedBatch`.

    Args:
        num_samples: as in `FixedBatch`.
        selection: as in `FixedBatch`.
        batch: the samples given by hand; then nothing is collected.
        adapter: as in `as_saliency_batch`.
        class_names: as in `as_saliency_batch`.
        dataloader_idx: where there are several dataloaders, the one that the samples come from.
    """

    def __init__(
        self,
        num_samples: int,
        selection: Selection,
        batch: Any | None,
        adapter: Adapter | None,
        class_names: Sequence[str] | None = None,
        dataloader_idx: int = 0,
    ) -> None:
        self.adapter = adapter
        self.class_names = class_names
        self.dataloader_idx = dataloader_idx
        self.by_hand = batch is not None
        self.fixed = FixedBatch(num_samples, selection) if batch is None else FixedBatch.of(self.read(batch))
        self._delivered = 0
        self._to_verify = False
        self._has_said_which = False
        self._has_said_it_waits = False
        self._is_there = True

    @property
    def is_open(self) -> bool:
        """Whether batches are still of interest: to choose from, or to compare with the samples of a checkpoint."""
        return not self.fixed.is_closed or self._to_verify

    def begin(self, trainer: Trainer) -> None:
        """A new stream begins; what the sanity check delivered comes again.

        Raises:
            InputError: where the chosen dataloader is not there.
        """
        self.choose_loader(trainer)
        self._delivered = 0
        if not self.fixed.is_closed:
            self.fixed.reset()

    def choose_loader(self, trainer: Trainer) -> None:
        """Say which of several dataloaders it is, once.

        Raises:
            InputError: where the chosen dataloader is not there, and the dataloaders are not reloaded between epochs.
        """
        loaders, kind = loaders_of(trainer), "test" if trainer.testing else "validation"
        if not self.is_open or loaders is None:
            return
        count = number_of(loaders)
        self._is_there = self.dataloader_idx < count
        if not self._is_there:
            if not trainer.reload_dataloaders_every_n_epochs:
                check_index(self.dataloader_idx, loaders, kind)
            self._say_it_is_waited_for(count)
        elif count > 1 and not self._has_said_which:
            self._has_said_which = True
            rank_zero_info(
                f"SaliencyMonitor: of {count} {kind} dataloaders, the samples come from number {self.dataloader_idx} "
                "(counted from 0). `dataloader_idx=` chooses another."
            )

    def _say_it_is_waited_for(self, count: int) -> None:
        if not self._has_said_it_waits:
            self._has_said_it_waits = True
            rank_zero_info(
                f"SaliencyMonitor: `dataloader_idx` is {self.dataloader_idx}, and there are {count} validation dataloaders "
                "so far (counted from 0). They are reloaded between epochs: the looks begin when it is there."
            )

    def take(self, trainer: Trainer, batch: Any, batch_idx: int, dataloader_idx: int | None) -> Taken | None:
        """The samples of a batch, or those given by hand; None where the batch holds nothing of the chosen dataloader.

        Args:
            trainer: knows the dataloaders.
            batch: of one dataloader, or of all at once.
            batch_idx: as Lightning gives it.
            dataloader_idx: as Lightning gives it; None where there is one, or all deliver at once.

        Raises:
            InputError: as `as_saliency_batch`.
        """
        if self.by_hand:
            return Taken(self.fixed.samples, None)
        batch = delivered_by(trainer, batch, batch_idx, dataloader_idx, self.dataloader_idx)
        return Taken(self.read(batch), batch) if batch is not None else None

    def receive(self, samples: SaliencyBatch, trainer: Trainer) -> int | None:
        """Take the next batch of this process.

        Returns:
            The position of the first sample that is another one than in the checkpoint, told once; else None.
        """
        if not self.fixed.is_closed:
            self.fixed.offer(samples)
            return None
        start, self._delivered = self._delivered, self._delivered + len(samples)
        if not self._to_verify:
            return None
        changed = self.fixed.first_difference(samples, start, trainer.global_rank, trainer.world_size)
        self._to_verify = changed is None
        return changed

    def verify_next(self) -> None:
        """Compare the samples that were collected before with the next stream."""
        self._to_verify = bool(self.fixed.positions)

    def end(self, trainer: Trainer) -> int | None:
        """The stream has ended: settle the samples, the same in every process.

        Returns:
            The position of a kept sample that was not delivered any more; else None.

        Raises:
            InputError: where no usable sample was delivered.
        """
        if not self._is_there:
            return None
        verified, self._to_verify = self._to_verify, False
        if not self.fixed.is_closed:
            self.fixed.close(pool_candidates(trainer, self.fixed))
            return None
        beyond = self._delivered * trainer.world_size
        return next((each for each in self.fixed.positions if verified and each >= beyond), None)

    def read(self, batch: Any) -> SaliencyBatch:
        """A batch as the dataloader delivers it.

        Raises:
            InputError: as `as_saliency_batch`.
        """
        return as_saliency_batch(batch, self.adapter, self.class_names)

    def read_or_none(self, batch: Any) -> SaliencyBatch | None:
        """A training batch may have a layout of its own (two crops, mixed images); then the validation decides."""
        try:
            return self.read(batch)
        except Exception:
            return None

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The samples of a checkpoint, to be compared with the next stream; samples given by hand stay."""
        if state and not self.by_hand:
            self.fixed.load_state_dict(state)
            self.verify_next()
