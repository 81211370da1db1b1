"""A look at signals, volumes or videos is one picture in every logger, as that of images is."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch

from lightning_gcam import SaliencyBatch, SaliencyRecord
from lightning_gcam.loggers import log_saliency
from lightning_gcam.pipeline.record import Stamp
from lightning_gcam.pipeline.run import record_saliency
from tests.support.backends import Csv, TensorBoard, Wandb, alike
from tests.support.dimensions import CLASSES, boxes_of, network, signals, videos, volumes
from tests.support.toys import PACKAGES, decoded

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # wandb's own
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

KINDS = ["signal", "volume", "video"]


@cache
def record_of(kind: str) -> SaliencyRecord:
    images, labels, masks = {"signal": signals, "volume": volumes, "video": videos}[kind](3)
    torch.manual_seed(0)
    model = network(len(images.shape) - 2, images.shape[1], CLASSES).eval()
    batch = SaliencyBatch(images, labels % CLASSES, masks, boxes_of(masks))
    options = {"methods": ["layer_cam", "hires_cam"], "checks": [], "scores": ["energy"]}
    return record_saliency(model, batch, stamp=Stamp(8, 2), **options)


@pytest.mark.parametrize("backend", [TensorBoard, Csv])
@pytest.mark.parametrize("kind", KINDS)
def test_one_picture_a_look(kind: str, backend: type[TensorBoard | Csv], tmp_path: Path) -> None:
    run, record = backend(tmp_path), record_of(kind)
    logger = run.logger(PACKAGES[0])
    log_saliency(logger, record)
    log_saliency(logger, replace(record, stamp=Stamp(12, 3)))
    pictures = run.pictures()
    assert {tag: sorted(by_step) for tag, by_step in pictures.items()} == {"saliency/overlay": [8, 12]}
    assert alike(pictures["saliency/overlay"][8], record.overlay)


def test_wandb_has_each_sample_with_its_panels_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("WANDB_SILENT", "true")
    run, records = Wandb(tmp_path / "run"), [record_of(kind) for kind in KINDS]
    logger = run.logger(PACKAGES[0])
    for step, record in enumerate(records):
        log_saliency(logger, replace(record, stamp=Stamp(step)))
    run.finish()
    pictures = run.pictures()["saliency/overlay"]
    assert sorted(pictures) == [0, 1, 2]
    (offline,) = run.runs()
    rows = [row["saliency/samples"] for row in offline.history if "saliency/samples" in row]
    for step, (record, row) in enumerate(zip(records, rows, strict=True)):
        assert alike(pictures[step], replace(record, stamp=Stamp(step)).overlay)
        assert len(row["filenames"]) == 3 and not row.get("all_masks") and not any(row.get("all_boxes") or [])
        shown = decoded(offline.files / row["filenames"][0])
        assert shown.shape == (*record.layout.panel, 3)
