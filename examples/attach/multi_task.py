"""A network with two heads in a plain LightningModule, watched without a line of it changed.

Batches are dicts, and the forward returns a dict: the material of the field (three classes) and its brightness (a
number). Each head has its own maps and scores, `saliency/material/...` and `saliency/brightness/...`; labels go to the
head of their name.

    python examples/attach/multi_task.py
"""

import argparse
from collections.abc import Sequence
from itertools import pairwise

import torch
from ordinary import parse, say_what_was_seen, trainer_options
from pytorch_lightning import Callback, LightningModule, Trainer, seed_everything
from textured_fields import MATERIALS, draw_scenes
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss
from torch.utils.data import DataLoader

from lightning_gcam import SaliencyMonitor

Batch = dict[str, Tensor]


class FieldReader(LightningModule):
    """One body and two heads; nothing here is about saliency."""

    def __init__(self) -> None:
        super().__init__()
        widths = [3, 24, 32, 48]
        blocks = [
            nn.Sequential(nn.Conv2d(here, there, 3, 2, padding=1), nn.BatchNorm2d(there), nn.ReLU())
            for here, there in pairwise(widths)
        ]
        self.body = nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.material = nn.Linear(widths[-1], len(MATERIALS))
        self.brightness = nn.Linear(widths[-1], 1)

    def forward(self, images: Tensor) -> Batch:
        features = self.body(images)
        return {"material": self.material(features), "brightness": self.brightness(features)}

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        found = self(batch["image"])
        loss = cross_entropy(found["material"], batch["material"])
        return loss + 10 * mse_loss(found["brightness"][:, 0], batch["brightness"])

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        guesses = self(batch["image"])["material"].argmax(dim=1)
        self.log("val_acc", (guesses == batch["material"]).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=3e-3)


def batches(size: int, *, validation: bool = False) -> DataLoader:
    """Batches `{image, material, brightness, mask}`; the brightness is that of the field."""
    scenes = draw_scenes(size, seed=int(validation), validation=validation)
    masks = scenes.regions > 0
    brightness = (scenes.images.mean(dim=1) * masks).sum(dim=(1, 2)) / masks.sum(dim=(1, 2))
    columns = {"image": scenes.images, "material": scenes.labels, "brightness": brightness, "mask": masks}
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return DataLoader(rows, batch_size=16, shuffle=not validation)


def train(callbacks: list[Callback], options: argparse.Namespace) -> None:
    """An ordinary training."""
    seed_everything(0, verbose=False)
    trainer = Trainer(callbacks=callbacks, **trainer_options(options))
    trainer.fit(FieldReader(), batches(options.train_size), batches(options.train_size // 4, validation=True))


def main(arguments: Sequence[str] | None = None) -> SaliencyMonitor:
    """Train, and say what was seen."""
    options = parse(__doc__, "multi_task", arguments, epochs=5)
    monitor = SaliencyMonitor(class_names=MATERIALS)
    train([monitor], options)
    say_what_was_seen(monitor, options.output)
    return monitor


if __name__ == "__main__":
    main()
