"""LightningModules with the traits that explainers usually disturb. None knows of saliency."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytorch_lightning
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

CLASSES = 3


def _head(channels: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, CLASSES)]


class Plain(pytorch_lightning.LightningModule):
    """BatchNorm, dropout and an in-place ReLU; random numbers of all three kinds are used in training."""

    size: tuple[int, ...] = (8, 8)
    """Of the images that it takes."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(inplace=True),
            nn.Dropout2d(0.2),
            nn.Conv2d(4, 6, 3, stride=2, padding=1),
            nn.ReLU(inplace=True),
            *_head(6),
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        images, labels = batch[:2]
        noise = 1 + 0.01 * (random.random() + float(np.random.rand()))
        loss = nn.functional.cross_entropy(self(images * noise), labels)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", nn.functional.cross_entropy(self(batch[0]), batch[1]))

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.9)]


class FrozenBatchNorm(Plain):
    """A BatchNorm that stays in eval mode while the rest trains."""

    def on_train_epoch_start(self) -> None:
        self.net[1].eval()
        for parameter in self.net[1].parameters():
            parameter.requires_grad = False


class AlwaysDropout(Plain):
    """Monte-Carlo dropout: it draws random numbers in eval mode too."""

    def forward(self, images: Tensor) -> Tensor:
        return self.net(nn.functional.dropout(images, 0.1, training=True))


class Spectral(Plain):
    """Spectral norm, of both kinds: power iteration on buffers in train mode."""

    def __init__(self) -> None:
        super().__init__()
        parametrizations.spectral_norm(self.net[0])
        nn.utils.spectral_norm(self.net[4])


class Counting(Plain):
    """A buffer that every forward updates, in eval mode as well."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        self.mean = self.mean * 0.9 + images.mean() * 0.1
        return self.net(images) * (1 + 0.001 * self.mean)


class Transformer(Plain):
    """Patches, a class token and one encoder layer with dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, 8, 4, stride=4)
        self.token = nn.Parameter(torch.zeros(1, 1, 8))
        self.block = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True)
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, CLASSES)
        del self.net

    def forward(self, images: Tensor) -> Tensor:
        patches = self.patches(images).flatten(2).transpose(1, 2)
        tokens = self.norm(torch.cat([self.token.expand(len(images), -1, -1), patches], dim=1))
        return self.head(self.block(tokens)[:, 0])


class LogsInForward(Plain):
    """Logs from its forward, in training and in validation."""

    def forward(self, images: Tensor) -> Tensor:
        logits = super().forward(images)
        self.log("mean_logit", logits.mean())
        return logits


class OwnTrain(Plain):
    """Overrides `train()`: a side effect for whoever calls it."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("switched", torch.zeros(()))

    def train(self, mode: bool = True) -> OwnTrain:
        super().train(mode)
        self.switched += 1
        self.net[3].train(False)
        return self


class Signals(Plain):
    """The same over one dimension."""

    size: tuple[int, ...] = (24,)

    def __init__(self) -> None:
        super().__init__()
        convolution, norm, dropout, pool = (
            getattr(nn, f"{name}{len(self.size)}d")
            for name in ("Conv", "BatchNorm", "Dropout", "AdaptiveAvgPool")
        )
        self.net = nn.Sequential(
            convolution(1, 4, 3, padding=1),
            norm(4),
            nn.ReLU(inplace=True),
            dropout(0.2),
            convolution(4, 6, 3, stride=2, padding=1),
            nn.ReLU(inplace=True),
            pool(1),
            nn.Flatten(),
            nn.Linear(6, CLASSES),
        )


class Volumes(Signals):
    """The same over three dimensions."""

    size = (6, 8, 8)


MODULES = [Plain, FrozenBatchNorm, AlwaysDropout, Spectral, Counting, Transformer, LogsInForward, OwnTrain]


class TwoHeads(Plain):
    """Gives the class and a number of each image, as a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.value = nn.Linear(6, 1)

    def forward(self, images: Tensor) -> Any:
        features = self.net[:-1](images)
        return {"value": self.value(features), "kind": self.net[-1](features)}

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        found = self(batch[0] * (1 + 0.01 * random.random()))
        loss = nn.functional.cross_entropy(found["kind"], batch[1]) + found["value"].square().mean()
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", nn.functional.cross_entropy(self(batch[0])["kind"], batch[1]), sync_dist=True)


class TwoOptimizers(Plain):
    """Manual optimization with two optimizers."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> None:
        for optimizer in self.optimizers():
            loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
            self.log("train_loss", loss)

    def configure_optimizers(self) -> Any:
        parameters = list(self.parameters())
        return torch.optim.SGD(parameters[:2], lr=0.05, momentum=0.9), torch.optim.Adam(
            parameters[2:], lr=0.01
        )


class WithBackbone(Plain):
    """What `BackboneFinetuning` asks for."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.head = self.net[:6], self.net[6:]
        del self.net

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.backbone(images))

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD([p for p in self.parameters() if p.requires_grad], lr=0.05)
