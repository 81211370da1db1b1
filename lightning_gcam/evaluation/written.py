"""The table of an evaluation as files: `scores.csv` for a spreadsheet, `evaluation.json` with how it came about."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict
from pathlib import Path

from lightning_gcam._errors import InputError
from lightning_gcam._files import atomic_write_texts
from lightning_gcam.evaluation.result import EvaluationResult

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
