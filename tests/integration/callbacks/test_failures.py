"""What goes wrong while training runs costs one warning, never the training."""

from __future__ import annotations

import csv
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger

from lightning_gcam import SaliencyMonitor
from lightning_gcam.callbacks.error_policy import FailurePolicy
from tests.support.toys import LIGHTNING_SAYS, Toy, steps_of, toy_loader, toy_trainer

pytestmark = LIGHTNING_SAYS


class BrokenFrom(Toy):
    """Its `forward`, which none of its own steps calls, raises from a given training step on."""

    def __init__(self, step: int, until: int = 10**9) -> None:
        super().__init__()
        self.step, self.until = step, until

    def forward(self, images: Any) -> Any:
        if self.step <= self.trainer.global_step < self.until:
            raise KeyError("a tensor went missing")
        return super().forward(images)


def fit_and_listen(root: Path, monitor: SaliencyMonitor, module: Any = None, **options: Any) -> Any:
    """The trainer after `fit`, and what was warned of."""
    trainer = toy_trainer(root, monitor, **{"max_epochs": 6, **options})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        trainer.fit(module or Toy(), toy_loader(32), toy_loader())
    ours = [str(each.message) for each in caught if "training goes on" in str(each.message)]
    given_up = [str(each.message) for each in caught if "in a row" in str(each.message)]
    return trainer, ours, given_up


def test_a_look_that_fails_is_one_warning_with_cause_and_remedy(tmp_path: Path) -> None:
    monitor = SaliencyMonitor()

    trainer, said, given_up = fit_and_listen(tmp_path, monitor, BrokenFrom(8, until=16))

    assert trainer.global_step == 24
    assert steps_of(monitor.history) == [3, 15, 19, 23]
    assert len(said) == 1
    assert said[0].startswith("The look failed, and the training goes on without it: KeyError")
    assert "a tensor went missing" in said[0]
    assert 'on_error="raise"' in said[0]
    assert given_up == []


def test_three_failures_in_a_row_end_the_trying(tmp_path: Path) -> None:
    module = BrokenFrom(8)
    calls: list[int] = []
    monitor = SaliencyMonitor(
        forward=lambda module, images: calls.append(module.trainer.global_step) or module(images)
    )

    trainer, said, given_up = fit_and_listen(tmp_path, monitor, module)

    assert trainer.global_step == 24
    assert steps_of(monitor.history) == [3]
    assert (len(said), len(given_up)) == (1, 1)
    assert "failed 3 times in a row and is not tried again in this run" in given_up[0]
    assert {step for step in calls if step >= 8} == {8, 12, 16}


def test_a_failed_look_is_not_left_in_the_scores(tmp_path: Path) -> None:
    monitor = SaliencyMonitor()

    fit_and_listen(tmp_path, monitor, BrokenFrom(8), max_epochs=2, logger=CSVLogger(tmp_path))

    (table,) = tmp_path.rglob("metrics.csv")
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows if row["saliency/energy"]] == ["3"]
    assert [row["step"] for row in rows if row["val_loss"]] == ["3", "7"]
    assert len(list(tmp_path.rglob("overlay-*.png"))) == 1


def test_raise_shows_where_it_comes_from(tmp_path: Path) -> None:
    trainer = toy_trainer(tmp_path, SaliencyMonitor(on_error="raise"))

    with pytest.raises(KeyError, match="a tensor went missing"):
        trainer.fit(BrokenFrom(8), toy_loader(32), toy_loader())
    assert trainer.global_step == 8


def test_ctrl_c_is_no_failure_of_ours(tmp_path: Path) -> None:
    def interrupted(module: Any, images: Any) -> Any:
        if module.trainer.global_step:
            raise KeyboardInterrupt
        return module(images)

    trainer = toy_trainer(tmp_path, SaliencyMonitor(forward=interrupted))

    with pytest.raises(SystemExit, match="1"):
        trainer.fit(Toy(), toy_loader(32), toy_loader())
    assert trainer.interrupted


class UnreachableForNumbers(CSVLogger):
    def log_metrics(self, metrics: Any, step: Any = None) -> None:
        if any(name.startswith("saliency/") for name in metrics):
            raise ConnectionError("no route to host")


class BrokenTensorBoard(TensorBoardLogger):
    @property
    def experiment(self) -> Any:
        writer = super().experiment
        events = writer._get_file_writer()
        real = type(events).add_summary

        def refuse_pictures(summary: Any, *args: Any) -> None:
            if any(value.HasField("image") for value in summary.value):
                raise ConnectionError("no route to host")
            real(events, summary, *args)

        events.add_summary = refuse_pictures
        return writer


