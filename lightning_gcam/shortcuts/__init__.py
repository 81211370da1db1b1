"""What the model relies on: its accuracy on the same samples with the object removed, or with parts exchanged."""

from lightning_gcam.shortcuts.checks import Checks, available_checks, changed_images, resolve_checks
from lightning_gcam.shortcuts.detector import Evidence, Finding, Thresholds, judge
from lightning_gcam.shortcuts.exchange import available_properties, exchange_property, register_property
from lightning_gcam.shortcuts.exchange_checks import Exchanges
from lightning_gcam.shortcuts.message import message_of, plain_of
from lightning_gcam.shortcuts.removal import Removal, check_removal, remove_regions
from lightning_gcam.shortcuts.results import Reliance, measure_reliance

__all__ = [
    "Checks",
    "Evidence",
    "Exchanges",
    "Finding",
    "Reliance",
    "Removal",
    "Thresholds",
    "available_checks",
    "available_properties",
    "changed_images",
    "check_removal",
    "exchange_property",
    "judge",
    "measure_reliance",
    "message_of",
    "plain_of",
    "register_property",
    "remove_regions",
    "resolve_checks",
]
