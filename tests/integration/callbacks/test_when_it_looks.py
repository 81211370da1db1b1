"""When `SaliencyMonitor` looks: in `fit`, `validate` and `test`, after validations and between them."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import lightning.pytorch
import pytest
import pytorch_lightning
import torch
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from lightning_gcam import SaliencyBatch, SaliencyMonitor
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

TRAIN = 32
"""Training samples: four batches an epoch, so Lightning's last steps of the epochs are 3, 7, 11 and so on."""


def fit(root: Path, monitor: SaliencyMonitor, **options: Any) -> SaliencyMonitor:
    toy_trainer(root, monitor, **options).fit(Toy(), toy_loader(TRAIN), toy_loader())
    return monitor


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_looks_after_each_validation_epoch_in_both_packages(tmp_path: Path, package: ModuleType) -> None:
    monitor = SaliencyMonitor()

    toy_trainer(tmp_path, monitor, package=package, max_epochs=3).fit(
        toy_of(package), toy_loader(TRAIN), toy_loader()
    )

    assert steps_of(monitor.history) == [3, 7, 11]
    assert [row["epoch"] for row in monitor.history] == [0, 1, 2]
    assert monitor.last_record is not None
    assert len(monitor.last_record.batch) == 16
    assert monitor.last_record.row == monitor.history[-1]


def test_is_a_callback_of_both_packages() -> None:
    assert issubclass(SaliencyMonitor, pytorch_lightning.Callback)
    assert issubclass(SaliencyMonitor, lightning.pytorch.Callback)


def test_every_second_epoch(tmp_path: Path) -> None:
    monitor = fit(tmp_path, SaliencyMonitor(every_n_epochs=2), max_epochs=4)

    assert [row["epoch"] for row in monitor.history] == [1, 3]


def test_between_validations_once_the_samples_are_known(tmp_path: Path) -> None:
    # the samples are those of the first validation, after step 4
    monitor = fit(tmp_path, SaliencyMonitor(every_n_epochs=None, every_n_train_steps=2), max_epochs=3)

    assert steps_of(monitor.history) == [5, 7, 9, 11]


def test_from_the_first_step_with_samples_given_by_hand(tmp_path: Path) -> None:
    batch = SaliencyBatch(*toy_samples(4))

    monitor = fit(tmp_path, SaliencyMonitor(every_n_epochs=None, every_n_train_steps=3, batch=batch))

    assert steps_of(monitor.history) == [2, 5]


def test_epochs_and_steps_together_look_once_where_they_meet(tmp_path: Path) -> None:
    monitor = fit(tmp_path, SaliencyMonitor(every_n_epochs=1, every_n_train_steps=2), max_epochs=3)

    assert steps_of(monitor.history) == [3, 5, 7, 9, 11]


@pytest.mark.parametrize("every", [1, 2])
def test_steps_are_optimizer_steps_with_accumulated_gradients(tmp_path: Path, every: int) -> None:
    # two batches a step, two steps an epoch; the samples are known from the end of the first epoch
    monitor = fit(
        tmp_path,
        SaliencyMonitor(every_n_epochs=None, every_n_train_steps=every),
        accumulate_grad_batches=2,
        max_epochs=3,
    )

    steps = steps_of(monitor.history)
    assert len(steps) == len(set(steps)) == 4 // every
    assert steps == list(range(2, 6))[every - 1 :: every]


def test_mid_epoch_validations_are_looks_too(tmp_path: Path) -> None:
    monitor = fit(tmp_path, SaliencyMonitor(), val_check_interval=0.5)

    assert steps_of(monitor.history) == [1, 3, 5, 7]


def test_validation_by_steps_across_epochs(tmp_path: Path) -> None:
    monitor = fit(
        tmp_path, SaliencyMonitor(), val_check_interval=3, check_val_every_n_epoch=None, max_epochs=3
    )

    assert steps_of(monitor.history) == [2, 5, 8, 11]


@pytest.mark.parametrize("sanity", [0, 2, -1])
def test_the_sanity_check_is_no_look(tmp_path: Path, sanity: int) -> None:
    monitor = fit(tmp_path, SaliencyMonitor(), num_sanity_val_steps=sanity)

    assert steps_of(monitor.history) == [3, 7]
    assert monitor.last_record is not None
    assert monitor.last_record.batch.labels.bincount().tolist() == [4, 4, 4, 4]


