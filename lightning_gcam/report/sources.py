"""`read_run()`: a run from the report's own data, from a directory of files, or from TensorBoard's events."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
from PIL import Image

from lightning_gcam._errors import InputError
from lightning_gcam.report.pictures import data_uri
from lightning_gcam.report.run import Run, finite_number
from lightning_gcam.report.store import Store

DATA = "report_data"
"""Beside the page, what it was built from."""


def read_run(path: Path) -> Run:
    """Read a run, from the first of these that is there: the data of a `ReportLogger`, PNG files, TensorBoard's events.

    Args:
        path: the directory of a run, or its `report.html`. Of files and events, whatever lies below it is read.

    Returns:
        The run. From files and events a look is one whole picture: its samples cannot be sorted.

    Raises:
        InputError: where there is no such path, or nothing of a run in it.
    """
    if not path.exists():
        raise InputError(f'`PATH` "{path}" does not exist. Give the directory of a run, or its report.html.')
    directory = path.parent if path.is_file() else path
    if directory.name == DATA:
        directory = directory.parent
    name = directory.resolve().name
    if (directory / DATA).is_dir():
        run = Store(directory / DATA).read(name)
        _read_metrics(run, directory)
        return run
    for read in (_read_files, _read_events):
        run = read(directory, name)
        if run.num_looks or run.curves:
            return run
    raise InputError(
        f'`PATH` "{path}" holds nothing of a run: neither a ReportLogger\'s {DATA}, nor overlay-step=*.png, '
        "scores.csv or metrics.csv, nor TensorBoard's events. Give the directory that your logger wrote to."
    )


def _read_files(directory: Path, name: str) -> Run:
    run = Run(name)
    for scores in sorted(directory.rglob("scores.csv")):
        prefix = _prefix(scores.parent, directory)
        for row in _rows(scores):
            step = int(row.pop("step"))
            _add(run, {f"{prefix}/{key}": value for key, value in row.items() if key != "epoch"}, step)
            picture = scores.parent / f"overlay-step={step:08d}.png"
            if picture.exists():
                _add_look(run, prefix, step, picture.read_bytes(), epoch=row.get("epoch"))
    for alerts in sorted(directory.rglob("alerts.csv")):
        run.alerts += [_alert(row["step"], row["message"], row["log_prefix"]) for row in _rows(alerts)]
    _read_metrics(run, directory)
    return run


def _read_metrics(run: Run, directory: Path) -> None:
    """Lightning's CSVLogger has more of a curve than the page beside its files."""
    for metrics in sorted(directory.rglob("metrics.csv")):
        for row in _rows(metrics):
            if row.get("step"):
                _add(run, row, int(row.pop("step")))


def _read_events(directory: Path, name: str) -> Run:
    from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
        EventAccumulator,
    )

    run, everything = Run(name), {"images": 0, "scalars": 0, "tensors": 0}
    for folder in sorted({path.parent for path in directory.rglob("events.out.tfevents.*")}):
        events = EventAccumulator(str(folder), size_guidance=everything).Reload()
        tags = events.Tags()
        for tag in tags["scalars"]:
            for event in events.Scalars(tag):
                _add(run, {tag: event.value}, event.step)
        for tag in tags["images"]:
            if tag.endswith("/overlay"):
                for event in events.Images(tag):
                    _add_look(run, tag.removesuffix("/overlay"), event.step, event.encoded_image_string)
        for tag in tags["tensors"]:
            if tag.endswith("/alarm/text_summary"):
                prefix = tag.removesuffix("/alarm/text_summary")
                for event in events.Tensors(tag):
                    words = event.tensor_proto.string_val[0].decode("utf-8", "replace")
                    run.alerts.append(_alert(event.step, words, prefix))
    return run


def _add(run: Run, row: dict[str, Any], step: int) -> None:
    for metric, value in row.items():
        number = finite_number(value)
        if number is not None:
            run.curves.setdefault(metric, {})[step] = number


def _add_look(run: Run, prefix: str, step: int, picture: bytes, epoch: Any = None) -> None:
    try:
        with Image.open(io.BytesIO(picture)) as opened:
            pixels = np.array(opened.convert("RGB"))
    except OSError:  # half of a picture, of a run that was killed
        return
    look: dict[str, Any] = {"step": step, "picture": data_uri(pixels)}
    if (number := finite_number(epoch)) is not None:
        look["epoch"] = int(number)
    run.monitor(prefix).looks[step] = json.dumps(look)


def _alert(step: Any, message: str, prefix: str) -> dict[str, Any]:
    return {"step": int(step), "message": message, "log_prefix": prefix}


def _prefix(folder: Path, directory: Path) -> str:
    """What stood before the slash: the folder below the run; its own name where the run is the folder itself."""
    relative = folder.relative_to(directory)
    return unquote(relative.as_posix()) if relative.parts else folder.resolve().name


def _rows(path: Path) -> Iterator[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        yield from csv.DictReader(file)
