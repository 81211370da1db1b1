"""`log_saliency(logger, record)`: the one door to every backend.

A backend is one function under `@log_saliency.register(TheirLogger)`. A logger that nobody registered is served by
what it can do.
"""

from __future__ import annotations

from functools import singledispatch
from typing import Any

from lightning_gcam._lightning import in_both
from lightning_gcam.loggers.files import log_to_files
from lightning_gcam.loggers.tensorboard import log_to_tensorboard
from lightning_gcam.loggers.wandb import log_to_wandb
from lightning_gcam.record import SaliencyRecord


@singledispatch
def log_saliency(logger: Any, record: SaliencyRecord) -> None:
    """Show one look where `logger` shows pictures. Scores are logged as any other metric, not here.

    Args:
        logger: a Lightning logger of either package. One that is not registered is served by what it can do: an
            `experiment` with `add_image` as TensorBoard is, a method `log_image(key, images, step)` as W&B is;
            any other gets PNG files and a `scores.csv` under its directory.
        record: the look.

    Example:
        Add a backend::

            @log_saliency.register(MyLogger)
            def log_to_mine(logger, record):
                logger.send_picture(record.tag, record.overlay, record.step)
    """
    if callable(getattr(getattr(logger, "experiment", None), "add_image", None)):
        log_to_tensorboard(logger, record)
    elif callable(getattr(logger, "log_image", None)):
        log_to_wandb(logger, record)
    else:
        log_to_files(logger, record)


for _logger_type in in_both("loggers.TensorBoardLogger"):
    log_saliency.register(_logger_type, log_to_tensorboard)
for _logger_type in in_both("loggers.WandbLogger"):
    log_saliency.register(_logger_type, log_to_wandb)
for _logger_type in in_both("loggers.CSVLogger"):
    log_saliency.register(_logger_type, log_to_files)
