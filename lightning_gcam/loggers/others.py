"""A logger that nobody registered: pictures by its `log_image`, else scores alone, and files for the pictures."""

from __future__ import annotations

from functools import partial
from typing import Any

from lightning_gcam._lightning import rank_zero_info
from lightning_gcam._names import safe_path
from lightning_gcam.loggers.attempts import run_all
from lightning_gcam.loggers.claims import own_directory
from lightning_gcam.loggers.files import directory_of, log_to_files
from lightning_gcam.record import SaliencyRecord


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
