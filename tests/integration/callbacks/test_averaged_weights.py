"""A look is at the weights that the validation saw, wherever a callback that exchanges them stands in the list."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning
import torch
from torch import Tensor

from lightning_gcam import SaliencyMonitor
from tests.support.toys import LIGHTNING_SAYS, Toy, steps_of, toy_loader, toy_samples, toy_trainer

EMAWeightAveraging: Any = getattr(pytorch_lightning.callbacks, "EMAWeightAveraging", None)
pytestmark = [
    *LIGHTNING_SAYS,
    pytest.mark.skipif(EMAWeightAveraging is None, reason="this Lightning has no weight averaging"),
]


class Notes(Toy):
    """Notes the logits of its first validation sample, and in which step it is."""

    def __init__(self) -> None:
        torch.manual_seed(1)
        super().__init__()
        self.validated: list[Tensor] = []

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        super().validation_step(batch, batch_idx)
        if batch_idx == 0 and not self.trainer.sanity_checking:
            self.validated.append(self.network(batch[0][:1]).detach().clone())


class Looks(pytorch_lightning.Callback):
    """Keeps the logits of each look."""

    def __init__(self) -> None:
        self.logits: list[Tensor] = []

    def on_saliency_look(self, trainer: Any, pl_module: Any, monitor: Any, record: Any) -> None:
        self.logits.append(record.attribution.logits.clone())


class OwnAverage(pytorch_lightning.Callback):
    """Weight averaging that somebody wrote: it exchanges the weights for the validation, and puts them back."""

    def __init__(self) -> None:
        self.trained: dict[str, Tensor] = {}

    def on_validation_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        self.trained = copy.deepcopy(pl_module.state_dict())
        for parameter in pl_module.parameters():
            parameter.data.mul_(0.5)

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        pl_module.load_state_dict(self.trained)


def monitor(**options: Any) -> SaliencyMonitor:
    return SaliencyMonitor(num_samples=1, selection="first", scores=["energy"], checks=[], **options)


def fit(root: Path, *callbacks: Any, **options: Any) -> tuple[Notes, Any]:
    module = Notes()
    trainer = toy_trainer(root, *callbacks, **options)
    trainer.fit(module, toy_loader(32), toy_loader())
    return module, trainer


@pytest.mark.parametrize("first", ["average", "monitor"])
def test_the_look_is_at_the_averaged_weights_in_any_order(tmp_path: Path, first: str) -> None:
    looks, average, ours = Looks(), EMAWeightAveraging(decay=0.5), monitor()
    callbacks = [average, ours] if first == "average" else [ours, average]

    module, _ = fit(tmp_path, *callbacks, looks)

    assert len(looks.logits) == len(module.validated) == 2
    for seen, validated in zip(looks.logits, module.validated, strict=True):
        assert torch.allclose(seen, validated, atol=1e-6)


def test_the_training_is_the_same(tmp_path: Path) -> None:
    plain, _ = fit(tmp_path, EMAWeightAveraging(decay=0.5))
    watched, _ = fit(tmp_path, EMAWeightAveraging(decay=0.5), monitor(every_n_train_steps=1))

    assert all(
        torch.equal(left, right)
        for left, right in zip(plain.state_dict().values(), watched.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize("first", ["average", "monitor"])
def test_a_look_at_the_last_step_does_not_stand_for_the_validation(tmp_path: Path, first: str) -> None:
    """The one is at the weights in training, the other at the averaged ones, in one and the same step."""
    looks, average, ours = Looks(), EMAWeightAveraging(decay=0.5), monitor(every_n_train_steps=4)
    callbacks = [average, ours] if first == "average" else [ours, average]

    module, _ = fit(tmp_path, *callbacks, looks)

    assert steps_of(ours.history) == [3, 7, 7], (
        "after the first validation there are samples for looks at steps"
    )
    assert torch.allclose(looks.logits[2], module.validated[1], atol=1e-6)
    assert not torch.allclose(looks.logits[1], module.validated[1], atol=1e-3)


@pytest.mark.parametrize("first", ["average", "monitor"])
def test_the_final_scores_are_of_the_averaged_weights(tmp_path: Path, first: str) -> None:
    images: list[Tensor] = []

    def noting(module: Any, samples: Tensor) -> Any:
        logits = module(samples)
        images.append(logits.detach().clone())
        return logits

    average, ours = EMAWeightAveraging(decay=0.5), monitor(final_scores=["energy"], forward=noting)
    callbacks = [average, ours] if first == "average" else [ours, average]

    module, _ = fit(tmp_path, *callbacks)

    module.eval()
    left_behind = module(toy_samples(1)[0]).detach()
    assert torch.allclose(images[-1], left_behind, atol=1e-6), "the training ends with the averaged weights"


def test_other_weights_that_cannot_be_had_are_said_once(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="not at those that were validated") as said:
        fit(tmp_path, OwnAverage(), monitor())

    told = [str(each.message) for each in said if "those that were validated" in str(each.message)]
    assert len(told) == 1
    assert "(OwnAverage). Put SaliencyMonitor before it" in told[0]


def test_as_it_says_the_monitor_before_it_looks_at_the_validated_weights(tmp_path: Path) -> None:
    looks = Looks()

    module, _ = fit(tmp_path, monitor(), OwnAverage(), looks)

    for seen, validated in zip(looks.logits, module.validated, strict=True):
        assert torch.allclose(seen, validated, atol=1e-6)


def test_a_callback_that_changes_no_weights_is_not_spoken_of(tmp_path: Path) -> None:
    """A warning would be an error here."""
    lambdas = pytorch_lightning.callbacks.LambdaCallback(on_validation_epoch_end=lambda *_: None)

    module, _ = fit(tmp_path, lambdas, monitor())

    assert len(module.validated) == 2
