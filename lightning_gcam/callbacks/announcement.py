"""The announcement of a run in five short lines, and one line a look: which samples, layer, checks and loggers."""

from __future__ import annotations

import io
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lightning_gcam.cam.layers import TargetLayer
from lightning_gcam.cam.targets import Targets, are_measurements
from lightning_gcam.cam.whole import WHOLE
from lightning_gcam.loggers import ReportLogger
from lightning_gcam.loggers.disk import claimed_directory, directory_of_logger, is_summary_writer
from lightning_gcam.metrics import needs_mask
from lightning_gcam.pipeline.config import LookConfig
from lightning_gcam.pipeline.record import SaliencyRecord
from lightning_gcam.shortcuts.checks import takes_masks
from lightning_gcam.shortcuts.detector import follow_excess
from lightning_gcam.shortcuts.exchange import RATE, SCORES
from lightning_gcam.utils.lightning_compat import Trainer, in_both

Rows = Sequence[tuple[str, str]]
"""The lines of an announcement below its title, each with a word in front."""

_MOST_NAMED = 3


def announcement_of(
    record: SaliencyRecord,
    layers: Sequence[TargetLayer],
    config: LookConfig,
    schedule: str = "",
    destination: str = "",
) -> tuple[str, Rows]:
    """The title of an announcement, with the samples, and its rows: layer, what is left out, checks, loggers.

    Args:
        record: the first look.
        layers: that are looked at.
        config: of the looks.
        schedule: when looks are taken, in words; empty outside of a fit.
        destination: where it is logged, in words.
    """
    samples = f"{len(record.batch)} fixed samples{_of_classes(record)}, {_annotation(record)}"
    title = f"SaliencyMonitor ({record.stamp.log_prefix}): {', '.join(filter(None, (samples, schedule)))}"
    methods = dict.fromkeys(record.attribution.source_of(name).method for name in record.attribution.maps)
    explained = f"{', '.join(methods)} for {_explained(record, config.targets)}"
    checks, later = (
        _checks_made(record, config),
        "where accuracy is clearly above chance" if config.checks_wait else "",
    )
    rows = [
        ("layer", f"{' and '.join(map(str, layers))}, {explained}"),
        ("left out", "; ".join(_left_out(record, config))),
        ("checks", "; later ".join(filter(None, (_several(checks), later if checks and schedule else "")))),
        ("logged", f"{record.tag} and {_scores(record)}{destination}"),
    ]
    return title, [row for row in rows if row[1]]


def as_text(title: str, rows: Rows) -> str:
    """The announcement as lines: drawn by rich, where that is installed and it fits into the terminal.

    Args:
        title: of the announcement.
        rows: of the announcement.

    Example:
        >>> print(as_text("SaliencyMonitor: 16 fixed samples", [("layer", '"layer4"'), ("logged", "12 scores")]))
        SaliencyMonitor: 16 fixed samples
          layer   "layer4"
          logged  12 scores
    """
    width = max((len(name) for name, _ in rows), default=0)
    plain = "\n  ".join([title, *(f"{name:<{width}}  {text}" for name, text in rows)])
    is_terminal = sys.stderr is not None and sys.stderr.isatty()  # a program without a console has none
    columns = shutil.get_terminal_size().columns if is_terminal else 0
    fits = max(map(len, plain.splitlines())) + len("│ │ ") <= columns  # wrapped, no command could be copied
    return _as_table(title, rows, columns) if fits and find_spec("rich") is not None else plain


def description_of(record: SaliencyRecord) -> str:
    """A look in one line: accuracy and energy beside their chances, and what the checks show the most of.

    Args:
        record: the look.
    """
    scores, reliance = record.scores, record.reliance
    shown = [
        f"{name} {scores[name]:.2f}{_beside(scores, name)}"
        for name in ("accuracy", "energy")
        if name in scores
    ]
    if "background_only_accuracy" in scores:
        shown.append(f"without the object {scores['background_only_accuracy']:.2f}")
    excess = follow_excess(reliance) if reliance is not None else {}
    if excess:
        name = max(excess, key=excess.__getitem__)
        rate = scores.get(name + RATE, float("nan"))
        shown.append(f"follows {name} {rate:.2f} (control {rate - excess[name]:.2f})")
    return f"{record.stamp.log_prefix}, step {record.step} (epoch {record.epoch}): {', '.join(shown) or 'no scores'}"


def destination_of(trainer: Trainer, directory: Path | None) -> str:
    """Where looks are logged: a command that shows them, or the files.

    Args:
        trainer: has the loggers.
        directory: where files go where there is no logger.
    """
    if getattr(trainer, "fast_dev_run", False):
        return ""
    places = [_place_of(logger) for logger in trainer.loggers]
    if not places and directory is not None:
        places = [_files_in(directory)]
    return f", in {' and '.join(dict.fromkeys(places))}" if places else ""


