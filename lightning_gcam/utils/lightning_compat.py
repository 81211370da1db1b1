"""One Callback, Logger and Trainer for both Lightning packages."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import sys
from types import FrameType, ModuleType
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
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # `lightning` itself is absent
        return False


class _SpeakingPackage:
    """Sends each of Lightning's messages to the logger of the package that speaks.

    Importing a Lightning package points `lightning_utilities`' one logger at itself. With both imported, a user who
    silenced the one they use would hear it through the other.
    """

    def __getattr__(self, name: str) -> Any:
        return getattr(logging.getLogger(f"{self._package()}.utilities.rank_zero"), name)

    def _package(self) -> str:
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            module = str(frame.f_globals.get("__name__", ""))
            for package, prefixes in _SPEAKERS.items():
                if module.startswith(prefixes):
                    return package
            frame = frame.f_back
        return _PACKAGES[-1].__name__


_SPEAKERS = {
    "lightning.pytorch": ("lightning.",),
    "pytorch_lightning": ("pytorch_lightning.", "lightning_fabric."),
}


def _import_all() -> tuple[ModuleType, ...]:
    """Import every Lightning package there is, so that one callback can inherit from each one's `Callback`."""
    found = tuple(importlib.import_module(name) for name in _NAMES if _installed(name))
    if len(found) > 1:
        rank_zero.log = _SpeakingPackage()  # type: ignore[assignment]
    return found


_PACKAGES = _import_all()


def in_both(path: str) -> tuple[type[Any], ...]:
    """The class at `path` ("loggers.TensorBoardLogger") in each Lightning package that is installed."""
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
    """Whether this process is the one that writes; before a Trainer has said so, it is."""
    return int(getattr(rank_zero.rank_zero_only, "rank", None) or 0) == 0


def rank_zero_info(message: str) -> None:
    """Say `message` once, on rank zero, where Lightning says its own."""
    rank_zero.rank_zero_info(message)


def rank_zero_warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn on rank zero."""
    rank_zero.rank_zero_warn(message, category=category)
