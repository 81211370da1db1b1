"""One Callback, Logger and Trainer for both Lightning packages."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING, Any

from lightning_utilities.core import rank_zero

if TYPE_CHECKING:
    from pytorch_lightning import (
        Callback,
        LightningDataModule,
        LightningModule,
        Trainer,
        seed_everything,
    )
    from pytorch_lightning.loggers import Logger


__all__ = [
    "Callback",
    "LightningDataModule",
    "LightningModule",
    "Logger",
    "Trainer",
    "in_both",
    "is_rank_zero",
    "rank_zero_info",
    "rank_zero_warn",
    "seed_everything",
]

_NAMES = ("lightning.pytorch", "pytorch_lightning")


def _installed(name: str) -> bool:
    """Whether a package can be imported, without importing it."""
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # `lightning` itself is absent
        return False


class _ToPackageInUse(logging.Handler):
    """Hands each of Lightning's messages to the logger of the Lightning package whose code logs it.

    Importing a Lightning package points `lightning_utilities`' one logger at itself. With both imported, a user who
    silenced the logger of the one they use would get its messages through the other's. A message of ours goes to the
    package that logged last: a Trainer does so when it is made.
    """

    def __init__(self, packages: tuple[ModuleType, ...]) -> None:
        super().__init__()
        self._last = packages[-1].__name__

    def emit(self, record: logging.LogRecord) -> None:
        """Pass `record` on, if its package's logger takes its level."""
        for package, folders in _FOLDERS.items():
            if any(f"{os.sep}{folder}{os.sep}" in record.pathname for folder in folders):
                self._last = package
        logger = logging.getLogger(f"{self._last}.utilities.rank_zero")
        if logger.isEnabledFor(record.levelno):
            logger.handle(record)


_FOLDERS = {
    "lightning.pytorch": (f"lightning{os.sep}pytorch", f"lightning{os.sep}fabric"),
    "pytorch_lightning": ("pytorch_lightning", "lightning_fabric"),
}


def _import_all() -> tuple[ModuleType, ...]:
    """Import every Lightning package there is, so that one callback can inherit from each one's `Callback`."""
    found = tuple(importlib.import_module(name) for name in _NAMES if _installed(name))
    if len(found) > 1:
        rank_zero.log = logging.Logger(
            __name__
        )  # of its own, outside of the tree: the handler passes everything on
        rank_zero.log.addHandler(_ToPackageInUse(found))
    return found


_PACKAGES = _import_all()


@cache
def in_both(path: str) -> tuple[type[Any], ...]:
    """The classes at `path` ("loggers.TensorBoardLogger"), one of each installed Lightning package."""
    module, _, name = path.rpartition(".")
    modules = (importlib.import_module(f"{package.__name__}.{module}") for package in _PACKAGES)
    return tuple(getattr(each, name) for each in modules)


if not TYPE_CHECKING:
    # for annotations, and for what runs by itself: `lightning-gcam evaluate`
    LightningModule, Trainer = _PACKAGES[-1].LightningModule, _PACKAGES[-1].Trainer
    seed_everything = _PACKAGES[-1].seed_everything
    Callback = type("Callback", tuple(package.Callback for package in _PACKAGES), {"__module__": __name__})
    LightningDataModule = type(
        "LightningDataModule", in_both("core.LightningDataModule"), {"__module__": __name__}
    )
    Logger = type("Logger", in_both("loggers.Logger"), {"__module__": __name__})


def is_rank_zero() -> bool:
    """Whether this process has rank zero; it has where no Trainer set a rank."""
    return int(getattr(rank_zero.rank_zero_only, "rank", None) or 0) == 0


def rank_zero_info(message: str) -> None:
    """Log a message on rank zero only, by the logger that Lightning logs to."""
    rank_zero.rank_zero_info(message)


def rank_zero_warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Issue a warning on rank zero only."""
    rank_zero.rank_zero_warn(message, category=category)
