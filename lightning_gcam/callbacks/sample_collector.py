"""The fixed samples collected from the batches that Lightning delivers."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from lightning_gcam.callbacks.distributed import gather_results, pool_candidates, run_in_all
from lightning_gcam.callbacks.positions import StreamPositions
from lightning_gcam.cam.calling import IntegerImagesError
from lightning_gcam.cam.invocation import Forward
from lightning_gcam.data import Adapter, SaliencyBatch, as_saliency_batch
from lightning_gcam.data.adapters import adapter_for
from lightning_gcam.data.fixed_samples import FixedBatch, Selection
from lightning_gcam.data.unreadable import LABELS_TWICE
from lightning_gcam.pipeline.labels import with_inputs_taken
from lightning_gcam.utils.errors import InputError
from lightning_gcam.utils.lightning_compat import Trainer, rank_zero_info


def loaders_of(trainer: Trainer) -> Any:
    """The dataloaders of the loop that runs: one, or a list, tuple or dict of them, as the user gave them.

    `trainer.val_dataloaders` would still be those of the fit in a `trainer.validate` behind it.
    """
    combined = trainer._evaluation_loop._combined_loader
    return combined.iterables if combined is not None else None


def delivered_by(
    trainer: Trainer, batch: Any, batch_idx: int, dataloader_idx: int | None, index: int
) -> Any | None:
    """What the dataloader `index` delivered, of the arguments of a batch's hook; None where it delivered nothing.

    Args:
        trainer: holds the dataloaders.
        batch: of one dataloader, or of all at once.
        batch_idx: as Lightning gives it.
        dataloader_idx: as Lightning gives it; None where there is one, or all deliver at once.
        index: of the dataloader, counted from 0 in the order in which they are named.
    """
    if dataloader_idx is None and not trainer._evaluation_loop._is_sequential:
        return part_of(batch, batch_idx, index, loaders_of(trainer))
    return batch if (dataloader_idx or 0) == index else None


def steps_fetch_batches(trainer: Trainer) -> bool:
    """Whether the module's own step takes the batches out of a `dataloader_iter`.

    Then a hook before the step is called with the batch of the step before, and only the one behind it with its own.
    """
    return type(trainer._evaluation_loop._data_fetcher).__name__ == "_DataLoaderIterDataFetcher"


def number_of(loaders: Any) -> int:
    """How many dataloaders there are.

    Example:
        >>> number_of({"clean": range(3), "noisy": [range(3), range(4)]})
        3
    """
    return len(list(_pairs(loaders, loaders)))


def check_index(index: int, loaders: Any, kind: str = "validation") -> None:
    """Refuse the index of a dataloader that there is not.

    Raises:
        InputError: saying how many there are.
    """
    count = number_of(loaders)
    if index >= count:
        raise InputError(
            f"`dataloader_idx` is {index}, but there {'is' if count == 1 else 'are'} {count} {kind} "
            f"dataloader{'' if count == 1 else 's'}. Give a number from 0 to {count - 1}."
        )


def part_of(batch: Any, batch_idx: int, index: int, loaders: Any) -> Any | None:
    """What the dataloader `index` delivered, of a batch that holds a part of each; None where it has no more.

    Args:
        batch: as the combined dataloaders deliver it: in the structure of `loaders`.
        batch_idx: how many came before it; a shorter dataloader may begin again (the mode "max_size_cycle").
        index: of the dataloader, in the order in which they are named.
        loaders: the dataloaders.

    Example:
        >>> part_of({"clean": "a", "noisy": "b"}, 0, 1, {"clean": range(3), "noisy": range(3)})
        'b'
    """
    pairs = list(_pairs(loaders, batch))
    if index >= len(pairs):
        return None
    loader, part = pairs[index]
    has_ended = hasattr(loader, "__len__") and batch_idx >= _length(loader)
    return None if has_ended else part


def _pairs(loaders: Any, batch: Any) -> Iterator[tuple[Any, Any]]:
    """Each dataloader with its part of the batch."""
    if isinstance(loaders, Mapping):
        for key, loader in loaders.items():
            yield from _pairs(loader, batch[key])
    elif isinstance(loaders, (list, tuple, deque)):
        for loader, part in zip(loaders, batch, strict=True):
            yield from _pairs(loader, part)
    else:
        yield loaders, batch


def _length(loader: Any) -> float:
    """How many batches a dataloader has; unknown for one over an iterable dataset."""
    try:
        return len(loader)
    except TypeError:
        return float("inf")


@contextmanager
def integer_images_explained(batch: Any) -> Iterator[None]:
    """Run the body; where the module does not take whole-number images, raise with an adapter that converts them.

    Args:
        batch: what the images were read from; None where they were given by hand.

    Raises:
        InputError: with the code to copy.
    """
    try:
        yield
    except IntegerImagesError as error:
        code = "batch=SaliencyBatch(images.float() / 255)"
        if batch is not None:
            code = adapter_for(batch, "{images}.float() / 255")
        raise InputError(f"{error} In your `validation_step`? Then do the same in:\n    {code}") from error


_A_SECOND_TIME = -1


@dataclass(frozen=True)
class Taken:
    """The samples of a batch, and what they were read from; None for samples given by hand."""

    samples: SaliencyBatch
    part: Any


class SampleCollector:
    """Collect the fixed samples from a stream of batches into a `FixedBatch`.

    Args:
        num_samples: as in `FixedBatch`.
        selection: as in `FixedBatch`.
        batch: the samples given by hand; then nothing is collected.
        adapter: as in `as_saliency_batch`.
        class_names: as in `as_saliency_batch`.
        dataloader_idx: where there are several dataloaders, the one that the samples come from.
        forward: the user's way to call the model; what it takes beside the images is kept with the samples.
        on_unclear: called with the message where optional annotation could not be read, as in `as_saliency_batch`.
    """

    def __init__(
        self,
        num_samples: int,
        selection: Selection,
        batch: Any | None,
        adapter: Adapter | None,
        class_names: Sequence[str] | None = None,
        dataloader_idx: int = 0,
        forward: Forward | None = None,
        on_unclear: Callable[[str], None] | None = None,
    ) -> None:
        self.forward, self.on_unclear = forward, on_unclear
        self.adapter = adapter
        self.class_names = class_names
        self.dataloader_idx = dataloader_idx
        self.by_hand = batch is not None
        self._wanted = num_samples, selection
        self.fixed = FixedBatch(*self._wanted)
        if batch is not None:
            self.fixed = FixedBatch.of(as_saliency_batch(batch, adapter, class_names))
        self._former: FixedBatch | None = None
        self.has_others = False
        """Whether the stream that has just ended lacked samples of the last run, so that others were chosen."""
        self._found: set[int] = set()
        self._places = StreamPositions()
        self._to_verify = False
        self._is_there = True
        self._logged: set[str] = set()

    def begin_run(self) -> None:
        """Begin another run, in which every message may be logged again."""
        self._logged = set()

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
        """Begin a new stream; the sanity check's samples come again.

        Raises:
            InputError: where the chosen dataloader is not there.
        """
        self._places, self._found = StreamPositions(trainer.global_rank, trainer.world_size), set()
        if not self.fixed.is_closed:
            self.fixed.reset()
        self.choose_loader(trainer)
        self._places = StreamPositions.of(trainer, self._loader(trainer))

    def choose_loader(self, trainer: Trainer) -> None:
        """Log which of several dataloaders the samples come from, once.

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
            self._log_once(
                f"SaliencyMonitor: `dataloader_idx` is {self.dataloader_idx}, and there are {count} {kind} dataloaders "
                "so far (counted from 0). They are reloaded between epochs: the looks begin when it is there."
            )
        elif count > 1:
            self._log_once(
                f"SaliencyMonitor: of {count} {kind} dataloaders, the samples come from number {self.dataloader_idx} "
                "(counted from 0). `dataloader_idx=` chooses another."
            )

    def _loader(self, trainer: Trainer) -> Any:
        loaders = loaders_of(trainer)
        return part_of(loaders, 0, self.dataloader_idx, loaders)

    def _log_once(self, message: str) -> None:
        if message not in self._logged:
            self._logged.add(message)
            rank_zero_info(message)

    def take(self, trainer: Trainer, batch: Any, batch_idx: int, dataloader_idx: int | None) -> Taken | None:
        """The samples of a batch, or those given by hand; None where the batch holds nothing of the chosen dataloader.

        Args:
            trainer: holds the dataloaders.
            batch: of one dataloader, or of all at once.
            batch_idx: as Lightning gives it.
            dataloader_idx: as Lightning gives it; None where there is one, or all deliver at once.

        Raises:
            InputError: as `as_saliency_batch`.
        """
        if self.by_hand:
            return Taken(self.fixed.samples, None)
        batch = delivered_by(trainer, batch, batch_idx, dataloader_idx, self.dataloader_idx)
        if batch is None:
            return None
        unclear: list[str] = []
        samples = as_saliency_batch(batch, self.adapter, self.class_names, unclear.append)
        found = with_inputs_taken(samples, trainer.lightning_module, self.forward)
        is_settled = samples.labels is None and found.labels is not None
        for message in unclear:
            if self.on_unclear is not None and not (is_settled and LABELS_TWICE in message):
                self.on_unclear(message)
        return Taken(found, batch)

    def receive(self, samples: SaliencyBatch) -> int | None:
        """Take the next batch of this process.

        Returns:
            The position of the first sample that is another one than in the checkpoint, once; else None.
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
        """End the stream, and settle the samples, the same in every process.

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
        if not self._to_verify:
            return None
        self._to_verify, beyond = False, self._places.reached
        return next((each for each in self.fixed.positions if each >= beyond), None)

    def _settle(self, trainer: Trainer) -> Exception | None:
        offered = pool_candidates(trainer, self.fixed)
        if isinstance(offered, Exception):
            return offered
        found = gather_results(trainer, lambda: self._found)
        if isinstance(found, Exception):
            return found
        chosen = FixedBatch(*self._wanted)
        chosen.largest_batch = self.fixed.largest_batch
        settled = run_in_all(trainer, lambda: chosen.close(offered))
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
        return as_saliency_batch(batch, self.adapter, self.class_names, self.on_unclear)

    @property
    def faults(self) -> str:
        """What single samples lost their annotation for, as a sentence; empty where none did."""
        samples = self.fixed.samples if self.fixed.is_closed else None
        faults = Counter(filter(None, samples.faults or ())) if samples is not None else None
        if samples is None or not faults:
            return ""
        reasons = ", ".join(f"{fault} ({count})" for fault, count in faults.most_common())
        return (
            f"{sum(faults.values())} of {len(samples)} samples are looked at without annotation that cannot be used: "
            f"{reasons}. Check the annotation if that is not meant."
        )

    def read_or_none(self, batch: Any) -> SaliencyBatch | None:
        """Read a training batch; None where its layout is not understood (two crops, mixed images)."""
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
