"""TensorBoard's event file: what we add is there as a whole, or the file and its writer are as we found them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tensorboard.summary.writer import event_file_writer  # type: ignore[import-untyped]
from torch.utils.tensorboard import SummaryWriter


@contextmanager
def left_as_found(logger: Any) -> Iterator[None]:
    """Take back what the body added to TensorBoard's event file where writing it fails, as on a full disk.

    A thread writes the file. It ends with the first error and raises that again at every later call: a picture of ours
    that finds no room would make Lightning's own row of numbers, which may find some, end the training. Half a record
    would hide all that is written behind it, too.

    Args:
        logger: any; nothing is done where its `experiment` is no writer of an event file on a local disk.
    """
    events = _events_of(logger)
    if events is None:
        yield
        return
    events.flush()  # raises where the writer failed before: that is not ours to mend
    size = os.path.getsize(events._file_name)
    try:
        yield
        events.flush()
    except Exception:
        if events._async_writer._worker.exception is not None:
            _take_back(events, size)
        raise


def _events_of(logger: Any) -> Any:
    writer = getattr(logger, "experiment", None)
    if not isinstance(writer, SummaryWriter):
        return None
    events = writer._get_file_writer().event_writer
    worker = getattr(getattr(events, "_async_writer", None), "_worker", None)
    # TensorFlow's own file, where that is installed, is kept open and cannot be cut from here
    is_plain = getattr(getattr(events, "_general_file_writer", None), "fs_supports_append", False)
    return events if is_plain and hasattr(worker, "exception") and os.path.isfile(events._file_name) else None


def _take_back(events: Any, size: int) -> None:
    """Cut the file to its size before, and let another thread go on with it."""
    ended = events._async_writer._worker
    os.truncate(events._file_name, size)
    worker = event_file_writer._AsyncWriterThread(ended._queue, ended._record_writer, ended._flush_secs)
    events._async_writer._worker = worker
    worker.start()
