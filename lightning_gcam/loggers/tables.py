"""`log_table(logger, tag, rows, step)`: a table of words and numbers, where a logger shows such."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lightning_gcam._names import safe_path
from lightning_gcam.loggers.mlflow import is_mlflow, table_to_mlflow
from lightning_gcam.loggers.tensorboard import markdown

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
