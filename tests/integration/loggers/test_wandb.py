"""An offline Weights & Biases run, read back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lightning_gcam import SaliencyMonitor
from tests.integration.loggers.test_tensorboard import LogsItsTraining, Showing
from tests.support.toys import LIGHTNING_SAYS, PACKAGES, decoded, steps_of, toy_loader, toy_of, toy_trainer
from tests.support.wandb_reader import history, runs

pytest.importorskip("wandb")
pytestmark = [
    *LIGHTNING_SAYS,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # wandb's own
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

Run = tuple[Showing, list[dict[str, Any]], Path]


def offline_run(root: Path, package: Any, module: Any, monitor: SaliencyMonitor) -> list[dict[str, Any]]:
    import wandb

    logger = package.loggers.WandbLogger(project="toy", save_dir=root, offline=True)
    trainer = toy_trainer(root, monitor, package=package, logger=logger, log_every_n_steps=1, max_epochs=3)
    trainer.fit(module, toy_loader(32), toy_loader())
    wandb.finish()
    return history(root)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    root = tmp_path_factory.mktemp("wandb")
    monitor = Showing(num_samples=4, every_n_train_steps=2)
    return monitor, offline_run(root, PACKAGES[0], LogsItsTraining(), monitor), root


def images_of(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for row in rows if "saliency/overlay" in row]


def test_every_look_is_there_and_none_was_dropped(run: Run) -> None:
    monitor, rows, _ = run

    assert steps_of(monitor.history) == [3, 5, 7, 9, 11]
    assert [row["trainer/global_step"] for row in images_of(rows)] == [3, 5, 7, 9, 11]


def test_the_files_decode_to_the_overlays(run: Run) -> None:
    monitor, rows, root = run
    (files,) = {path.parent for path in root.rglob("requirements.txt")}

    assert len(images_of(rows)) == 5
    for row in images_of(rows):
        picture = row["saliency/overlay"]
        assert picture["count"] == 1
        (name,) = picture["filenames"]
        assert np.array_equal(decoded(files / name), monitor.shown[row["trainer/global_step"]])


def test_scores_lie_on_lightnings_axis(run: Run) -> None:
    monitor, rows, _ = run
    found = {row["trainer/global_step"]: row["saliency/energy"] for row in rows if "saliency/energy" in row}
    own = {row["trainer/global_step"] for row in rows if "train_loss" in row}

    assert found == pytest.approx({row["step"]: row["energy"] for row in monitor.history}, abs=1e-6)
    assert set(found) <= own
    assert [row["trainer/global_step"] for row in rows if "val_loss" in row] == [3, 7, 11]


def test_the_modules_own_rows_are_all_there(run: Run) -> None:
    _, rows, _ = run

    assert [row["trainer/global_step"] for row in rows if "train_loss" in row] == list(range(12))


def test_in_the_other_package(tmp_path: Path) -> None:
    monitor = SaliencyMonitor(num_samples=4)

    rows = offline_run(tmp_path, PACKAGES[1], toy_of(PACKAGES[1]), monitor)

    assert [row["trainer/global_step"] for row in images_of(rows)] == [3, 7, 11]


def test_the_exchanges_stand_in_the_table_of_each_look_with_n_and_interval(tmp_path: Path) -> None:
    monitor = SaliencyMonitor(num_samples=8, checks=["border", "histogram"], on_error="raise")
    offline_run(tmp_path, PACKAGES[0], toy_of(PACKAGES[0]), monitor)
    (run,) = runs(tmp_path)

    tables = run.tables("saliency/measurements")
    assert [{row["step"] for row in table} for table in tables] == [{3}, {7}, {11}]
    kinds = ("swap_accuracy", "follow_rate", "follow_chance", "same_class_accuracy")
    for table, scores in zip(tables, monitor.history, strict=True):
        found = {row["score"]: row for row in table if row["samples"] == "all"}
        for name in (f"{each}_{kind}" for each in ("border", "histogram") for kind in kinds):
            row = found[name]
            assert row["value"] == pytest.approx(scores[name])
            assert row["n"] == 8 and 0 <= row["low"] <= row["value"] <= row["high"] <= 1
    shown = [row for row in run.history if "saliency/exchanges" in row]
    assert [row["trainer/global_step"] for row in shown] == [3, 11]
