"""The report: one HTML page of a run that needs no server and no network, and the plain data it is built from."""

from lightning_gcam.report.page import build_page
from lightning_gcam.report.serialize import plain_look, plain_samples
from lightning_gcam.report.sources import read_run
from lightning_gcam.report.storage import Monitor, Run, Store

__all__ = ["Monitor", "Run", "Store", "build_page", "plain_look", "plain_samples", "read_run"]
