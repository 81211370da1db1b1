"""Weights & Biases: one call a look, and one alert where the alarm speaks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning_gcam.record import SaliencyRecord


def log_to_wandb(logger: Any, record: SaliencyRecord) -> None:
    """Log the overlay on the axis `trainer/global_step`.

    The step goes through `WandbLogger.log_image`, which writes it as a value of the row. W&B's own `step=` is never
    used: it drops whatever comes behind a later step, without an error.

    Args:
        logger: a `WandbLogger`, or any logger with `log_image(key, images, step=...)`.
        record: the look.
    """
    logger.log_image(key=record.tag, images=[record.overlay], step=record.step)


def alert_to_wandb(logger: Any, alert: Mapping[str, Any]) -> None:
    """Send the alert's message by `run.alert`, which reaches people by mail or Slack as they have set it up.

    Args:
        logger: a `WandbLogger`, or any logger whose `experiment` has `alert(title, text, level=...)`.
        alert: as in `log_alert`.
    """
    logger.experiment.alert(f"{alert['log_prefix']}: ShortcutAlarm", alert["message"], level="WARN")
