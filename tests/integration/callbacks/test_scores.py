"""Scores of every kind in a real training: asked for, compared over the looks, resumed, and once at the end."""

from __future__ import annotations

import csv
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_gcam import SaliencyMonitor
from lightning_gcam.metrics import available_scores
from lightning_gcam.utils.errors import InputError
from tests.integration.test_untouched import train
from tests.support.dimensions import Classifier, loader, signals, volumes
from tests.support.modules import AlwaysDropout, Plain
from tests.support.toys import LIGHTNING_SAYS, Toy, toy_loader, toy_network, toy_trainer
from tests.support.witness import differences

pytestmark = LIGHTNING_SAYS

COSTLY = ["average_drop", "adcc", "insertion", "deletion", "win_rate", "random_model_similarity", "drift"]


def fit(root: Path, monitor: SaliencyMonitor, **options: Any) -> Any:
    trainer = toy_trainer(root, monitor, **options)
    trainer.fit(Toy(), toy_loader(32), toy_loader())
    return trainer


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("module", [Plain, AlwaysDropout])
def test_scores_that_ask_the_model_leave_the_training_as_it_was(module: Any, tmp_path: Path) -> None:
    monitor = SaliencyMonitor(
        methods=["guidance_cam", "layer_cam"],
        scores=["energy", *COSTLY],
        final_scores=["deletion", "coherency"],
        num_samples=6,
        every_n_train_steps=1,
        on_error="raise",
    )
    options = {"accumulate_grad_batches": 2, "val_check_interval": 3}
    without, rows_without, _ = train(module, tmp_path, monitor=None, **options)
    with_, rows_with, _ = train(module, tmp_path, monitor=monitor, **options)
    assert differences(without, with_) == []
    assert rows_without.rows == rows_with.rows
    assert set(monitor.history[-1]) >= {"energy", *COSTLY, "layer_cam/insertion"}
    assert set(monitor.final_record.scores) >= {"deletion", "coherency", "layer_cam/deletion"}


def test_every_question_is_asked_in_the_precision_of_the_validation(tmp_path: Path) -> None:
    casts = []

    def forward(module: Any, images: torch.Tensor) -> Any:
        casts.append(torch.is_autocast_enabled("cpu"))
        return module(images)

    scores = ["energy", "average_drop", "coherency", "random_model_similarity"]
    monitor = SaliencyMonitor(scores=scores, num_samples=4, forward=forward, on_error="raise")
    fit(tmp_path, monitor, max_epochs=1, precision="bf16-mixed")
    assert set(monitor.history[0]) >= {*scores, "background_only_accuracy"}
    assert casts and all(casts)


def test_a_drift_begins_with_the_second_look(tmp_path: Path) -> None:
    monitor = SaliencyMonitor(scores=["drift", "drift_from_first"], num_samples=8, on_error="raise")
    fit(tmp_path, monitor, max_epochs=3)
    assert ["drift" in row for row in monitor.history] == [False, True, True]
    assert monitor.history[1]["drift"] == monitor.history[1]["drift_from_first"]
    assert all(-1 <= row["drift"] <= 1 for row in monitor.history[1:])


def test_a_resumed_run_has_the_drifts_of_one_that_was_not_interrupted(tmp_path: Path) -> None:
    def run(name: str, epochs: int, resume: str | None = None) -> tuple[SaliencyMonitor, str]:
        torch.manual_seed(0)
        monitor = SaliencyMonitor(
            scores=["drift", "drift_from_first", "drift_from_best"], num_samples=8, on_error="raise"
        )
        checkpoint = ModelCheckpoint(tmp_path / name, filename="last")
        trainer = toy_trainer(tmp_path, monitor, checkpoint, enable_checkpointing=True, max_epochs=epochs)
        network = toy_network()
        network[3].p = 0.0  # its random numbers are not in a checkpoint
        trainer.fit(Toy(network), toy_loader(32), toy_loader(), ckpt_path=resume)
        return monitor, checkpoint.best_model_path

    whole, _ = run("whole", 4)
    _, path = run("part", 2)
    torch.load(path, weights_only=True)
    resumed, _ = run("resumed", 4, path)
    assert resumed.history == whole.history
    assert "drift_from_best" in whole.history[-1]


def test_a_checkpoint_holds_no_maps_where_nothing_compares_them() -> None:
    assert "memory" not in SaliencyMonitor().state_dict()
    assert "memory" in SaliencyMonitor(scores=["drift"]).state_dict()


def test_final_scores_are_taken_once_and_logged_under_a_name_of_their_own(tmp_path: Path) -> None:
    monitor = SaliencyMonitor(final_scores=["insertion"], num_samples=4, on_error="raise")
    logger = TensorBoardLogger(tmp_path)
    fit(tmp_path, monitor, logger=logger, log_every_n_steps=1)
    events = EventAccumulator(logger.log_dir, size_guidance={"scalars": 0, "tensors": 0}).Reload()
    (final,) = events.Scalars("saliency/final/insertion")
    assert final.value == pytest.approx(monitor.final_record.scores["insertion"])
    assert final.step == events.Scalars("saliency/energy")[-1].step
    assert not any("insertion" in row for row in monitor.history)


