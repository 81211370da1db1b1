"""A network on short clips in a plain LightningModule, watched without a line of it changed.

Batches are `(clips, labels, masks)`, clips `(N, 3, T, H, W)`; the picture is a strip of frames.

    python examples/attach/video.py
"""

import argparse
from collections.abc import Sequence
from itertools import pairwise

import torch
from ordinary import parse, say_what_was_seen, trainer_options
from pytorch_lightning import Callback, LightningModule, Trainer, seed_everything
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from lightning_gcam import SaliencyMonitor

DIRECTIONS = {"left": (0, -2), "right": (0, 2), "up": (-2, 0), "down": (2, 0)}
FRAMES, SIDE, SQUARE = 8, 24, 8


def draw_clips(size: int, seed: int) -> TensorDataset:
    """Noise with a square that moves in one of four directions, its class; the mask is where the square is."""
    random = torch.Generator().manual_seed(seed)
    clips = 0.1 * torch.randn(size, 3, FRAMES, SIDE, SIDE, generator=random)
    masks = torch.zeros(size, FRAMES, SIDE, SIDE, dtype=torch.bool)
    labels = torch.arange(size) % len(DIRECTIONS)
    for number, label in enumerate(labels.tolist()):
        down, right = list(DIRECTIONS.values())[label]
        row, column = torch.randint(0, SIDE - SQUARE, (2,), generator=random).tolist()
        for frame in range(FRAMES):  # it leaves on one side and comes back on the other
            top, left = (
                (place + frame * step) % (SIDE - SQUARE) for place, step in ((row, down), (column, right))
            )
            masks[number, frame, top : top + SQUARE, left : left + SQUARE] = True
    clips += masks[:, None]
    return TensorDataset(clips, labels, masks)


class ClipClassifier(LightningModule):
    """Convolutions over time and space; nothing here is about saliency."""

    def __init__(self) -> None:
        super().__init__()
        widths = [3, 16, 32, 32]
        blocks = [
            nn.Sequential(nn.Conv3d(here, there, 3, padding=1), nn.BatchNorm3d(there), nn.ReLU())
            for here, there in pairwise(widths)
        ]
        self.features = nn.Sequential(blocks[0], nn.MaxPool3d((1, 2, 2)), *blocks[1:])
        self.head = nn.Linear(widths[-1], len(DIRECTIONS))

    def forward(self, clips: Tensor) -> Tensor:
        return self.head(self.features(clips).mean(dim=(2, 3, 4)))

    def training_step(self, batch: Sequence[Tensor], batch_idx: int) -> Tensor:
        return cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: Sequence[Tensor], batch_idx: int) -> None:
        self.log("val_acc", (self(batch[0]).argmax(dim=1) == batch[1]).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


def train(callbacks: list[Callback], options: argparse.Namespace) -> None:
    """An ordinary training."""
    seed_everything(0, verbose=False)
    trainer = Trainer(callbacks=callbacks, **trainer_options(options))
    training, validation = (draw_clips(options.train_size // part, seed) for part, seed in ((1, 0), (4, 1)))
    trainer.fit(ClipClassifier(), DataLoader(training, 16, shuffle=True), DataLoader(validation, 16))


def main(arguments: Sequence[str] | None = None) -> SaliencyMonitor:
    """Train, and say what was seen."""
    options = parse(__doc__, "video", arguments)
    monitor = SaliencyMonitor(class_names=list(DIRECTIONS))
    train([monitor], options)
    say_what_was_seen(monitor, options.output)
    return monitor


if __name__ == "__main__":
    main()
