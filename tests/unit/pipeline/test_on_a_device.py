"""Every method, score and annotation on tensors that claim to lie on a device: nothing is left on the host.

An operation on both, which CUDA refuses, is refused by these tensors (`tests/support/synchronizations.py`); and since
their values are computed on the host, the results are equal to the bit.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lightning_gcam import SaliencyBatch, attribute
from lightning_gcam.cam import available_methods
from lightning_gcam.metrics import available_scores
from lightning_gcam.pipeline.config import LookConfig
from lightning_gcam.pipeline.record import LookHistory, Stamp
from lightning_gcam.pipeline.run import analyze
from tests.support.nets import OF_TRANSFORMERS
from tests.support.synchronizations import OnDevice, synchronizations, to_device, to_host
from tests.unit.pipeline.test_synchronizations import network

IMAGES = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(2))
LABELS = torch.arange(4) % 3
BOXES = [torch.tensor([[2.0, 2.0, 9.0, 12.0]])] * 4
CORNER = torch.zeros(16, 16, dtype=torch.bool)
CORNER[:4, :4] = True
MASKS = torch.zeros(4, 16, 16, dtype=torch.bool)
MASKS[:, 4:12, 4:12] = True


def made() -> nn.Module:
    torch.manual_seed(0)
    return network()


@pytest.mark.parametrize("method", [each for each in available_methods() if each not in OF_TRANSFORMERS])
def test_every_method_runs_there_and_gives_the_same_map(method: str) -> None:
    how: dict[str, Any] = {"methods": method, "target_layer": "5"}
    torch.manual_seed(1)
    here = attribute(made(), IMAGES, LABELS, **how).maps[method]
    torch.manual_seed(1)
    with synchronizations():
        there = attribute(to_device(made()), to_device(IMAGES), to_device(LABELS), **how).maps[method]
    assert isinstance(there, OnDevice)
    assert torch.equal(to_host(there), here)


ANNOTATIONS: dict[str, dict[str, Any]] = {
    "masks": {"labels": LABELS, "masks": MASKS},
    "boxes": {"labels": LABELS, "boxes": BOXES},
    "a suspect region": {"labels": LABELS, "suspect": CORNER},
    "groups": {"labels": LABELS, "masks": MASKS, "groups": LABELS % 2},
    "several classes": {"labels": nn.functional.one_hot(LABELS, 3), "masks": MASKS},
    "none": {},
}


MANY_STEPS = {"max_box_accuracy", "max_box_accuracy_v1"}
"""A hundred thresholds, pixel by pixel: a minute with every operation wrapped."""


def scores_and_picture(model: nn.Module, batch: SaliencyBatch) -> tuple[dict[str, float], Any]:
    """All scores but the slowest, of a second look with its checks, and its picture."""
    names = [name for name in available_scores() if name not in MANY_STEPS]
    config = LookConfig(methods=["guidance_cam", "layer_cam"], scores=names, draws_earlier=True)
    config = config.at_layers(["5"], None)
    history = LookHistory()
    torch.manual_seed(1)
    for step in (1, 2):
        history.is_checked = False
        record = analyze(model, batch, config, history=history, stamp=Stamp(step))
    return record.scores, record.overlay


@pytest.mark.slow
@pytest.mark.parametrize("annotation", ANNOTATIONS)
def test_every_score_and_check_runs_there_and_gives_the_same(annotation: str) -> None:
    batch = SaliencyBatch(IMAGES, **ANNOTATIONS[annotation])
    scores, picture = scores_and_picture(made(), batch)
    with synchronizations():
        there, drawn = scores_and_picture(to_device(made()), to_device(batch))
    assert there == pytest.approx(scores, nan_ok=True, abs=0)
    assert np.array_equal(drawn, picture)
