"""torchvision's RetinaNet in a plain LightningModule, watched without a line of it changed.

The picture has two boxes: that of the target, and dashed the one that is predicted for its class.

    python examples/attach/detection.py
"""

import argparse
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from ordinary import parse, say_what_was_seen, trainer_options
from pytorch_lightning import Callback, LightningModule, Trainer, seed_everything
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator

from lightning_gcam import SaliencyMonitor

COLOURS = ["background", "red", "green"]  # torchvision's classes count from 1


def draw_squares(size: int, seed: int) -> list[tuple[Tensor, dict[str, Tensor]]]:
    """Dark noise with one bright square each, and its box and class."""
    random, samples = torch.Generator().manual_seed(seed), []
    for number in range(size):
        image = 0.2 * torch.rand(3, 48, 64, generator=random)
        side = int(torch.randint(12, 20, (), generator=random))
        top, left = (int(torch.randint(edge - side, (), generator=random)) for edge in (48, 64))
        image[number % 2, top : top + side, left : left + side] += 0.8
        box = torch.tensor([[left, top, left + side, top + side]])
        samples.append((image, {"boxes": box.float(), "labels": torch.tensor([number % 2 + 1])}))
    return samples


def collate(samples: list[Any]) -> tuple[list[Any], ...]:
    """A list of images and a list of targets."""
    return tuple(map(list, zip(*samples, strict=True)))


class Detector(LightningModule):
    """A RetinaNet on a backbone of three convolutions; nothing here is about saliency."""

    def __init__(self) -> None:
        super().__init__()
        blocks = [(nn.Conv2d(*widths, 3, 2, 1), nn.ReLU()) for widths in pairwise([3, 16, 32, 32])]
        backbone: Any = nn.Sequential(*(layer for block in blocks for layer in block))
        backbone.out_channels, anchors = 32, AnchorGenerator(((16,),), ((1.0,),))
        self.net = RetinaNet(backbone, len(COLOURS), min_size=48, anchor_generator=anchors)

    def forward(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
        return self.net(images)

    def training_step(self, batch: tuple[list[Any], ...], batch_idx: int) -> Tensor:
        return sum(self.net(*batch).values())

    def validation_step(self, batch: tuple[list[Any], ...], batch_idx: int) -> None:
        self.log("val_boxes", sum(float(len(each["boxes"])) for each in self(batch[0])), batch_size=1)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=2e-3)


def train(callbacks: list[Callback], options: argparse.Namespace) -> None:
    """An ordinary training."""
    seed_everything(0, verbose=False)
    trainer = Trainer(callbacks=callbacks, **trainer_options(options))
    training, validation = (
        DataLoader(draw_squares(options.train_size // part, seed), 8, shuffle=not seed, collate_fn=collate)
        for part, seed in ((1, 0), (4, 1))
    )
    trainer.fit(Detector(), training, validation)


def main(arguments: Sequence[str] | None = None) -> SaliencyMonitor:
    """Train, and say what was seen."""
    options = parse(__doc__, "detection", arguments)
    monitor = SaliencyMonitor(class_names=COLOURS)
    train([monitor], options)
    say_what_was_seen(monitor, options.output)
    return monitor


if __name__ == "__main__":
    main()
