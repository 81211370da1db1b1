"""A detector in the real Trainer, watched by a monitor with no argument."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_gcam import SaliencyMonitor
from lightning_gcam.pipeline.record import SaliencyRecord
from lightning_gcam.visual.drawing import OBJECT_COLOR, PREDICTED_COLOR
from tests.support.detectors import DetectorModule, collate, small_fcos, squares_loader
from tests.support.toys import LIGHTNING_SAYS, toy_trainer

pytestmark = LIGHTNING_SAYS


@pytest.fixture(scope="module")
def monitor(tmp_path_factory: pytest.TempPathFactory) -> SaliencyMonitor:
    """Four epochs of a RetinaNet on bright squares, without a warning."""
    torch.manual_seed(0)
    watch = SaliencyMonitor()
    trainer = toy_trainer(tmp_path_factory.mktemp("run"), watch, max_epochs=4)
    trainer.fit(DetectorModule(), squares_loader(64, shuffle=True, seed=1), squares_loader(16))
    return watch


def record_of(monitor: SaliencyMonitor) -> SaliencyRecord:
    assert monitor.last_record is not None
    return monitor.last_record


def test_it_looks_at_the_objects(monitor: SaliencyMonitor) -> None:
    first, last = monitor.history[0], monitor.history[-1]
    assert len(monitor.history) == 4
    assert last["energy"] > 2 * last["energy_chance"] and last["energy"] > first["energy"]
    assert last["pointing_game"] > 0.3 and last["blank_rate"] == 0
    assert {"accuracy", "salient_flips", "color_follow_rate", "background_only_accuracy"} <= first.keys()


def test_the_samples_have_the_class_and_the_boxes_of_the_targets(monitor: SaliencyMonitor) -> None:
    record = record_of(monitor)
    assert sorted(set(record.batch.labels.tolist())) == [1, 2]
    assert all(each.shape == (1, 4) for each in record.batch.boxes)
    assert record.attribution.target_layer == "detector.backbone.fine"
    assert torch.equal(record.attribution.targets, record.batch.labels)
    assert record.attribution.logits.shape == (16, 3)


def test_the_picture_has_both_boxes(monitor: SaliencyMonitor) -> None:
    record = record_of(monitor)
    assert record.attribution.predicted_boxes.shape == (16, 8, 4)
    for color in (OBJECT_COLOR, PREDICTED_COLOR):
        assert (record.overlay == np.array(color)).all(axis=2).sum() > 100


def test_several_objects_of_several_classes(tmp_path: Path) -> None:
    """The class of the largest object is explained; an image without any is not considered."""

    def targets(labels: list[int], *boxes: list[float]) -> dict[str, Tensor]:
        return {"boxes": torch.tensor(boxes).reshape(-1, 4), "labels": torch.tensor(labels)}

    images = torch.rand(4, 3, 48, 64, generator=torch.Generator().manual_seed(0))
    small, large, other = [2.0, 2, 12, 12], [20.0, 10, 50, 40], [50.0, 0, 60, 12]
    found = [
        targets([1, 2, 1], small, large, other),
        targets([1, 1, 2], small, large, other),
        targets([2], small),
        targets([]),
    ]
    scenes = DataLoader([*zip(images, found, strict=True)], 4, collate_fn=collate)
    watch = SaliencyMonitor(num_samples=3, methods="hires_cam", checks=[], on_error="raise")
    with pytest.warns(UserWarning, match="1 validation samples were not considered .* or they have no box"):
        toy_trainer(tmp_path, watch, max_epochs=1).fit(DetectorModule(small_fcos), squares_loader(8), scenes)
    batch = record_of(watch).batch
    kept = sorted(
        (label, len(boxes)) for label, boxes in zip(batch.labels.tolist(), batch.boxes, strict=True)
    )
    assert kept == [(1, 2), (2, 1), (2, 1)]
