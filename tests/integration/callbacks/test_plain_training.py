"""The plain case of the promise: with the monitor, a training ends in the same bits as without it."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning
import torch
from torch import Tensor, nn

from lightning_gcam import SaliencyBatch, SaliencyMonitor
from tests.support.toys import LIGHTNING_SAYS, Toy, toy_loader, toy_network, toy_samples, toy_trainer

pytestmark = LIGHTNING_SAYS


class Drawing(nn.Module):
    """Draws from every stream of random numbers, in eval mode too."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = toy_network()

    def forward(self, images: Tensor) -> Tensor:
        noise = torch.rand_like(images) + random.random() + float(np.random.rand())
        return self.inside(images + 0.01 * noise)


def trained(root: Path, *callbacks: Any, network: Any = toy_network, **options: Any) -> Any:
    """A module after `fit` with momentum, dropout, BatchNorm and a shuffled loader, all from one seed."""
    pytorch_lightning.seed_everything(7)
    module = Toy(network())
    trainer = toy_trainer(root, *callbacks, **options)
    trainer.fit(module, toy_loader(32, shuffle=True), toy_loader())
    return module, trainer, torch.rand(3)


@pytest.mark.parametrize(
    "options",
    [{}, {"num_sanity_val_steps": 0}, {"val_check_interval": 0.5, "accumulate_grad_batches": 2}],
    ids=["plain", "no sanity check", "accumulation and mid-epoch validation"],
)
@pytest.mark.parametrize("by_hand", [False, True], ids=["collected", "by hand"])
def test_the_weights_are_bit_identical(tmp_path: Path, options: dict[str, Any], by_hand: bool) -> None:
    batch = SaliencyBatch(*toy_samples(6)) if by_hand else None
    monitor = SaliencyMonitor(
        every_n_train_steps=1, methods=["guidance_cam", "grad_cam"], num_samples=4, batch=batch
    )

    without, plain, next_plain = trained(tmp_path, **options)
    with_it, watched, next_watched = trained(tmp_path, monitor, **options)

    assert len(monitor.history) >= 3
    expected, found = without.state_dict(), with_it.state_dict()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    momenta = [trainer.optimizers[0].state_dict()["state"] for trainer in (plain, watched)]
    assert all(
        torch.equal(each["momentum_buffer"], momenta[1][index]["momentum_buffer"])
        for index, each in momenta[0].items()
    )
    assert torch.equal(plain.callback_metrics["val_loss"], watched.callback_metrics["val_loss"])
    assert torch.equal(next_plain, next_watched)


def test_no_hook_and_no_flag_stays_behind(tmp_path: Path) -> None:
    module, *_ = trained(tmp_path, SaliencyMonitor(every_n_train_steps=1))

    assert not any(each._forward_hooks or each._forward_pre_hooks for each in module.modules())
    assert not {"log", "log_dict"} & set(vars(module))


def test_a_network_that_draws_random_numbers_draws_the_same_ones(tmp_path: Path) -> None:
    monitor = SaliencyMonitor(every_n_train_steps=1, num_samples=4)

    without, _, next_plain = trained(tmp_path, network=Drawing)
    with_it, _, next_watched = trained(tmp_path, monitor, network=Drawing)

    expected, found = without.state_dict(), with_it.state_dict()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert torch.equal(next_plain, next_watched)


def test_a_look_between_training_steps_is_in_eval_mode_and_ends_in_train_mode(tmp_path: Path) -> None:
    modes: dict[str, list[bool]] = {"looking": [], "training": []}

    def look(module: Any, images: Tensor) -> Tensor:
        modes["looking"] += [each.training for each in module.modules()]
        return module(images)

    class Witness(Toy):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            modes["training"] += [each.training for each in self.modules()]
            return super().training_step(batch, batch_idx)

    monitor = SaliencyMonitor(every_n_train_steps=1, num_samples=4, forward=look)
    toy_trainer(tmp_path, monitor).fit(Witness(), toy_loader(32), toy_loader())

    assert modes["looking"]
    assert not any(modes["looking"])
    assert all(modes["training"])
