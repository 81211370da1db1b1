"""What the model relies on: the same samples with the object removed, or parts exchanged, and what it answers then."""

from lightning_gcam.reliance.measured import Reliance, measure_reliance
from lightning_gcam.reliance.questions import Checks, available_checks, changed_images, resolve_checks
from lightning_gcam.reliance.removal import Removal, check_removal, remove_regions
from lightning_gcam.reliance.rule import Evidence, Finding, Thresholds, judge
from lightning_gcam.reliance.words import message_of, plain_of

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
