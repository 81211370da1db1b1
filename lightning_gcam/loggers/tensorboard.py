"""TensorBoard: images under stable tags, with a slider over the steps; charts; and what the alarm says, as a text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[import-untyped]
from torch.utils.tensorboard import SummaryWriter

from lightning_gcam._names import safe_path
from lightning_gcam.loggers.attempts import run_all
from lightning_gcam.loggers.custom_scalars import lay_out
from lightning_gcam.loggers.jpeg import encoded
from lightning_gcam.record import SaliencyRecord


def log_to_tensorboard(logger: Any, record: SaliencyRecord) -> None:
    """Add the overlay and the scores' table to the event file and flush it: a run that is killed has lost no look.

    It is kept as a JPEG without chroma subsampling. `add_image` would make a PNG of three times the size, which takes
    thirty times as long to encode, and TensorBoard computes a checksum over every byte in Python.

    Args:
        logger: a `TensorBoardLogger`, or any logger whose `experiment` has `add_image`.
        record: the look.
    """
    writer = logger.experiment

    def write_words() -> None:
        if isinstance(writer, SummaryWriter):
            lay_out(writer, record.stamp.log_prefix)
        if record.table and callable(getattr(writer, "add_text", None)):
            writer.add_text(f"{record.stamp.log_prefix}/measurements", markdown(record.table), record.step)

    pictures = [
        partial(_add_picture, writer, tag, each, record.step) for tag, each in record.pictures.items()
    ]
    run_all([*pictures, write_words, lambda: writer.flush()])


def alert_to_tensorboard(logger: Any, alert: Mapping[str, Any]) -> None:
    """Add the alert's message to the tab Text, under `<prefix>/alarm`, and flush it.

    Args:
        logger: a `TensorBoardLogger`, or any logger whose `experiment` has `add_text`.
        alert: as in `log_alert`.
    """
    writer = logger.experiment
    writer.add_text(f"{alert['log_prefix']}/alarm", alert["message"], global_step=alert["step"])
    writer.flush()


def markdown(rows: Sequence[Mapping[str, object]]) -> str:
    """A table as TensorBoard shows it among the texts."""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *([_cell(each) for each in row.values()] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _add_picture(writer: Any, tag: str, picture: npt.NDArray[np.uint8], step: int) -> None:
    if isinstance(writer, SummaryWriter):
        height, width, channels = picture.shape
        image = Summary.Image(
            height=height, width=width, colorspace=channels, encoded_image_string=encoded(picture)
        )
        summary = Summary(value=[Summary.Value(tag=tag, image=image)])
        writer._get_file_writer().add_summary(summary, step)
    else:
        writer.add_image(safe_path(tag), picture, global_step=step, dataformats="HWC")
