"""Small modules, data and Trainers that the tests share: four classes, a bright square in the class's own quadrant."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import lightning.pytorch
import numpy as np
import numpy.typing as npt
import pytest
import pytorch_lightning
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

CLASSES = 4
SIZE = 16
PACKAGES = (pytorch_lightning, lightning.pytorch)
"""The two Lightning packages: the same code under two names."""

LIGHTNING_SAYS = [
    pytest.mark.filterwarnings(f"ignore:{words}")
    for words in (
        "You defined a `validation_step` but have no `val_dataloader`",
        "Checkpoint directory .* exists",
        "Experiment logs directory .* exists",
        "Your `val_dataloader`'s sampler has shuffling",
        "Trying to infer the `batch_size`",
        "The dirpath has changed",
    )
]
"""Advice that Lightning gives about runs this small; as marks, because a warning is an error here."""


def toy_samples(
    n: int = 24, *, sorted_by_class: bool = False, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Images `(n, 1, 16, 16)`, labels `(n,)` and masks `(n, 16, 16)`: noise and a bright square."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) * CLASSES // n if sorted_by_class else torch.arange(n) % CLASSES
    images = 0.2 * torch.rand(n, 1, SIZE, SIZE, generator=generator)
    masks = torch.zeros(n, SIZE, SIZE, dtype=torch.bool)
    for index, label in enumerate(labels.tolist()):
        top, left = SIZE // 2 * (label // 2) + 1, SIZE // 2 * (label % 2) + 1
        masks[index, top : top + 6, left : left + 6] = True
    images[masks[:, None]] += 0.8
    return images, labels, masks


def toy_loader(
    n: int = 24, *, batch_size: int = 8, sorted_by_class: bool = False, seed: int = 0, **options: Any
) -> DataLoader[Any]:
    """Batches `(images, labels, masks)`."""
    samples = TensorDataset(*toy_samples(n, sorted_by_class=sorted_by_class, seed=seed))
    return DataLoader(samples, batch_size=batch_size, **options)


def bordered_loader(n: int = 24, *, batch_size: int = 8) -> DataLoader[Any]:
    """Batches `(images, labels)`, sorted by class: the toy images with a border as bright as the class says."""
    images, labels, _ = toy_samples(n, sorted_by_class=True)
    brightness = (0.2 + 0.2 * labels)[:, None, None, None]
    bordered = torch.where(on_border(), brightness, images)
    return DataLoader(TensorDataset(bordered, labels), batch_size=batch_size)


def on_border() -> Tensor:
    """Where the border of `bordered_loader` is, `(16, 16)` bool."""
    border = torch.ones(SIZE, SIZE, dtype=torch.bool)
    border[3:-3, 3:-3] = False
    return border


class ReadsTheBorder(nn.Module):
    """The class by the border's mean brightness alone: the nearest one of 0.2, 0.4, 0.6 and 0.8."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU())
        self.head = nn.Linear(1, CLASSES)
        expected = 0.2 + 0.2 * torch.arange(CLASSES)
        with torch.no_grad():
            self.features[0].weight.fill_(1.0)
            self.features[0].bias.zero_()
            self.head.weight.copy_(2 * expected[:, None])
            self.head.bias.copy_(-(expected**2))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images)[..., on_border()].mean(dim=2))


class Recast(Dataset[Any]):
    """The toy samples in another layout: `(image, label, mask)` goes through `cast`."""

    def __init__(self, cast: Any, n: int = 24) -> None:
        self.samples = TensorDataset(*toy_samples(n))
        self.cast = cast

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Any:
        return self.cast(*self.samples[index])


def toy_network() -> nn.Sequential:
    """What a look must leave alone: BatchNorm and dropout; and two layers to choose between, "2" and "5".

    All weights of the head begin above zero, so that no map is blank.
    """
    head = nn.Linear(8, CLASSES)
    nn.init.uniform_(head.weight, 0.1, 0.6)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, stride=2, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Dropout2d(0.2),
        nn.Conv2d(6, 8, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        head,
    )


class _Toy:
    """A LightningModule that knows nothing of saliency."""

    def __init__(self, network: nn.Module | None = None, learning_rate: float = 0.05) -> None:
        super().__init__()
        self.network = network if network is not None else toy_network()
        self.learning_rate = learning_rate

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)

    def loss(self, batch: Any) -> Tensor:
        images, labels = (batch["image"], batch["label"]) if isinstance(batch, dict) else batch[:2]
        return nn.functional.cross_entropy(self.network(images), labels)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.loss(batch)

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self.log("val_loss", self.loss(batch))

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.log("test_loss", self.loss(batch))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=self.learning_rate, momentum=0.9)


class Toy(_Toy, pytorch_lightning.LightningModule):
    """The toy for `pytorch_lightning`."""


class LightningToy(_Toy, lightning.pytorch.LightningModule):
    """The toy for `lightning.pytorch`."""


def toy_of(package: ModuleType) -> Any:
    """The toy for one of the two packages."""
    return Toy() if package is pytorch_lightning else LightningToy()


def toy_trainer(root: Path, *callbacks: Any, package: ModuleType = pytorch_lightning, **options: Any) -> Any:
    """A quiet Trainer of two epochs on the CPU, without a logger and without checkpoints."""
    quiet: dict[str, Any] = {
        "default_root_dir": root,
        "max_epochs": 2,
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return package.Trainer(**{**quiet, **options}, callbacks=list(callbacks))


@contextmanager
def listening() -> Iterator[list[str]]:
    """What is said at INFO, in whichever of the two packages' loggers."""
    said: list[str] = []

    class _Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    ear, loggers = _Ear(), [logging.getLogger(package.__name__) for package in PACKAGES]
    levels = [each.level for each in loggers]
    for each in loggers:
        each.addHandler(ear)
        each.setLevel(logging.INFO)
    try:
        yield said
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.removeHandler(ear)
            each.setLevel(level)


def decoded(png: bytes | Path) -> npt.NDArray[np.uint8]:
    """The pixels of a PNG."""
    source = io.BytesIO(png) if isinstance(png, bytes) else png
    with Image.open(source) as picture:
        return np.asarray(picture.convert("RGB"))


def steps_of(rows: Sequence[dict[str, Any]]) -> list[int]:
    """The steps of a history."""
    return [int(row["step"]) for row in rows]
