"""Where a look, an alert or a table goes, by what the logger can do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial, singledispatch
from typing import Any

from lightning_gcam.loggers.disk import directory_of, own_directory, run_all
from lightning_gcam.loggers.files import alert_to_files, log_to_files
from lightning_gcam.loggers.mlflow import alert_to_mlflow, is_mlflow, log_to_mlflow, table_to_mlflow
from lightning_gcam.loggers.report_logger import ReportLogger, alert_to_report, log_to_report
from lightning_gcam.loggers.tensorboard import alert_to_tensorboard, log_to_tensorboard, markdown
from lightning_gcam.loggers.wandb import alert_to_wandb, log_to_wandb
from lightning_gcam.pipeline.record import SaliencyRecord
from lightning_gcam.utils.files import safe_path
from lightning_gcam.utils.lightning_compat import in_both, rank_zero_info


def log_by_log_image(logger: Any, record: SaliencyRecord) -> None:
    """Call `log_image(key, images, step)`, the method that Lightning's own loggers with pictures share.

    The key is the tag as `safe_path` writes it: nobody knows whether such a logger makes a path of it.

    Args:
        logger: any logger with that method.
        record: the look.
    """
    run_all(
        partial(logger.log_image, key=safe_path(tag), images=[picture], step=record.step)
        for tag, picture in record.pictures.items()
    )


def log_scalars_only(logger: Any, record: SaliencyRecord) -> None:
    """Say once a run that `logger` gets no pictures, and keep them as files under its directory.

    Args:
        logger: any logger; the scores reach it as any other metric.
        record: the look.
    """
    name = type(logger).__name__
    if not (own_directory(directory_of(logger)) / safe_path(record.stamp.log_prefix)).exists():
        rank_zero_info(
            f"{name} is not known to take images (it has neither `log_image` nor an `experiment` with `add_image`), so "
            f"it gets the scores alone. A function under `@log_saliency.register({name})` would show it the overlays."
        )
    log_to_files(logger, record)


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


Rows = Sequence[Mapping[str, object]]
"""The lines of a table; their keys are its columns."""


def log_table(logger: Any, tag: str, rows: Rows, step: int) -> None:
    """Show a table where `logger` can: as Markdown among TensorBoard's texts, a table in W&B, a CSV file in MLflow.

    Args:
        logger: a Lightning logger of either package. It is served by what it can do: an `experiment` with `add_text` as
            TensorBoard is, a method `log_table(key, columns, data, step=...)` as W&B is, or a run and an MLflow client.
            Others show no tables.
        tag: its name.
        rows: its lines.
        step: on the logger's x-axis.
    """
    if not rows:
        return
    experiment: Any = getattr(logger, "experiment", None)
    if callable(getattr(experiment, "add_text", None)):
        shown = [{name: "" if value is None else value for name, value in row.items()} for row in rows]
        experiment.add_text(tag, markdown(shown), step)
        experiment.flush()
    elif callable(getattr(logger, "log_table", None)):
        logger.log_table(
            key=safe_path(tag), columns=list(rows[0]), data=[list(row.values()) for row in rows], step=step
        )
    elif is_mlflow(logger):
        table_to_mlflow(logger, tag, rows, step)
