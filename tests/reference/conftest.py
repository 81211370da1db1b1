"""The fixtures of the scores' tests that the comparison with other packages shares."""

from tests.support.score_batches import make_batch, quantus

__all__ = ["make_batch", "quantus"]
