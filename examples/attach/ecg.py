"""A network on ECG beats in a plain LightningModule, watched without a line of it changed.

Batches are dicts of `signal` (N, 1, 187), `label` and `mask`; the picture is the curve, with the saliency under it.

    python examples/attach/ecg.py
"""

import argparse
from collections.abc import Sequence
from itertools import pairwise

import torch
from ordinary import parse, say_what_was_seen, trainer_options
from pytorch_lightning import Callback, LightningModule, Trainer, seed_everything
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

from lightning_gcam import SaliencyMonitor

BEATS = ["normal", "early", "wide", "inverted", "double"]
LENGTH = 187


def draw_beats(size: int, seed: int) -> list[dict[str, Tensor]]:
    """Noise with one beat at a random place, whose form is its class; the mask is where the beat is."""
    random = torch.Generator().manual_seed(seed)
    time, samples = torch.arange(LENGTH), []
    for number in range(size):
        label, centre = number % 5, int(torch.randint(40, LENGTH - 40, (), generator=random))
        width = {2: 9.0}.get(label, 3.0)
        beat = torch.exp(-(((time - centre) / width) ** 2)) * (-1 if label == 3 else 1)
        if label in (1, 4):  # an earlier wave, or a second beat
            beat += (0.4 if label == 1 else 1.0) * torch.exp(-(((time - centre + 14) / 3) ** 2))
        noise = 0.1 * torch.randn(LENGTH, generator=random)
        mask = beat.abs() > 0.05
        samples.append({"signal": (noise + beat)[None], "label": torch.tensor(label), "mask": mask})
    return samples


class BeatClassifier(LightningModule):
    """Convolutions over time; nothing here is about saliency."""

    def __init__(self) -> None:
        super().__init__()
        widths = [1, 16, 32, 32]
        blocks = [
            nn.Sequential(
                nn.Conv1d(here, there, 7, padding=3), nn.BatchNorm1d(there), nn.ReLU(), nn.MaxPool1d(2)
            )
            for here, there in pairwise(widths)
        ]
        self.features = nn.Sequential(*blocks)
        self.head = nn.Linear(widths[-1], len(BEATS))

    def forward(self, signals: Tensor) -> Tensor:
        return self.head(self.features(signals).amax(dim=2))

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        return cross_entropy(self(batch["signal"]), batch["label"])

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self.log("val_acc", (self(batch["signal"]).argmax(dim=1) == batch["label"]).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=5e-3)


def train(callbacks: list[Callback], options: argparse.Namespace) -> None:
    """An ordinary training."""
    seed_everything(0, verbose=False)
    trainer = Trainer(callbacks=callbacks, **trainer_options(options))
    training, validation = (draw_beats(options.train_size // part, seed) for part, seed in ((1, 0), (4, 1)))
    trainer.fit(BeatClassifier(), DataLoader(training, 16, shuffle=True), DataLoader(validation, 16))


def main(arguments: Sequence[str] | None = None) -> SaliencyMonitor:
    """Train, and say what was seen."""
    options = parse(__doc__, "ecg", arguments)
    monitor = SaliencyMonitor(class_names=BEATS)
    train([monitor], options)
    say_what_was_seen(monitor, options.output)
    return monitor


if __name__ == "__main__":
    main()
