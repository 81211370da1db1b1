"""TensorBoard's event files with the checksums of their records computed in C."""

from __future__ import annotations

import struct
from typing import Any

import google_crc32c
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c  # type: ignore[import-untyped]
from tensorboard.summary.writer.record_writer import RecordWriter  # type: ignore[import-untyped]

_LARGE = 1 << 14


def check_fast(events: Any) -> None:
    """Have the thread of this one event file compute the checksums of large records in C.

    TensorBoard's own loop over every byte takes 90 ms for a look of 800 kB, during which the training waits. Files,
    thread and queue stay TensorBoard's; other writers keep their checksums, and so does one that is built otherwise.

    Args:
        events: the `EventFileWriter` of a run.
    """
    worker: Any = getattr(getattr(events, "_async_writer", None), "_worker", None)
    records = getattr(worker, "_record_writer", None)
    if type(records) is RecordWriter:
        worker._record_writer = FastRecords(records)


class FastRecords(RecordWriter):  # type: ignore[misc]
    """TensorBoard's writer of records; the files are the same to the byte.

    Args:
        records: in whose place it writes, to the same file.
    """

    def __init__(self, records: Any) -> None:
        super().__init__(records._writer)

    def write(self, data: bytes) -> None:
        """Write one record as in every TFRecord file: length, its checksum, data, its checksum.

        Args:
            data: an encoded event.
        """
        if len(data) < _LARGE:
            super().write(data)
            return
        length = struct.pack("<Q", len(data))
        checksums = (masked_crc32c(length), _masked(google_crc32c.value(data)))
        first, second = (struct.pack("<I", each) for each in checksums)
        self._writer.write(length + first + data + second)


def _masked(checksum: int) -> int:
    """Rotate a checksum and add a constant, as records hold it."""
    return ((checksum >> 15 | checksum << 17) + 0xA282EAD8) & 0xFFFFFFFF
