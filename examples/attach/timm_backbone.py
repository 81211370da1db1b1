"""A timm network in a plain LightningModule, watched without a line of it changed.

Batches are `(images, labels, masks)`. Which layer to look at is found, whatever the family.

    pip install timm
    python examples/attach/timm_backbone.py
"""

import argparse
from collections.abc import Sequence

import timm
import torch
from ordinary import parse, say_what_was_seen, trainer_options
from pytorch_lightning import Callback, LightningModule, Trainer, seed_everything
from textured_fields import MATERIALS, draw_scenes
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from lightning_gcam import SaliencyMonitor


class FieldClassifier(LightningModule):
    """One of timm's classifiers; nothing here is about saliency."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = timm.create_model("test_resnet", num_classes=len(MATERIALS), output_stride=8)

    def forward(self, images: Tensor) -> Tensor:
        return self.backbone(images)

    def training_step(self, batch: Sequence[Tensor], batch_idx: int) -> Tensor:
        images, labels, _ = batch
        return cross_entropy(self(images), labels)

    def validation_step(self, batch: Sequence[Tensor], batch_idx: int) -> None:
        images, labels, _ = batch
        self.log("val_acc", (self(images).argmax(dim=1) == labels).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=2e-3)


def batches(size: int, *, validation: bool = False) -> DataLoader:
    """Batches `(images, labels, masks)`."""
    scenes = draw_scenes(size, seed=int(validation), validation=validation)
    dataset = TensorDataset(scenes.images, scenes.labels, scenes.regions > 0)
    return DataLoader(dataset, batch_size=16, shuffle=not validation)


def train(callbacks: list[Callback], options: argparse.Namespace) -> None:
    """An ordinary training."""
    seed_everything(0, verbose=False)
    trainer = Trainer(callbacks=callbacks, **trainer_options(options))
    trainer.fit(
        FieldClassifier(), batches(options.train_size), batches(options.train_size // 4, validation=True)
    )


def main(arguments: Sequence[str] | None = None) -> SaliencyMonitor:
    """Train, and say what was seen."""
    options = parse(__doc__, "timm_backbone", arguments)
    monitor = SaliencyMonitor(class_names=MATERIALS)
    train([monitor], options)
    say_what_was_seen(monitor, options.output)
    return monitor


if __name__ == "__main__":
    main()
