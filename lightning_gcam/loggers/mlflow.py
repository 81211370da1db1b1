"""The backend for MLflow: images with steps under one key, tables and alerts as artifacts."""

from __future__ import annotations

import csv
import inspect
import io
from collections.abc import Mapping
from functools import partial
from typing import Any

from lightning_gcam.loggers.disk import run_all
from lightning_gcam.loggers.registry import Backend, Pixels, Rows, has, register_backend
from lightning_gcam.pipeline.record import SaliencyRecord
from lightning_gcam.utils.files import safe_path


def log_to_mlflow(logger: Any, record: SaliencyRecord) -> None:
    """Log the pictures with their step, and the scores' table as a CSV file of the step.

    An image is written before this returns, so that a run that is killed has lost none. Clients before MLflow 2.12 know
    no steps of images; there it is an artifact with the step in its name.

    Args:
        logger: an `MLFlowLogger`, or any logger with `run_id` and an `experiment` that is an MLflow client.
        record: the look.
    """
    steps = [
        partial(picture_to_mlflow, logger, tag, each, record.step) for tag, each in record.pictures.items()
    ]
    if record.table:
        tag = f"{record.stamp.log_prefix}/measurements"
        steps.append(partial(table_to_mlflow, logger, tag, record.table, record.step))
    run_all(steps)


def picture_to_mlflow(logger: Any, tag: str, picture: Pixels, step: int) -> None:
    """Log a picture with its step.

    Args:
        logger: as in `log_to_mlflow`.
        tag: its name.
        picture: `(height, width, 3)`, uint8.
        step: of it.
    """
    client, name = logger.experiment, _safe(tag)
    known = inspect.signature(client.log_image).parameters
    if "key" not in known:
        client.log_image(logger.run_id, picture, f"{name}-step={step:08d}.png")
        return
    now = {"synchronous": True} if "synchronous" in known else {}
    client.log_image(logger.run_id, picture, key=name, step=step, **now)


def table_to_mlflow(logger: Any, tag: str, rows: Rows, step: int) -> None:
    """Log a table as a CSV file with the step in its name.

    Args:
        logger: as in `log_to_mlflow`.
        tag: its name.
        rows: its lines, one at least; their keys are its columns.
        step: of it.
    """
    logger.experiment.log_text(logger.run_id, as_csv(rows), f"{_safe(tag)}-step={step:08d}.csv")


def alert_to_mlflow(logger: Any, alert: Mapping[str, Any]) -> None:
    """Set the tag `<prefix>/alarm` to the headline, by which runs can be searched, and log each alert as a text file.

    Args:
        logger: as in `log_to_mlflow`.
        alert: as in `log_alert`.
    """
    client, run_id, tag = logger.experiment, logger.run_id, _safe(f"{alert['log_prefix']}/alarm")
    client.log_text(run_id, alert["message"], f"{tag}-step={alert['step']:08d}.txt")
    client.set_tag(run_id, tag, alert.get("headline", alert["message"])[:_LONGEST_TAG])


def is_mlflow(logger: Any) -> bool:
    """Return whether a logger has a run and an MLflow client for it.

    Args:
        logger: any Lightning logger.
    """
    takes = has("experiment.log_image", "experiment.log_text", "experiment.set_tag")
    return takes(logger) and hasattr(logger, "run_id")


_LONGEST_TAG = 5000
"""The longest tag that servers before MLflow 2.8 accept."""


def _safe(tag: str) -> str:
    """Convert a tag to a path of the few characters that MLflow allows."""
    return safe_path(tag).replace("%", "_").replace("~", "_")


def as_csv(rows: Rows) -> str:
    """Format a table as CSV, with a first line of its columns."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


register_backend(
    Backend(
        log_look=log_to_mlflow,
        log_alert=alert_to_mlflow,
        log_table=table_to_mlflow,
        types=["loggers.MLFlowLogger"],
        takes_look=is_mlflow,
        takes_alert=is_mlflow,
        takes_table=is_mlflow,
        log_picture=picture_to_mlflow,
    )
)
