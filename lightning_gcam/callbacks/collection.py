"""Collect the fixed samples from the batches that Lightning delivers, and see whether they are still the same later."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lightning_gcam._lightning import Trainer, rank_zero_info
from lightning_gcam.batch import Adapter, SaliencyBatch, as_saliency_batch
from lightning_gcam.callbacks.loaders import check_index, delivered_by, loaders_of, number_of, part_of
from lightning_gcam.callbacks.places import Places
from lightning_gcam.callbacks.processes import agreed, pool_candidates, together
from lightning_gcam.fixed_batch import FixedBatch, Selection

_A_SECOND_TIME = -1


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
        self._wanted = num_samples, selection
        self.fixed = FixedBatch(*self._wanted) if batch is None else FixedBatch.of(self.read(batch))
        self._former: FixedBatch | None = None
        self.has_others = False
        """Whether the stream that has just ended lacked samples of the last run, so that others were chosen."""
        self._found: set[int] = set()
        self._places = Places()
        self._to_verify = False
        self._is_there = True
        self._said: set[str] = set()

    def begin_run(self) -> None:
        """Another run begins: what was said before is said again."""
        self._said = set()

    def collect_anew(self) -> None:
        """Choose anew, as the next validation may be another one: samples that it delivers again stay, if all do."""
        if self.fixed.is_closed and not self.by_hand:
            self._former, self.fixed = self.fixed, FixedBatch(*self._wanted)
            self._to_verify = False

    @property
    def is_open(self) -> bool:
        """Whether batches are still of interest: to choose from, or to compare with the samples of a checkpoint."""
        return not self.fixed.is_closed or self._to_verify

    def begin(self, trainer: Trainer) -> None:
        """A new stream begins; what the sanity check delivered comes again.

        Raises:
            InputError: where the chosen dataloader is not there.
        """
        self._places, self._found = Places(trainer.global_rank, trainer.world_size), set()
        if not self.fixed.is_closed:
            self.fixed.reset()
        self.choose_loader(trainer)
        self._places = Places.of(trainer, self._loader(trainer))

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
            if not trainer.reload_dataloaders_every_n_epochs:  # type: ignore[attr-defined]
                check_index(self.dataloader_idx, loaders, kind)
            self._say_once(
                f"SaliencyMonitor: `dataloader_idx` is {self.dataloader_idx}, and there are {count} {kind} dataloaders "
                "so far (counted from 0). They are reloaded between epochs: the looks begin when it is there."
            )
        elif count > 1:
            self._say_once(
                f"SaliencyMonitor: of {count} {kind} dataloaders, the samples come from number {self.dataloader_idx} "
                "(counted from 0). `dataloader_idx=` chooses another."
            )

    def _loader(self, trainer: Trainer) -> Any:
        loaders = loaders_of(trainer)
        return part_of(loaders, 0, self.dataloader_idx, loaders)

    def _say_once(self, message: str) -> None:
        if message not in self._said:
            self._said.add(message)
            rank_zero_info(message)

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

    def receive(self, samples: SaliencyBatch) -> int | None:
        """Take the next batch of this process.

        Returns:
            The position of the first sample that is another one than in the checkpoint, told once; else None.
        """
        positions = self._places.take(len(samples))
        positions[~self._places.counts(positions)] = _A_SECOND_TIME
        if not self.fixed.is_closed:
            self.fixed.offer(samples, positions.tolist())
            if self._former is not None:
                self._found |= self._former.found_in(samples)
            return None
        if not self._to_verify:
            return None
        changed = self.fixed.first_difference(samples, positions.tolist())
        self._to_verify = changed is None
        return changed

    def verify_next(self) -> None:
        """Compare the samples that were collected before with the next stream."""
        self._to_verify = bool(self.fixed.positions)

    def end(self, trainer: Trainer) -> int | Exception | None:
        """The stream has ended: settle the samples, the same in every process.

        Call it outside of every guard: all processes have to reach what they exchange here.

        Returns:
            The position of a kept sample that was not delivered any more, else None; in every process the exception
            where one of them failed, an InputError where no usable sample was delivered.
        """
        self.has_others = False
        if not self._is_there:
            return None
        if not self.fixed.is_closed:
            return self._settle(trainer)
        verified, self._to_verify = self._to_verify, False
        beyond = self._places.reached
        return next((each for each in self.fixed.positions if verified and each >= beyond), None)

    def _settle(self, trainer: Trainer) -> Exception | None:
        offered = pool_candidates(trainer, self.fixed)
        if isinstance(offered, Exception):
            return offered
        found = agreed(trainer, lambda: self._found)
        if isinstance(found, Exception):
            return found
        chosen = FixedBatch(*self._wanted)
        chosen.largest_batch = self.fixed.largest_batch
        settled = together(trainer, lambda: chosen.close(offered))
        former, self._former = self._former, None
        if former is not None and len(set().union(*found)) == len(former.samples):
            self.fixed = former
        elif isinstance(settled, Exception):
            self._former = former
            return settled
        else:
            self.fixed, self.has_others = chosen, former is not None
        return None

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

    def is_another(self, state: dict[str, Any]) -> bool:
        """Whether a checkpoint holds other samples than those that were given by hand."""
        if not (state and self.by_hand):
            return False
        return not self.fixed.holds(SaliencyBatch(**state["samples"]).to(self.fixed.samples.images.device))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The samples of a checkpoint, to be compared with the next stream; samples given by hand stay."""
        if state and not self.by_hand:
            self.fixed, self._former = FixedBatch(*self._wanted), None
            self.fixed.load_state_dict(state)
            self.verify_next()
