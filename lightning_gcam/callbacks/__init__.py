"""The callbacks for a Trainer: a monitor, an alarm on its looks, and the evaluation of a dataset."""

from lightning_gcam.callbacks.saliency_evaluation import SaliencyEvaluation
from lightning_gcam.callbacks.saliency_monitor import SaliencyLookHook, SaliencyMonitor
from lightning_gcam.callbacks.shortcut_alarm import ShortcutAlarm

__all__ = ["SaliencyEvaluation", "SaliencyLookHook", "SaliencyMonitor", "ShortcutAlarm"]
