"""The trainings of `overhead.py`: two networks on photographs, and a clock on every hook of their callbacks."""

import argparse
import hashlib
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.common.measure import Took, clock_once
from benchmarks.cost import autotimm_callback as autotimm
from benchmarks.cost.by_hand import GradCamByHand
from lightning_gcam import SaliencyBatch, SaliencyMonitor
from lightning_gcam.shortcuts import resolve_checks

CLASSES = 10
LOOK_HOOKS = {
    "ours": "on_validation_epoch_end",
    "checked": "on_validation_epoch_end",
    "default": "on_validation_epoch_end",
    "by_hand": "on_validation_end",
    "autotimm": autotimm.HOOK,
}
LAYER = "layer4"  # of resnet18

# ---------------------------------------------------------------------------------------------- samples


@cache
def photographs(n: int, size: int, seed: int = 0) -> SaliencyBatch:
    """Crops of scikit-learn's two sample photographs, normalized; labels in turn; an ellipse for an object.

    Photographs, because noise cannot be compressed: every picture of it would be far dearer to encode than a real one.
    """
    from sklearn.datasets import load_sample_images

    sources = [torch.from_numpy(each.copy()).permute(2, 0, 1) / 255 for each in load_sample_images().images]
    draw_number = torch.Generator().manual_seed(seed)
    crops = [_crop(sources[index % 2], size, draw_number) for index in range(n)]
    masks = torch.stack([_ellipse(size, draw_number) for _ in range(n)])
    return SaliencyBatch((torch.stack(crops) - 0.45) / 0.23, torch.arange(n) % CLASSES, masks)


def _crop(photograph: Tensor, size: int, generator: torch.Generator) -> Tensor:
    side = int(torch.randint(200, 420, (), generator=generator))
    top, left = (int(torch.randint(edge - side, (), generator=generator)) for edge in photograph.shape[-2:])
    piece = photograph[None, :, top : top + side, left : left + side]
    return nn.functional.interpolate(piece, (size, size), mode="bilinear", antialias=True)[0]


def _ellipse(size: int, generator: torch.Generator) -> Tensor:
    (y, x), (height, width) = (
        torch.rand(2, 2, generator=generator).mul(0.3).add(torch.tensor([[0.35], [0.1]]))
    )
    place = (torch.arange(size) + 0.5) / size
    return ((place[:, None] - y) / height) ** 2 + ((place - x) / width) ** 2 < 1


# --------------------------------------------------------------------------------------------- training


class Network(NamedTuple):
    """What is trained: a network, its images, and the layer that the callback written by hand is told.

    Args:
        label: as the table names it.
        build: makes it.
        layer: where Grad-CAM looks.
        size: height and width of the images; 0 for what the command line says.
        batch: images in a training batch.
        times: how many times as many batches an epoch as the command line says.
    """

    label: str
    build: Callable[[], nn.Module]
    layer: str
    size: int
    batch: int
    times: int


def small_network() -> nn.Module:
    """Four convolutions and a pooled head."""
    widths = [3, 16, 32, 64, 64]
    blocks = [
        nn.Sequential(nn.Conv2d(a, b, 3, stride=2, padding=1), nn.BatchNorm2d(b), nn.ReLU())
        for a, b in pairwise(widths)
    ]
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, CLASSES))


def resnet18() -> nn.Module:
    """Torchvision's, with random weights."""
    from torchvision.models import resnet18

    return resnet18(weights=None, num_classes=CLASSES)


NETWORKS = {
    "small": Network("small CNN, 64 px", small_network, "network.3", 64, 32, 10),
    "resnet18": Network("resnet18", resnet18, f"network.{LAYER}", 0, 8, 1),
}


class Classifier(pl.LightningModule):
    """A LightningModule that knows nothing of saliency."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", nn.functional.cross_entropy(self(batch[0]), batch[1]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01, momentum=0.9)


class Run(NamedTuple):
    """One training.

    Args:
        looks: what the hook that looks took, once a validation.
        rest: seconds in all other hooks of the callback together: finding the layer, collecting samples.
        weights: a digest of the weights at its end.
    """

    looks: list[Took]
    rest: float
    weights: str


def train(network: Network, callback: str, options: argparse.Namespace, root: Path, runs: list[Run]) -> None:
    """Train once, with a real TensorBoard logger, and note what the callback took."""
    pl.seed_everything(0, verbose=False)
    size, batches = network.size or options.size, network.times * options.batches
    loaders = [
        loader(batches * network.batch, size, network.batch, seed=1),
        loader(2 * options.samples, size, options.samples, seed=2),
    ]
    callbacks = {
        "none": list,
        "ours": lambda: [SaliencyMonitor(num_samples=options.samples, checks=[])],
        "checked": lambda: [
            SaliencyMonitor(num_samples=options.samples, checks=resolve_checks(None), max_overhead=None)
        ],
        "default": lambda: [SaliencyMonitor(num_samples=options.samples)],
        "by_hand": lambda: [GradCamByHand(network.layer, options.samples)],
        "autotimm": lambda: [
            autotimm.interpretation(
                photographs(2 * options.samples, size, seed=2).images[: options.samples], network.layer
            )
        ],
    }[callback]()
    took = {name: calls for each in callbacks for name, calls in clock_hooks(each).items()}
    module = Classifier(network.build())
    trainer = pl.Trainer(
        max_epochs=options.epochs,
        accelerator="cpu",
        logger=TensorBoardLogger(root),
        callbacks=callbacks,
        log_every_n_steps=1,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, *loaders)
    hook = took.get(LOOK_HOOKS.get(callback, ""), [])
    looks = hook[-options.epochs :]  # the end of the sanity check is no look
    rest = sum(call.wall for calls in took.values() for call in calls) - sum(look.wall for look in looks)
    runs.append(Run(looks, rest, digest(module)))


def loader(n: int, size: int, batch: int, seed: int) -> DataLoader[Any]:
    """Samples in memory: reading them costs nothing, also not for a callback that reads them again."""
    samples = photographs(n, size, seed)
    data = TensorDataset(samples.images, samples.labels, samples.masks)
    return DataLoader(data, batch_size=batch, shuffle=seed == 1)


def clock_hooks(callback: pl.Callback) -> dict[str, list[Took]]:
    """Time every hook that a callback has, from now on: what each of its calls took."""
    hooks = [name for name in vars(pl.Callback) if name.startswith(("on_", "setup"))]
    own = [name for name in hooks if getattr(type(callback), name) is not getattr(pl.Callback, name)]
    took: dict[str, list[Took]] = {name: [] for name in own}
    for name in own:
        setattr(callback, name, _clocked(getattr(callback, name), took[name]))
    return took


def _clocked(hook: Callable[..., None], took: list[Took]) -> Callable[..., None]:
    return lambda *args, **kwargs: took.append(clock_once(lambda: hook(*args, **kwargs)))


def digest(module: nn.Module) -> str:
    """The same for the same weights and buffers, to the last bit."""
    found = hashlib.sha256()
    for value in module.state_dict().values():
        found.update(value.numpy().tobytes())
    return found.hexdigest()
