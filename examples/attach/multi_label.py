"""A network with several right answers a picture, watched without a line of it changed.

Batches are `(images, labels, masks)` with labels `(N, K)` of zeros and ones and a binary cross-entropy for each. The
map of a picture explains all of its marked classes together: the sum of their logits.

    python examples/attach/multi_label.py
"""

import argparse
from collections.abc import Sequence

import torch
from ordinary import parse, say_what_was_seen, trainer_options
from pytorch_lightning import Callback, LightningModule, Trainer, seed_everything
from textured_fields import MATERIALS, draw_scenes
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.data import DataLoader, TensorDataset
from torchvision.models import DenseNet

from lightning_gcam import SaliencyMonitor


class FieldTagger(LightningModule):
    """A small one of torchvision's DenseNets, one independent logit a material; nothing here is about saliency."""

    def __init__(self) -> None:
        super().__init__()
        self.network = DenseNet(
            growth_rate=12, block_config=(2, 2), num_init_features=24, num_classes=len(MATERIALS)
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)

    def training_step(self, batch: Sequence[Tensor], batch_idx: int) -> Tensor:
        images, labels, _ = batch
        return binary_cross_entropy_with_logits(self(images), labels)

    def validation_step(self, batch: Sequence[Tensor], batch_idx: int) -> None:
        images, labels, _ = batch
        self.log("val_acc", ((self(images) > 0) == (labels > 0)).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=3e-3)


def batches(size: int, *, validation: bool = False) -> DataLoader:
    """Batches `(images, labels, masks)`; a picture has one to three fields."""
    scenes = draw_scenes(size, seed=int(validation), validation=validation, several=True)
    dataset = TensorDataset(scenes.images, scenes.present.float(), scenes.regions > 0)
    return DataLoader(dataset, batch_size=16, shuffle=not validation)


def train(callbacks: list[Callback], options: argparse.Namespace) -> None:
    """An ordinary training."""
    seed_everything(0, verbose=False)
    trainer = Trainer(callbacks=callbacks, **trainer_options(options))
    trainer.fit(FieldTagger(), batches(options.train_size), batches(options.train_size // 4, validation=True))


def main(arguments: Sequence[str] | None = None) -> SaliencyMonitor:
    """Train, and say what was seen."""
    options = parse(__doc__, "multi_label", arguments, epochs=4)
    monitor = SaliencyMonitor(class_names=MATERIALS)
    train([monitor], options)
    say_what_was_seen(monitor, options.output)
    return monitor


if __name__ == "__main__":
    main()
