"""What is kept of each sample: its number for each score of each map, and why it has none; never the map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from lightning_gcam.metrics.samples import PerSample
from lightning_gcam.scoring import ScoreSheet

COUNTED, BLANK, NO_MASK, UNDEFINED, ABSENT = range(5)
"""Whether a sample counts for a score; ABSENT: nothing was there to score it with (a batch without masks, say)."""


class Column(NamedTuple):
    """One score of one map.

    Example:
        >>> str(Column("grad_cam", "energy"))
        'grad_cam/energy'
    """

    map: str
    """As in `Attribution.maps`: a method, or "<method>@<layer>"; "centre" and "uniform" know nothing of the model."""
    score: str

    def __str__(self) -> str:
        return f"{self.map}/{self.score}"


@dataclass(frozen=True)
class Columns:
    """The numbers of some samples.

    Args:
        names: of the columns.
        reasons: `(N, columns)` uint8, one of the reasons above.
        numbers: `(N, columns)` float32, for scores of which a sample has one number; 0 in the columns of others.
        rows: for scores of which a sample has several numbers, `(N, *shape)` float32.
    """

    names: tuple[Column, ...]
    reasons: npt.NDArray[np.uint8]
    numbers: npt.NDArray[np.float32]
    rows: Mapping[Column, npt.NDArray[np.float32]]

    def __len__(self) -> int:
        return len(self.reasons)

    @staticmethod
    def of(sheet: ScoreSheet, maps: Sequence[str], n: int) -> Columns:
        """The numbers of a batch, as `score_maps` found them.

        Args:
            sheet: the scores of a batch.
            maps: the names of its maps, in order: the scores of the first are named without it.
            n: how many samples it has.
        """
        found: dict[Column, PerSample] = {}
        for name, (_, sample) in sheet.evidence.items():
            found[_column(name, maps)] = sample
        names = tuple(found)
        reasons = np.full((n, len(names)), ABSENT, dtype=np.uint8)
        numbers = np.zeros((n, len(names)), dtype=np.float32)
        rows: dict[Column, npt.NDArray[np.float32]] = {}
        for index, (column, sample) in enumerate(found.items()):
            reasons[:, index] = _reasons(sample)
            values = sample.values.detach().cpu().float().numpy()
            if values.ndim == 1:
                numbers[:, index] = values
            else:
                rows[column] = values
        return Columns(names, reasons, numbers, rows)

    @staticmethod
    def cat(parts: Sequence[Columns]) -> Columns:
        """Several batches as one, in order; what one of them does not have is ABSENT there."""
        if len(parts) == 1:
            return parts[0]
        names = tuple(dict.fromkeys(name for part in parts for name in part.names))
        starts = np.cumsum([0, *map(len, parts)])
        reasons = np.full((starts[-1], len(names)), ABSENT, dtype=np.uint8)
        numbers = np.zeros((starts[-1], len(names)), dtype=np.float32)
        rows: dict[Column, npt.NDArray[np.float32]] = {}
        for part, start, stop in zip(parts, starts, starts[1:], strict=False):
            places = [names.index(name) for name in part.names]
            reasons[start:stop, places], numbers[start:stop, places] = part.reasons, part.numbers
            for name, values in part.rows.items():
                whole = rows.setdefault(name, np.zeros((starts[-1], *values.shape[1:]), dtype=np.float32))
                whole[start:stop] = values
        return Columns(names, reasons, numbers, rows)

    def select(self, order: npt.NDArray[np.int64]) -> Columns:
        """The samples at these places, in that order."""
        rows = {name: values[order] for name, values in self.rows.items()}
        return Columns(self.names, self.reasons[order], self.numbers[order], rows)

    def sample(self, column: Column) -> PerSample:
        """One column, as the scores take it, without the samples that had nothing to be scored with."""
        index = self.names.index(column)
        there = self.reasons[:, index] != ABSENT
        values = self.rows[column] if column in self.rows else self.numbers[:, index]
        reasons = torch.from_numpy(self.reasons[there, index])
        return PerSample(
            torch.from_numpy(values[there]), reasons == COUNTED, reasons == BLANK, reasons == NO_MASK
        )


def _column(name: str, maps: Sequence[str]) -> Column:
    for other in maps[1:]:
        if name.startswith(f"{other}/"):
            return Column(other, name.removeprefix(f"{other}/"))
    return Column(maps[0], name)


def _reasons(sample: PerSample) -> npt.NDArray[np.uint8]:
    reasons = torch.where(sample.counted, COUNTED, UNDEFINED)
    for marked, reason in ((sample.no_mask, NO_MASK), (sample.blank, BLANK)):
        if marked is not None:
            reasons = torch.where(marked & ~sample.counted, reason, reasons)
    found: npt.NDArray[np.uint8] = reasons.to(torch.uint8).cpu().numpy()
    return found
