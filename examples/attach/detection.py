"""torchvision's RetinaNet in a plain LightningModule, watched without a line of it changed.

Batches are `(images, targets)`, targets a list of dicts with `boxes` and `labels`. The picture has both boxes: that of the
target, and dashed the one that is predicted for its class.

    python examples/attach/detection.py
"""

import argparse
from collections.abc import Sequence
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
Sample = tuple[Tensor, dict[str, Tensor]]


def draw_squares(size: int, seed: int) -> list[Sample]:
    """Dark noise with one bright square each, and its box and class."""
    random, samples = torch.Generator().manual_seed(seed), []
    for number in range(size):
        image = 0.2 * torch.rand(3, 48, 64, generator=random)
        side, top, left = (
            int(torch.randint(*range_, (), generator=random)) for range_ in ((12, 20), (0, 28), (0, 44))
        )
        image[number % 2, top : top + side, left : left + side] += 0.8
        box = torch.tensor([[left, top, left + side, top + side]]).float()
        samples.append((image, {"boxes": box, "labels": torch.tensor([number % 2 + 1])}))
    return samples


def collate(samples: list[Sample]) -> tuple[list[Any], ...]:
    """A list of images and a list of targets, as in torchvision's own scripts."""
    return tuple(map(list, zip(*samples, strict=True)))


class Detector(LightningModule):
    """A RetinaNet on a backbone of three convolutions; nothing here is about saliency."""

    def __init__(self) -> None:
        super().__init__()
        widths = [3, 16, 32, 32]
        convolutions = [nn.Conv2d(i, o, 3, 2, 1) for i, o in zip(widths, widths[1:], strict=False)]
        backbone: Any = nn.Sequential(*(layer for each in convolutions for layer in (each, nn.ReLU())))
        backbone.out_channels = widths[-1]
        anchors = AnchorGenerator(((16,),), ((1.0,),))
        self.net = RetinaNet(backbone, len(COLOURS), min_size=48, anchor_generator=anchors)

    def forward(self, images: list[Tensor], targets: list[dict[str, Tensor]] | None = None) -> Any:
        return self.net(images, targets)

    def training_step(self, batch: tuple[list[Any], ...], batch_idx: int) -> Tensor:
        return sum(self(*batch).values())

    def validation_step(self, batch: tuple[list[Any], ...], batch_idx: int) -> None:
        found = [float(each["scores"].max()) if len(each["scores"]) else 0.0 for each in self(batch[0])]
        self.log("val_score", sum(found) / len(found), batch_size=len(found))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=2e-3)


def train(callbacks: list[Callback], options: argparse.Namespace) -> None:
    """An ordinary training."""
    seed_everything(0, verbose=False)
    trainer = Trainer(callbacks=callbacks, **trainer_options(options))
    training, validation = (draw_squares(options.train_size // part, seed) for part, seed in ((1, 0), (4, 1)))
    loaders = (
        DataLoader(training, 8, shuffle=True, collate_fn=collate),
        DataLoader(validation, 8, collate_fn=collate),
    )
    trainer.fit(Detector(), *loaders)


def main(arguments: Sequence[str] | None = None) -> SaliencyMonitor:
    """Train, and say what was seen."""
    options = parse(__doc__, "detection", arguments)
    monitor = SaliencyMonitor(class_names=COLOURS)
    train([monitor], options)
    say_what_was_seen(monitor, options.output)
    return monitor


if __name__ == "__main__":
    main()
