"""The samples of a look in an offline Weights & Biases run, read back: masks, boxes, captions, and the tables."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from lightning_gcam import SaliencyBatch, SaliencyRecord
from lightning_gcam.loggers import log_saliency
from lightning_gcam.pipeline.record import Stamp
from lightning_gcam.pipeline.run import record_saliency
from tests.support.backends import Wandb, alike
from tests.support.toys import CLASSES, PACKAGES, SIZE, decoded, toy_network, toy_samples
from tests.support.wandb_reader import OfflineRun

pytest.importorskip("wandb")
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # wandb's own
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

NAMES = ["zero", "one", "two", "three"]


def samples() -> SaliencyBatch:
    images, labels, masks = toy_samples(CLASSES)
    suspect = torch.zeros(SIZE, SIZE, dtype=torch.bool)
    suspect[:3, -3:] = True
    boxes = [
        torch.tensor([[2.0, 4.0, 8.0, 16.0]]),
        torch.zeros(0, 4),
        torch.tensor([[0.0, 0.0, 0.0, 4.0]]),
        torch.ones(1, 4),
    ]
    return SaliencyBatch(
        images, labels, masks, boxes, suspect, groups=torch.tensor([0, 0, 1, 1]), names=["a", "b", "", "d"]
    )


def look(step: int, batch: SaliencyBatch, **options: Any) -> SaliencyRecord:
    torch.manual_seed(step)
    stamp = Stamp(step, step // 4, class_names=NAMES)
    return record_saliency(toy_network(), batch, methods=["guidance_cam", "grad_cam"], stamp=stamp, **options)


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[list[SaliencyRecord], OfflineRun]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_DATA_DIR", str(tmp_path_factory.mktemp("data")))
        patch.setenv("WANDB_SILENT", "true")
        backend = Wandb(tmp_path_factory.mktemp("run"))
        records, logger = [look(3, samples()), look(7, samples())], backend.logger(PACKAGES[0])
        for record in records:
            log_saliency(logger, record)
        backend.finish()
        (run,) = backend.runs()
        yield records, run


def of(run: OfflineRun, key: str) -> list[dict[str, Any]]:
    return [row[key] for row in run.history if key in row]


def pixels(path: Path) -> npt.NDArray[np.uint8]:
    with Image.open(path) as picture:
        return np.asarray(picture)


def test_each_sample_has_its_caption_and_its_heat(logged: Any) -> None:
    records, run = logged
    for record, images in zip(records, of(run, "saliency/samples"), strict=True):
        assert images["captions"] == record.captions
        for index, name in enumerate(images["filenames"]):
            left, top, right, bottom = record.layout.panel_box(index, 1)
            assert alike(decoded(run.files / name), record.overlay[top:bottom, left:right])


def test_object_and_suspect_region_are_masks_to_be_switched_on(logged: Any) -> None:
    records, run = logged
    (images, _), (record, _) = of(run, "saliency/samples"), records
    factor = record.layout.factors[0]
    assert factor > 1, "small images are enlarged, and their masks with them"
    for index, masks in enumerate(images["all_masks"]):
        assert set(masks) == {"object", "suspect"}
        found = pixels(run.files / masks["object"]["path"])
        expected = np.kron(record.batch.masks[index].numpy(), np.ones((factor, factor)))
        assert (found == expected).all() and found.max() == 1
        assert set(np.unique(pixels(run.files / masks["suspect"]["path"]))) == {0, 2}


def test_boxes_are_in_shares_of_the_picture_and_those_without_an_area_are_none(logged: Any) -> None:
    _, run = logged
    first, *others = of(run, "saliency/samples")[0]["all_boxes"]
    (box,) = json.loads((run.files / first["object"]["path"]).read_text())["box_data"]
    assert box["position"] == {"minX": 2 / SIZE, "maxX": 8 / SIZE, "minY": 4 / SIZE, "maxY": 1.0}
    assert box["box_caption"] == "object"
    assert others == [None, None, None]


def test_a_table_has_a_row_for_each_sample_at_each_look(logged: Any) -> None:
    records, run = logged
    tables = run.tables("saliency/table")
    assert [[(row["step"], row["epoch"], row["sample"]) for row in rows] for rows in tables] == [
        [(3, 0, "a"), (3, 0, "b"), (3, 0, "2"), (3, 0, "d")],
        [(7, 1, "a"), (7, 1, "b"), (7, 1, "2"), (7, 1, "d")],
    ]
    for record, rows in zip(records, tables, strict=True):
        guesses = [NAMES[int(guess)] for guess in record.predictions]
        assert [row["predicted"] for row in rows] == guesses
        assert [row["true"] for row in rows] == NAMES
        assert [row["correct"] for row in rows] == record.correct
        assert [row["group"] for row in rows] == [0, 0, 1, 1]
        assert [row["caption"] for row in rows] == record.captions
        assert [row["probability"] for row in rows] == pytest.approx(record.probabilities.tolist(), abs=1e-3)
        assert np.mean([row["energy"] for row in rows]) == pytest.approx(record.scores["energy"], abs=1e-4)
        assert np.mean([row["grad_cam/energy"] for row in rows]) == pytest.approx(
            record.scores["grad_cam/energy"], abs=1e-4
        )


def test_the_pictures_of_the_table_are_there_to_be_uploaded(logged: Any) -> None:
    records, run = logged
    held = [each for each in run.artifacts if "saliency/table.table.json" in each]
    for record, rows, files in zip(records, run.tables("saliency/table"), held, strict=True):
        for index, row in enumerate(rows):
            for panel, column in enumerate(("image", "guidance_cam", "grad_cam")):
                cell, (left, top, right, bottom) = row[column], record.layout.panel_box(index, panel)
                assert set(cell["masks"]) == {"object", "suspect"}
                assert files[cell["masks"]["object"]["path"]].exists()
                shown = decoded(files[cell["path"]])
                assert shown.shape == (bottom - top, right - left, 3)
                if panel:
                    assert alike(shown, record.overlay[top:bottom, left:right])
        clean = decoded(files[rows[0]["image"]["path"]])
        assert np.ptp(clean.astype(int), axis=2).max() < 20, "no outline on it: the picture is grey"


def test_the_measurements_are_a_table_with_intervals(logged: Any) -> None:
    records, run = logged
    for record, rows in zip(records, run.tables("saliency/measurements"), strict=True):
        assert {row.pop("step") for row in rows} == {record.step}
        assert [
            {name: "" if value is None else value for name, value in row.items()} for row in rows
        ] == record.table


def test_every_row_has_its_step_and_none_is_w_and_bs_own(logged: Any) -> None:
    _, run = logged
    assert [row["trainer/global_step"] for row in run.history] == [3, 3, 7, 7]
    assert [row["_step"] for row in run.history] == [0, 1, 2, 3]


def test_samples_of_which_nothing_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "data"))
    backend, record = Wandb(tmp_path / "run"), look(3, SaliencyBatch(samples().images))
    log_saliency(backend.logger(PACKAGES[0]), record)
    backend.finish()
    (run,) = backend.runs()
    (images,), (rows,) = of(run, "saliency/samples"), run.tables("saliency/table")
    assert "all_masks" not in images and "all_boxes" not in images
    assert [row["sample"] for row in rows] == ["0", "1", "2", "3"]
    assert all(row[name] is None for row in rows for name in ("true", "correct", "group"))
    assert "masks" not in rows[0]["image"]