def _place_of(logger: object) -> str:
    writer: Any = None
    with suppress(Exception):  # a service that cannot be reached: the look itself will say so
        writer = getattr(logger, "experiment", None)
    if is_summary_writer(writer):
        return f"TensorBoard: tensorboard --logdir {_argument(str(writer.log_dir))} --samples_per_plugin images=0"
    if isinstance(logger, ReportLogger):
        return str(_near(_claimed(Path(logger.log_dir))) / "report.html")
    if isinstance(logger, in_both("loggers.CSVLogger")):
        return _files_in(directory_of_logger(logger))
    return type(logger).__name__


def _argument(directory: str) -> str:
    """A directory as a shell takes it: near, in quotes where it has a space; a remote one, such as s3://, as it is."""
    near = directory if "://" in directory else str(_near(Path(directory)))
    return f'"{near}"' if " " in near else near


def _files_in(directory: Path) -> str:
    return f"{_near(_claimed(directory))} (report.html, scores.csv, overlays)"


def _near(path: Path) -> Path:
    """The path from the working directory, where it lies below that."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def _claimed(directory: Path) -> Path:
    """The directory, or the one in it that is used where another process writes to it."""
    with suppress(OSError):  # what cannot be written is said where it is written
        return claimed_directory(directory)
    return directory


def _as_table(title: str, rows: Rows, columns: int) -> str:
    """The announcement as rich draws it, without colours: the log may go to a file, too."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    frame = box.ROUNDED if "utf" in (sys.stderr.encoding or "").lower() else box.ASCII
    table = Table(show_header=False, box=frame)
    for name, text in rows:
        table.add_row(Text(name), Text(text))
    console = Console(file=io.StringIO(), width=columns, color_system=None)
    with console.capture() as drawn:
        console.print(table)
    return f"{title}\n{drawn.get().rstrip()}"


def _scores(record: SaliencyRecord) -> str:
    """How many scores are logged, without those of baselines, and the five of an exchanged property as one."""
    properties = record.exchanges.names if record.exchanges is not None else ()
    shown = {f"{name}{score}": name for name in properties for score in SCORES}
    count = len({shown.get(name, name) for name in record.scores if not name.startswith("centre/")})
    return "1 score" if count == 1 else f"{count} scores"


def _several(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = f", {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return f"{', '.join(names[:_MOST_NAMED])}{more}"


def _annotation(record: SaliencyRecord) -> str:
    batch = record.batch
    there = {"masks": batch.masks, "boxes": batch.boxes, "a suspect region": batch.suspect_masks}
    names = [name for name, each in there.items() if each is not None]
    return f"with {' and '.join(names)}" if names else "without masks or boxes"


def _of_classes(record: SaliencyRecord) -> str:
    """The number of classes of the samples, in words."""
    labels = record.batch.labels
    if labels is None or are_measurements(labels):
        return ""
    multi_hot = labels.ndim == 2 and labels.shape[1] > 1
    count = int((labels > 0).any(dim=0).sum()) if multi_hot else len(labels[labels >= 0].unique())
    return f" of {count} {'class' if count == 1 else 'classes'}" if count else ""  # below 0 is no class


def _explained(record: SaliencyRecord, targets: Targets) -> str:
    if record.attribution.explains != "classes":
        texts = {**WHOLE, "output": "the output itself"}
        return texts.get(record.attribution.explains, "a score of your own")
    if isinstance(targets, int):
        return f"class {targets}"
    by_label = targets == "label" and record.batch.labels is not None
    return "each sample's label" if by_label else "each sample's predicted class"


def _checks_made(record: SaliencyRecord, config: LookConfig) -> list[str]:
    """The names of the causal checks that this look made."""
    exchanged = record.exchanges.names if record.exchanges is not None else ()
    return [name for name in config.check_names if name in record.scores or name in exchanged]


def _left_out(record: SaliencyRecord, config: LookConfig) -> Iterator[str]:
    """The scores and checks that the samples do not allow, and what would."""
    if record.batch.object_masks is None:
        scores = [name for name, metric in config.resolved_scores.metrics.items() if needs_mask(metric)]
        checks = (
            [name for name in config.check_names if takes_masks(name)] if record.reliance is not None else []
        )
        counts = [f"{len(each)} {what}" for each, what in ((scores, "scores"), (checks, "checks")) if each]
        if counts:
            yield f"{', '.join(counts)}: deliver (images, labels, masks), or pass `adapter=`"
    if record.exchanges is not None and (lacking := record.exchanges.lacking(config.exchange_names)):
        yield f"{', '.join(lacking)}: the images have none"


def _beside(scores: dict[str, float], name: str) -> str:
    chance = scores.get(f"{name}_chance")
    return f" (chance {chance:.2f})" if chance is not None else ""
