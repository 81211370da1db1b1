"""The table of an evaluation as files: `scores.csv` for a spreadsheet, `evaluation.json` with how it came about."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict
from pathlib import Path

from lightning_gcam._errors import InputError
from lightning_gcam.evaluation.result import EvaluationResult

TABLE, WHOLE = "scores.csv", "evaluation.json"
_COLUMNS = ("method", "score", "value", "low", "high", "n", "left_out", "blank", "no_mask", "undefined")


def write_result(directory: Path, result: EvaluationResult) -> tuple[Path, Path]:
    """Write `scores.csv` and `evaluation.json`, each whole under another name and then renamed.

    Args:
        directory: it is made where it is not there.
        result: of an evaluation.

    Returns:
        The two files.
    """
    directory.mkdir(parents=True, exist_ok=True)
    table, whole = directory / TABLE, directory / WHOLE
    beside = table.with_suffix(".part")
    with beside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, _COLUMNS)
        writer.writeheader()
        for row in result.rows:
            cells = {**asdict(row), "left_out": row.left_out}
            writer.writerow({name: "" if cells[name] is None else cells[name] for name in _COLUMNS})
    beside.replace(table)
    beside = whole.with_suffix(".part")
    text = json.dumps(result.to_plain(), indent=1, allow_nan=False)
    beside.write_text(f"{text}\n", encoding="utf-8")
    beside.replace(whole)
    return table, whole


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
