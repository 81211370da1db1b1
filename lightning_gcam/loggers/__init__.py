"""Where a look is shown, and what the alarm says: one function a backend, from a `SaliencyRecord` to the screen."""

from lightning_gcam.loggers.files import write_alert, write_look, write_scores
from lightning_gcam.loggers.registry import log_alert, log_saliency, log_table
from lightning_gcam.loggers.report_logger import ReportLogger

__all__ = [
    "ReportLogger",
    "log_alert",
    "log_saliency",
    "log_table",
    "write_alert",
    "write_look",
    "write_scores",
]
