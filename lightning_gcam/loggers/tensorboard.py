"""The backend for TensorBoard: pictures, texts, and the layout of the scalars."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from lightning_gcam.loggers.disk import encode_jpeg, is_summary_writer, run_all
from lightning_gcam.loggers.registry import Backend, Pixels, Rows, has, register_backend
from lightning_gcam.pipeline.record import SaliencyRecord
from lightning_gcam.shortcuts import available_checks, available_properties
from lightning_gcam.shortcuts.exchange import KEPT, RATE
from lightning_gcam.shortcuts.message import markdown_of
from lightning_gcam.utils.files import safe_path

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

_ACCURACY = "acc|Acc|ACC|accuracy|Accuracy|ACCURACY"

_WITHOUT_OBJECT = ("background_swap_accuracy", "suspect_swap_accuracy")

_WITH_CHARTS: WeakKeyDictionary[SummaryWriter, list[str]] = WeakKeyDictionary()
"""For each writer the prefixes that have charts."""


def add_charts(writer: SummaryWriter, prefix: str) -> None:
    """Add the charts of a monitor to the layout of a run, once.

    TensorBoard takes the last layout that was written, as a whole. So the charts that the run has already, another
    monitor's or the user's own, are read back from its event file and stay.

    Args:
        writer: of the run.
        prefix: the monitor's `log_prefix`.
    """
    from tensorboard.plugins.custom_scalar import layout_pb2  # type: ignore[import-untyped]  # slow to import
    from torch.utils.tensorboard.summary import custom_scalars

    prefixes = _WITH_CHARTS.setdefault(writer, [])
    if prefix in prefixes:
        return
    prefixes.append(prefix)
    kept = [each for each in _last_layout(writer).category if each.title not in prefixes]
    own = {
        each: {title: ["Multiline", tags] for title, tags in charts(each, prefixes).items()}
        for each in prefixes
    }
    if not kept:
        writer.add_custom_scalars(own)
        return
    summary = custom_scalars(own)
    content = summary.value[0].tensor.string_val
    content[0] = (
        layout_pb2.Layout(category=kept).SerializeToString() + content[0]
    )  # which joins their categories
    writer._get_file_writer().add_summary(summary)


def charts(prefix: str, prefixes: Sequence[str] = ()) -> Mapping[str, list[str]]:
    """Return the charts of a monitor, each with the expressions for the names of its numbers.

    The module's own accuracy is whatever it logs under a name that ends in "acc" or "accuracy". TensorBoard puts a
    chart's expressions into one, where a flag such as (?i) would be an error, and the chart empty.

    Args:
        prefix: the monitor's `log_prefix`.
        prefixes: those of all monitors, whose numbers are none of the module's.

    Example:
        >>> own = re.compile(charts("saliency", ["other"])["accuracy"][1])
        >>> [bool(own.match(tag)) for tag in ("val_acc", "val/MulticlassAccuracy", "train_acc_epoch")]
        [True, True, True]
        >>> [bool(own.match(tag)) for tag in ("train_acc_step", "val_loss", "other/accuracy")]
        [False, False, False]
    """
    at, ours = re.escape(prefix), "|".join(f"{re.escape(each)}/" for each in (prefix, *prefixes))
    return {
        "accuracy": [f"^{at}/accuracy$", f"^(?!{ours}).*({_ACCURACY})(_epoch)?(/dataloader_idx_\\d+)?$"],
        "energy in the object": [f"^{at}/energy$", f"^{at}/energy_chance$"],
        "accuracy without the object, or with the object alone": [
            f"^{at}/{each}$" for each in (*available_checks(), *_WITHOUT_OBJECT) if each.endswith("_accuracy")
        ],
        "what the prediction follows": [f"^{at}/{each}{RATE}$" for each in available_properties()],
        "accuracy with a property of another class": [
            f"^{at}/accuracy$",
            *(f"^{at}/{each}{KEPT}$" for each in available_properties()),
        ],
    }


def _last_layout(writer: SummaryWriter) -> Any:
    """Read the last layout in the writer's own file, which is small before the first look; empty if there is none."""
    from tensorboard.backend.event_processing.event_file_loader import (  # type: ignore[import-untyped]
        LegacyEventFileLoader,
    )
    from tensorboard.plugins.custom_scalar import layout_pb2, metadata

    writer.flush()
    layout = layout_pb2.Layout()
    for path in sorted(Path(writer.log_dir).glob("events.out.tfevents.*"))[-1:]:
        for event in LegacyEventFileLoader(str(path)).Load():
            for value in event.summary.value:
                if value.tag == metadata.CONFIG_SUMMARY_TAG:
                    layout.ParseFromString(value.tensor.string_val[0])
    return layout


