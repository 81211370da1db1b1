"""TensorBoard: one image under a stable tag, with a slider over the steps."""

from __future__ import annotations

from typing import Any

from lightning_gcam.record import SaliencyRecord


def log_to_tensorboard(logger: Any, record: SaliencyRecord) -> None:
    """Add the overlay to the event file and flush it, so that a run that is killed has lost no look.

    Args:
        logger: a `TensorBoardLogger`, or any logger whose `experiment` has `add_image`.
        record: the look.
    """
    writer = logger.experiment
    writer.add_image(record.tag, record.overlay, global_step=record.step, dataformats="HWC")
    writer.flush()
