"""Read a run from the data of a `ReportLogger`, from a directory of files, or from TensorBoard's event files."""

from __future__ import annotations

import csv
import io
import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote

from lightning_gcam.report.reading import (
    MOST_BYTES_OF_LINES,
    BrokenFile,
    data_uri,
    finite_number,
    open_file,
    parse_step,
    read_bytes,
    read_picture,
)
from lightning_gcam.report.storage import Run, Store, parse_alert
from lightning_gcam.shortcuts.message import parts_of_markdown
from lightning_gcam.utils.errors import InputError
from lightning_gcam.utils.files import printable

DATA = "report_data"
"""The folder beside the page with the data that it is built from."""

_OVERLAY = re.compile(r"overlay-step=([0-9]{1,15})\.png")
_MOST_BYTES_OF_EVENTS = 1 << 34


def read_run(path: Path) -> Run:
    """Read a run, from the first of these that is there: the data of a `ReportLogger`, PNG files, TensorBoard's events.

    Args:
        path: the directory of a run, or its `report.html`. Of files and events, whatever lies below it is read.

    Returns:
        The run. From files and events a look is one whole picture: its samples cannot be sorted. What cannot be read
        is left out and named in `left_out`; where that is all, nothing else is in the run.

    Raises:
        InputError: where there is no such path, or nothing of a run in it.
    """
    if not path.exists():
        raise InputError(
            f'`PATH` "{printable(path)}" does not exist. Give the directory of a run, or its report.html.'
        )
    directory = path.parent if path.is_file() else path
    if not directory.is_dir():
        raise InputError(
            f'`PATH` "{printable(path)}" is no directory. Give that of a run, or its report.html.'
        )
    if directory.name == DATA:
        directory = directory.parent
    best, left_out = Run(""), list[str]()
    for read in (_read_store, _read_files, _read_events):
        run = read(directory, directory.resolve().name)
        left_out += run.left_out
        if run.num_looks or not best.shows_something:
            best = run
        # where the report's own data is broken, the same looks may lie beside it as pictures
        if run.num_looks or (run.shows_something and not left_out):
            break
    if not best.shows_something and not left_out:
        raise InputError(
            f'`PATH` "{printable(path)}" holds nothing of a run: neither a ReportLogger\'s {DATA}, nor '
            "overlay-step=*.png, scores.csv or metrics.csv, nor TensorBoard's events. Give the directory that your "
            "logger wrote to."
        )
    best.left_out = list(dict.fromkeys(left_out))
    return best


def _read_store(directory: Path, name: str) -> Run:
    if not (directory / DATA).is_dir():
        return Run(name)
    run = Store(directory / DATA).read(name)
    _read_metrics(run, directory)
    return run


def _read_files(directory: Path, name: str) -> Run:
    run = Run(name)
    tables, pictures = sorted(directory.rglob("scores.csv")), sorted(directory.rglob("overlay-step=*.png"))
    epochs = {table.parent: _read_scores(run, table, _prefix(table.parent, directory)) for table in tables}
    _read_metrics(run, directory)
    for picture in pictures:
        with run.skip_broken(picture):
            match = _OVERLAY.fullmatch(picture.name)
            if match is None:
                raise BrokenFile("its name has no step")
            step = int(match[1])
            epoch = epochs.get(picture.parent, {}).get(step)
            _add_look(run, _prefix(picture.parent, directory), step, read_bytes(picture), epoch)
    for alerts in sorted(directory.rglob("alerts.csv")):
        _read_alerts(run, alerts)
    return run


def _read_scores(run: Run, table: Path, prefix: str) -> dict[int, Any]:
    """Add the scores to the curves, and return the epoch of each step."""
    epochs: dict[int, Any] = {}
    with run.skip_broken_lines(table) as broken:
        for row in csv_rows(table):
            if isinstance(row, BrokenFile):
                broken.append(row)
                continue
            step = row.pop("step")
            epochs[step] = row.pop("epoch", None)
            run.add_points({f"{prefix}/{key}": value for key, value in row.items()}, step)
    return epochs


def _read_alerts(run: Run, table: Path) -> None:
    with run.skip_broken_lines(table) as broken:
        for row in csv_rows(table):
            alert = parse_alert(row) if isinstance(row, dict) else row
            if isinstance(alert, BrokenFile):
                broken.append(alert)
            else:
                run.alerts.append(alert)


def _read_metrics(run: Run, directory: Path) -> None:
    """Add the curves of the `metrics.csv` that Lightning's CSVLogger writes."""
    for metrics in sorted(directory.rglob("metrics.csv")):
        with run.skip_broken_lines(metrics) as broken:
            for row in csv_rows(metrics):
                if isinstance(row, BrokenFile):
                    broken.append(row)
                else:
                    run.add_points(row, row.pop("step"))


def _read_events(directory: Path, name: str) -> Run:
    run = Run(name)
    for folder in sorted({path.parent for path in directory.rglob("events.out.tfevents.*")}):
        for source in _readable_sources(run, folder):
            with run.skip_broken(source), _note_damaged_files(run):
                try:
                    _read_events_of(run, source)
                except BrokenFile:
                    raise
                except Exception as error:  # TensorBoard raises whatever a broken file leads it to
                    raise BrokenFile(f"TensorBoard cannot read it ({type(error).__name__})") from error
    return run


