"""The evaluation of a whole dataset: what is kept of each sample, and the table that is made of it."""

from lightning_gcam.evaluation.columns import Column, Columns
from lightning_gcam.evaluation.facts import Facts
from lightning_gcam.evaluation.parts import Part, Parts
from lightning_gcam.evaluation.result import EvaluationResult, Row, measure_columns
from lightning_gcam.evaluation.table import print_table
from lightning_gcam.evaluation.written import read_result, write_result

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
