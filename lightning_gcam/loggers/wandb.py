"""Weights & Biases: pictures with interactive masks and boxes, tables; and an alert where the alarm speaks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lightning_gcam._names import safe_path
from lightning_gcam.loggers.files import write_png
from lightning_gcam.loggers.wandb_samples import measurements_table, sample_images, samples_table
from lightning_gcam.record import SaliencyRecord


def log_to_wandb(logger: Any, record: SaliencyRecord) -> None:
    """Log the look on the axis `trainer/global_step`: pictures and tables, under four keys.

    The step goes through `WandbLogger.log_metrics`, which writes it as a value of the row. W&B's own `step=` is never
    used: it drops whatever comes behind a later step, without an error.

    `saliency/samples` has each sample's heat with the object and the suspect region as masks to switch on and off;
    `saliency/table` a row a sample, one table a look under one key; `saliency/measurements` each score with its n and
    its interval.

    Args:
        logger: a `WandbLogger`.
        record: the look.
    """
    prefix = safe_path(record.stamp.log_prefix)  # W&B makes paths of the keys of pictures and tables
    with TemporaryDirectory() as folder:  # W&B has copied what is in it when it returns
        overlay = write_png(Path(folder) / "overlay.png", record.overlay)  # in a third of the time W&B takes
        logger.log_image(key=f"{prefix}/overlay", images=[str(overlay)], step=record.step)
        shown = sample_images(record, Path(folder))
        row: dict[str, Any] = {f"{prefix}/table": samples_table(record, shown)}
        if record.attribution.maps:
            row[f"{prefix}/samples"] = [heat[0] for _, heat in shown]
        if record.table:
            row[f"{prefix}/measurements"] = measurements_table(record)
        logger.log_metrics(row, step=record.step)


def alert_to_wandb(logger: Any, alert: Mapping[str, Any]) -> None:
    """Send the alert's message by `run.alert`, which reaches people by mail or Slack as they have set it up.

    Args:
        logger: a `WandbLogger`, or any logger whose `experiment` has `alert(title, text, level=...)`.
        alert: as in `log_alert`.
    """
    logger.experiment.alert(f"{alert['log_prefix']}: ShortcutAlarm", alert["message"], level="WARN")
