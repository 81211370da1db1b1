"""What the model relies on: the same samples with the object removed, or parts exchanged, and what it answers then."""

from lightning_gcam.reliance.measured import Reliance, measure_reliance
from lightning_gcam.reliance.questions import Checks, available_checks, changed_images, resolve_checks
from lightning_gcam.reliance.removal import DEFAULT_REMOVAL, Removal, check_removal, remove_regions

__all__ = [
    "DEFAULT_REMOVAL",
    "Checks",
    "Reliance",
    "Removal",
    "available_checks",
    "changed_images",
    "check_removal",
    "measure_reliance",
    "remove_regions",
    "resolve_checks",
]
