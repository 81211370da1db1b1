"""The result of an evaluation: scores over a dataset, and causal checks; measured, printed, written and read back."""

from __future__ import annotations

import csv
import io
import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, TextIO

from torchmetrics import Metric

from lightning_gcam.evaluation.storage import Columns
from lightning_gcam.metrics import Measurement, SampleScore, measure_samples
from lightning_gcam.metrics.measurement import ScoreKey
from lightning_gcam.shortcuts import Reliance
from lightning_gcam.utils.errors import InputError
from lightning_gcam.utils.files import atomic_write_texts


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


@dataclass(frozen=True)
class Row:
    """One score of one map, or one causal check.

    Args:
        method: as in `Attribution.maps`; "uniform" and "centre" are maps that do not depend on the model; "" for a
            check, which is of the model and of no map.
        score: its name.
        value: over the samples that count; NaN where there are none.
        low: the lower end of the bootstrap interval; None where there are too few samples for one.
        high: the upper end.
        n: how many samples count.
        blank: how many were left out because their map is blank.
        no_mask: how many were left out because they have no mask.
        undefined: how many were left out because the score does not exist for them.
        higher_is_better: None where no end is better.
        no_room: how many a check left out because their object leaves less than a quarter of the image.
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
    no_room: int = 0

    @property
    def left_out(self) -> int:
        """How many samples were left out, for whatever reason."""
        return self.blank + self.no_mask + self.undefined + self.no_room


@dataclass(frozen=True)
class EvaluationResult:
    """The scores of an evaluation, its circumstances, and what the model relies on.

    Args:
        rows: a row for each score of each map, score after score.
        facts: the circumstances.
        reliance: the causal checks, on a few samples out of the dataset; None where there are none.

    Example:
        >>> from lightning_gcam.evaluation import Facts
        >>> reliance = Reliance({"accuracy": Measurement(0.75, 64, 0, 0, 0, (0.63, 0.84))}, chance=0.1)
        >>> result = EvaluationResult((), Facts(["grad_cam"], ["energy"], "layer4", "label", 12), reliance)
        >>> result.checks["accuracy"].n, result.scores, [row.score for row in result.table]
        (64, {'accuracy': 0.75, 'accuracy_chance': 0.1}, ['accuracy', 'accuracy_chance'])
    """

    rows: tuple[Row, ...]
    facts: Facts
    reliance: Reliance | None = None

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
    def checks(self) -> dict[str, Measurement]:
        """The causal checks by name, "accuracy" on their samples first; empty where there are none."""
        return self.reliance.measurements if self.reliance is not None else {}

    @property
    def table(self) -> tuple[Row, ...]:
        """All rows, as they are printed, written and logged: those of the maps, then those of the checks."""
        return (*self.rows, *(_rows_of_checks(self.reliance) if self.reliance is not None else ()))

    @property
    def scores(self) -> dict[str, float]:
        """The values by name, as a look has them: `energy` of the first method, `<method>/energy` of the others.

        The causal checks stand behind them. A score that does not exist is not in it.
        """
        first = self.facts.methods[0] if self.facts.methods else ""
        found = {
            (row.score if row.method == first else f"{row.method}/{row.score}"): row.value
            for row in self.rows
            if math.isfinite(row.value)
        }
        checks = self.reliance.scores if self.reliance is not None else {}
        return {**found, **{name: value for name, value in checks.items() if name not in found}}

    def to_plain(self) -> dict[str, Any]:
        """Convert to dicts, lists, strings and numbers; NaN becomes None."""
        rows = [{**asdict(row), "left_out": row.left_out} for row in self.rows]
        for row in rows:
            row["value"] = row["value"] if math.isfinite(row["value"]) else None
        checks = self.reliance.to_plain() if self.reliance is not None else None
        return {"rows": rows, "facts": asdict(self.facts), "reliance": checks}

    @staticmethod
    def from_plain(plain: Mapping[str, Any]) -> EvaluationResult:
        """Convert back what `to_plain` returned; the checks may be missing, as in what older versions wrote."""
        rows = [{name: value for name, value in row.items() if name != "left_out"} for row in plain["rows"]]
        for row in rows:
            row["value"] = math.nan if row["value"] is None else row["value"]
        checks = plain.get("reliance")
        reliance = Reliance.from_plain(checks) if checks is not None else None
        return EvaluationResult(tuple(Row(**row) for row in rows), Facts(**plain["facts"]), reliance)


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


def _rows_of_checks(reliance: Reliance) -> Iterator[Row]:
    """A row for each check, and behind the first, the accuracy, those of the accuracy of a guess."""
    measured = reliance.measurements
    chances = {name: value for name, value in reliance.scores.items() if name not in measured}
    for name, each in measured.items():
        low, high = each.interval if each.interval is not None else (None, None)
        left_out = (each.blank, each.no_mask, each.undefined)
        yield Row("", name, each.value, low, high, each.n, *left_out, no_room=each.no_room)
        for chance in chances if name == "accuracy" else ():
            yield Row("", chance, chances[chance], None, None, each.n)


HEADINGS = ("score", "method", "value", "95% interval", "n", "left out")
CHECK_HEADINGS = ("check", *HEADINGS[2:])
BASELINES = ("uniform", "centre")
Cells = Iterator[tuple[list[str], bool, bool]]


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
    """Return the lines of the table, the best value of each score with a star, and a line of facts; then the checks."""
    return [line for table in _tables_of(result) for line in _plain_lines(*table)]


def _plain_lines(headings: Sequence[str], cells_of_rows: Cells, caption: str) -> list[str]:
    rows = [
        [
            f"{cell} *" if best and heading == "value" else cell
            for heading, cell in zip(headings, cells, strict=True)
        ]
        for cells, best, _ in cells_of_rows
    ]
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    lines = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in (headings, *rows)]
    return [lines[0], "  ".join("-" * width for width in widths), *lines[1:], caption]


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


def _tables_of(result: EvaluationResult) -> Iterator[tuple[Sequence[str], Cells, str]]:
    """Yield headings, cells and caption of the table of the scores, and of that of the checks, if there are any."""
    yield HEADINGS, _cells_of(result.rows, lambda row: row.score), summary(result)
    if checks := result.table[len(result.rows) :]:
        caption = f"what the model relies on, measured on {checks[0].n + checks[0].left_out} of the samples"
        yield CHECK_HEADINGS, _cells_of(checks, lambda row: row.score.partition("_")[0]), caption


def _cells_of(rows: Sequence[Row], section: Callable[[Row], str]) -> Cells:
    """Yield each row's cells, whether it is the best, and whether it is the last of its section."""
    for _, group in groupby(rows, key=section):
        together = list(group)
        best = best_of(together)
        for index, row in enumerate(together):
            names = ["" if index else row.score, row.method] if row.method else [row.score]
            interval = "" if row.low is None or row.high is None else f"{row.low:.3f} to {row.high:.3f}"
            value = f"{row.value:.3f}" if row.value == row.value else "none"
            cells = [*names, value, interval, str(row.n), _left_out_in_words(row)]
            yield cells, row.method in best, index == len(together) - 1


def _left_out_in_words(row: Row) -> str:
    reasons = [
        (row.blank, "blank"),
        (row.no_mask, "no mask"),
        (row.undefined, "undefined"),
        (row.no_room, "no room"),
    ]
    why = ", ".join(f"{count} {reason}" for count, reason in reasons if count)
    return f"{row.left_out} ({why})" if why else "0"


def _print_with_rich(result: EvaluationResult, file: TextIO) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    for headings, cells_of_rows, caption in _tables_of(result):
        table = Table(caption=escape(caption), caption_justify="left", pad_edge=False)
        for heading in headings:
            justify: Literal["left", "right"] = "right" if heading in ("value", "n") else "left"
            table.add_column(heading, justify=justify, overflow="fold")
        for cells, best, is_last in cells_of_rows:
            table.add_row(*map(escape, cells), style="bold" if best else None, end_section=is_last)
        Console(file=file).print(table)


TABLE, RESULT_FILE = "scores.csv", "evaluation.json"
_CSV_COLUMNS = (
    *("method", "score", "value", "low", "high", "n", "left_out"),
    *("blank", "no_mask", "undefined", "no_room"),
)


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
    for row in result.table:
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
