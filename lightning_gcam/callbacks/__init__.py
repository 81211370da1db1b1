"""When to look, and whom to tell: the callbacks."""

from lightning_gcam.callbacks.saliency_monitor import SaliencyMonitor

__all__ = ["SaliencyMonitor"]
