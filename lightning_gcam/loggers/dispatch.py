"""`log_saliency(logger, record)` and `log_alert(logger, alert)`: the doors to every backend.

A backend is one function under `@log_saliency.register(TheirLogger)`, and one under `@log_alert.register(TheirLogger)`
where it takes words. A logger that nobody registered is served by what it can do.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import singledispatch
from typing import Any

from lightning_gcam._lightning import in_both
from lightning_gcam.loggers.files import alert_to_files, log_to_files
from lightning_gcam.loggers.mlflow import alert_to_mlflow, is_mlflow, log_to_mlflow
from lightning_gcam.loggers.others import log_by_log_image, log_scalars_only
from lightning_gcam.loggers.report import ReportLogger, alert_to_report, log_to_report
from lightning_gcam.loggers.tensorboard import alert_to_tensorboard, log_to_tensorboard
from lightning_gcam.loggers.wandb import alert_to_wandb, log_to_wandb
from lightning_gcam.record import SaliencyRecord


@singledispatch
def log_saliency(logger: Any, record: SaliencyRecord) -> None:
    """Show one look where `logger` shows pictures. Scores are logged as any other metric, not here.

    Args:
        logger: a Lightning logger of either package. One that is not registered is served by what it can do: an
            `experiment` with `add_image` as TensorBoard is; one that is an MLflow client, with `run_id`; a method
            `log_image(key, images, step)`. Any other gets the scores alone, which is said once, and PNG files and a
            `scores.csv` lie under its directory.
        record: the look.

    Example:
        Add a backend::

            @log_saliency.register(MyLogger)
            def log_to_mine(logger, record):
                logger.send_picture(record.tag, record.overlay, record.step)
    """
    if callable(getattr(getattr(logger, "experiment", None), "add_image", None)):
        log_to_tensorboard(logger, record)
    elif is_mlflow(logger):
        log_to_mlflow(logger, record)
    elif callable(getattr(logger, "log_image", None)):
        log_by_log_image(logger, record)
    else:
        log_scalars_only(logger, record)


@singledispatch
def log_alert(logger: Any, alert: Mapping[str, Any]) -> None:
    """Show what `ShortcutAlarm` says where `logger` shows words.

    Args:
        logger: a Lightning logger of either package. One that is not registered is served by what it can do: an
            `experiment` with `add_text` as TensorBoard is, one with `alert` as W&B is, one that is an MLflow client;
            any other gets a line in an `alerts.csv` under its directory.
        alert: one of `ShortcutAlarm.alerts`: `step`, `message`, `log_prefix`, and what was measured, as plain numbers,
            strings and lists.

    Example:
        Add a backend::

            @log_alert.register(MyLogger)
            def alert_to_mine(logger, alert):
                logger.send_words(alert["message"], alert["step"])
    """
    experiment = getattr(logger, "experiment", None)
    if callable(getattr(experiment, "add_text", None)):
        alert_to_tensorboard(logger, alert)
    elif callable(getattr(experiment, "alert", None)):
        alert_to_wandb(logger, alert)
    elif is_mlflow(logger):
        alert_to_mlflow(logger, alert)
    else:
        alert_to_files(logger, alert)


for _path, _log_saliency, _log_alert in (
    ("loggers.TensorBoardLogger", log_to_tensorboard, alert_to_tensorboard),
    ("loggers.WandbLogger", log_to_wandb, alert_to_wandb),
    ("loggers.MLFlowLogger", log_to_mlflow, alert_to_mlflow),
    ("loggers.CSVLogger", log_to_files, alert_to_files),
):
    for _logger_type in in_both(_path):
        log_saliency.register(_logger_type, _log_saliency)
        log_alert.register(_logger_type, _log_alert)

log_saliency.register(ReportLogger, log_to_report)
log_alert.register(ReportLogger, alert_to_report)
