"""The result of an evaluation: each method's scores over a dataset; measured, printed, written and read back."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import platform
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from typing import Any, TextIO

import torch
from torchmetrics import Metric

from lightning_gcam.evaluation.storage import Columns
from lightning_gcam.metrics import SampleScore, measure_samples
from lightning_gcam.metrics.measurement import ScoreKey
from lightning_gcam.utils.errors import InputError
from lightning_gcam.utils.files import atomic_write_texts

_PACKAGES = (
    "lightning-gcam",
    "torch",
    "torchvision",
    "pytorch-lightning",
    "lightning",
    "torchmetrics",
    "timm",
)


@dataclass(frozen=True)
class Facts:
    """The circumstances of an evaluation, as plain Python: model, data, cost, versions.

    Args:
        methods: the names of the maps, in order.
        scores: the names of the scores, in order.
        target_layer: whose activations the maps are of, in words.
        targets: what the maps explain, in words.
        samples: how many samples were scored.
        unlabelled: how many had a negative label, and were not.
        failed: how many could not be: their batch raised.
        forwards: how many images went through the model for one sample, on average: maps and scores together.
        seconds: how long maps and scores of all samples took, the processes' times added up.
        device: that the model was on.
        processes: that shared the work.
        precision: of the Trainer.
        seed: that `seed_everything` was called with; None where it was not.
        weights: a checksum of parameters and buffers.
        versions: of Python and the packages.
        command: that was run.
        resamples: of the bootstrap.
        level: of its intervals.
        about: further facts of whoever evaluates, such as a dataset's name.
    """

    methods: list[str]
    scores: list[str]
    target_layer: str
    targets: str
    samples: int
    unlabelled: int = 0
    failed: int = 0
    forwards: float = 0.0
    seconds: float = 0.0
    device: str = "cpu"
    processes: int = 1
    precision: str = "32-true"
    seed: int | None = None
    weights: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    command: str = ""
    resamples: int = 1000
    level: float = 0.95
    about: dict[str, Any] = field(default_factory=dict)


def versions(packages: Iterable[str] = _PACKAGES) -> dict[str, str]:
    """Return the version of Python, and of each package that is installed.

    Example:
        >>> sorted(versions(["torch", "no-such-package"]))
        ['python', 'torch']
    """
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    if torch.cuda.is_available() and torch.version.cuda is not None:
        found["cuda"] = torch.version.cuda
    return found


def command() -> str:
    """Return the command line of this process, quoted for a shell."""
    given = getattr(sys, "orig_argv", sys.argv)
    program = Path(sys.argv[0]).name if sys.argv and sys.argv[0] else ""
    is_script = program and program not in ("-c", "-m") and not program.endswith(".py")
    return shlex.join([program, *sys.argv[1:]] if is_script else [Path(given[0]).name, *given[1:]])


def seed() -> int | None:
    """Return the seed that Lightning's `seed_everything` was called with; None where it was not."""
    found = os.environ.get("PL_GLOBAL_SEED", "")
    return int(found) if found.lstrip("-").isdigit() else None


def device_in_words(device: torch.device) -> str:
    """Describe a device: its type and, for a GPU, its name.

    Example:
        >>> device_in_words(torch.device("cpu"))
        'cpu'
    """
    if device.type == "cuda":
        return f"{device.type} ({torch.cuda.get_device_name(device)})"
    return device.type


@dataclass(frozen=True)
class Row:
    """One score of one map.

    Args:
        method: as in `Attribution.maps`; "uniform" and "centre" are maps that do not depend on the model.
        score: its name.
        value: over the samples that count; NaN where there are none.
        low: the lower end of the bootstrap interval; None where there are too few samples for one.
        high: the upper end.
        n: how many samples count.
        blank: how many were left out because their map is blank.
        no_mask: how many were left out because they have no mask.
        undefined: how many were left out because the score does not exist for them.
        higher_is_better: None where no end is better.
    """

    method: str
    score: str
    value: float
    low: float | None
    high: float | None
    n: int
    blank: int = 0
    no_mask: int = 0
    undefined: int = 0
    higher_is_better: bool | None = None

    @property
    def left_out(self) -> int:
        """How many samples were left out, for whatever reason."""
        return self.blank + self.no_mask + self.undefined