@pytest.mark.parametrize("verb", ["validate", "test"])
@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_works_by_itself_under_inference_mode(tmp_path: Path, verb: str, package: ModuleType) -> None:
    monitor, module = SaliencyMonitor(), toy_of(package)
    trainer = toy_trainer(tmp_path, monitor, package=package)

    (results,) = getattr(trainer, verb)(module, toy_loader(), verbose=False)

    assert steps_of(monitor.history) == [0]
    assert results["saliency/energy"] == pytest.approx(monitor.history[0]["energy"])
    assert not any(parameter.is_inference() for parameter in module.parameters())
    assert not monitor.last_record.batch.images.is_inference()


def test_fit_goes_on_after_a_validation_by_itself(tmp_path: Path) -> None:
    monitor, module = SaliencyMonitor(), Toy()
    trainer = toy_trainer(tmp_path, monitor)

    trainer.validate(module, toy_loader(), verbose=False)
    trainer.fit(module, toy_loader(TRAIN), toy_loader())

    assert steps_of(monitor.history) == [0, 3, 7]


def test_limited_validation_batches_are_what_there_is(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="has 8 samples, not `num_samples=16`"):
        monitor = fit(tmp_path, SaliencyMonitor(), limit_val_batches=1)

    assert len(monitor.last_record.batch) == 8


def test_fast_dev_run_looks_and_writes_nothing(tmp_path: Path) -> None:
    monitor = fit(tmp_path, SaliencyMonitor(num_samples=4), fast_dev_run=True, logger=True)

    assert len(monitor.history) == 1
    assert list(tmp_path.rglob("*.png")) == []


class _Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter(TensorDataset(*toy_samples(24)))


def test_iterable_dataset(tmp_path: Path) -> None:
    monitor = SaliencyMonitor()

    toy_trainer(tmp_path, monitor).fit(Toy(), toy_loader(TRAIN), DataLoader(_Stream(), batch_size=8))

    assert steps_of(monitor.history) == [3, 7]
    assert monitor.last_record.batch.labels.bincount().tolist() == [4, 4, 4, 4]


def test_of_several_validation_loaders_the_first_counts(tmp_path: Path) -> None:
    monitor = SaliencyMonitor(num_samples=4)
    first, second = toy_loader(seed=1), toy_loader(seed=2)

    toy_trainer(tmp_path, monitor).fit(Toy(), toy_loader(TRAIN), [first, second])

    assert steps_of(monitor.history) == [3, 7]
    assert torch.equal(monitor.last_record.batch.images, toy_samples(24, seed=1)[0][:4])


def test_without_validation_with_samples_given_by_hand(tmp_path: Path) -> None:
    batch = SaliencyBatch(*toy_samples(6))
    monitor = SaliencyMonitor(batch=batch)
    trainer = toy_trainer(tmp_path, monitor)

    trainer.fit(Toy(), toy_loader(TRAIN))

    assert steps_of(monitor.history) == [3, 7]
    assert torch.equal(monitor.last_record.batch.images, batch.images)
    assert float(trainer.callback_metrics["saliency/energy"]) == pytest.approx(monitor.history[-1]["energy"])


def test_samples_given_by_hand_need_no_readable_validation_batch(tmp_path: Path) -> None:
    class Odd(Toy):
        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.log("val_loss", self.loss(batch["inside"]))

    images, labels, _ = toy_samples(8)
    odd = DataLoader([{"inside": each} for each in zip(images, labels, strict=True)], batch_size=4)
    fitted, validated = (SaliencyMonitor(batch=SaliencyBatch(*toy_samples(4))) for _ in range(2))

    toy_trainer(tmp_path, fitted).fit(Odd(), toy_loader(TRAIN), odd)
    toy_trainer(tmp_path, validated).validate(Odd(), odd, verbose=False)

    assert (len(fitted.history), len(validated.history)) == (2, 1)


def test_a_monitor_in_a_second_run_looks_at_the_second_model(tmp_path: Path) -> None:
    again, once, module = SaliencyMonitor(), SaliencyMonitor(), Toy()
    state = copy.deepcopy(module.state_dict())

    toy_trainer(tmp_path / "first", again, max_epochs=1).fit(Toy(), toy_loader(TRAIN), toy_loader())
    torch.manual_seed(2)
    toy_trainer(tmp_path / "second", again, max_epochs=1).fit(module, toy_loader(TRAIN), toy_loader())
    module.load_state_dict(state)
    torch.manual_seed(2)
    toy_trainer(tmp_path / "third", once, max_epochs=1).fit(module, toy_loader(TRAIN), toy_loader())

    assert again.history[-1] == once.history[-1]
    assert len(list((tmp_path / "second").rglob("overlay-*.png"))) == 1
