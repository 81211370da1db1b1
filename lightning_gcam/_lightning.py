"""The one place that knows there are two Lightning packages.

`pytorch_lightning` and `lightning.pytorch` are the same code under two names, with two `Callback` classes and two
of every logger. A callback that inherits from both works in both Trainers; a function registered for both loggers
is found by either.
"""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType
from typing import TYPE_CHECKING, Any

from lightning_utilities.core import rank_zero

if TYPE_CHECKING:
    from pytorch_lightning import Callback, LightningModule, Trainer

__all__ = ["Callback", "LightningModule", "Trainer", "in_both", "rank_zero_info", "rank_zero_warn"]

_NAMES = ("lightning.pytorch", "pytorch_lightning")


def _installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # `lightning` itself is absent
        return False


def _import_all() -> tuple[ModuleType, ...]:
    """Import every Lightning package there is, and leave Lightning's messages with the logger that had them.

    Importing a Lightning package points `lightning_utilities`' logger at itself. Where the user imported one
    package (and perhaps silenced it), importing the other must not take the messages away from it.
    """
    before = rank_zero.log
    found = tuple(importlib.import_module(name) for name in _NAMES if _installed(name))
    if before.name.startswith(_NAMES):
        rank_zero.log = before
    return found


_PACKAGES = _import_all()


def in_both(path: str) -> tuple[type[Any], ...]:
    """The class at `path` ("loggers.TensorBoardLogger") in each Lightning package that is installed."""
    module, _, name = path.rpartition(".")
    modules = (importlib.import_module(f"{package.__name__}.{module}") for package in _PACKAGES)
    return tuple(getattr(each, name) for each in modules)


if not TYPE_CHECKING:
    LightningModule, Trainer = _PACKAGES[-1].LightningModule, _PACKAGES[-1].Trainer  # for annotations only
    Callback = type("Callback", tuple(package.Callback for package in _PACKAGES), {"__module__": __name__})


def rank_zero_info(message: str) -> None:
    """Say `message` once, on rank zero, where Lightning says its own."""
    rank_zero.rank_zero_info(message)


def rank_zero_warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn once, on rank zero; the warning points at the line of the Trainer's caller, as Lightning's do."""
    rank_zero.rank_zero_warn(message, category=category, stacklevel=5)
