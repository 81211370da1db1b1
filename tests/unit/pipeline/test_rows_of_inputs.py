"""Other inputs of the samples go along with every changed image, in whichever order and chunks these are run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_gcam.data import SaliencyBatch
from lightning_gcam.metrics.perturbation import PerturbedOutputs
from lightning_gcam.pipeline.attribution import Attribution
from lightning_gcam.pipeline.config import LookConfig
from lightning_gcam.pipeline.run import analyze
from tests.support.toys import toy_samples


class ReadsTheColumn(nn.Module):
    """The class is what stands beside the image, whose pixels count for next to nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU())

    def forward(self, images: Tensor, column: Tensor) -> Tensor:
        seen = self.features(images).mean(dim=(2, 3))
        return 5.0 * nn.functional.one_hot(column, 4) + 1e-4 * seen


def divided(work: Callable[[list[int]], Any], n: int | None = None) -> Any:
    """The samples shared out to two processes, the second half first."""
    if not n:
        return work([])
    found = [work(list(rows)) for rows in (range(n // 2), range(n // 2, n))]
    return (Attribution if isinstance(found[0], Attribution) else PerturbedOutputs).cat(found)


@pytest.mark.parametrize("chunk_size", [None, 3])
def test_every_changed_image_is_run_with_its_samples_column(chunk_size: int | None) -> None:
    images, labels, masks = toy_samples(8)
    batch = SaliencyBatch(images, labels, masks, inputs={"column": labels.flip(0)})
    scores = ["insertion", "deletion", "average_drop", "adcc", "random_model_similarity"]
    torch.manual_seed(0)
    config = LookConfig(scores=scores, targets="predicted")
    record = analyze(ReadsTheColumn(), batch, config, divided, chunk_size=chunk_size)
    assert torch.equal(record.predictions, labels.flip(0))
    assert {"border", "background"} <= set(record.exchanges.names)
    for name, logits in record.exchange_logits.items():
        torch.testing.assert_close(logits, record.attribution.logits, rtol=0, atol=1e-2, msg=name)
    probability = float(record.attribution.logits.softmax(dim=1).amax(dim=1).mean())
    assert record.scores["insertion"] == pytest.approx(probability, abs=1e-2)
    assert record.scores["deletion"] == pytest.approx(probability, abs=1e-2)
    assert record.scores["average_drop"] == pytest.approx(0, abs=1e-2)
    assert record.scores["background_only_accuracy"] == record.scores["accuracy"]