@dataclass(frozen=True)
class EvaluationResult:
    """The scores of an evaluation, and its circumstances.

    Args:
        rows: a row for each score of each map, score after score.
        facts: the circumstances.
    """

    rows: tuple[Row, ...]
    facts: Facts

    def row(self, method: str, score: str) -> Row:
        """Return the row of one score of one map.

        Raises:
            KeyError: where there is none.
        """
        for row in self.rows:
            if (row.method, row.score) == (method, score):
                return row
        raise KeyError(f"{method}/{score}")

    @property
    def scores(self) -> dict[str, float]:
        """The values by name, as a look has them: `energy` of the first method, `<method>/energy` of the others.

        A score that does not exist is not in it.
        """
        first = self.facts.methods[0] if self.facts.methods else ""
        return {
            (row.score if row.method == first else f"{row.method}/{row.score}"): row.value
            for row in self.rows
            if math.isfinite(row.value)
        }

    def to_plain(self) -> dict[str, Any]:
        """Convert to dicts, lists, strings and numbers; NaN becomes None."""
        rows = [{**asdict(row), "left_out": row.left_out} for row in self.rows]
        for row in rows:
            row["value"] = row["value"] if math.isfinite(row["value"]) else None
        return {"rows": rows, "facts": asdict(self.facts)}

    @staticmethod
    def from_plain(plain: Mapping[str, Any]) -> EvaluationResult:
        """Convert back what `to_plain` returned."""
        rows = [{name: value for name, value in row.items() if name != "left_out"} for row in plain["rows"]]
        for row in rows:
            row["value"] = math.nan if row["value"] is None else row["value"]
        return EvaluationResult(tuple(Row(**row) for row in rows), Facts(**plain["facts"]))


def measure_columns(
    names: Sequence[ScoreKey],
    metrics: Mapping[str, Metric],
    read: Callable[[ScoreKey], Columns],
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[Row, ...]:
    """Compute a row, with its bootstrap interval, for each score of each map.

    Args:
        names: of the columns, in the order of the maps.
        metrics: the scores by name; the table is in their order.
        read: gives a column's numbers, over all samples.
        resamples: how often the bootstrap draws.
        seed: of the bootstrap.
    """
    rows = []
    for score, metric in metrics.items():
        for name in names:
            if name.score == score and isinstance(metric, SampleScore):
                rows.append(_measure_column(name, metric, read(name), resamples, seed))
    return tuple(rows)


def _measure_column(name: ScoreKey, metric: SampleScore, columns: Columns, resamples: int, seed: int) -> Row:
    found = measure_samples(metric, columns.sample(name), resamples=resamples, seed=seed).overall
    low, high = found.interval if found.interval is not None else (None, None)
    left_out = (found.blank, found.no_mask, found.undefined)
    return Row(name.map, name.score, found.value, low, high, found.n, *left_out, metric.higher_is_better)


HEADINGS = ("score", "method", "value", "95% interval", "n", "left out")
BASELINES = ("uniform", "centre")


def print_table(result: EvaluationResult, file: TextIO | None = None) -> None:
    """Print the table, with rich where that is installed, and as plain text elsewhere.

    Args:
        result: of an evaluation.
        file: where to; the terminal where it is left out.
    """
    if find_spec("rich") is None:
        print("\n".join(plain_table(result)), file=file or sys.stdout)
    else:
        _print_with_rich(result, file or sys.stdout)


def plain_table(result: EvaluationResult) -> list[str]:
    """Return the lines of the table, the best value of each score with a star, and a line of facts."""
    rows = [
        [*cells[:2], f"{cells[2]}{' *' if best else ''}", *cells[3:]]
        for cells, best, _ in _cells_of_rows(result)
    ]
    widths = [max(len(line[index]) for line in (HEADINGS, *rows)) for index in range(len(HEADINGS))]
    lines = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in (HEADINGS, *rows)]
    return [lines[0], "  ".join("-" * width for width in widths), *lines[1:], summary(result)]


