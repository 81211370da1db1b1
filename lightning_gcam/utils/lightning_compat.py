"""One Callback, Logger and LightningDataModule for both Lightning packages, of which only those in use are imported.

The package that is imported already is used; where neither is, `pytorch_lightning`, which is always installed. (Sorted
imports name `lightning` before this package and `pytorch_lightning` behind it.) Where the other one is imported later,
our classes are its own from then on, too.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from threading import RLock
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
    "for_each_package",
    "in_both",
    "is_rank_zero",
    "log_once",
    "rank_zero_info",
    "rank_zero_warn",
    "seed_everything",
]

_FOLDERS = {
    "pytorch_lightning": ("pytorch_lightning", "lightning_fabric"),
    "lightning.pytorch": (f"lightning{os.sep}pytorch", f"lightning{os.sep}fabric"),
}
"""For each Lightning package the folders of its code."""

_IN_USE: list[str] = []
"""The packages that are imported, in the order in which they came to be used here."""

_FOR_EACH: list[tuple[str, Callable[[type], None]]] = []
_LOCK = RLock()


def in_both(path: str) -> tuple[type[Any], ...]:
    """The classes at `path` ("loggers.TensorBoardLogger"), one of each Lightning package that is imported by now."""
    module, _, name = path.rpartition(".")
    return tuple(getattr(importlib.import_module(f"{package}.{module}"), name) for package in _IN_USE)


def for_each_package(path: str, use: Callable[[type], None]) -> None:
    """Call a function with the class at a path of each Lightning package that is imported, now or later.

    Args:
        path: as in `in_both`.
        use: a function that can be called with the same class again.

    Example:
        >>> for_each_package("loggers.CSVLogger", lambda kind: print(kind.__name__))  # doctest: +ELLIPSIS
        CSVLogger...
    """
    with _LOCK:
        for kind in in_both(path):
            use(kind)
        _FOR_EACH.append((path, use))


class _ToPackageInUse(logging.Handler):
    """Hands each of Lightning's messages to the logger of the Lightning package whose code logs it.

    Importing a Lightning package points `lightning_utilities`' one logger at itself. With both imported, a user who
    silenced the logger of the one they use would get its messages through the other's. A message of ours goes to the
    package that logged last: a Trainer does so when it is made.
    """

    def __init__(self) -> None:
        super().__init__()
        imported_last = rank_zero.log.name
        self._last = next((each for each in _FOLDERS if imported_last.startswith(each)), _IN_USE[-1])

    def emit(self, record: logging.LogRecord) -> None:
        """Pass `record` on, if its package's logger takes its level."""
        for package, folders in _FOLDERS.items():
            if any(f"{os.sep}{folder}{os.sep}" in record.pathname for folder in folders):
                self._last = package
        logger = logging.getLogger(f"{self._last}.utilities.rank_zero")
        if logger.isEnabledFor(record.levelno):
            logger.handle(record)


class _Witness(MetaPathFinder):
    """Finds nothing of its own: stands before the other finders, so that a package imported later is used as well."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return what the other finders find, for the two packages only, made to call `_use` once it is imported."""
        if fullname not in _FOLDERS:
            return None
        others = [each for each in sys.meta_path if each is not self and hasattr(each, "find_spec")]
        found = (each.find_spec(fullname, path, target) for each in others)
        spec = next((each for each in found if each is not None), None)
        if spec is not None and spec.loader is not None:
            with suppress(AttributeError):  # a loader that takes no attributes
                _use_after(spec.loader)
        return spec


def _use_after(loader: Loader) -> None:
    """Make a loader call `_use` behind its next module."""
    execute = loader.exec_module

    def exec_module(module: ModuleType) -> None:
        vars(loader).pop("exec_module", None)
        execute(module)
        if module.__name__ in _FOLDERS:
            _use(module.__name__)

    loader.exec_module = exec_module  # type: ignore[method-assign]


