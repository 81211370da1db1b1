"""`SaliencyMonitor` from YAML and the command line, with LightningCLI.

python examples/cli/train.py fit --config examples/cli/config.yaml
python examples/cli/train.py fit --config examples/cli/config.yaml --trainer.max_epochs 2
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from pytorch_lightning import LightningDataModule, LightningModule
from pytorch_lightning.cli import LightningCLI
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from digits_on_canvas import place_on_canvas, split_scans


class Classifier(LightningModule):
    """A small convolutional network; it knows nothing of saliency."""

    def __init__(self, width: int = 16, learning_rate: float = 3e-3) -> None:
        super().__init__()
        self.learning_rate = learning_rate
        self.features = nn.Sequential(
            nn.Conv2d(3, width, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
            nn.ReLU(),
        )
        self.head = nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(2 * width, 10))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        images, labels, *_ = batch
        return nn.functional.cross_entropy(self(images), labels)

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        images, labels, *_ = batch
        self.log("val_acc", (self(images).argmax(dim=1) == labels).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=self.learning_rate)


class Digits(LightningDataModule):
    """Handwritten digits on a canvas, in batches `(images, labels, masks)`."""

    def __init__(self, train_size: int = 512, validation_size: int = 128, batch_size: int = 64) -> None:
        super().__init__()
        training, validation = split_scans(seed=0)
        self.training = TensorDataset(*place_on_canvas(training, train_size, seed=0))
        self.validation = TensorDataset(*place_on_canvas(validation, validation_size, seed=1))
        self.batch_size = batch_size

    def train_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        return DataLoader(self.training, self.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        return DataLoader(self.validation, self.batch_size)


def lead_of_zero(logits: Tensor) -> Tensor:
    """A score of one's own for `targets`: how far the digit zero is ahead of the mean."""
    return logits[:, 0] - logits.mean(dim=1)


if __name__ == "__main__":
    LightningCLI(Classifier, Digits, seed_everything_default=0)
