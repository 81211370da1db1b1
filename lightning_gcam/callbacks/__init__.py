"""When to look, and whom to tell: the callbacks."""

from lightning_gcam.callbacks.saliency_evaluation import SaliencyEvaluation
from lightning_gcam.callbacks.saliency_monitor import SaliencyMonitor
from lightning_gcam.callbacks.shortcut_alarm import ShortcutAlarm

__all__ = ["SaliencyEvaluation", "SaliencyMonitor", "ShortcutAlarm"]
