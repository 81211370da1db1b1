"""The registered backends, and the public functions that send a look, a picture, an alert or a table to the right one.

It imports no backend: each registers itself, see `register_backend`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import singledispatch
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lightning_gcam.utils.lightning_compat import for_each_package

if TYPE_CHECKING:
    from lightning_gcam.pipeline.record import SaliencyRecord

Rows = Sequence[Mapping[str, object]]
"""The lines of a table; their keys are its columns."""

Pixels = npt.NDArray[np.uint8]
"""A picture, `(height, width, 3)` RGB."""


def has(*paths: str) -> Callable[[Any], bool]:
    """Return a function that tests whether a logger has a method at each of `paths`.

    Args:
        paths: names with dots between them, such as "experiment.add_image".

    Example:
        >>> has("strip", "split")("a word"), has("experiment.add_image")("a word")
        (True, False)
    """

    def has_method(logger: Any, path: str) -> bool:
        *attributes, method = path.split(".")
        for name in attributes:
            logger = getattr(logger, name, None)
        try:
            return callable(getattr(logger, method, None))
        except Exception:  # Neptune's run raises an error of its own for the methods that it once had
            return False

    return lambda logger: all(has_method(logger, path) for path in paths)


def no_logger(logger: Any) -> bool:
    """Return False for every logger."""
    return False


@dataclass(frozen=True)
class Backend:
    """The functions that show looks, alerts and tables in one kind of logger, and which loggers they are for.

    Args:
        log_look: called with the logger and the `SaliencyRecord` of each look.
        log_alert: called with the logger and each of `ShortcutAlarm.alerts`, see the function of that name.
        log_table: called with the logger, a tag, the rows (one at least) and the step, see the function of that name.
            None for a backend without tables: then a table is shown only by what else the logger can do.
        types: the logger types that all of this is for, with their subclasses. A string such as "loggers.CSVLogger" is
            the class of that path in both Lightning packages, or in the one that is imported.
        takes_look: for loggers of other types: whether `log_look` and `log_picture` can show a look in this one.
        takes_alert: the same for `log_alert`.
        takes_table: the same for `log_table`.
        log_picture: called with the logger, a tag, a picture and the step, see the function of that name. None for a
            backend that shows no pictures beside the looks.
    """

    log_look: Callable[[Any, SaliencyRecord], None]
    log_alert: Callable[[Any, Mapping[str, Any]], None]
    log_table: Callable[[Any, str, Rows, int], None] | None = None
    types: Sequence[type | str] = ()
    takes_look: Callable[[Any], bool] = no_logger
    takes_alert: Callable[[Any], bool] = no_logger
    takes_table: Callable[[Any], bool] = no_logger
    log_picture: Callable[[Any, str, Pixels, int], None] | None = None


_BACKENDS: list[Backend] = []
"""All that are registered, the newest first: in this order they are tried for loggers of unknown types."""


def register_backend(backend: Backend) -> None:
    """Register a backend: its functions are then called for the loggers that it is for.

    Args:
        backend: it takes the place of what was registered for the same types before.

    Example:
        >>> class Diary:
        ...     def add(self, words: str) -> None:
        ...         print(words)
        >>> register_backend(
        ...     Backend(
        ...         log_look=lambda logger, record: logger.add(f"{record.tag} at step {record.step}"),
        ...         log_alert=lambda logger, alert: logger.add(alert["message"]),
        ...         log_table=lambda logger, tag, rows, step: logger.add(f"{tag}: {len(rows)} rows"),
        ...         types=[Diary],
        ...     )
        ... )
        >>> log_alert(Diary(), {"step": 7, "message": "Accuracy without the object: 0.96", "log_prefix": "saliency"})
        Accuracy without the object: 0.96
        >>> log_table(Diary(), "saliency/table", [{"score": "energy", "value": 0.5}], step=7)
        saliency/table: 1 rows
    """
    _BACKENDS.insert(0, backend)

    def serve(kind: type) -> None:
        log_saliency.register(kind, backend.log_look)
        log_alert.register(kind, backend.log_alert)
        if backend.log_table is not None:
            _log_rows.register(kind, backend.log_table)
        if backend.log_picture is not None:
            log_picture.register(kind, backend.log_picture)

    for each in backend.types:
        if isinstance(each, str):
            for_each_package(each, serve)
        else:
            serve(each)


@singledispatch
def log_saliency(logger: Any, record: SaliencyRecord) -> None:
    """Show one look where `logger` shows pictures. Scores are logged as any other metric, not here.

    Args:
        logger: a Lightning logger of either package. One that is not registered is served by what it can do: an
            `experiment` with `add_image` as TensorBoard is; one that is of Comet, Aim, Neptune, LitLogger or ClearML;
            one that is an MLflow client, with `run_id`; a method `log_image(key, images, step)`. Any other gets the
            scores alone, which is logged once, and PNG files and a `scores.csv` lie under its directory.
        record: the look.

    Example:
        Show the looks in a logger of your own, and leave alerts and tables as they are (`register_backend` takes all
        three at once):

            @log_saliency.register(MyLogger)
            def log_to_mine(logger, record):
                logger.send_picture(record.tag, record.overlay, record.step)
    """
    next(backend for backend in _BACKENDS if backend.takes_look(logger)).log_look(logger, record)


@singledispatch
def log_picture(logger: Any, tag: str, picture: Pixels, step: int) -> None:
    """Show a picture beside the looks where `logger` shows pictures; `saliency/exchanges` is one.

    Args:
        logger: a Lightning logger of either package. One that is not registered is served by what it can do, as in
            `log_saliency`. One whose looks a function of yours shows gets none, but by `log_picture` of its `Backend`.
        tag: its name.
        picture: `(height, width, 3)`, uint8.
        step: on the logger's x-axis.
    """
    if log_saliency.dispatch(type(logger)) is log_saliency.dispatch(object):
        backend = next(backend for backend in _BACKENDS if backend.takes_look(logger))
        if backend.log_picture is not None:
            backend.log_picture(logger, tag, picture, step)


@singledispatch
def log_alert(logger: Any, alert: Mapping[str, Any]) -> None:
    """Show an alert of `ShortcutAlarm` where `logger` shows text.

    Args:
        logger: a Lightning logger of either package. One that is not registered is served by what it can do: an
            `experiment` with `add_text` as TensorBoard is, one with `alert` as W&B is, one of Comet, Aim, Neptune,
            LitLogger or ClearML, one that is an MLflow client; any other gets a line in an `alerts.csv` under its
            directory.
        alert: one of `ShortcutAlarm.alerts`: `step`, `message`, `log_prefix`; the parts of the message, `headline`,
            `evidence`, `advice` and `unchecked` (see `lightning_gcam.shortcuts.plain_of`); and what was measured, as
            plain numbers, strings and lists.

    Example:
        Show the alerts alone in a logger of your own (`register_backend` takes looks and tables too):

            @log_alert.register(MyLogger)
            def alert_to_mine(logger, alert):
                logger.send_words(alert["message"], alert["step"])
    """
    next(backend for backend in _BACKENDS if backend.takes_alert(logger)).log_alert(logger, alert)


def log_table(logger: Any, tag: str, rows: Rows, step: int) -> None:
    """Show a table where `logger` can: as Markdown among TensorBoard's texts, a table in W&B, a CSV file in MLflow.

    Args:
        logger: a Lightning logger of either package. One that is not registered is served by what it can do: an
            `experiment` with `add_text` as TensorBoard is, a method `log_table(key, columns, data, step=...)` as W&B
            is, one of Comet, Aim, Neptune, LitLogger or ClearML, or a run and an MLflow client. Others show no tables.
        tag: its name.
        rows: its lines.
        step: on the logger's x-axis.
    """
    if rows:
        _log_rows(logger, tag, rows, step)


@singledispatch
def _log_rows(logger: Any, tag: str, rows: Rows, step: int) -> None:
    for backend in _BACKENDS:
        if backend.log_table is not None and backend.takes_table(logger):
            backend.log_table(logger, tag, rows, step)
            return
