"""The evaluation of a whole dataset: what is kept of each sample, and the table that is made of it."""

from lightning_gcam.evaluation.result import (
    EvaluationResult,
    Facts,
    Row,
    measure_columns,
    print_table,
    read_result,
    write_result,
)
from lightning_gcam.evaluation.storage import Column, Columns, Part, Parts

__all__ = [
    "Column",
    "Columns",
    "EvaluationResult",
    "Facts",
    "Part",
    "Parts",
    "Row",
    "measure_columns",
    "print_table",
    "read_result",
    "write_result",
]
