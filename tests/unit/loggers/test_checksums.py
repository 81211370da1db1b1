"""The checksums of large records: those of TensorBoard, in files that TensorBoard reads, by fewer steps."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pytorch_lightning.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.tensorflow_stub import pywrap_tensorflow
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard import SummaryWriter

from lightning_gcam import SaliencyBatch, SaliencyRecord
from lightning_gcam.loggers.disk import encode_jpeg
from lightning_gcam.loggers.event_files import FastRecords, check_fast
from lightning_gcam.loggers.tensorboard import _add_picture, log_to_tensorboard
from lightning_gcam.pipeline.run import record_saliency
from tests.support.toys import toy_network, toy_samples


def noise(length: int) -> bytes:
    return np.random.default_rng(length).integers(0, 256, length, dtype=np.uint8).tobytes()


@pytest.mark.parametrize("length", [20, (1 << 14) - 1, 1 << 14, 70_001])
def test_a_record_is_written_as_tensorboard_writes_it(length: int) -> None:
    ours, theirs = io.BytesIO(), io.BytesIO()
    FastRecords(RecordWriter(ours)).write(noise(length))
    RecordWriter(theirs).write(noise(length))
    assert ours.getvalue() == theirs.getvalue()


def test_not_a_byte_of_a_picture_is_taken_one_by_one(tmp_path: Path, monkeypatch: Any) -> None:
    """Of a look, TensorBoard's own loop sees the length of the record alone; other writers keep theirs."""
    looped: list[int] = []
    update = pywrap_tensorflow.crc_update

    def counted(crc: int, data: Any) -> int:
        looped.append(len(data))
        return int(update(crc, data))

    monkeypatch.setattr(pywrap_tensorflow, "crc_update", counted)
    picture = np.frombuffer(noise(300 * 400 * 3), dtype=np.uint8).reshape(300, 400, 3)
    with SummaryWriter(str(tmp_path / "ours")) as writer, SummaryWriter(str(tmp_path / "others")) as other:
        looped.clear()
        _add_picture(writer, "saliency/overlay", picture, 7)
        writer.flush()
        assert looped == [8]
        assert (
            type(other._get_file_writer().event_writer._async_writer._worker._record_writer) is RecordWriter
        )
    events = EventAccumulator(str(tmp_path / "ours"), size_guidance={"images": 0}).Reload()
    (image,) = events.Images("saliency/overlay")
    assert (image.step, image.width, image.height) == (7, 400, 300)


def test_a_writer_that_is_built_otherwise_stays_as_it_is() -> None:
    check_fast(object())


def test_a_look_is_one_event_for_the_picture_and_one_for_the_table(tmp_path: Path, monkeypatch: Any) -> None:
    """And what it adds to the file is the JPEG, the table, and a few bytes around them."""
    logger = TensorBoardLogger(tmp_path, version=0)
    record = replace(look(), scores={"energy": 0.5})
    log_to_tensorboard(logger, record)  # the first one adds the charts too
    writer = logger.experiment._get_file_writer().event_writer
    events: list[Any] = []
    flushes: list[None] = []
    add, flush = writer.add_event, writer.flush
    monkeypatch.setattr(writer, "add_event", lambda event: (events.append(event), add(event)))
    monkeypatch.setattr(writer, "flush", lambda: (flushes.append(None), flush()))
    (path,) = Path(logger.log_dir).glob("events*")
    before = path.stat().st_size
    log_to_tensorboard(logger, record)
    added = path.stat().st_size - before
    tags = [value.tag for event in events for value in event.summary.value]
    assert tags == ["saliency/overlay", "saliency/measurements/text_summary"]
    assert len(flushes) == 1
    assert added < len(encode_jpeg(record.overlay)) + 2000


def look() -> SaliencyRecord:
    batch = SaliencyBatch(*toy_samples(4))
    return record_saliency(toy_network(), batch, checks=[])
