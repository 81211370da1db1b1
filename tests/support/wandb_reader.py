"""Read an offline Weights & Biases run back: wandb writes such files and ships no reader for them.

A `.wandb` file is a leveldb log: a header of 7 bytes, then blocks of 32 KiB that hold chunks of (crc, 4 bytes; length,
2; type, 1; data). A record is one whole chunk (type 1), or a first, several middle and a last one (2, 3, 4).
"""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_BLOCK, _HEADER, _CHUNK_HEADER = 32 * 1024, 7, 7
_WHOLE, _LAST = 1, 4


@dataclass(frozen=True)
class OfflineRun:
    """One offline run, read to its end: every row, alert and table, in order; `files` holds its media."""

    files: Path
    history: list[dict[str, Any]]
    alerts: list[dict[str, str]]
    artifacts: list[dict[str, Path]]
    """For each artifact (a table is one) where the files are that it will be uploaded from."""

    def tables(self, key: str) -> list[list[dict[str, Any]]]:
        """The tables that were logged under `key`; a picture in it is a dict, with its "path" in `artifacts`."""
        name = f"{key}.table.json"
        found = [
            json.loads(each[name].read_text(encoding="utf-8")) for each in self.artifacts if name in each
        ]
        return [[dict(zip(table["columns"], row, strict=True)) for row in table["data"]] for table in found]


def runs(directory: Path, patience: float = 20) -> list[OfflineRun]:
    """Every offline run under `directory`, in order of time; on a crowded machine its service may still be writing."""
    until = time.monotonic() + patience
    while not all(map(_is_finished, directory.rglob("*.wandb"))) and time.monotonic() < until:
        time.sleep(0.1)
    return [_run(path) for path in sorted(directory.rglob("*.wandb"))]


def history(directory: Path) -> list[dict[str, Any]]:
    """Every row that was logged in the one offline run under `directory`, in order."""
    (run,) = runs(directory)
    return run.history


def alerts(directory: Path) -> list[dict[str, str]]:
    """Every alert of the one offline run under `directory`, in order."""
    (run,) = runs(directory)
    return run.alerts


def _run(path: Path) -> OfflineRun:
    run = OfflineRun(path.parent / "files", [], [], [])
    for record in _records(path):
        kind = record.WhichOneof("record_type")
        if kind == "history":
            run.history.append(_row(record))
        elif kind == "alert":
            run.alerts.append({name: getattr(record.alert, name) for name in ("title", "text", "level")})
        elif kind == "artifact":
            run.artifacts.append(
                {each.path: Path(each.local_path) for each in record.artifact.manifest.contents}
            )
    return run


def _is_finished(path: Path) -> bool:
    return any(record.WhichOneof("record_type") == "exit" for record in _records(path))


def _records(path: Path) -> Iterator[Any]:
    from wandb.proto import wandb_internal_pb2

    for data in _entries(path.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        yield record


def _entries(log: bytes) -> Iterator[bytes]:
    position, parts = _HEADER, b""
    while position + _CHUNK_HEADER <= len(log):
        left_in_block = _BLOCK - position % _BLOCK
        if left_in_block < _CHUNK_HEADER:  # too short for a chunk: padding
            position += left_in_block
            continue
        _, length, kind = struct.unpack_from("<IHB", log, position)
        position += _CHUNK_HEADER
        parts += log[position : position + length]
        position += length
        if kind in (_WHOLE, _LAST):
            yield parts
            parts = b""


def _row(record: Any) -> dict[str, Any]:
    """An image is a table of its own, its parts under nested keys."""
    row: dict[str, Any] = {}
    for item in record.history.item:
        *outer, last = item.nested_key or [item.key]
        place = row
        for key in outer:
            place = place.setdefault(key, {})
        place[last] = json.loads(item.value_json)
    return row
