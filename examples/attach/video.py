"""torchvision's R(2+1)D on short clips in a plain LightningModule, watched without a line of it changed.

Batches are `(clips, labels, masks)`, clips `(N, 3, T, H, W)`; the picture is a strip of frames.

    python examples/attach/video.py
"""

import argparse
from collections.abc import Sequence

import torch
from ordinary import parse, say_what_was_seen, trainer_options
from pytorch_lightning import Callback, LightningModule, Trainer, seed_everything
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset
from torchvision.models.video import r2plus1d_18

from lightning_gcam import SaliencyMonitor

DIRECTIONS = {"left": (0, -2), "right": (0, 2), "up": (-2, 0), "down": (2, 0)}
FRAMES, SIDE, SQUARE = 8, 32, 8


def draw_clips(size: int, seed: int) -> TensorDataset:
    """Noise with a square that moves in one of four directions, its class; the mask is where the square is."""
    random = torch.Generator().manual_seed(seed)
    clips = 0.1 * torch.randn(size, 3, FRAMES, SIDE, SIDE, generator=random)
    masks = torch.zeros(size, FRAMES, SIDE, SIDE, dtype=torch.bool)
    labels = torch.arange(size) % len(DIRECTIONS)
    for number, label in enumerate(labels.tolist()):
        down, right = list(DIRECTIONS.values())[label]
        lowest = [max(0, -step * (FRAMES - 1)) for step in (down, right)]
        highest = [SIDE - SQUARE - max(0, step * (FRAMES - 1)) for step in (down, right)]
        row, column = (
            int(torch.randint(low, high + 1, (), generator=random))
            for low, high in zip(lowest, highest, strict=True)
        )
        for frame in range(FRAMES):
            top, left = row + frame * down, column + frame * right
            masks[number, frame, top : top + SQUARE, left : left + SQUARE] = True
    clips += masks[:, None]
    return TensorDataset(clips, labels, masks)


class ClipClassifier(LightningModule):
    """One of torchvision's video classifiers; nothing here is about saliency."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = r2plus1d_18(num_classes=len(DIRECTIONS))

    def forward(self, clips: Tensor) -> Tensor:
        return self.backbone(clips)

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