@contextmanager
def _note_damaged_files(run: Run) -> Iterator[None]:
    """Add damaged event files to `run.left_out`: TensorBoard skips the rest of such a file, and only logs it."""
    log = logging.getLogger("tensorboard")
    level, least = log.level, log.getEffectiveLevel()

    def note(entry: logging.LogRecord) -> bool:
        if str(entry.msg).startswith("Truncated record in") and isinstance(entry.args, tuple):
            path = printable(str(entry.args[0]))
            run.left_out.append(
                f"{path}: it is damaged or cut off, and what is behind that place is not read"
            )
        return entry.levelno >= least

    log.addFilter(note)
    log.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        log.setLevel(level)
        log.removeFilter(note)


def _readable_sources(run: Run, folder: Path) -> list[Path]:
    """Return the folder, which TensorBoard reads as one run; its regular files where a pipe is among them."""
    files = []
    paths = sorted(folder.glob("events.out.tfevents.*"))
    for path in paths:
        with run.skip_broken(path):
            open_file(path, _MOST_BYTES_OF_EVENTS).close()
            files.append(path)
    return [folder] if len(files) == len(paths) else files


def _read_events_of(run: Run, source: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
        EventAccumulator,
    )

    events = EventAccumulator(str(source), size_guidance={"images": 0, "scalars": 0, "tensors": 0}).Reload()
    tags = events.Tags()
    for tag in tags["scalars"]:
        for event in events.Scalars(tag):
            run.add_points({tag: event.value}, event.step)
    for tag in tags["images"]:
        if tag.endswith("/overlay"):
            for event in events.Images(tag):
                with run.skip_broken(source / f"{tag} at step {event.step}"):
                    _add_look(run, tag.removesuffix("/overlay"), event.step, event.encoded_image_string)
    for tag in tags["tensors"]:
        if tag.endswith("/alarm/text_summary"):
            prefix = tag.removesuffix("/alarm/text_summary")
            for event in events.Tensors(tag):
                message = b"".join(event.tensor_proto.string_val[:1]).decode("utf-8", "replace")
                alert = {"step": event.step, "message": message.replace("\n\n", "\n"), "log_prefix": prefix}
                if isinstance(parsed := parse_alert(alert | parts_of_markdown(message)), dict):
                    run.alerts.append(parsed)


def _add_look(run: Run, prefix: str, step: int, picture: bytes, epoch: Any = None) -> None:
    """Add a look that is one whole picture, with the scores of its step, which are in the curves already."""
    scores = {
        name.removeprefix(f"{prefix}/"): points[step]
        for name, points in run.curves.items()
        if name.startswith(f"{prefix}/") and step in points
    }
    look = {"step": parse_step(step), "scores": scores, "picture": data_uri(read_picture(picture))}
    if (number := finite_number(epoch)) is not None:
        look["epoch"] = int(number)
    run.monitor(prefix).looks[step] = json.dumps(look)


def _prefix(folder: Path, directory: Path) -> str:
    """Return the `log_prefix` of a folder: its path below the run, or the run's own name."""
    relative = folder.relative_to(directory)
    return unquote(relative.as_posix()) if relative.parts else folder.resolve().name


def csv_rows(path: Path) -> Iterator[dict[str, Any] | BrokenFile]:
    """Yield each row of a table, with its step; for a broken row the error.

    Raises:
        BrokenFile: as `open_file`, and where there is no column "step".
    """
    with open_file(path, MOST_BYTES_OF_LINES) as file:
        is_cut_off = _is_cut_off(file)
        # what is not UTF-8 becomes halves of surrogate pairs: these rows are found, and the others read
        text = io.TextIOWrapper(file, encoding="utf-8", errors="surrogateescape", newline="")
        reader = csv.DictReader(text, strict=True)
        try:
            columns = reader.fieldnames or []
        except csv.Error as error:
            raise BrokenFile(f"it is no table ({error})") from error
        if not columns:
            raise BrokenFile("it is empty")
        if "step" not in columns:
            raise BrokenFile('it has no column "step"')
        held: dict[str, Any] | BrokenFile | None = None  # the last row is known as such when no other comes
        while (row := _read_row(reader)) is not None:
            if held is not None:
                yield held
            held = row
        if held is not None:
            yield BrokenFile(f"line {reader.reader.line_num}: it is cut off") if is_cut_off else held


def _is_cut_off(file: IO[bytes]) -> bool:
    """Return whether the last line has no end: its last number may be half of one."""
    if file.seek(0, io.SEEK_END) == 0:
        return False
    file.seek(-1, io.SEEK_END)
    last = file.read(1)
    file.seek(0)
    return last not in b"\r\n"


def _read_row(reader: csv.DictReader[str]) -> dict[str, Any] | BrokenFile | None:
    try:
        row: dict[Any, Any] = next(reader)
        if None in row or None in row.values():
            raise BrokenFile("it has more or fewer cells than the table has columns")
        if any("\udc80" <= sign <= "\udcff" for cell in row.values() for sign in cell):
            raise BrokenFile("it is not UTF-8")
        return {**row, "step": parse_step(row["step"])}
    except StopIteration:
        return None
    except (BrokenFile, csv.Error) as error:
        return BrokenFile(f"line {reader.reader.line_num}: {error}")
