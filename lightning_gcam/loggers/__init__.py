"""Where a look is shown: one function a backend, from a `SaliencyRecord` to the screen."""

from lightning_gcam.loggers.dispatch import log_saliency
from lightning_gcam.loggers.files import write_look, write_scores

__all__ = ["log_saliency", "write_look", "write_scores"]
