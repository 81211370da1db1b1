"""A network whose output is not finite yet: it is said so, and the layer is found once it is."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_gcam import SaliencyMonitor
from tests.support.toys import Toy, toy_loader, toy_trainer


class NotYet(Toy):
    """In the first epoch its head gives what is not finite, where it does not train."""

    def forward(self, images: Tensor) -> Any:
        logits = super().forward(images)
        broken = not self.training and self.trainer.current_epoch == 0
        return logits * torch.inf if broken else logits


@pytest.mark.parametrize("sanity", [0, 1])
def test_the_layer_is_found_once_the_output_is_finite(sanity: int, tmp_path: Path) -> None:
    monitor = SaliencyMonitor(num_samples=4)
    trainer = toy_trainer(tmp_path, monitor, max_epochs=3, num_sanity_val_steps=sanity)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.fit(NotYet(), toy_loader(8), toy_loader(8))
    said = [str(each.message) for each in caught if "The output of NotYet is not finite" in str(each.message)]
    assert len(said) == 1
    assert [row["epoch"] for row in monitor.history] == [1, 2]
