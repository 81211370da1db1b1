"""What the model relies on: its accuracy on the same samples with the object removed, or with parts exchanged."""

from lightning_gcam.shortcuts.checks import Checks, available_checks, changed_images, resolve_checks
from lightning_gcam.shortcuts.detector import Evidence, Finding, Thresholds, judge, message_of, plain_of
from lightning_gcam.shortcuts.removal import Removal, check_removal, remove_regions
from lightning_gcam.shortcuts.results import Reliance, measure_reliance

__all__ = [
    "Checks",
    "Evidence",
    "Finding",
    "Reliance",
    "Removal",
    "Thresholds",
    "available_checks",
    "changed_images",
    "check_removal",
    "judge",
    "measure_reliance",
    "message_of",
    "plain_of",
    "remove_regions",
    "resolve_checks",
]
