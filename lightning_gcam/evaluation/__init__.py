"""The evaluation of a whole dataset: each sample's stored scores, and the table of their means."""

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