def test_a_logger_that_raises_is_one_warning_and_takes_nothing_from_the_others(tmp_path: Path) -> None:
    monitor = SaliencyMonitor()
    broken, files = BrokenTensorBoard(tmp_path / "broken"), CSVLogger(tmp_path / "files")

    trainer, said, _ = fit_and_listen(tmp_path, monitor, logger=[broken, files])

    assert trainer.global_step == 24
    assert len(said) == 1
    assert "BrokenTensorBoard" in said[0]
    assert "ConnectionError: no route to host" in said[0]
    assert len(monitor.history) == len(list(tmp_path.rglob("overlay-*.png"))) == 6
    assert "saliency/energy" in trainer.callback_metrics


def test_a_logger_that_takes_no_numbers_between_validations(tmp_path: Path) -> None:
    monitor = SaliencyMonitor(every_n_epochs=None, every_n_train_steps=2)
    loggers = [UnreachableForNumbers(tmp_path / "broken"), CSVLogger(tmp_path / "files")]

    trainer, said, _ = fit_and_listen(tmp_path, monitor, logger=loggers, max_epochs=3)

    assert trainer.global_step == 12
    assert len(said) == 1
    (table,) = (tmp_path / "files").rglob("metrics.csv")
    assert table.read_text().count("\n") >= len(monitor.history)
    assert "saliency/energy" in table.read_text()


def test_a_full_disk_costs_the_pictures_only(tmp_path: Path) -> None:
    monitor = SaliencyMonitor()
    (tmp_path / "lightning_gcam").write_text("not a directory")

    trainer, said, _ = fit_and_listen(tmp_path, monitor)

    assert trainer.global_step == 24
    assert len(said) == 1
    assert len(monitor.history) == 6


def test_a_score_that_raises_leaves_the_rest(tmp_path: Path) -> None:
    from lightning_gcam.metrics import EnergyPointingGame

    class Fragile(EnergyPointingGame):
        def _score(self, saliency: Any, mask: Any) -> Any:
            if len(saliency) > 1:
                raise ZeroDivisionError("no pixel")
            return super()._score(saliency, mask)

    monitor = SaliencyMonitor(scores={"fragile": Fragile()})

    trainer, said, _ = fit_and_listen(tmp_path, monitor)

    assert trainer.global_step == 24
    assert len(said) == 1
    assert "ZeroDivisionError: no pixel" in said[0]
    assert len(list(tmp_path.rglob("overlay-*.png"))) == 6


@pytest.mark.filterwarnings("ignore:.*training goes on without it")
def test_the_policy_counts_failures_in_a_row() -> None:
    policy = FailurePolicy("warn")

    for succeeded in (False, False, True, False, False):
        policy.count(succeeded=succeeded)
    assert not policy.has_given_up
    with pytest.warns(UserWarning, match="failed 3 times in a row"):
        policy.count(succeeded=False)
    assert policy.has_given_up


def told_by(policy: FailurePolicy, *errors: Exception, work: str = "The look") -> list[str]:
    """The warnings of failures that are all raised at one place."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for error in errors:
            with policy.guard(work):
                raise error
    return [str(each.message) for each in caught]


def test_the_policy_warns_once_of_each_message() -> None:
    said = told_by(
        FailurePolicy("warn"), KeyError("a"), KeyError("b"), KeyError("a"), torch.OutOfMemoryError("c")
    )

    assert len(said) == 3
    for each, cause in zip(said, ["KeyError: 'a'", "KeyError: 'b'", "OutOfMemoryError: c"], strict=True):
        assert cause in each


def test_the_policy_warns_of_the_same_message_at_another_place() -> None:
    policy = FailurePolicy("warn")

    def first() -> None:
        raise ValueError("of no use")

    def second() -> None:
        raise ValueError("of no use")

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for work in (first, second, first, second):
            with policy.guard("Writing the look"):
                work()

    assert len(caught) == 2


def test_what_runs_the_model_is_told_of_one_cause_once() -> None:
    policy = FailurePolicy("warn")
    error = ValueError("the model is broken")

    said = [told_by(policy, error, work=work) for work in ("The look", "Checking what the model relies on")]
    elsewhere = told_by(policy, error, work="Writing the look")

    assert [len(each) for each in said] == [1, 0]
    assert len(elsewhere) == 1


def test_ever_new_messages_are_told_a_few_times() -> None:
    policy = FailurePolicy("warn")

    said = told_by(policy, *(RuntimeError(f"sample {number} is broken") for number in range(40)))

    assert len(said) == 6
    assert all(f"sample {number} is broken" in said[number] for number in range(5))
    assert said[5] == "The look failed in 5 ways that were told; further ones are not."
    assert len(told_by(policy, RuntimeError("no route"), work="Writing the look")) == 1


def test_two_failures_of_one_type_in_a_training_are_both_told(tmp_path: Path) -> None:
    class Twice(Toy):
        def forward(self, images: Any) -> Any:
            if self.trainer.global_step == 8:
                raise ValueError("the first thing")
            if self.trainer.global_step == 16:
                raise ValueError("another thing")
            return super().forward(images)

    _, said, _ = fit_and_listen(tmp_path, SaliencyMonitor(checks=[]), Twice())

    assert len(said) == 2
    assert "the first thing" in said[0]
    assert "another thing" in said[1]
