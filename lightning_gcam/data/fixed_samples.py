"""`FixedBatch`: chooses the samples that every look of a run uses, and keeps them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch

from lightning_gcam.data import SaliencyBatch
from lightning_gcam.data.masks import warn_of_full_masks
from lightning_gcam.utils.dimensions import pool_of
from lightning_gcam.utils.errors import InputError, did_you_mean

Selection = str | Sequence[int]
"""`"balanced"` over the classes, `"first"`, or the positions of the samples in the order of delivery."""

_SELECTIONS = ("balanced", "first")
_MOST_KEPT = 4
"""Of images of several sizes, at most so many times `num_samples` are held until the commonest size is known."""


ImageSize = tuple[int, ...]
"""`(C, *S)` of a sample's image: one batch holds one size."""


@dataclass(frozen=True)
class Sample:
    """One sample of the fixed batch (a `SaliencyBatch` of one), and where in the stream it was found.

    `group` is what the selection balances over, negative without a label; `position` counts the samples delivered
    before this one, in all processes together.
    """

    position: int
    group: int
    batch: SaliencyBatch

    @property
    def size(self) -> ImageSize:
        """`(C, *S)` of the image."""
        return tuple(self.batch.images.shape[1:])


@dataclass(frozen=True)
class Candidates:
    """The samples that one process, or several, would keep, and how many came.

    Args:
        samples: the candidates, of every image size that may still be chosen.
        delivered: how many usable samples of each image size came.
        unlabelled: how many samples had a negative label.
        largest_label: the largest label of a class among all that were offered; -1 where there was none.
    """

    samples: list[Sample]
    delivered: Counter[ImageSize]
    unlabelled: int = 0
    largest_label: int = -1

    def __add__(self, other: Candidates) -> Candidates:
        """Join the candidates of two processes, in the order of the stream."""
        samples = sorted([*self.samples, *other.samples], key=lambda sample: sample.position)
        return Candidates(
            samples,
            self.delivered + other.delivered,
            self.unlabelled + other.unlabelled,
            max(self.largest_label, other.largest_label),
        )

    @property
    def commonest_size(self) -> ImageSize | None:
        """The image size of the most samples, the earliest of several; None where there is no sample."""
        firsts: dict[ImageSize, int] = {}
        for sample in self.samples:
            firsts.setdefault(sample.size, sample.position)
        return min(firsts, key=lambda size: (-self.delivered[size], firsts[size]), default=None)


