"""Each sample's scores, stored on disk batch by batch, so that an interrupted evaluation can continue."""

from __future__ import annotations

import json
import os
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from lightning_gcam.metrics.measurement import ScoreKey, ScoreResults
from lightning_gcam.metrics.samples import PerSample
from lightning_gcam.utils.files import UNFINISHED, atomic_write, atomic_write_text
from lightning_gcam.utils.lightning_compat import rank_zero_warn

COUNTED, BLANK, NO_MASK, UNDEFINED, ABSENT = range(5)
"""Whether a sample counts for a score, or why not; ABSENT: it could not be scored (a batch without masks, say)."""


@dataclass(frozen=True)
class Columns:
    """The scores of some samples, a column for each score of each map.

    Args:
        names: of the columns.
        reasons: `(N, columns)` uint8, one of the reasons above.
        numbers: `(N, columns)` float32, for scores of which a sample has one number; 0 in the columns of others.
        rows: for scores of which a sample has several numbers, `(N, *shape)` float32.
    """

    names: tuple[ScoreKey, ...]
    reasons: npt.NDArray[np.uint8]
    numbers: npt.NDArray[np.float32]
    rows: Mapping[ScoreKey, npt.NDArray[np.float32]]

    def __len__(self) -> int:
        return len(self.reasons)

    @staticmethod
    def of(results: ScoreResults, n: int) -> Columns:
        """The numbers of a batch of n samples, as `score_maps` found them."""
        found = {key: sample for key, (_, sample) in results.samples.items()}
        names = tuple(found)
        reasons = np.full((n, len(names)), ABSENT, dtype=np.uint8)
        numbers = np.zeros((n, len(names)), dtype=np.float32)
        rows: dict[ScoreKey, npt.NDArray[np.float32]] = {}
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
        """Concatenate several batches; a column that one of them does not have is ABSENT there."""
        if len(parts) == 1:
            return parts[0]
        names = tuple(dict.fromkeys(name for part in parts for name in part.names))
        starts = np.cumsum([0, *map(len, parts)])
        reasons = np.full((starts[-1], len(names)), ABSENT, dtype=np.uint8)
        numbers = np.zeros((starts[-1], len(names)), dtype=np.float32)
        rows: dict[ScoreKey, npt.NDArray[np.float32]] = {}
        for part, start, stop in zip(parts, starts, starts[1:], strict=False):
            places = [names.index(name) for name in part.names]
            reasons[start:stop, places], numbers[start:stop, places] = part.reasons, part.numbers
            for name, values in part.rows.items():
                whole = rows.setdefault(name, np.zeros((starts[-1], *values.shape[1:]), dtype=np.float32))
                whole[start:stop] = values
        return Columns(names, reasons, numbers, rows)

    def select(self, order: npt.NDArray[np.int64]) -> Columns:
        """Select samples by their indices, in that order."""
        rows = {name: values[order] for name, values in self.rows.items()}
        return Columns(self.names, self.reasons[order], self.numbers[order], rows)

    def sample(self, column: ScoreKey) -> PerSample:
        """Return one column as `PerSample`, without the samples that could not be scored."""
        index = self.names.index(column)
        there = self.reasons[:, index] != ABSENT
        values = self.rows[column] if column in self.rows else self.numbers[:, index]
        reasons = torch.from_numpy(self.reasons[there, index])
        return PerSample(
            torch.from_numpy(values[there]), reasons == COUNTED, reasons == BLANK, reasons == NO_MASK
        )


def _reasons(sample: PerSample) -> npt.NDArray[np.uint8]:
    reasons = torch.where(sample.counted, COUNTED, UNDEFINED)
    for marked, reason in ((sample.no_mask, NO_MASK), (sample.blank, BLANK)):
        if marked is not None:
            reasons = torch.where(marked & ~sample.counted, reason, reasons)
    found: npt.NDArray[np.uint8] = reasons.to(torch.uint8).cpu().numpy()
    return found


Numbers = npt.NDArray[np.int64]

Shapes = dict[ScoreKey, tuple[int, ...]]
"""Of what a sample has in each column in which it has several numbers."""