def summary(result: EvaluationResult) -> str:
    """Describe the circumstances of the table in one line.

    Example:
        >>> from lightning_gcam.evaluation import Facts
        >>> summary(EvaluationResult((), Facts(["grad_cam"], ["energy"], "layer4", "label", 12, forwards=1.0)))
        '12 samples, layer layer4, targets label, 1.0 forwards a sample, cpu'
    """
    facts = result.facts
    failed = f" ({facts.failed} more failed)" if facts.failed else ""
    unlabelled = f" ({facts.unlabelled} more without a label)" if facts.unlabelled else ""
    return (
        f"{facts.samples} samples{failed}{unlabelled}, layer {facts.target_layer}, targets {facts.targets}, "
        f"{facts.forwards:.1f} forwards a sample, {facts.device}"
    )


def best_of(rows: Sequence[Row]) -> set[str]:
    """Return the methods with the best value of one score; none where no end is better or there is nothing to compare.

    Baseline maps, which do not depend on the model, are not compared.
    """
    judged = [row for row in rows if row.method not in BASELINES and row.value == row.value]
    if len(judged) < 2 or judged[0].higher_is_better is None:
        return set()
    best = (max if judged[0].higher_is_better else min)(row.value for row in judged)
    return {row.method for row in judged if row.value == best}


def _cells_of_rows(result: EvaluationResult) -> Iterator[tuple[list[str], bool, bool]]:
    """Yield each row's cells, whether it is the best, and whether it is the last of its score."""
    for score, group in groupby(result.rows, key=lambda row: row.score):
        rows = list(group)
        best = best_of(rows)
        for index, row in enumerate(rows):
            interval = "" if row.low is None or row.high is None else f"{row.low:.3f} to {row.high:.3f}"
            value = f"{row.value:.3f}" if row.value == row.value else "none"
            cells = ["" if index else score, row.method, value, interval, str(row.n), _left_out_in_words(row)]
            yield cells, row.method in best, index == len(rows) - 1


def _left_out_in_words(row: Row) -> str:
    reasons = [(row.blank, "blank"), (row.no_mask, "no mask"), (row.undefined, "undefined")]
    why = ", ".join(f"{count} {reason}" for count, reason in reasons if count)
    return f"{row.left_out} ({why})" if why else "0"


def _print_with_rich(result: EvaluationResult, file: TextIO) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(caption=escape(summary(result)), caption_justify="left")
    for index, heading in enumerate(HEADINGS):
        table.add_column(heading, justify="right" if index in (2, 4) else "left")
    for cells, best, is_last in _cells_of_rows(result):
        table.add_row(*map(escape, cells), style="bold" if best else None, end_section=is_last)
    Console(file=file).print(table)


TABLE, RESULT_FILE = "scores.csv", "evaluation.json"
_CSV_COLUMNS = ("method", "score", "value", "low", "high", "n", "left_out", "blank", "no_mask", "undefined")


def write_result(directory: Path, result: EvaluationResult) -> tuple[Path, Path]:
    """Write `scores.csv` and `evaluation.json`: both whole under other names, and then renamed, the table last.

    Args:
        directory: it is made where it is not there.
        result: of an evaluation.

    Returns:
        The two files.

    Raises:
        OSError: where they cannot be written; what was there before is then as it was.
    """
    whole, table = directory / RESULT_FILE, directory / TABLE
    text = json.dumps(result.to_plain(), indent=1, allow_nan=False, default=str)
    contents = {whole: f"{text}\n", table: as_csv(result)}
    with atomic_write_texts(list(contents), newline="") as files:
        for file, content in zip(files, contents.values(), strict=True):
            file.write(content)
    return table, whole


def as_csv(result: EvaluationResult) -> str:
    """Return the text of `scores.csv`."""
    file = io.StringIO()
    writer = csv.DictWriter(file, _CSV_COLUMNS)
    writer.writeheader()
    for row in result.rows:
        cells = {**asdict(row), "left_out": row.left_out}
        writer.writerow({name: "" if cells[name] is None else cells[name] for name in _CSV_COLUMNS})
    return file.getvalue()


def read_result(directory: Path) -> EvaluationResult:
    """Read the result that `write_result` wrote.

    Args:
        directory: of an evaluation.

    Raises:
        InputError: where there is none.
    """
    path = directory / RESULT_FILE
    if not path.is_file():
        raise InputError(f'`directory` "{directory}" has no {RESULT_FILE}: no evaluation was finished there.')
    return EvaluationResult.from_plain(json.loads(path.read_text(encoding="utf-8")))
