"""`SaliencyMonitor` beside other callbacks: its scores can be monitored, and two of it get along."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from lightning_gcam import SaliencyBatch, SaliencyMonitor
from lightning_gcam.utils.errors import InputError
from tests.support.toys import (
    LIGHTNING_SAYS,
    PACKAGES,
    Toy,
    steps_of,
    toy_loader,
    toy_of,
    toy_samples,
    toy_trainer,
)

pytestmark = LIGHTNING_SAYS


def checkpoint_of(package: ModuleType, root: Path, mode: str) -> Any:
    return package.callbacks.ModelCheckpoint(
        dirpath=root / mode, monitor="saliency/energy", mode=mode, filename="{epoch}"
    )


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_checkpoints_of_the_best_score(tmp_path: Path, package: ModuleType) -> None:
    monitor = SaliencyMonitor()
    highest, lowest = (checkpoint_of(package, tmp_path, mode) for mode in ("max", "min"))
    trainer = toy_trainer(
        tmp_path, monitor, highest, lowest, package=package, max_epochs=4, enable_checkpointing=True
    )

    trainer.fit(toy_of(package), toy_loader(32), toy_loader())

    energies = [row["energy"] for row in monitor.history]
    assert len(set(energies)) == 4
    for checkpoint, best in [(highest, max(energies)), (lowest, min(energies))]:
        assert float(checkpoint.best_model_score) == pytest.approx(best, abs=1e-6)
        assert f"epoch={energies.index(best)}" in Path(checkpoint.best_model_path).stem


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
@pytest.mark.parametrize("first", ["monitor", "stopper"])
def test_early_stopping_stops(tmp_path: Path, package: ModuleType, first: str) -> None:
    monitor = SaliencyMonitor()
    stopper = package.callbacks.EarlyStopping("saliency/energy", mode="max", min_delta=1.0, patience=1)
    callbacks = [monitor, stopper] if first == "monitor" else [stopper, monitor]

    toy_trainer(tmp_path, *callbacks, package=package, max_epochs=9).fit(
        toy_of(package), toy_loader(32), toy_loader()
    )

    # no score rises by 1.0, so the second look is the last
    assert [row["epoch"] for row in monitor.history] == [0, 1]
    assert stopper.stopped_epoch == 1


def test_scores_can_be_monitored_without_any_validation(tmp_path: Path) -> None:
    from pytorch_lightning.callbacks import ModelCheckpoint

    monitor = SaliencyMonitor(batch=SaliencyBatch(*toy_samples(6)))
    checkpoint = ModelCheckpoint(tmp_path / "best", monitor="saliency/energy", mode="max")

    toy_trainer(tmp_path, monitor, checkpoint, enable_checkpointing=True).fit(Toy(), toy_loader(32))

    best = max(row["energy"] for row in monitor.history)
    assert float(checkpoint.best_model_score) == pytest.approx(best, abs=1e-6)


def test_two_monitors_with_two_names(tmp_path: Path) -> None:
    labels = SaliencyMonitor(num_samples=4)
    predicted = SaliencyMonitor(
        num_samples=8, target_layer="network.2", every_n_epochs=2, log_prefix="saliency_early"
    )
    trainer = toy_trainer(tmp_path, labels, predicted)

    trainer.fit(Toy(), toy_loader(32), toy_loader())

    assert (steps_of(labels.history), steps_of(predicted.history)) == ([3, 7], [7])
    assert (len(labels.last_record.batch), len(predicted.last_record.batch)) == (4, 8)
    assert predicted.last_record.attribution.target_layer == "network.2"
    assert {"saliency/energy", "saliency_early/energy"} <= set(trainer.callback_metrics)
    assert labels.state_key != predicted.state_key
    folders = {path.parent.name for path in tmp_path.rglob("*.png")}
    assert folders == {"saliency", "saliency_early"}


def test_two_monitors_with_one_name_are_refused_by_the_trainer(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"`SaliencyMonitor`.*`callback.state_key` must be unique"):
        toy_trainer(tmp_path, SaliencyMonitor(), SaliencyMonitor())


def test_two_monitors_with_one_name_are_refused_where_the_trainer_did_not_see(tmp_path: Path) -> None:
    trainer = toy_trainer(tmp_path, SaliencyMonitor())
    trainer.callbacks.append(SaliencyMonitor())

    with pytest.raises(
        InputError, match='`log_prefix` "saliency" is used by two SaliencyMonitors. Give each'
    ):
        trainer.fit(Toy(), toy_loader(32), toy_loader())
    assert trainer.global_step == 0
