"""The table of an evaluation, printed and written."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from typing import TextIO

from lightning_gcam.evaluation.result import EvaluationResult, Row
from lightning_gcam.utils.errors import InputError
from lightning_gcam.utils.files import atomic_write_texts

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
    """The lines of the table, the best value of each score with a star, and one line of facts."""
    rows = [[*cells[:2], f"{cells[2]}{' *' if best else ''}", *cells[3:]] for cells, best, _ in _rows(result)]
    widths = [max(len(line[index]) for line in (HEADINGS, *rows)) for index in range(len(HEADINGS))]
    lines = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in (HEADINGS, *rows)]
    return [lines[0], "  ".join("-" * width for width in widths), *lines[1:], summary(result)]


def summary(result: EvaluationResult) -> str:
    """What a reader has to know of the table, in one line.

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
    """The methods that are best by one score; none where no end is better, or there is nothing to compare.

    Maps that know nothing of the model take no part.
    """
    judged = [row for row in rows if row.method not in BASELINES and row.value == row.value]
    if len(judged) < 2 or judged[0].higher_is_better is None:
        return set()
    best = (max if judged[0].higher_is_better else min)(row.value for row in judged)
    return {row.method for row in judged if row.value == best}


def _rows(result: EvaluationResult) -> Iterator[tuple[list[str], bool, bool]]:
    """Each row's cells, whether it is the best, and whether it is the last of its score."""
    for score, group in groupby(result.rows, key=lambda row: row.score):
        rows = list(group)
        best = best_of(rows)
        for index, row in enumerate(rows):
            interval = "" if row.low is None or row.high is None else f"{row.low:.3f} to {row.high:.3f}"
            value = f"{row.value:.3f}" if row.value == row.value else "none"
            cells = ["" if index else score, row.method, value, interval, str(row.n), _left_out(row)]
            yield cells, row.method in best, index == len(rows) - 1


def _left_out(row: Row) -> str:
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
    for cells, best, is_last in _rows(result):
        table.add_row(*map(escape, cells), style="bold" if best else None, end_section=is_last)
    Console(file=file).print(table)


TABLE, WHOLE = "scores.csv", "evaluation.json"
_COLUMNS = ("method", "score", "value", "low", "high", "n", "left_out", "blank", "no_mask", "undefined")


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
    whole, table = directory / WHOLE, directory / TABLE
    text = json.dumps(result.to_plain(), indent=1, allow_nan=False, default=str)
    contents = {whole: f"{text}\n", table: as_csv(result)}
    with atomic_write_texts(list(contents), newline="") as files:
        for file, content in zip(files, contents.values(), strict=True):
            file.write(content)
    return table, whole


def as_csv(result: EvaluationResult) -> str:
    """The text of `scores.csv`."""
    file = io.StringIO()
    writer = csv.DictWriter(file, _COLUMNS)
    writer.writeheader()
    for row in result.rows:
        cells = {**asdict(row), "left_out": row.left_out}
        writer.writerow({name: "" if cells[name] is None else cells[name] for name in _COLUMNS})
    return file.getvalue()


def read_result(directory: Path) -> EvaluationResult:
    """Read what `write_result` wrote.

    Args:
        directory: of an evaluation.

    Raises:
        InputError: where there is none.
    """
    path = directory / WHOLE
    if not path.is_file():
        raise InputError(f'`directory` "{directory}" has no {WHOLE}: no evaluation was finished there.')
    return EvaluationResult.from_plain(json.loads(path.read_text(encoding="utf-8")))
