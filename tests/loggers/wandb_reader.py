"""Read an offline Weights & Biases run back: wandb writes such files and ships no reader for them.

A `.wandb` file is a leveldb log: a header of 7 bytes, then blocks of 32 KiB that hold chunks of (crc, 4 bytes; length,
2; type, 1; data). A record is one whole chunk (type 1), or a first, several middle and a last one (2, 3, 4).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_BLOCK, _HEADER, _CHUNK_HEADER = 32 * 1024, 7, 7
_WHOLE, _LAST = 1, 4


def history(directory: Path) -> list[dict[str, Any]]:
    """Every row that was logged in the one offline run under `directory`, in order."""
    (path,) = directory.rglob("*.wandb")
    return [_row(record) for record in _records(path) if record.WhichOneof("record_type") == "history"]


def alerts(directory: Path) -> list[dict[str, str]]:
    """Every alert of the one offline run under `directory`, in order."""
    (path,) = directory.rglob("*.wandb")
    found = [record.alert for record in _records(path) if record.WhichOneof("record_type") == "alert"]
    return [{"title": each.title, "text": each.text, "level": each.level} for each in found]


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
