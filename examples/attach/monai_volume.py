"""MONAI's DenseNet on volumes in a plain LightningModule, watched without a line of it changed.

Batches are MONAI's dicts of `image` (N, 1, D, H, W), `label` and `mask`; the picture is slices in three planes.

    pip install monai
    python examples/attach/monai_volume.py
"""

import argparse
from collections.abc import Sequence

import torch
from monai.data import DataLoader, Dataset
from monai.networks.nets import DenseNet
from ordinary import parse, say_what_was_seen, trainer_options
from pytorch_lightning import Callback, LightningModule, Trainer, seed_everything
from torch import Tensor
from torch.nn.functional import cross_entropy

from lightning_gcam import SaliencyMonitor

FINDINGS = ["dense nodule", "hollow nodule"]
SIDE, RADIUS = 32, 6


def draw_volumes(size: int, seed: int) -> list[dict[str, Tensor]]:
    """Noise with one ball at a random place, dense or hollow; the mask is where it is."""
    random = torch.Generator().manual_seed(seed)
    grid = torch.stack(torch.meshgrid(*[torch.arange(SIDE)] * 3, indexing="ij"))
    samples = []
    for number in range(size):
        centre = torch.randint(RADIUS, SIDE - RADIUS, (3, 1, 1, 1), generator=random)
        distance = (grid - centre).float().norm(dim=0)
        ball = (distance < RADIUS) & (distance > RADIUS / 2 * (number % 2))
        volume = 0.2 * torch.randn(SIDE, SIDE, SIDE, generator=random) + ball
        samples.append({"image": volume[None], "label": torch.tensor(number % 2), "mask": distance < RADIUS})
    return samples


class NoduleClassifier(LightningModule):
    """A small DenseNet of MONAI; nothing here is about saliency."""

    def __init__(self) -> None:
        super().__init__()
        sizes = {"init_features": 16, "growth_rate": 8, "block_config": (2, 2, 2)}
        self.network = DenseNet(spatial_dims=3, in_channels=1, out_channels=len(FINDINGS), **sizes)

    def forward(self, volumes: Tensor) -> Tensor:
        return self.network(volumes)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        return cross_entropy(self(batch["image"]), batch["label"])

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self.log("val_acc", (self(batch["image"]).argmax(dim=1) == batch["label"]).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=2e-3)


def train(callbacks: list[Callback], options: argparse.Namespace) -> None:
    """An ordinary training."""
    seed_everything(0, verbose=False)
    trainer = Trainer(callbacks=callbacks, **trainer_options(options))
    training, validation = (
        Dataset(draw_volumes(options.train_size // part, seed)) for part, seed in ((1, 0), (4, 1))
    )
    loaders = DataLoader(training, batch_size=16, shuffle=True), DataLoader(validation, batch_size=16)
    trainer.fit(NoduleClassifier(), *loaders)


def main(arguments: Sequence[str] | None = None) -> SaliencyMonitor:
    """Train, and say what was seen."""
    options = parse(__doc__, "monai_volume", arguments)
    monitor = SaliencyMonitor(class_names=FINDINGS)
    train([monitor], options)
    say_what_was_seen(monitor, options.output)
    return monitor


if __name__ == "__main__":
    main()
