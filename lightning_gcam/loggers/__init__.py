"""Log looks, alerts and tables to Lightning's loggers; each backend is one module."""

# each import registers a backend; for a logger of an unknown type the last registered is tried first
# isort: off
from lightning_gcam.loggers import files, mlflow, services, wandb, tensorboard  # noqa: F401
from lightning_gcam.loggers.report_logger import ReportLogger

# isort: on
from lightning_gcam.loggers.files import write_alert, write_look, write_picture, write_scores
from lightning_gcam.loggers.registry import (
    Backend,
    log_alert,
    log_picture,
    log_saliency,
    log_table,
    register_backend,
)

__all__ = [
    "Backend",
    "ReportLogger",
    "log_alert",
    "log_picture",
    "log_saliency",
    "log_table",
    "register_backend",
    "write_alert",
    "write_look",
    "write_picture",
    "write_scores",
]
