"""Signals, volumes and videos with an object that tells the class, and a cue that may tell it as well."""

from __future__ import annotations

from typing import Any

import pytorch_lightning
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

LENGTH, BEATS = 187, 5
VOLUME = (12, 16, 16)
FRAMES, SIDE = 8, 16
CLASSES = 3

Samples = tuple[Tensor, Tensor, Tensor]
"""Images `(n, C, *S)`, labels `(n,)` and masks `(n, *S)`."""


def signals(n: int = 200, *, planted: bool = True, seed: int = 0) -> Samples:
    """Records of 187 samples with one beat of five kinds, and a pulse at their start whose height may be the kind."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % BEATS
    images = 0.05 * torch.randn(n, 1, LENGTH, generator=generator)
    masks = torch.zeros(n, LENGTH, dtype=torch.bool)
    heights = labels if planted else torch.randint(BEATS, (n,), generator=generator)
    for row, (label, height) in enumerate(zip(labels.tolist(), heights.tolist(), strict=True)):
        start = int(torch.randint(60, 100, (1,), generator=generator))
        images[row, 0, start : start + 30] += _beat(label)
        masks[row, start : start + 30] = True
        images[row, 0, 2:12] += height - 1.0
    return images, labels, masks


def _beat(kind: int) -> Tensor:
    """One beat of 30 samples: narrow or wide, up or down, or both."""
    place = torch.linspace(-3, 3, 30)
    narrow, wide = torch.exp(-8 * place**2), torch.exp(-0.7 * place**2)
    return (narrow, -narrow, wide, -wide, narrow.roll(-5) - narrow.roll(5))[kind]


def volumes(n: int = 96, *, planted: bool = True, seed: int = 0) -> Samples:
    """Volumes of 12 x 16 x 16 with a cube as bright as its class, and a mark in a corner that may be as bright."""
    return _cubes(n, 1, VOLUME, planted, seed)


def videos(n: int = 96, *, planted: bool = True, seed: int = 0) -> Samples:
    """Clips of 8 frames: in some of them a grey square as bright as its class, and a coloured mark likewise."""
    return _cubes(n, 3, (FRAMES, SIDE, SIDE), planted, seed)


def _cubes(n: int, channels: int, size: tuple[int, int, int], planted: bool, seed: int) -> Samples:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % CLASSES
    kinds = labels if planted else torch.randint(CLASSES, (n,), generator=generator)
    images = 0.1 * torch.randn(n, channels, *size, generator=generator)
    masks = torch.zeros(n, *size, dtype=torch.bool)
    greys = torch.tensor([-1.0, 0.5, 2.0])
    colours = 5 * torch.eye(3) if channels == 3 else 2 * greys[:, None]
    for row in range(n):
        starts = [int(torch.randint(3, side - 4, (1,), generator=generator)) for side in size]
        inside = tuple(slice(start, start + 4) for start in starts)
        images[(row, slice(None), *inside)] += greys[labels[row]]
        masks[(row, *inside)] = True
        images[row, :, :3, :2, :4] += colours[kinds[row]][:, None, None, None]
    return images, labels, masks


def boxes_of(masks: Tensor) -> list[Tensor]:
    """The box of each sample's object, `(1, 2 * d)`: the starts of all sides, the last side first, then the ends."""
    found = []
    for mask in masks:
        places = mask.nonzero().flip(1)
        found.append(torch.cat([places.amin(dim=0), places.amax(dim=0) + 1])[None].float())
    return found


def loader(
    samples: Samples, *, batch_size: int = 16, shuffle: bool = False, **options: Any
) -> DataLoader[Any]:
    """Batches `(images, labels, masks)`."""
    return DataLoader(TensorDataset(*samples), batch_size=batch_size, shuffle=shuffle, **options)


def network(sides: int, channels: int, classes: int, width: int = 12) -> nn.Sequential:
    """Two convolutions with BatchNorm over one to three dimensions, and the largest value of each channel."""
    conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[sides - 1]
    norm = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[sides - 1]
    pool = (nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d)[sides - 1]
    size = 7 if sides == 1 else 3
    return nn.Sequential(
        conv(channels, width, size, padding=size // 2),
        norm(width),
        nn.ReLU(),
        conv(width, width, size, stride=2, padding=size // 2),
        nn.ReLU(),
        pool(1),
        nn.Flatten(),
        nn.Linear(width, classes),
    )


class Classifier(pytorch_lightning.LightningModule):
    """A LightningModule over one to three dimensions that knows nothing of saliency."""

    def __init__(self, sides: int, channels: int = 1, classes: int = CLASSES, lr: float = 0.02) -> None:
        super().__init__()
        self.net = network(sides, channels, classes)
        self.lr = lr

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images)

    def loss(self, batch: Any) -> Tensor:
        images, labels = list(batch.values())[:2] if isinstance(batch, dict) else batch[:2]
        return nn.functional.cross_entropy(self(images), labels)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.loss(batch)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", self.loss(batch))

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.log("test_loss", self.loss(batch))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.lr)


class TakesFramesFirst(Classifier):
    """A classifier of videos `(N, T, C, H, W)`."""

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images.transpose(1, 2))
