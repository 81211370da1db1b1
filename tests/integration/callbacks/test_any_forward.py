"""Modules whose own forward takes no images, watched in real trainings: none at all, keywords, or the whole batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning
import torch
from torch import Tensor, nn

from lightning_gcam import SaliencyMonitor
from lightning_gcam.utils.errors import InputError
from tests.support.toys import (
    CLASSES,
    LIGHTNING_SAYS,
    PACKAGES,
    decoded,
    listening,
    toy_loader,
    toy_network,
    toy_of,
    toy_trainer,
)

pytestmark = LIGHTNING_SAYS


class Steps(pytorch_lightning.LightningModule):
    """What the modules here share: a loss of `logits(batch)`."""

    def logits(self, batch: Any) -> Tensor:
        raise AssertionError

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return nn.functional.cross_entropy(self.logits(batch), batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", nn.functional.cross_entropy(self.logits(batch), batch[1]))

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.05)


def weights_after(root: Path, module: Any, *callbacks: Any, **options: Any) -> dict[str, Tensor]:
    trainer = toy_trainer(root, *callbacks, **options)
    trainer.fit(module, toy_loader(32), toy_loader())
    return {name: value.clone() for name, value in module.state_dict().items()}


def watched(root: Path, make: Any, layer: str, **options: Any) -> tuple[SaliencyMonitor, list[str]]:
    """Train with the monitor and without it: a look at every epoch, and the same bits."""
    monitor = SaliencyMonitor(num_samples=8, on_error="raise", **options)
    with listening() as said:
        pytorch_lightning.seed_everything(0, verbose=False)
        with_it = weights_after(root, make(), monitor)
    pytorch_lightning.seed_everything(0, verbose=False)
    without = weights_after(root, make())
    assert all(torch.equal(with_it[name], value) for name, value in without.items())
    assert len(monitor.history) == 2
    record = monitor.last_record
    assert record is not None
    assert record.attribution.target_layer == layer
    assert record.attribution.logits.shape == (8, CLASSES)
    return monitor, said


class NoForward(Steps):
    """The network is in a child; only the steps call it."""

    def __init__(self) -> None:
        super().__init__()
        self.criterion = nn.CrossEntropyLoss()
        self.model = toy_network()

    def logits(self, batch: Any) -> Tensor:
        return self.model(batch[0])


def test_a_module_without_a_forward(tmp_path: Path) -> None:
    monitor, said = watched(tmp_path, NoForward, "model.5")
    (line,) = [each for each in said if "has no `forward` of its own" in each]
    assert "NoForward" in line and "`module.model(images)`" in line
    record = monitor.last_record
    assert record is not None and record.attribution.peaks["guidance_cam"].max() > 0
    assert decoded(next(tmp_path.rglob("*.png"))).std() > 10


@pytest.mark.parametrize("package", PACKAGES)
def test_neither_package_has_a_forward_to_call(tmp_path: Path, package: Any) -> None:
    kind = type(toy_of(package))
    silent = type("Silent", (kind,), {"forward": package.LightningModule.forward})
    monitor = SaliencyMonitor(num_samples=4, on_error="raise", target_layer="network.2")
    toy_trainer(tmp_path, monitor, package=package, max_epochs=1).fit(silent(), toy_loader(32), toy_loader())
    assert len(monitor.history) == 1


class BackboneAndHead(Steps):
    def __init__(self) -> None:
        super().__init__()
        network = toy_network()
        self.backbone, self.head = network[:6], network[6:]

    def logits(self, batch: Any) -> Tensor:
        return self.head(self.backbone(batch[0]))


class TakesBatch(BackboneAndHead):
    def forward(self, batch: Any) -> Tensor:
        images, _, _ = batch
        return self.head(self.backbone(images))

    def logits(self, batch: Any) -> Tensor:
        return self(batch)


class TakesDict(TakesBatch):
    def forward(self, batch: Any) -> Tensor:
        return self.head(self.backbone(batch["image"]))

    def logits(self, batch: Any) -> Tensor:
        return self({"image": batch[0]})


@pytest.mark.filterwarnings("ignore:Using a non-tuple sequence")
@pytest.mark.parametrize("sanity", [2, 0], ids=["sanity check", "no sanity check"])
@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (BackboneAndHead, r"no `forward` of its own, and 2 parts with parameters \(backbone, head\)"),
        (TakesBatch, r"as `module\(images\)`.*, which raised ValueError: not enough values to unpack"),
        (TakesDict, r"as `module\(images\)`.*, which raised IndexError"),
    ],
)
def test_refused_before_training_and_settled_by_the_code_that_is_shown(
    tmp_path: Path, kind: Any, message: str, sanity: int
) -> None:
    module = kind()
    with pytest.raises(InputError, match=message) as refused:
        weights_after(tmp_path, module, SaliencyMonitor(), num_sanity_val_steps=sanity)
    assert module.trainer.global_step == 0
    code = str(refused.value).splitlines()[-1].strip()
    watched(tmp_path, kind, "backbone", **eval(f"dict({code})"))


class OnKeywords(Steps):
    """A Hugging Face model of which the forward hands on everything by name."""

    def __init__(self) -> None:
        super().__init__()
        transformers = pytest.importorskip("transformers")
        config = transformers.ViTConfig(
            image_size=16,
            patch_size=4,
            num_channels=1,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_labels=CLASSES,
        )
        self.net = transformers.ViTForImageClassification(config)

    def forward(self, **inputs: Tensor) -> Any:
        return self.net(**inputs)

    def logits(self, batch: Any) -> Tensor:
        return self(pixel_values=batch[0]).logits


class OnKeywordsOnly(OnKeywords):
    """As Hugging Face's own are called by most."""

    def forward(self, *, pixel_values: Tensor, labels: Tensor | None = None) -> Any:  # type: ignore[override]
        assert labels is None
        return self.net(pixel_values=pixel_values)


class OnNothing(OnKeywords):
    forward = pytorch_lightning.LightningModule.forward

    def logits(self, batch: Any) -> Tensor:
        return self.net(pixel_values=batch[0]).logits


@pytest.mark.filterwarnings("ignore:.* maps are blank")
@pytest.mark.parametrize("kind", [OnKeywords, OnKeywordsOnly, OnNothing])
def test_a_hugging_face_model_behind_keywords(tmp_path: Path, kind: Any) -> None:
    blocks = next(name for name, each in kind().named_modules() if isinstance(each, nn.ModuleList))
    monitor, said = watched(tmp_path, kind, f"{blocks}.1.layernorm_before")
    assert sum("`module.net(images)`" in each for each in said) == (kind is OnNothing)
    record = monitor.last_record
    assert record is not None and record.attribution.peaks["guidance_cam"].max() > 0


def test_a_forward_of_the_users_own_that_fails_is_refused(tmp_path: Path) -> None:
    monitor = SaliencyMonitor(forward=lambda module, images: module.modell(images))
    with pytest.raises(InputError, match="`forward` failed on NoForward and images .*'modell'"):
        weights_after(tmp_path, NoForward(), monitor)