@dataclass(frozen=True)
class StoredBatch:
    """The stored scores of one batch.

    Args:
        positions: `(N,)` int64, of its samples in the dataset.
        digests: `(N,)` int64, of what each sample is: one that has changed is not taken from an earlier run.
        columns: their numbers.
        forwards: how many images went through the model for them.
        seconds: how long they took.
    """

    positions: Numbers
    digests: Numbers
    columns: Columns
    forwards: int = 0
    seconds: float = 0.0


class SampleStore:
    """The stored batches of one evaluation: a directory of files, each written by one process.

    A file is written under another name and then renamed, so that one that is there is whole; one that cannot be read
    (a disk that was full, a machine that lost its power), or is of another layer than the others, is passed over with a
    warning, and its batch done again. Of a sample that is there twice the newer file counts.

    Args:
        directory: of the files; it is made with the first.
        rank: of this process, for the names of the files.
    """

    def __init__(self, directory: Path, rank: int = 0) -> None:
        self.directory = directory
        self._rank = rank
        self._last = 0
        self._shapes: dict[Path, Shapes] = {}
        self._broken: set[Path] = set()
        self._layers: list[str] = []
        self._layers = list(self.read_common().get("layers", []))

    def save(self, part: StoredBatch) -> Path:
        """Store a batch; it is on disk when this returns."""
        self._last = max(time.time_ns(), self._last + 1)  # the order of the names is the order of writing
        path = self.directory / f"{self._last:020d}-{self._rank}.npz"
        columns = part.columns
        members: dict[str, Any] = {
            "positions": part.positions,
            "digests": part.digests,
            "names": np.array(json.dumps(columns.names)),
            "reasons": columns.reasons,
            "numbers": columns.numbers,
            "cost": np.array([part.forwards, part.seconds]),
            "layers": np.array(json.dumps(self._layers)),
        }
        members |= {_member(columns.names.index(name)): each for name, each in columns.rows.items()}
        with atomic_write(path) as file:
            np.savez_compressed(file, **members)
        return path

    def digests(self) -> dict[int, int]:
        """Return the digest of each stored sample, by its position."""
        found: dict[int, int] = {}
        for file in self._files():
            found.update(zip(file["positions"].tolist(), file["digests"].tolist(), strict=True))
        return found

    def costs(self, positions: Numbers) -> tuple[float, float]:
        """Return the forwards and the seconds for the samples at `positions`, each its share of its batch."""
        shares: dict[int, Any] = {}
        for file in self._files():
            own = file["positions"].tolist()
            shares |= dict.fromkeys(own, file["cost"] / max(len(own), 1))
        total = sum((shares[each] for each in positions.tolist() if each in shares), np.zeros(2))
        return float(total[0]), float(total[1])

    def names(self) -> list[ScoreKey]:
        """Return all columns, in the order of their first batch."""
        found: dict[ScoreKey, None] = {}
        for file in self._files():
            found |= dict.fromkeys(_names(file))
        return list(found)

    def read(self, positions: Numbers, names: Sequence[ScoreKey], rows: Sequence[ScoreKey] = ()) -> Columns:
        """Read the scores of the samples at `positions`, in that order.

        Args:
            positions: of samples; one that is not done has every number ABSENT.
            names: which columns.
            rows: those of `names` of which a sample has several numbers that are wanted, too. They are large.
        """
        place = {position: row for row, position in enumerate(positions.tolist())}
        reasons = np.full((len(positions), len(names)), ABSENT, dtype=np.uint8)
        numbers = np.zeros((len(positions), len(names)), dtype=np.float32)
        vectors: dict[ScoreKey, npt.NDArray[np.float32]] = {}
        for file in self._files():
            own = file["positions"].tolist()
            here = [row for row, position in enumerate(own) if position in place]
            there = [place[own[row]] for row in here]
            reasons[there] = ABSENT  # what an older file had for them does not count any more
            file_reasons, file_numbers, file_names = file["reasons"], file["numbers"], _names(file)
            for index, name in enumerate(names):
                if name not in file_names:
                    continue
                source = file_names.index(name)
                reasons[there, index] = file_reasons[here, source]
                numbers[there, index] = file_numbers[here, source]
                if name in rows and _member(source) in file:
                    values = file[_member(source)]
                    if name not in vectors:
                        vectors[name] = np.zeros((len(positions), *values.shape[1:]), dtype=np.float32)
                    vectors[name][there] = values[here]
        return Columns(tuple(names), reasons, numbers, vectors)

    def columns_with_rows(self) -> list[ScoreKey]:
        """Return the columns of which a sample has several numbers."""
        found: dict[ScoreKey, None] = {}
        for file in self._files():
            found |= {name: None for index, name in enumerate(_names(file)) if _member(index) in file}
        return list(found)

    def write_common(self, facts: dict[str, Any]) -> None:
        """Store what all batches have in common, such as the target layer."""
        with atomic_write_text(self.directory / "common.json") as file:
            file.write(json.dumps(facts))
        self._layers = list(facts.get("layers", []))

    def read_common(self) -> dict[str, Any]:
        """Return what `write_common` wrote; where that cannot be read, the target layers of the batches, if any."""
        try:
            found = json.loads((self.directory / "common.json").read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            found = None
        layers = found.get("layers") if isinstance(found, dict) else None
        is_kept = isinstance(layers, list) and all(isinstance(each, str) for each in layers)
        if is_kept:
            return found  # type: ignore[no-any-return]
        return {"layers": self._layers} if self._layers else {}

    def remove(self) -> None:
        """Delete the files: the evaluation is finished, or begins again."""
        self._layers, self._shapes, self._broken = [], {}, set()
        if not self.directory.is_dir():
            return
        for path in self.directory.iterdir():
            if path.suffix in (".npz", UNFINISHED, ".json"):
                path.unlink(missing_ok=True)
        if not os.listdir(self.directory):
            self.directory.rmdir()

    def _files(self) -> Iterator[Any]:
        """Yield the valid files, the oldest first; each is open until the next."""
        paths = sorted(self.directory.glob("*.npz")) if self.directory.is_dir() else []
        for path in paths:
            if self._is_whole(path):
                with np.load(path) as file:
                    yield file

    def _is_whole(self, path: Path) -> bool:
        """Return whether a file is valid and fits those before it; warn once of each that does not."""
        if path in self._shapes or path in self._broken:
            return path in self._shapes
        try:
            shapes, layers = _checked(path)
            known = {name: shape for each in self._shapes.values() for name, shape in each.items()}
            if any(shape != known.get(name, shape) for name, shape in shapes.items()):
                raise ValueError("its numbers have other shapes than those of the files before it")
            self._layers = self._layers or layers
            if layers and layers != self._layers:
                raise ValueError(f"it is of layer {', '.join(layers)}, not of {', '.join(self._layers)}")
        except Exception as error:  # numpy's and zipfile's readers of broken files raise errors of many types
            self._broken.add(path)
            rank_zero_warn(f"{path} is passed over, and its samples are evaluated again: {error}.")
            return False
        self._shapes[path] = shapes
        return True


def _checked(path: Path) -> tuple[Shapes, list[str]]:
    """Check a file; return the shapes of its columns and its target layers, which older files lack.

    Raises:
        Exception: where it is no whole file, or its arrays do not fit each other.
    """
    with path.open("rb") as stream, zipfile.ZipFile(stream) as members:
        if (damaged := members.testzip()) is not None:
            raise ValueError(f"{damaged} is damaged")
    with np.load(path) as file:
        columns, n = _names(file), len(file["positions"])
        expected: dict[str, tuple[int, ...]] = {"positions": (n,), "digests": (n,), "cost": (2,)}
        expected |= {"reasons": (n, len(columns)), "numbers": (n, len(columns))}
        for member, shape in expected.items():
            if file[member].shape != shape or file[member].dtype.kind not in "iuf":
                raise ValueError(f'"{member}" is {file[member].dtype} {file[member].shape}, not {shape}')
        shapes: Shapes = {}
        for index, column in enumerate(columns):
            if _member(index) in file:
                vectors = file[_member(index)]
                if vectors.shape[:1] != (n,):
                    raise ValueError(f"{column.map}/{column.score} is {vectors.shape}, not of {n} samples")
                shapes[column] = vectors.shape[1:]
        return shapes, list(json.loads(str(file["layers"]))) if "layers" in file else []


def _member(index: int) -> str:
    return f"rows{index}"


def _names(file: Any) -> list[ScoreKey]:
    return [ScoreKey(*pair) for pair in json.loads(str(file["names"]))]
