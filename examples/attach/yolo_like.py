"""A detector with a head of its own, a row of numbers for each cell, watched by one `forward=`.

The head gives `(N, A, 5 + K)`: centre, size, log-odds of an object and K logits for each of A cells.

    python examples/attach/yolo_like.py
"""

import argparse
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from detection import collate, draw_squares
from ordinary import parse, say_what_was_seen, trainer_options
from pytorch_lightning import Callback, LightningModule, Trainer, seed_everything
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, l1_loss, logsigmoid
from torch.utils.data import DataLoader

from lightning_gcam import SaliencyMonitor

CLASSES, CELL = 3, 8


class Yolo(LightningModule):
    """One prediction for each cell of 8 x 8 pixels; nothing here is about saliency."""

    def __init__(self) -> None:
        super().__init__()
        convolutions = [nn.Conv2d(*widths, 3, 2, 1) for widths in pairwise([3, 16, 32, 32])]
        self.features = nn.Sequential(*(layer for each in convolutions for layer in (each, nn.ReLU())))
        self.head = nn.Sequential(nn.Conv2d(32, 32, 3, 1, 1), nn.ReLU(), nn.Conv2d(32, 5 + CLASSES, 1))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images)).flatten(2).transpose(1, 2)

    def training_step(self, batch: tuple[list[Any], ...], batch_idx: int) -> Tensor:
        images, targets = batch
        predictions = self(torch.stack(images))
        boxes = torch.cat([each["boxes"] for each in targets])
        centres, columns = (boxes[:, :2] + boxes[:, 2:]) / 2, images[0].shape[-1] // CELL
        cells = (centres[:, 1] // CELL * columns + centres[:, 0] // CELL).long()
        here = predictions[range(len(images)), cells]
        there = torch.zeros_like(predictions[..., 4]).scatter_(1, cells[:, None], 1.0)
        extents = torch.cat([centres, boxes[:, 2:] - boxes[:, :2]], dim=1) / CELL
        labels = torch.cat([each["labels"] for each in targets])
        return (
            binary_cross_entropy_with_logits(predictions[..., 4], there, reduction="sum") / len(images)
            + cross_entropy(here[:, 5:], labels)
            + 0.1 * l1_loss(here[:, :4], extents)
        )

    def validation_step(self, batch: tuple[list[Any], ...], batch_idx: int) -> None:
        self.log("val_score", self(torch.stack(batch[0]))[..., 4].sigmoid().amax(), batch_size=1)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=5e-3)


def class_scores(module: nn.Module, images: Tensor) -> Tensor:
    """The logarithm of the score of each class in its best cell: `(N, K)`."""
    predictions = module(images)
    return (logsigmoid(predictions[..., 4:5]) + predictions[..., 5:].log_softmax(dim=2)).amax(dim=1)


def train(callbacks: list[Callback], options: argparse.Namespace) -> None:
    """An ordinary training."""
    seed_everything(0, verbose=False)
    trainer = Trainer(callbacks=callbacks, **trainer_options(options))
    training, validation = (
        DataLoader(draw_squares(options.train_size // part, seed), 8, shuffle=not seed, collate_fn=collate)
        for part, seed in ((1, 0), (4, 1))
    )
    trainer.fit(Yolo(), training, validation)


def main(arguments: Sequence[str] | None = None) -> SaliencyMonitor:
    """Train, and say what was seen."""
    options = parse(__doc__, "yolo_like", arguments)
    monitor = SaliencyMonitor(forward=class_scores, target_layer="features", methods="hires_cam")
    train([monitor], options)
    say_what_was_seen(monitor, options.output)
    return monitor


if __name__ == "__main__":
    main()
