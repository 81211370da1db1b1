"""Saliency in the training loop: where a PyTorch Lightning model looks while it trains."""

from lightning_gcam.attribution import Attribution, attribute
from lightning_gcam.batch import SaliencyBatch
from lightning_gcam.callbacks import SaliencyMonitor, ShortcutAlarm
from lightning_gcam.record import SaliencyRecord

__all__ = [
    "Attribution",
    "SaliencyBatch",
    "SaliencyMonitor",
    "SaliencyRecord",
    "ShortcutAlarm",
    "__version__",
    "attribute",
]

__version__ = "0.1.0"