def log_to_tensorboard(logger: Any, record: SaliencyRecord) -> None:
    """Add the overlay and the scores' table to the event file and flush it: a run that is killed has lost no look.

    It is kept as a JPEG without chroma subsampling. `add_image` would make a PNG of three times the size, which takes
    thirty times as long to encode.

    Args:
        logger: a `TensorBoardLogger`, or any logger whose `experiment` has `add_image`.
        record: the look.
    """
    writer, step, prefix = logger.experiment, record.step, record.stamp.log_prefix

    def write_texts() -> None:
        for part in record.parts if is_summary_writer(writer) else ():
            add_charts(writer, part.stamp.log_prefix)
        if callable(getattr(writer, "add_text", None)) and (rows := record.table):
            writer.add_text(f"{prefix}/measurements", markdown(rows), step)

    pictures = [partial(_add_picture, writer, tag, each, step) for tag, each in record.pictures.items()]
    run_all([*pictures, write_texts, lambda: writer.flush()])


def picture_to_tensorboard(logger: Any, tag: str, picture: Pixels, step: int) -> None:
    """Add a picture to the event file as a JPEG, and flush it.

    Args:
        logger: a `TensorBoardLogger`, or any logger whose `experiment` has `add_image`.
        tag: its name.
        picture: `(height, width, 3)`, uint8.
        step: of it.
    """
    _add_picture(logger.experiment, tag, picture, step)
    logger.experiment.flush()


def alert_to_tensorboard(logger: Any, alert: Mapping[str, Any]) -> None:
    """Add the alert to the tab Text, under `<prefix>/alarm`: headline, evidence as a table, what to try; and flush it.

    Args:
        logger: a `TensorBoardLogger`, or any logger whose `experiment` has `add_text`.
        alert: as in `log_alert`.
    """
    writer = logger.experiment
    writer.add_text(f"{alert['log_prefix']}/alarm", markdown_of(alert), global_step=alert["step"])
    writer.flush()


def table_to_tensorboard(logger: Any, tag: str, rows: Rows, step: int) -> None:
    """Add a table to the tab Text, and flush it.

    Args:
        logger: a `TensorBoardLogger`, or any logger whose `experiment` has `add_text`.
        tag: its name.
        rows: its lines, one at least; their keys are its columns.
        step: of it.
    """
    writer = logger.experiment
    shown = [{name: "" if value is None else value for name, value in row.items()} for row in rows]
    writer.add_text(tag, markdown(shown), step)
    writer.flush()


def markdown(rows: Rows) -> str:
    """Format a table as Markdown."""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *([_cell(each) for each in row.values()] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _add_picture(writer: Any, tag: str, picture: Pixels, step: int) -> None:
    if is_summary_writer(writer):
        from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[import-untyped]  # slow to import

        height, width, channels = picture.shape
        image = Summary.Image(
            height=height, width=width, colorspace=channels, encoded_image_string=encode_jpeg(picture)
        )
        summary = Summary(value=[Summary.Value(tag=tag, image=image)])
        file_writer = writer._get_file_writer()
        with suppress(ImportError):  # without google-crc32c TensorBoard's own checksums are right, and slow
            from lightning_gcam.loggers.event_files import check_fast

            check_fast(file_writer.event_writer)
        file_writer.add_summary(summary, step)
    else:
        writer.add_image(safe_path(tag), picture, global_step=step, dataformats="HWC")


register_backend(
    Backend(
        log_look=log_to_tensorboard,
        log_alert=alert_to_tensorboard,
        log_table=table_to_tensorboard,
        types=["loggers.TensorBoardLogger"],
        takes_look=has("experiment.add_image"),
        takes_alert=has("experiment.add_text"),
        takes_table=has("experiment.add_text"),
        log_picture=picture_to_tensorboard,
    )
)