class _SizeSelection:
    """The samples to keep among those of one image size.

    Args:
        num_samples: how many there is room for.
        balanced: over their groups; else the first ones.
    """

    def __init__(self, num_samples: int, balanced: bool) -> None:
        self.num_samples, self.balanced = num_samples, balanced
        self.kept: list[Sample] = []

    def accepts(self, group: int) -> bool:
        """Whether a sample of this class would be kept: there is room, or its class has two fewer than the largest."""
        if len(self.kept) < self.num_samples:
            return True
        counts = Counter(sample.group for sample in self.kept)
        return self.balanced and max(counts.values()) - counts[group] >= 2

    def keep(self, sample: Sample) -> None:
        """Keep the sample; where there is no room, the last one of the largest class is dropped."""
        if len(self.kept) >= self.num_samples:
            ((largest, _),) = Counter(kept.group for kept in self.kept).most_common(1)
            last = max(index for index, kept in enumerate(self.kept) if kept.group == largest)
            del self.kept[last]
        self.kept.append(sample)


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
            validation set that is sorted by class does not give one class only; of several heads, the classes of the
            first that has some), or the first ones where labels are measurements; "first": the first ones; or positions
            in the stream.

    Example:
        >>> fixed = FixedBatch(num_samples=2)
        >>> sorted_by_class = SaliencyBatch(torch.rand(6, 1, 4, 4), labels=torch.tensor([0, 0, 0, 0, 1, 1]))
        >>> fixed.offer(sorted_by_class)
        >>> fixed.close()
        >>> fixed.samples.labels.tolist()
        [0, 1]
    """

    STATE = frozenset({"samples", "positions", "chunk", "passed_over", "largest_label"})
    """The keys of `state_dict()`, where it is not empty."""

    def __init__(self, num_samples: int, selection: Selection = "balanced") -> None:
        check_selection(selection)
        self._wanted = None if isinstance(selection, str) else list(selection)
        self.num_samples = len(self._wanted) if self._wanted is not None else num_samples
        self._balanced = selection == "balanced"
        self._samples: SaliencyBatch | None = None
        self.positions: list[int] = []
        self.largest_batch = 1
        self.mixed: list[str] = []
        self.unlabelled = 0
        """How many samples were passed over because their label is negative ("none"); none where all labels are."""
        self.of_other_sizes = 0
        """How many samples were passed over because their image has another size than those that are kept."""
        self.largest_label = -1
        """The largest label among all samples that were offered, chosen or not; -1 where none named a class."""
        self._largest_label = -1
        self._measured = False
        self.reset()

    @property
    def is_closed(self) -> bool:
        """Whether the samples are chosen."""
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
        """Make a fixed batch of samples that were given by hand: nothing is chosen."""
        fixed = cls(len(samples))
        fixed._samples, fixed.largest_batch = samples, len(samples)
        warn_of_full_masks(samples.object_masks)
        return fixed

    def offer(self, batch: SaliencyBatch, positions: Sequence[int] | None = None) -> None:
        """Take the next batch of the stream, and keep copies of the samples that are wanted.

        Args:
            batch: the samples.
            positions: of each in the stream of all processes together, a negative one for a sample to pass over (one
                that comes a second time); those behind the last batch where they are left out.
        """
        if positions is None:
            positions = range(self._seen, self._seen + len(batch))
        self._seen += len(batch)
        self.largest_batch = max(self.largest_batch, len(batch))
        if batch.has_measurements and not self._measured:  # whole ones came before, taken for classes
            self._measured = True
            for each in self._sizes.values():
                each.kept = _ungrouped(each.kept)
        groups = _groups(batch, is_measured=self._measured)
        rows = [row for row, position in enumerate(positions) if self._is_wanted(position)]
        usable = [row for row in rows if groups[row] >= 0]
        self._unlabelled += len(rows) - len(usable)
        self._largest_label = max(self._largest_label, _largest_label(batch))
        size = tuple(batch.images.shape[1:])
        self._delivered[size] += len(usable)
        if any(self._delivered.values()):
            self._without_label.clear()
        else:  # so far: in case that no label comes
            self._keep(self._without_label, size, [(row, positions[row], -1) for row in rows], batch)
        self._keep(self._sizes, size, [(row, positions[row], groups[row]) for row in usable], batch)

    def _keep(
        self,
        sizes: dict[ImageSize, _SizeSelection],
        size: ImageSize,
        rows: Sequence[tuple[int, int, int]],
        batch: SaliencyBatch,
    ) -> None:
        """Keep copies of those rows, each with its position and its class, that are wanted."""
        of_size = sizes.setdefault(size, self._empty())
        for row, position, group in rows:
            if of_size.accepts(group):  # before the copy is made: most samples are not wanted
                of_size.keep(Sample(position, group, batch.select([row])))
        self._bound_memory(sizes)

    def candidates(self) -> Candidates:
        """Return what was kept so far."""
        kept = [*self._sizes.values(), *self._without_label.values()]
        samples = [sample for each in kept for sample in each.kept]
        return Candidates(samples, Counter(self._delivered), self._unlabelled, self._largest_label)

    def close(self, offered: Candidates | None = None) -> None:
        """Choose the samples: of the commonest image size, as balanced as its samples allow.

        Args:
            offered: what all processes would keep; this process's own where it is left out.

        Raises:
            InputError: where no usable sample was offered.
        """
        offered = offered if offered is not None else self.candidates()
        labelled = [sample for sample in offered.samples if sample.group >= 0]
        samples, size = labelled or offered.samples, offered.commonest_size
        if any(sample.batch.has_measurements for sample in samples):
            samples = _ungrouped(samples)
        choice = self._empty()
        for sample in sorted(samples, key=lambda sample: sample.position):
            if sample.size == size and choice.accepts(sample.group):
                choice.keep(sample)
        if not choice.kept:
            raise InputError(
                "No validation sample could be used: none was delivered. Check the validation dataloader, or give the "
                "samples by hand with `batch=`."
            )
        ordered = sorted(choice.kept, key=self._place_in_batch)
        with torch.inference_mode(False):  # `trainer.validate` by itself would mark them for ever
            self._samples = SaliencyBatch.cat([sample.batch for sample in ordered])
        warn_of_full_masks(self._samples.object_masks)
        self.mixed = _mixed_fields([sample.batch for sample in ordered])
        self.positions = [sample.position for sample in ordered]
        self.unlabelled = offered.unlabelled if labelled else 0
        self.largest_label = offered.largest_label
        self.of_other_sizes = sum(n for other, n in offered.delivered.items() if other != size)
        self.reset()

    def reset(self) -> None:
        """Forget what was offered so far (the sanity check's batches come again in the first validation)."""
        self._sizes: dict[ImageSize, _SizeSelection] = {}
        self._without_label: dict[ImageSize, _SizeSelection] = {}
        self._delivered: Counter[ImageSize] = Counter()
        self._seen, self._unlabelled, self._measured = 0, 0, False
        self._largest_label = -1

    def state_dict(self) -> dict[str, Any]:
        """Return the chosen samples as tensors and plain Python only; empty before `close()`."""
        if self._samples is None:
            return {}
        return {
            "samples": self._samples.state_dict(),
            "positions": self.positions,
            "chunk": self.largest_batch,
            "passed_over": [self.unlabelled, self.of_other_sizes],
            "largest_label": self.largest_label,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the samples of a `state_dict()`."""
        if state:
            self._samples = SaliencyBatch(**state["samples"])
            self.positions, self.largest_batch = list(state["positions"]), int(state["chunk"])
            self.unlabelled, self.of_other_sizes = state["passed_over"]
            self.largest_label = int(state["largest_label"])

    def to(self, device: torch.device) -> None:
        """Keep the samples on `device`."""
        if self._samples is not None and self._samples.images.device != device:
            self._samples = self._samples.to(device)

    def first_difference(self, batch: SaliencyBatch, positions: Sequence[int]) -> int | None:
        """Return the first position at which a batch differs from the kept sample, or None.

        Args:
            batch: a batch of a later validation.
            positions: of its samples, as in `offer`.
        """
        rows = {position: row for row, position in enumerate(positions)}
        for kept, position in enumerate(self.positions):
            if position in rows and not _same_sample(self.samples, kept, batch, rows[position]):
                return position
        return None

    def found_in(self, batch: SaliencyBatch) -> set[int]:
        """Return the rows of the kept samples that are in a batch, wherever they stand in it."""
        kept, other = self.samples.images, batch.images.to(self.samples.images.device)
        if kept.shape[1:] != other.shape[1:]:
            return set()
        left, right = _thumbnails(kept)[:, None], _thumbnails(other)[None]
        alike = ((left - right).abs() <= 2e-3 * (1 + left.abs())).all(dim=2)  # before all pixels are compared
        return {row for row, of in alike.nonzero().tolist() if _same_sample(self.samples, row, batch, of)}

    def holds(self, samples: SaliencyBatch) -> bool:
        """Whether the kept samples are these, one by one."""
        kept = self.samples
        return len(kept) == len(samples) and all(
            _same_sample(kept, row, samples, row) for row in range(len(kept))
        )

    def _is_wanted(self, position: int) -> bool:
        return position >= 0 and (self._wanted is None or position in self._wanted)

    def _place_in_batch(self, sample: Sample) -> tuple[int, int]:
        """The sort key of a sample: by class, then as they came; or in the order in which the positions were given."""
        if self._wanted is not None:
            return self._wanted.index(sample.position), 0
        return sample.group, sample.position

    def _empty(self) -> _SizeSelection:
        return _SizeSelection(self.num_samples, self._balanced)

    def _bound_memory(self, sizes: dict[ImageSize, _SizeSelection]) -> None:
        """Drop the samples of the rarest image sizes where too many are kept."""
        while sum(len(each.kept) for each in sizes.values()) > _MOST_KEPT * self.num_samples:
            rarest = min(reversed(sizes), key=self._delivered.__getitem__)
            del sizes[rarest]


def _mixed_fields(batches: Sequence[SaliencyBatch]) -> list[str]:
    """Name the fields that only some of the samples came with, which are kept for none of them."""
    names = [field.name for field in fields(SaliencyBatch) if field.name != "faults"]
    return [name for name in names if len({getattr(each, name) is None for each in batches}) > 1]


def _groups(batch: SaliencyBatch, *, is_measured: bool) -> list[int]:
    """Return the class of each sample, the first marked one of a multi-hot row; 0 where there are no labels.

    All measurements are of one class, 0, and a missing one is of -1. Of several heads it is the class of the first
    which has classes; none of its own is then a class, too: the sample may have one for another head.
    """
    labels = batch.labels
    if labels is None:
        columns = [each.reshape(len(batch), -1) for each in (batch.head_labels or {}).values()]
        of_classes = (each for each in columns if each.shape[1] == 1 and not each.is_floating_point())
        classes = next(of_classes, torch.full((len(batch), 1), -1))[:, 0]
        return [int(label) + 1 for label in classes.clamp(min=-1).tolist()]
    classes = labels if labels.ndim == 1 else labels.float().argmax(dim=1)
    classes = -classes.isnan().long() if is_measured else classes.nan_to_num(-1)
    return [int(label) for label in classes.tolist()]


def _largest_label(batch: SaliencyBatch) -> int:
    """Return the largest label that is a class; -1 where there is none."""
    labels = batch.labels
    if labels is None or labels.ndim != 1 or labels.is_floating_point() or not len(labels):
        return -1
    return int(labels.max())


def _ungrouped(samples: Sequence[Sample]) -> list[Sample]:
    """Return the samples without classes to balance over."""
    return [replace(sample, group=0) for sample in samples]


def _thumbnails(images: torch.Tensor) -> torch.Tensor:
    """Average the images over a grid of 4 in each dimension: `(N, 16 C)` of images of two."""
    return pool_of("adaptive_avg", images.ndim - 2)(images.float(), 4).flatten(1)


def _same_sample(kept: SaliencyBatch, row: int, batch: SaliencyBatch, other: int) -> bool:
    """Whether a kept sample and one of a batch have the same image, label, mask and boxes."""
    left, right = kept.images[row], batch.images[other].to(kept.images.device)
    if left.shape != right.shape or not torch.allclose(left.float(), right.float(), rtol=1e-3, atol=1e-3):
        return False
    return all(
        _same_row(getattr(kept, field), row, getattr(batch, field), other)
        for field in ("labels", "masks", "boxes")
    )


def _same_row(kept: Any, row: int, values: Any, other: int) -> bool:
    """Whether one field of two samples is the same; one that only one of them has differs."""
    if kept is None or values is None:
        return kept is values
    return torch.equal(kept[row], values[other].to(kept[row].device))


def one_labelled(batch: SaliencyBatch) -> SaliencyBatch:
    """The first sample with a label (a negative one means "none"); the first one where the labels are no classes.

    Example:
        >>> one_labelled(SaliencyBatch(torch.zeros(3, 1, 2, 2), labels=torch.tensor([-1, 4, 2]))).labels
        tensor([4])
    """
    labels = batch.labels
    first = int((labels >= 0).int().argmax()) if labels is not None and labels.ndim == 1 else 0
    return batch.select([first])