@pytest.mark.parametrize("with_logger", [False, True])
def test_final_scores_reach_the_files(tmp_path: Path, with_logger: bool) -> None:
    monitor = SaliencyMonitor(final_scores=["insertion"], num_samples=4, on_error="raise")
    logger = CSVLogger(tmp_path) if with_logger else False
    fit(tmp_path, monitor, logger=logger)
    name, column = (
        ("metrics.csv", "saliency/final/insertion") if with_logger else ("scores.csv", "final/insertion")
    )
    (path,) = tmp_path.rglob(name)
    with path.open(newline="", encoding="utf-8") as file:
        found = [row[column] for row in csv.DictReader(file) if row.get(column)]
    assert [float(each) for each in found] == pytest.approx([monitor.final_record.scores["insertion"]])


def test_each_look_has_its_measurements_in_a_file_and_in_tensorboard(tmp_path: Path) -> None:
    monitor = SaliencyMonitor(num_samples=8, on_error="raise")
    fit(tmp_path / "files", monitor)
    paths = sorted((tmp_path / "files").rglob("measurements-step=*.csv"))
    assert len(paths) == 2
    with paths[-1].open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["score"] == "energy"
    assert float(rows[0]["value"]) == pytest.approx(monitor.history[-1]["energy"])
    assert float(rows[0]["low"]) <= float(rows[0]["value"]) <= float(rows[0]["high"])

    logger = TensorBoardLogger(tmp_path)
    fit(tmp_path, SaliencyMonitor(num_samples=8), logger=logger, log_every_n_steps=1)
    events = EventAccumulator(logger.log_dir, size_guidance={"tensors": 0}).Reload()
    texts = events.Tensors("saliency/measurements/text_summary")
    assert len(texts) == 2
    shown = texts[-1].tensor_proto.string_val[0].decode()
    assert shown.startswith("| score | samples | value | n | left_out | low | high |")
    assert "| energy | all | 0." in shown


def test_one_map_cannot_win_and_says_so_before_training(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Give two `methods`, or leave it out"):
        fit(tmp_path, SaliencyMonitor(scores=["win_rate"]))


def test_a_model_that_cannot_answer_costs_these_scores_and_one_warning(tmp_path: Path) -> None:
    calls = 0

    def forward(module: Any, images: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > 6 and not images.flatten(1).amax(dim=1).all():
            raise ValueError("a dark picture")
        return module(images)

    monitor = SaliencyMonitor(scores=["energy", "deletion"], num_samples=4, forward=forward)
    with pytest.warns(UserWarning, match="Asking the model for the scores failed.*a dark picture") as caught:
        fit(tmp_path, monitor)
    assert sum("a dark picture" in str(each.message) for each in caught) == 1
    assert len(monitor.history) == 2
    assert "energy" in monitor.history[-1]
    assert "deletion" not in monitor.history[-1]


@pytest.mark.parametrize(("samples", "sides", "fails"), [(signals, 1, True), (volumes, 3, False)])
def test_signals_and_volumes_have_every_score_and_what_they_cannot_is_one_warning(
    samples: Any, sides: int, fails: bool, tmp_path: Path
) -> None:
    found = samples(20)
    monitor = SaliencyMonitor(
        methods=["guidance_cam", "layer_cam"], scores=available_scores(), num_samples=5, checks=[]
    )
    trainer = toy_trainer(tmp_path, monitor, max_epochs=2)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.fit(Classifier(sides, classes=int(found[1].max()) + 1), loader(found), loader(found))
    said = [str(each.message) for each in caught if "training goes on without it" in str(each.message)]

    assert len(said) == fails
    assert all('"random_model_ssim"' in each and "`random_model_similarity`" in each for each in said)
    missing = {"random_model_ssim", "suspect_lift"} if fails else {"suspect_lift"}
    assert set(available_scores()) - monitor.history[-1].keys() == missing  # there is no suspect region


def test_a_drift_at_the_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="`final_scores` holds a drift"):
        SaliencyMonitor(final_scores=["insertion", "drift"])


@pytest.mark.parametrize("where", ["data.fixed_samples.FixedBatch.to", "pipeline.run.measure_reliance"])
def test_nothing_of_a_look_ends_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def strike(*_: Any, **__: Any) -> Any:
        raise ValueError("nowhere to go")

    monkeypatch.setattr(f"lightning_gcam.{where}", strike)
    with pytest.warns(UserWarning, match="failed, and the training goes on.*nowhere to go"):
        trainer = fit(tmp_path, SaliencyMonitor(num_samples=4))
    assert trainer.current_epoch == 2
