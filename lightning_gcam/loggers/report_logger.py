"""`ReportLogger`: a Lightning logger that writes one HTML page, which needs no server and no network."""

from __future__ import annotations

import json
import os
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

from lightning_gcam.loggers.disk import claimed_directory
from lightning_gcam.loggers.registry import Backend, register_backend
from lightning_gcam.pipeline.record import SaliencyRecord
from lightning_gcam.report import Store, build_page, plain_look, plain_samples
from lightning_gcam.report.sources import DATA
from lightning_gcam.utils.lightning_compat import Logger, is_rank_zero, rank_zero_info, rank_zero_warn

_LEAST_PAUSE = 5.0
"""Seconds."""

_PAUSE_FACTOR = 20
"""The page is written at most once in so many times as long as writing it takes: 5% of the time."""


class ReportLogger(Logger):
    """Write `report.html`: the run in one file that is opened by a double click or mailed to a colleague.

    It has the samples at every look under a slider, your own metrics beside the scores, and `ShortcutAlarm`'s alerts.
    It is written at the first look, then with the looks every few seconds at most, and when the run ends, each time
    whole under another name and then renamed. What it is built from is on disk at every look, in `report_data` beside
    it, a file a look: of a run that was killed, `lightning-gcam report --force` makes the page with all of them. A run
    that is resumed into the same directory goes on, and a look at a step that is already there takes its place. Give
    each run a directory of its own: while another process writes to it, this one's files go to a `run_2` in it. Only
    rank zero writes.

    Without a `Trainer`, which calls it, call `finalize("success")` behind the last look.

    Args:
        save_dir: of this run; it is made with the first file.

    Example:
        >>> logger = ReportLogger("runs/first")
        >>> logger.report_path.as_posix()
        'runs/first/report.html'
    """

    def __init__(self, save_dir: str | os.PathLike[str]) -> None:
        super().__init__()
        self._directory = Path(save_dir)
        self._written_to = self._directory
        self._opened: Store | None = None
        self._samples: dict[str, str] = {}
        self._has_news = False
        self._has_failed = False
        self._has_left_out = False
        self._next_write = 0.0

    @property
    def name(self) -> str:
        """An empty name: `save_dir` is the run's own directory, so that checkpoints lie beside the page."""
        return ""

    @property
    def version(self) -> str:
        """An empty version, as `name`."""
        return ""

    @property
    def save_dir(self) -> str:
        """The directory of the run."""
        return str(self._directory)

    @property
    def log_dir(self) -> str:
        """The directory of the run."""
        return str(self._directory)

    @property
    def report_path(self) -> Path:
        """The path of the page; with the first file it moves to the directory that this process has claimed."""
        return self._written_to / "report.html"

    def log_hyperparams(self, params: Mapping[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Store the hyperparameters, as text."""
        values = vars(params) if isinstance(params, Namespace) else params
        if is_rank_zero() and values:
            with self._failure_as_warning():
                self._store().write_hyperparameters(
                    {str(name): _shortened(value) for name, value in values.items()}
                )
                self._has_news = True

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Store the numbers of a step; they are on disk when this returns."""
        if is_rank_zero():
            with self._failure_as_warning():
                self._store().add_metrics(metrics, step or 0)
                self._has_news = True

    def log_look(self, record: SaliencyRecord) -> None:
        """Store a look, and write the page unless it was just written.

        Args:
            record: the look; each of several heads stands by itself on the page.
        """
        if not is_rank_zero():
            return
        for part in record.parts:
            prefix = part.stamp.log_prefix
            if prefix not in self._samples:
                self._start_monitor(part)
            self._store().add_look(prefix, part.step, self._samples[prefix], json.dumps(plain_look(part)))
        self._has_news = True
        self._write_if_due()

    def log_alert(
        self,
        step: int,
        message: str,
        log_prefix: str = "saliency",
        parts: Mapping[str, Any] | None = None,
    ) -> None:
        """Store an alert, and write the page unless it was just written.

        Args:
            step: of the look that led to the alert.
            message: its text.
            log_prefix: of the monitor whose look it was.
            parts: `headline`, `evidence`, `advice` and `unchecked` as in `lightning_gcam.shortcuts.plain_of`, which the
                page then shows in place of the text.
        """
        if is_rank_zero():
            self._store().add_alert(step, message, log_prefix, parts)
            self._has_news = True
            self._write_if_due()

    def save(self) -> None:
        """Write the page if anything is new, unless it was just written."""
        if is_rank_zero() and self.report_path.exists():
            with self._failure_as_warning():
                self._write_if_due()

    def finalize(self, status: str) -> None:
        """Write the page with everything since the last look."""
        if self._has_news and is_rank_zero():
            with self._failure_as_warning():
                self._write()

    def _store(self) -> Store:
        """Open the data beside the page, in a directory to which no other process writes."""
        if self._opened is None:
            self._written_to = claimed_directory(self._directory)
            self._opened = Store(self._written_to / DATA)
        return self._opened

    @contextmanager
    def _failure_as_warning(self) -> Iterator[None]:
        """Turn an error into one warning: Lightning calls these methods, and an error would end the training."""
        try:
            yield
        except Exception as error:
            if not self._has_failed:
                self._has_failed = True
                rank_zero_warn(
                    f"ReportLogger cannot write to {self._written_to}: {error}. The training goes on."
                )

    def _start_monitor(self, record: SaliencyRecord) -> None:
        prefix = record.stamp.log_prefix
        self._samples[prefix] = json.dumps(plain_samples(record))
        later = [step for step in self._store().steps(prefix) if step > record.step]
        if later:
            rank_zero_info(
                f"{self.report_path} has looks of an earlier run up to step {later[-1]}. They stay until this run "
                "comes to their steps. If this is another run, give ReportLogger another `save_dir`."
            )

    def _warn_of_broken_files(self, left_out: Sequence[str]) -> None:
        """Warn once of files that cannot be read; a resumed run has the same ones at every look."""
        if left_out and not self._has_left_out:
            self._has_left_out = True
            others = f" and {len(left_out) - 1} more" if len(left_out) > 1 else ""
            rank_zero_warn(
                f"What cannot be read is left out of {self.report_path}: {left_out[0]}{others}. "
                f"`lightning-gcam report {self._written_to}` names all of it."
            )

    def _write_if_due(self) -> None:
        if self._has_news and monotonic() >= self._next_write:
            self._write()

    def _write(self) -> None:
        began = monotonic()
        try:
            run = self._store().read(self._written_to.resolve().name)
            build_page([run], self.report_path)
            self._has_news = False
            self._warn_of_broken_files(run.left_out)
        finally:
            ended = monotonic()
            self._next_write = ended + max(_LEAST_PAUSE, _PAUSE_FACTOR * (ended - began))


def log_to_report(logger: Any, record: SaliencyRecord) -> None:
    """Log a look by `ReportLogger.log_look`.

    Args:
        logger: a `ReportLogger`.
        record: the look.
    """
    logger.log_look(record)


def alert_to_report(logger: Any, alert: Mapping[str, Any]) -> None:
    """Log an alert by `ReportLogger.log_alert`.

    Args:
        logger: a `ReportLogger`.
        alert: as in `log_alert`.
    """
    logger.log_alert(alert["step"], alert["message"], alert["log_prefix"], alert)


def _shortened(value: Any, most: int = 300) -> str:
    text = str(value)
    return text if len(text) <= most else text[: most - 1] + "…"


register_backend(Backend(log_look=log_to_report, log_alert=alert_to_report, types=[ReportLogger]))
