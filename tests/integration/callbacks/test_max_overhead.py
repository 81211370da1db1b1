"""`max_overhead` in real trainings: which looks have checks, what is counted, and that all else stays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

from lightning_gcam import SaliencyMonitor, ShortcutAlarm
from lightning_gcam.pipeline.run import record_saliency
from lightning_gcam.utils.chunking import count_forwards
from tests.support.toys import CLASSES, LIGHTNING_SAYS, Toy, listening, toy_loader, toy_network, toy_trainer
from tests.unit.callbacks.test_budget import USUAL

pytestmark = LIGHTNING_SAYS

CHECKS = ["border", "spectrum"]  # of 16 samples, two donors and a mate: 96 forwards
ROWS = ("border_follow_rate", "spectrum_follow_rate")


def monitor_of(max_overhead: float | None, **options: Any) -> SaliencyMonitor:
    return SaliencyMonitor(
        checks=CHECKS, num_samples=16, max_overhead=max_overhead, on_error="raise", **options
    )


def with_checks(monitor: SaliencyMonitor) -> list[int]:
    return [number for number, row in enumerate(monitor.history, 1) if any(each in row for each in ROWS)]


def fit(root: Path, *callbacks: Any, epochs: int = 9, module: Any = None, **options: Any) -> Any:
    trainer = toy_trainer(root, *callbacks, max_epochs=epochs, **options)
    trainer.fit(module or Toy(), toy_loader(64), toy_loader(16))
    return trainer


def test_checks_are_made_at_one_look_in_so_many_and_scores_at_every_look(tmp_path: Path) -> None:
    # an epoch trains on 64 samples and validates 16: 208 forwards, of which 0.25 are 52, and 36 are left of the maps
    monitor = monitor_of(0.25)
    with listening() as said:
        fit(tmp_path, monitor)
    assert with_checks(monitor) == [1, 4, 7]
    assert len(monitor.history) == 9
    assert all({"accuracy", "energy", "iou"} <= row.keys() for row in monitor.history)
    assert sum("one look in 3" in words for words in said) == 1
    record = monitor.last_record
    assert record is not None and record.checks_rest and not record.checks_wait and record.exchanges is None


@pytest.mark.parametrize(
    ("max_overhead", "made"), [(None, range(1, 10)), (0.6, range(1, 10)), (0.01, (1, 5, 9))]
)
def test_no_bound_and_too_narrow_a_bound(tmp_path: Path, max_overhead: float | None, made: Any) -> None:
    monitor = monitor_of(max_overhead)
    fit(tmp_path, monitor)
    assert with_checks(monitor) == list(made)


def test_what_a_training_does_between_two_looks_is_counted(tmp_path: Path) -> None:
    monitor = monitor_of(0.25, every_n_epochs=2)
    trainer = fit(tmp_path, monitor, epochs=6, num_sanity_val_steps=1)
    state = monitor._budget.state_dict()
    assert state["looks"] == 2 and state["training"] == 2 * 2 * (3 * 64 + 16)
    assert state["checked"] == [monitor.history[0]["step"], 16, 96]
    assert monitor.history[2]["step"] - monitor.history[0]["step"] == 4 * trainer.num_training_batches


def test_the_alarm_counts_the_looks_with_checks_in_a_row(tmp_path: Path) -> None:
    class Bordered(Toy):
        """Reads the class in the corner pixel alone."""

        def forward(self, images: Any) -> Any:
            classes = torch.arange(CLASSES, device=images.device)
            return self.network(images) * 1e-3 - 50 * (images[:, 0, 0, 0, None] - classes).abs()

    from tests.integration.callbacks.test_checks import labelled_by_a_pixel

    alarm = ShortcutAlarm(on_error="raise")
    monitor = SaliencyMonitor(
        batch=labelled_by_a_pixel(), checks=["border"], max_overhead=0.01, on_error="raise"
    )
    with pytest.warns(UserWarning, match="ShortcutAlarm"):
        fit(tmp_path, monitor, alarm, module=Bordered())
    assert [row["epoch"] for row in alarm.alerts] == [4]  # the second look with checks


def test_a_check_that_is_monitored_is_made_at_every_look(tmp_path: Path) -> None:
    """Lightning would hand `EarlyStopping` the old value for a new one, and it would count it as no improvement."""
    found = []
    for max_overhead in (0.01, None):
        monitor = monitor_of(max_overhead)
        stopping = EarlyStopping("saliency/border_follow_rate", patience=2, mode="min")
        torch.manual_seed(0)
        with listening() as said:
            trainer = fit(tmp_path / str(max_overhead), monitor, stopping)
        found.append((trainer.current_epoch, with_checks(monitor)))
        assert any("monitors saliency/border_follow_rate" in words for words in said) == (
            max_overhead is not None
        )
    assert found[0] == found[1] and found[0][1] == list(range(1, len(found[0][1]) + 1))


class Endless(IterableDataset[Any]):
    """Of unknown length; 64 samples an epoch."""

    def __iter__(self) -> Any:
        return iter(toy_loader(64).dataset)


def test_a_run_of_unknown_length_keeps_to_the_bound(tmp_path: Path) -> None:
    monitor = monitor_of(0.1)  # 20 of 208 forwards, of which the maps take 16: at one look in 20
    trainer = toy_trainer(tmp_path, monitor, max_epochs=6)
    trainer.fit(Toy(), DataLoader(Endless(), batch_size=8), toy_loader(16))
    assert with_checks(monitor) == [1] and len(monitor.history) == 6


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
def test_a_resumed_run_takes_the_same_looks(tmp_path: Path) -> None:
    every_epoch = ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1)
    first = monitor_of(0.25)
    fit(tmp_path, first, every_epoch, enable_checkpointing=True)
    second = monitor_of(0.25)
    again = toy_trainer(tmp_path, second, max_epochs=9)
    again.fit(Toy(), toy_loader(64), toy_loader(16), ckpt_path=tmp_path / "epoch=4.ckpt", weights_only=True)
    assert with_checks(second) == with_checks(first) == [1, 4, 7]


def test_where_two_optimizers_count_their_steps_the_length_is_that_of_the_batches(tmp_path: Path) -> None:
    class Two(Toy):
        """Steps twice a batch, by hand."""

        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False

        def training_step(self, batch: Any, batch_idx: int) -> None:
            for optimizer in self.optimizers():
                optimizer.zero_grad()
                self.manual_backward(nn.functional.cross_entropy(self(batch[0]), batch[1]))
                optimizer.step()

        def configure_optimizers(self) -> Any:
            return [torch.optim.SGD(self.parameters(), lr=0.01) for _ in range(2)]

    monitor = monitor_of(0.01)
    trainer = fit(
        tmp_path, monitor, module=Two(), epochs=-1, max_steps=2 * 8 * 9
    )  # nine epochs of eight batches
    assert trainer.global_step == 2 * 8 * 9 and len(monitor.history) == 9
    assert len(with_checks(monitor)) == 3  # two behind the first


def test_looks_between_validations(tmp_path: Path) -> None:
    monitor = monitor_of(0.25, every_n_epochs=None, every_n_train_steps=2)
    fit(tmp_path, monitor, epochs=9)
    made = with_checks(monitor)
    assert made[0] == 1 and 3 <= len(made) < len(monitor.history)


def test_validate_alone_has_all_checks(tmp_path: Path) -> None:
    monitor = monitor_of(0.01)
    trainer = fit(tmp_path, monitor, epochs=2)
    trainer.validate(Toy(), toy_loader(16), verbose=False)
    assert any(each in monitor.history[-1] for each in ROWS)


# ------------------------------------------------------------------------------------------------ the count


def test_the_cost_of_a_look_is_the_images_that_the_model_was_run_on() -> None:
    from tests.integration.callbacks.test_checks import batch_of

    class Counting(nn.Module):
        """Counts by itself."""

        images = 0

        def __init__(self) -> None:
            super().__init__()
            self.network = toy_network()

        def forward(self, images: Any) -> Any:
            Counting.images += len(images)
            return self.network(images)

    model, batch = Counting(), batch_of(8)
    record_saliency(model, batch, target_layer="network.0", checks=[])
    Counting.images = 0
    record = record_saliency(model, batch, target_layer="network.0", checks=CHECKS)
    assert record.cost == (8, 48) and Counting.images == 56
    scored = record_saliency(model, batch, target_layer="network.0", checks=[], scores=["average_drop"])
    assert scored.cost == (16, 0)
    with count_forwards() as count:
        record_saliency(model, batch, target_layer="network.0", checks=[], methods="integrated_gradients")
    assert count.images > 3 * 8 and USUAL.checks