_WITNESS = _Witness()


def _use(package: str) -> None:
    """Use a Lightning package that has been imported; whatever fails here is not to end the user's import of it."""
    with _LOCK:
        if package in _IN_USE:
            return
        _IN_USE.append(package)
        if len(_IN_USE) < len(_FOLDERS):
            return
        # a new list: another thread may be going through the old one
        sys.meta_path = [each for each in sys.meta_path if each is not _WITNESS]
        handler = _ToPackageInUse()
        rank_zero.log = logging.Logger(__name__)  # outside of the tree: the handler passes everything on
        rank_zero.log.addHandler(handler)
        for path, use in _FOR_EACH:
            try:
                use(in_both(path)[-1])
            except Exception:
                logging.getLogger(__name__).warning(f"`{package}` has another `{path}`.", exc_info=True)


def _import() -> None:
    """Use the packages that are imported already; import one where there is none."""
    sys.meta_path.insert(0, _WITNESS)  # first: another thread may be about to import the other one
    imported = [name for name in _FOLDERS if sys.modules.get(name) is not None]
    if not imported:
        imported = [next(name for name in _FOLDERS if importlib.util.find_spec(name.partition(".")[0]))]
    for name in imported:
        importlib.import_module(name)  # waits for a thread that is importing it
        _use(name)


def _joined(path: str) -> type[Any]:
    """A class that inherits from the class at `path` of each package."""
    joined = type(path.rpartition(".")[2], in_both(path), {"__module__": __name__})

    def inherit(kind: type) -> None:
        if kind not in joined.__bases__:
            joined.__bases__ += (
                kind,
            )  # behind the others, so that no hook of a subclass is overridden by a base's

    for_each_package(path, inherit)
    return joined


if not TYPE_CHECKING:
    _import()
    # for annotations, and for what runs by itself: `lightning-gcam evaluate`
    _first = importlib.import_module(_IN_USE[0])
    LightningModule, Trainer, seed_everything = _first.LightningModule, _first.Trainer, _first.seed_everything
    Callback = _joined("callbacks.Callback")
    LightningDataModule = _joined("core.LightningDataModule")
    Logger = _joined("loggers.Logger")


def is_rank_zero() -> bool:
    """Whether this process has rank zero; it has where no Trainer set a rank."""
    return int(getattr(rank_zero.rank_zero_only, "rank", None) or 0) == 0


def rank_zero_info(message: str) -> None:
    """Log a message on rank zero only, by the logger that Lightning logs to."""
    rank_zero.rank_zero_info(message)


_LOGGED: set[str] = set()


def log_once(message: str) -> None:
    """Log a message as `rank_zero_info` does, unless it was logged in this process before."""
    if message not in _LOGGED:
        _LOGGED.add(message)
        rank_zero_info(message)


def rank_zero_warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Issue a warning on rank zero only, at the user's own line, such as that of `trainer.fit(...)`.

    Args:
        message: of the warning.
        category: of the warning.
    """
    if is_rank_zero():
        warnings.warn(message, category, stacklevel=_level_of_user())


_NOT_THE_USERS = sys.stdlib_module_names | {
    __name__.partition(".")[0],
    "lightning",
    "lightning_fabric",
    "lightning_utilities",
    "pytorch_lightning",
    "torch",
}


def _level_of_user() -> int:
    """The `stacklevel`, for a caller's `warnings.warn`, of the innermost line outside of this package and its hosts.

    By the modules' names and not by files: a method that `dataclass` made has none. `skip_file_prefixes` of
    `warnings.warn` would do the same from Python 3.12 on.
    """
    level, frame = 1, sys._getframe(1)
    while str(frame.f_globals.get("__name__")).partition(".")[0] in _NOT_THE_USERS:
        if frame.f_back is None:
            return 2  # a thread of our own or of Lightning's
        level, frame = level + 1, frame.f_back
    return level
