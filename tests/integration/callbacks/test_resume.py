"""A run that is resumed goes on with its samples and its history."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader

from lightning_gcam import SaliencyBatch, SaliencyMonitor
from tests.support.toys import LIGHTNING_SAYS, Toy, steps_of, toy_loader, toy_samples, toy_trainer

pytestmark = LIGHTNING_SAYS

CHANGED = "The validation data changed since the samples were taken"


@contextmanager
def counting() -> Iterator[list[str]]:
    """The warnings of changed validation data."""
    found: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield found
    found += [str(each.message) for each in caught if CHANGED in str(each.message)]


def run(
    root: Path, monitor: SaliencyMonitor, loader: DataLoader[Any], epochs: int, resume: Path | None = None
) -> Path:
    checkpoint = ModelCheckpoint(root / f"until_{epochs}", filename="last")
    trainer = toy_trainer(root, monitor, checkpoint, enable_checkpointing=True, max_epochs=epochs)
    trainer.fit(Toy(), toy_loader(32), loader, ckpt_path=resume)
    return Path(checkpoint.best_model_path)


@pytest.fixture
def interrupted(tmp_path: Path) -> tuple[Path, SaliencyMonitor]:
    monitor = SaliencyMonitor(num_samples=8)
    return run(tmp_path, monitor, toy_loader(), epochs=2), monitor


def test_the_same_samples_and_one_history(tmp_path: Path, interrupted: tuple[Path, SaliencyMonitor]) -> None:
    path, before = interrupted
    after = SaliencyMonitor(num_samples=8)

    with counting() as said:
        run(tmp_path, after, toy_loader(), epochs=4, resume=path)

    assert torch.equal(before.last_record.batch.images, after.last_record.batch.images)
    assert torch.equal(before.last_record.batch.masks, after.last_record.batch.masks)
    assert after.history[:2] == before.history
    assert steps_of(after.history) == [3, 7, 11, 15]
    assert [row["epoch"] for row in after.history] == [0, 1, 2, 3]
    assert said == []


def test_changed_data_are_told_once_and_the_samples_stay(
    tmp_path: Path, interrupted: tuple[Path, SaliencyMonitor]
) -> None:
    path, before = interrupted
    after = SaliencyMonitor(num_samples=8)
    other = toy_loader(seed=9)

    with counting() as said:
        run(tmp_path, after, other, epochs=4, resume=path)

    assert len(said) == 1
    assert "sample 0 is another one now" in said[0]
    assert torch.equal(before.last_record.batch.images, after.last_record.batch.images)


def test_a_validation_set_that_lost_its_samples_is_told(
    tmp_path: Path, interrupted: tuple[Path, SaliencyMonitor]
) -> None:
    path, _ = interrupted

    with counting() as said:
        run(tmp_path, SaliencyMonitor(num_samples=8), toy_loader(4, batch_size=4), epochs=4, resume=path)

    assert len(said) == 1


def test_other_masks_are_a_change_too(tmp_path: Path, interrupted: tuple[Path, SaliencyMonitor]) -> None:
    path, _ = interrupted
    images, labels, masks = toy_samples(24)
    loader = DataLoader(torch.utils.data.TensorDataset(images, labels, masks.roll(3, dims=1)), batch_size=8)

    with counting() as said:
        run(tmp_path, SaliencyMonitor(num_samples=8), loader, epochs=3, resume=path)

    assert len(said) == 1


def test_the_checkpoint_loads_with_weights_only(interrupted: tuple[Path, SaliencyMonitor]) -> None:
    path, monitor = interrupted

    loaded = torch.load(path, weights_only=True)

    state = loaded["callbacks"][monitor.state_key]
    assert state["history"] == monitor.history
    assert state["target_layer"] == "network.5"
    assert torch.equal(state["fixed_batch"]["samples"]["images"], monitor.last_record.batch.images)


def test_boxes_names_and_positions_survive(tmp_path: Path) -> None:
    images, labels, _ = toy_samples(4)
    boxes = [torch.tensor([[1.0, 1.0, 7.0, 7.0]])] * 4
    batch = SaliencyBatch(images, labels, boxes=boxes, names=list("abcd"))
    monitor = SaliencyMonitor(batch=batch)
    path = run(tmp_path, monitor, toy_loader(), epochs=1)

    state = torch.load(path, weights_only=True)["callbacks"][monitor.state_key]

    assert state["fixed_batch"]["samples"]["names"] == list("abcd")
    assert torch.equal(state["fixed_batch"]["samples"]["boxes"][2], boxes[2])


def test_samples_given_by_hand_replace_those_of_the_checkpoint(
    tmp_path: Path, interrupted: tuple[Path, SaliencyMonitor]
) -> None:
    path, _ = interrupted
    batch = SaliencyBatch(*toy_samples(4, seed=5))
    after = SaliencyMonitor(batch=batch)

    with pytest.warns(
        UserWarning, match="cannot be compared with those to come: `batch` was None and is 'given'"
    ):
        run(tmp_path, after, toy_loader(), epochs=3, resume=path)

    assert torch.equal(after.last_record.batch.images, batch.images)


def test_the_layer_of_the_first_run_is_kept(tmp_path: Path) -> None:
    path = run(tmp_path, SaliencyMonitor(target_layer="network.2"), toy_loader(), epochs=1)
    after = SaliencyMonitor()

    run(tmp_path, after, toy_loader(), epochs=2, resume=path)

    assert after.last_record.attribution.target_layer == "network.2"
