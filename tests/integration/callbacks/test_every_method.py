"""Every method by its name in a training: each has its column, its scores, and leaves the training as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_gcam import SaliencyMonitor
from lightning_gcam.cam import available_methods
from lightning_gcam.utils.errors import InputError
from tests.support.nets import OF_TRANSFORMERS
from tests.support.toys import CLASSES, LIGHTNING_SAYS, Toy, toy_loader, toy_trainer
from tests.support.witness import Witness, differences

pytestmark = LIGHTNING_SAYS

METHODS = tuple(name for name in available_methods() if name not in OF_TRANSFORMERS)
COSTLY = {
    "ss_cam",
    "is_cam",
    "smooth_full_grad",
    "occlusion",
    "smooth_grad_cam_plus_plus",
    "integrated_gradients",
}
"""More than thirty forwards a sample; the others are asked again by `coherency`."""


def fit(root: Path, *monitors: Any) -> Witness:
    torch.manual_seed(0)
    witness = Witness()
    toy_trainer(root, *monitors, witness, max_epochs=2).fit(Toy(), toy_loader(16), toy_loader(8))
    return witness


def test_all_at_once_in_a_training_that_stays_as_it_was(tmp_path: Path) -> None:
    monitor = SaliencyMonitor(
        methods=list(METHODS), num_samples=2, checks=[], scores=["energy", "average_drop"], on_error="raise"
    )
    witness = fit(tmp_path, monitor)
    record = monitor.last_record
    assert record is not None
    assert tuple(record.attribution.maps) == METHODS
    assert all(maps.isfinite().all() and maps.amax() == 1 for maps in record.attribution.maps.values())
    row = monitor.history[-1]
    assert {f"{name}/energy" for name in METHODS[1:]} | {"energy"} <= set(row)
    assert {f"{name}/average_drop" for name in METHODS[1:]} | {"average_drop"} <= set(row)
    assert differences(fit(tmp_path), witness) == []


def test_they_are_computed_again_for_changed_images(tmp_path: Path) -> None:
    cheap = [name for name in METHODS if name not in COSTLY]
    monitor = SaliencyMonitor(
        methods=cheap,
        num_samples=2,
        checks=[],
        scores=["coherency", "random_model_similarity"],
        on_error="raise",
    )
    fit(tmp_path, monitor)
    row = monitor.history[-1]
    for name in cheap:
        prefix = f"{name}/" if name != cheap[0] else ""
        assert f"{prefix}coherency" in row, name


def test_what_does_not_fit_the_model_is_refused_before_the_training(tmp_path: Path) -> None:
    class Smooth(Toy):
        def __init__(self) -> None:
            super().__init__()
            for index, module in enumerate(self.network):
                if isinstance(module, torch.nn.ReLU):
                    self.network[index] = torch.nn.GELU()

    trained: list[int] = []

    class Counts(Smooth):
        def training_step(self, *args: Any) -> Any:
            trained.append(1)
            return super().training_step(*args)

    monitor = SaliencyMonitor(methods="guided_grad_cam", num_samples=2)
    with pytest.raises(InputError, match='"guided_grad_cam" changes the gradient of ReLU modules'):
        toy_trainer(tmp_path, monitor).fit(Counts(), toy_loader(16), toy_loader(8))
    assert trained == []


# ---------------------------------------------------------------------------------- vision transformers


def of_patches(root: Path, *monitors: Any) -> Witness:
    """A training of a vision transformer; only the second of two layers leads through the class token."""
    vit = pytest.importorskip("timm.models.vision_transformer").VisionTransformer
    torch.manual_seed(0)
    witness = Witness()
    how = {"img_size": 16, "patch_size": 4, "in_chans": 1, "embed_dim": 16, "depth": 2, "num_heads": 2}
    module = Toy(vit(**how, num_classes=CLASSES, proj_drop_rate=0.1))
    toy_trainer(root, *monitors, witness, max_epochs=2).fit(module, toy_loader(16), toy_loader(8))
    return witness


def test_those_of_attention_in_a_training_that_stays_as_it_was(tmp_path: Path) -> None:
    monitor = SaliencyMonitor(
        methods=[*OF_TRANSFORMERS], num_samples=2, checks=[], scores=["energy", "coherency"], on_error="raise"
    )
    witness = of_patches(tmp_path, monitor)
    record = monitor.last_record
    assert record is not None
    assert all(maps.amax() == 1 for maps in record.attribution.maps.values())
    assert {"energy", "attention_relevance/energy", "attention_relevance/coherency"} <= set(
        monitor.history[-1]
    )
    assert differences(of_patches(tmp_path), witness) == []


@pytest.mark.parametrize("method", OF_TRANSFORMERS)
def test_those_of_attention_are_refused_on_convolutions_before_the_training(
    method: str, tmp_path: Path
) -> None:
    monitor = SaliencyMonitor(methods=[method], num_samples=2)
    module = Toy()
    before = {name: each.clone() for name, each in module.state_dict().items()}
    with pytest.raises(InputError, match=f'"{method}" needs the attention weights .* and Toy shows none'):
        toy_trainer(tmp_path, monitor).fit(module, toy_loader(16), toy_loader(8))
    assert all(torch.equal(each, before[name]) for name, each in module.state_dict().items())
