"""Collect the fixed samples from the batches that Lightning delivers, and see whether they are still the same later."""

from __future__ import annotations

from typing import Any

from lightning_gcam._lightning import Trainer
from lightning_gcam.batch import Adapter, SaliencyBatch, as_saliency_batch
from lightning_gcam.callbacks.processes import pool_candidates
from lightning_gcam.fixed_batch import FixedBatch, Selection


class Collection:
    """The way of the fixed samples from a stream of batches into a `FixedBatch`.

    Args:
        num_samples: as in `FixedBatch`.
        selection: as in `FixedBatch`.
        batch: the samples given by hand; then nothing is collected.
        adapter: as in `as_saliency_batch`.
    """

    def __init__(
        self, num_samples: int, selection: Selection, batch: Any | None, adapter: Adapter | None
    ) -> None:
        self.adapter = adapter
        self.by_hand = batch is not None
        self.fixed = (
            FixedBatch(num_samples, selection)
            if batch is None
            else FixedBatch.of(as_saliency_batch(batch, adapter))
        )
        self._delivered = 0
        self._to_verify = False

    @property
    def is_open(self) -> bool:
        """Whether batches are still of interest: to choose from, or to compare with the samples of a checkpoint."""
        return not self.fixed.is_closed or self._to_verify

    def begin(self) -> None:
        """A new stream begins; what the sanity check delivered comes again."""
        self._delivered = 0
        if not self.fixed.is_closed:
            self.fixed.reset()

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
        verified, self._to_verify = self._to_verify, False
        if not self.fixed.is_closed:
            self.fixed.close(pool_candidates(trainer, self.fixed))
            return None
        beyond = self._delivered * trainer.world_size
        return next((each for each in self.fixed.positions if verified and each >= beyond), None)

    def read_or_none(self, batch: Any) -> SaliencyBatch | None:
        """A training batch may have a layout of its own (two crops, mixed images); then the validation decides."""
        try:
            return as_saliency_batch(batch, self.adapter)
        except Exception:
            return None

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The samples of a checkpoint, to be compared with the next stream; samples given by hand stay."""
        if state and not self.by_hand:
            self.fixed.load_state_dict(state)
            self.verify_next()
