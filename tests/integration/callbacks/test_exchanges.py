"""Exchange checks in a real Trainer, on batches of images and labels."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from lightning_gcam import SaliencyMonitor
from tests.support.toys import LIGHTNING_SAYS, Toy, toy_samples, toy_trainer

pytestmark = LIGHTNING_SAYS


def labelled(n: int = 24) -> DataLoader[tuple[torch.Tensor, ...]]:
    """Images and labels, without masks."""
    return DataLoader(TensorDataset(*toy_samples(n)[:2]), batch_size=8)


def test_without_masks_there_are_numbers_at_every_look(tmp_path: Path) -> None:
    monitor = SaliencyMonitor(checks=["border", "histogram", "color"], num_samples=8, on_error="raise")
    trainer = toy_trainer(tmp_path, monitor, logger=False)
    trainer.fit(Toy(), labelled(), labelled())

    for row in monitor.history:
        for name in ("border", "histogram"):
            kept, followed = row[f"{name}_swap_accuracy"], row[f"{name}_follow_rate"]
            assert 0 <= kept <= 1 and 0 <= followed <= 1 and kept + followed <= 1
            assert 0 <= row[f"{name}_follow_chance"] <= 1
        assert not any(name.startswith("color") for name in row)  # the images are grey
        assert "background_only_accuracy" not in row
    measured = monitor.last_record.reliance.measurements["border_follow_rate"]  # type: ignore[union-attr]
    assert measured.n == 8 and measured.interval is not None
    assert trainer.callback_metrics["saliency/border_follow_rate"] == pytest.approx(measured.value)
    (table,) = Path(tmp_path).rglob("scores.csv")
    assert "border_follow_rate" in table.read_text()


def test_the_weights_are_those_of_a_training_without(tmp_path: Path) -> None:
    def weights(*callbacks: SaliencyMonitor) -> torch.Tensor:
        torch.manual_seed(3)
        module = Toy()
        toy_trainer(tmp_path, *callbacks, logger=False).fit(module, labelled(), labelled())
        return torch.cat([each.detach().flatten() for each in module.parameters()])

    every = ["color", "histogram", "spectrum", "texture", "border"]

    assert torch.equal(weights(), weights(SaliencyMonitor(checks=every, num_samples=8, on_error="raise")))
