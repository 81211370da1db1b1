"""Saliency in the training loop: where a PyTorch Lightning model looks while it trains."""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_gcam.callbacks import SaliencyEvaluation, SaliencyMonitor, ShortcutAlarm
    from lightning_gcam.data import SaliencyBatch
    from lightning_gcam.pipeline.attribution import Attribution, attribute
    from lightning_gcam.pipeline.record import SaliencyRecord

__all__ = [
    "Attribution",
    "SaliencyBatch",
    "SaliencyEvaluation",
    "SaliencyMonitor",
    "SaliencyRecord",
    "ShortcutAlarm",
    "__version__",
    "attribute",
]

__version__ = "0.1.0"

_HOMES = {
    "Attribution": "pipeline.attribution",
    "SaliencyBatch": "data",
    "SaliencyEvaluation": "callbacks",
    "SaliencyMonitor": "callbacks",
    "SaliencyRecord": "pipeline.record",
    "ShortcutAlarm": "callbacks",
    "attribute": "pipeline.attribution",
}
"""The module that defines each name; it is imported at the first use, so that the command's `--help` loads no torch."""


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        found = getattr(importlib.import_module(f"lightning_gcam.{_HOMES[name]}"), name)
        globals()[name] = found
        return found
    if not name.startswith("_") and importlib.util.find_spec(f"lightning_gcam.{name}") is not None:
        return importlib.import_module(f"lightning_gcam.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
