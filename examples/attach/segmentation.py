"""A segmentation network, watched without a line of it changed.

Batches are `(images, masks)` with a class for each pixel, `(N, H, W)` integer, and torchvision's network returns a dict
of dense logits. The maps explain the summed logit of a class over the region that the mask gives it.

    python examples/attach/segmentation.py
"""

import argparse
from collections.abc import Sequence

import torch
from ordinary import parse, say_what_was_seen, trainer_options
from pytorch_lightning import Callback, LightningModule, Trainer, seed_everything
from textured_fields import MATERIALS, draw_scenes
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset
from torchvision.models import resnet18
from torchvision.models.feature_extraction import create_feature_extractor
from torchvision.models.segmentation.fcn import FCN, FCNHead

from lightning_gcam import SaliencyMonitor

CLASSES = ["ground", *MATERIALS]


class FieldMapper(LightningModule):
    """torchvision's FCN on the first half of a ResNet, not pretrained; nothing here is about saliency."""

    def __init__(self) -> None:
        super().__init__()
        backbone = create_feature_extractor(resnet18(), {"layer2": "out"})
        self.network = FCN(backbone, FCNHead(128, len(CLASSES)))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return self.network(images)

    def training_step(self, batch: Sequence[Tensor], batch_idx: int) -> Tensor:
        images, masks = batch
        return cross_entropy(self(images)["out"], masks)

    def validation_step(self, batch: Sequence[Tensor], batch_idx: int) -> None:
        images, masks = batch
        self.log("val_acc", (self(images)["out"].argmax(dim=1) == masks).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


def batches(size: int, *, validation: bool = False) -> DataLoader:
    """Batches `(images, masks)`: 0 is bare ground, k + 1 a field of material k."""
    scenes = draw_scenes(size, seed=int(validation), validation=validation)
    dataset = TensorDataset(scenes.images, scenes.regions)
    return DataLoader(dataset, batch_size=8, shuffle=not validation)


def train(callbacks: list[Callback], options: argparse.Namespace) -> None:
    """An ordinary training."""
    seed_everything(0, verbose=False)
    trainer = Trainer(callbacks=callbacks, **trainer_options(options))
    trainer.fit(FieldMapper(), batches(options.train_size), batches(options.train_size // 4, validation=True))


def main(arguments: Sequence[str] | None = None) -> SaliencyMonitor:
    """Train, and say what was seen."""
    options = parse(__doc__, "segmentation", arguments)
    monitor = SaliencyMonitor(class_names=CLASSES)
    train([monitor], options)
    say_what_was_seen(monitor, options.output)
    return monitor


if __name__ == "__main__":
    main()
