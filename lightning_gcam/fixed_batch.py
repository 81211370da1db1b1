"""The fixed batch: which samples are looked at, collected once from what the dataloader delivers, then kept.

Samples are taken from the batches that Lightning itself hands to the module, already transferred and transformed:
iterating a dataloader a second time would consume random numbers and disturb persistent workers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch

from lightning_gcam._errors import InputError, did_you_mean
from lightning_gcam.batch import SaliencyBatch
from lightning_gcam.batch.dense import warn_of_full_masks

Selection = str | Sequence[int]
"""`"balanced"` over the classes, `"first"`, or the positions of the samples in the order of delivery."""

_SELECTIONS = ("balanced", "first")


@dataclass(frozen=True)
class Sample:
    """One sample of the fixed batch (a `SaliencyBatch` of one), and where in the stream it was found.

    `group` is what the selection balances over; `position` counts the samples delivered before this one.
    """

    position: int
    group: int
    batch: SaliencyBatch


def check_selection(selection: Selection) -> None:
    """Refuse a selection that is neither a known word nor positions.

    Raises:
        InputError: naming what came.
    """
    if isinstance(selection, str):
        if selection not in _SELECTIONS:
            raise InputError(
                f'`selection` "{selection}" is not known. {did_you_mean(selection, _SELECTIONS)}'
            )
        return
    positions = list(selection) if isinstance(selection, Sequence) else []
    if not positions or any(not isinstance(each, int) or each < 0 for each in positions):
        raise InputError(
            '`selection` must be "balanced", "first", or positions: whole numbers from 0, at least one; '
            f"got {selection!r}."
        )
    if len(set(positions)) != len(positions):
        raise InputError(f"`selection` names a position twice: {positions!r}. Give each once.")


class FixedBatch:
    """Choose samples from a stream of batches, then hold them for the whole run.

    Args:
        num_samples: how many to keep.
        selection: "balanced": as even over the classes as the stream allows, each class's earliest samples (so a
            validation set that is sorted by class does not give one class only), or the first ones where labels are
            measurements; "first": the first ones; or positions in the stream.

    Example:
        >>> fixed = FixedBatch(num_samples=2)
        >>> sorted_by_class = SaliencyBatch(torch.rand(6, 1, 4, 4), labels=torch.tensor([0, 0, 0, 0, 1, 1]))
        >>> fixed.offer(sorted_by_class)
        >>> fixed.close()
        >>> fixed.samples.labels.tolist()
        [0, 1]
    """

    def __init__(self, num_samples: int, selection: Selection = "balanced") -> None:
        check_selection(selection)
        self._wanted = None if isinstance(selection, str) else list(selection)
        self.num_samples = len(self._wanted) if self._wanted is not None else num_samples
        self._balanced = selection == "balanced"
        self._chosen: list[Sample] = []
        self._seen = 0
        self._measured = False
        self._samples: SaliencyBatch | None = None
        self.positions: list[int] = []
        self.largest_batch = 1
        self.skipped = 0
        self.mixed: list[str] = []

    @property
    def is_closed(self) -> bool:
        """Whether the samples are settled."""
        return self._samples is not None

    @property
    def samples(self) -> SaliencyBatch:
        """The chosen samples, in the order in which they are shown: by class, then as they came.

        Raises:
            InputError: before `close()`.
        """
        if self._samples is None:
            raise InputError("The fixed batch is not settled yet: no validation epoch has ended.")
        return self._samples

    @classmethod
    def of(cls, samples: SaliencyBatch) -> FixedBatch:
        """Samples that were given by hand: nothing is chosen."""
        fixed = cls(len(samples))
        fixed._samples, fixed.largest_batch = samples, len(samples)
        warn_of_full_masks(samples.object_masks)
        return fixed

    def offer(self, batch: SaliencyBatch) -> None:
        """Look at the next batch of the stream and keep copies of the samples that are wanted."""
        self.largest_batch = max(self.largest_batch, len(batch))
        if (
            batch.has_measurements and not self._measured
        ):  # whole ones came before, and were taken for classes
            self._measured, self._chosen = True, _ungrouped(self._chosen)
        groups = [0] * len(batch) if self._measured else _groups(batch)
        for row in self._rows_of_interest(batch, groups):
            if self._has_use_for(groups[row]):  # asked before the copy is made: most samples are not wanted
                self._keep(Sample(self._seen + row, groups[row], batch.select([row])))
        self._seen += len(batch)

    def candidates(self, rank: int = 0, world_size: int = 1) -> list[Sample]:
        """What was kept so far, with positions in the stream of all processes together.

        Lightning's distributed samplers deal the dataset out in turn: sample i of process r is r + i * world_size.
        """
        return [replace(sample, position=sample.position * world_size + rank) for sample in self._chosen]

    def close(self, candidates: Sequence[Sample] | None = None) -> None:
        """Settle the choice.

        Args:
            candidates: those of all processes; this process's own where they are left out.

        Raises:
            InputError: where no usable sample was offered.
        """
        if candidates is not None:
            if any(sample.batch.has_measurements for sample in candidates):
                candidates = _ungrouped(candidates)
            self._chosen = []
            for sample in sorted(candidates, key=lambda sample: sample.position):
                if self._fits(sample.batch) and self._has_use_for(sample.group):
                    self._keep(sample)
        chosen = self._chosen
        if not chosen:
            raise InputError(
                "No validation sample could be used: none was delivered, or every label was negative. Check the "
                "validation dataloader, or give the samples by hand with `batch=`."
            )
        if self._wanted is not None:
            ordered = sorted(chosen, key=lambda sample: self._wanted.index(sample.position))  # type: ignore[union-attr]
        else:
            ordered = sorted(chosen, key=lambda sample: (sample.group, sample.position))
        with torch.inference_mode(False):  # `trainer.validate` by itself would mark them for ever
            self._samples = SaliencyBatch.cat([sample.batch for sample in ordered])
        warn_of_full_masks(self._samples.object_masks)
        self.mixed = _mixed_fields([sample.batch for sample in ordered])
        self.positions = [sample.position for sample in ordered]
        self._chosen = []

    def reset(self) -> None:
        """Forget what was offered so far (the sanity check's batches come again in the first validation)."""
        self._chosen, self._seen, self.skipped, self._measured = [], 0, 0, False

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain Python only; empty before `close()`."""
        if self._samples is None:
            return {}
        return {
            "samples": self._samples.state_dict(),
            "positions": self.positions,
            "chunk": self.largest_batch,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Hold the samples of a `state_dict()` again."""
        if state:
            self._samples = SaliencyBatch(**state["samples"])
            self.positions, self.largest_batch = list(state["positions"]), int(state["chunk"])

    def to(self, device: torch.device) -> None:
        """Keep the samples on `device`."""
        if self._samples is not None and self._samples.images.device != device:
            self._samples = self._samples.to(device)

    def first_difference(
        self, batch: SaliencyBatch, start: int, rank: int = 0, world_size: int = 1
    ) -> int | None:
        """The first position at which a batch of the stream differs from the kept sample, or None.

        Args:
            batch: a batch of a later validation.
            start: how many samples came before it, in this process.
            rank: of this process.
            world_size: how many processes share the stream, dealt out as in `candidates`.
        """
        for row, position in enumerate(self.positions):
            other, dealt_to = divmod(position, world_size)
            here = dealt_to == rank and start <= other < start + len(batch)
            if here and not _same_sample(self.samples, row, batch, other - start):
                return position
        return None

    def _rows_of_interest(self, batch: SaliencyBatch, groups: list[int]) -> list[int]:
        """The rows that may be kept: labelled, of the same size as those kept, and wanted or still of use."""
        if not self._fits(batch):
            self.skipped += len(groups)
            return []
        usable = [row for row, group in enumerate(groups) if group >= 0]
        self.skipped += len(groups) - len(usable)
        if self._wanted is not None:
            return [row for row in usable if self._seen + row in self._wanted]
        return usable if self._balanced else usable[: self.num_samples - len(self._chosen)]

    def _fits(self, batch: SaliencyBatch) -> bool:
        """Whether the images have the size of those kept, so that they can be one batch."""
        return not self._chosen or batch.images.shape[1:] == self._chosen[0].batch.images.shape[1:]

    def _has_use_for(self, group: int) -> bool:
        """Whether there is room, or the class has two fewer than the largest one."""
        if len(self._chosen) < self.num_samples:
            return True
        counts = Counter(kept.group for kept in self._chosen)
        return self._balanced and max(counts.values()) - counts[group] >= 2

    def _keep(self, sample: Sample) -> None:
        """Keep the sample; where there is no room, the last one of the largest class gives way."""
        if len(self._chosen) >= self.num_samples:
            ((largest, _),) = Counter(kept.group for kept in self._chosen).most_common(1)
            last = max(index for index, kept in enumerate(self._chosen) if kept.group == largest)
            del self._chosen[last]
        self._chosen.append(sample)


def _mixed_fields(batches: Sequence[SaliencyBatch]) -> list[str]:
    """What only some of the samples came with, and which is therefore kept for none of them."""
    names = [field.name for field in fields(SaliencyBatch)]
    return [name for name in names if len({getattr(each, name) is None for each in batches}) > 1]


def _groups(batch: SaliencyBatch) -> list[int]:
    """The class of each sample, the first marked one of a multi-hot row; 0 where there are no labels."""
    labels = batch.labels
    if labels is None:
        return [0] * len(batch)
    return [int(label) for label in (labels if labels.ndim == 1 else labels.float().argmax(dim=1)).tolist()]


def _ungrouped(samples: Sequence[Sample]) -> list[Sample]:
    """There are no classes to balance over."""
    return [replace(sample, group=0) for sample in samples]


def _same_sample(kept: SaliencyBatch, row: int, batch: SaliencyBatch, other: int) -> bool:
    left, right = kept.images[row], batch.images[other].to(kept.images.device)
    if left.shape != right.shape or not torch.allclose(left.float(), right.float(), rtol=1e-3, atol=1e-3):
        return False
    return all(
        _same_row(getattr(kept, field), row, getattr(batch, field), other)
        for field in ("labels", "masks", "boxes")
    )


def _same_row(kept: Any, row: int, values: Any, other: int) -> bool:
    """Whether one sample's annotation is the same; a field that only one of them has differs."""
    if kept is None or values is None:
        return kept is values
    return torch.equal(kept[row], values[other].to(kept[row].device))
