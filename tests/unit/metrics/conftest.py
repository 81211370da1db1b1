"""The fixtures of the scores' tests."""

from tests.support.score_batches import batch, gaps, inputs_for, make_batch, quantus

__all__ = ["batch", "gaps", "inputs_for", "make_batch", "quantus"]
