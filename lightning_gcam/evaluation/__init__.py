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
from lightning_gcam.evaluation.storage import Columns, SampleStore, StoredBatch

__all__ = [
    "Columns",
    "EvaluationResult",
    "Facts",
    "Row",
    "SampleStore",
    "StoredBatch",
    "measure_columns",
    "print_table",
    "read_result",
    "write_result",
]
