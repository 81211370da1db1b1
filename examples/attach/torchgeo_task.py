"""torchgeo's `ClassificationTask` and its data module, watched without a line of them changed.

Batches are dicts with `image`, `label` and `mask`; they are normalized and flipped on the device, behind the
dataloader; the Trainer is `lightning.pytorch`'s. The monitor sees what the network sees.

    pip install torchgeo
    python examples/attach/torchgeo_task.py
"""

import argparse
from collections.abc import Sequence
from typing import Any

import kornia.augmentation as K
from lightning.pytorch import Callback, Trainer, seed_everything
from ordinary import parse, say_what_was_seen, trainer_options
from textured_fields import MATERIALS, draw_scenes
from torch import Tensor
from torchgeo.datamodules import NonGeoDataModule
from torchgeo.datasets import NonGeoDataset
from torchgeo.trainers import ClassificationTask

from lightning_gcam import SaliencyMonitor


class Fields(NonGeoDataset):
    """Aerial pictures of one field each, in [0, 255] as torchgeo's datasets give them."""

    def __init__(self, split: str, train_size: int) -> None:
        validation = split != "train"
        size = train_size // 4 if validation else train_size
        self.scenes = draw_scenes(size, seed=int(validation), validation=validation)

    def __len__(self) -> int:
        return len(self.scenes.labels)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        mask = (self.scenes.regions[index] > 0).long()
        return {"image": 255 * self.scenes.images[index], "label": self.scenes.labels[index], "mask": mask}


class FieldsDataModule(NonGeoDataModule):
    """Normalizes by torchgeo's own mean and std and enlarges on the device; in training it flips as well."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(Fields, batch_size=16, num_workers=0, **kwargs)
        always = [K.Normalize(mean=self.mean, std=self.std), K.Resize((128, 128))]
        flips = [K.RandomHorizontalFlip(), K.RandomVerticalFlip()]
        self.train_aug = K.AugmentationSequential(*always, *flips, data_keys=None, keepdim=True)
        self.aug = K.AugmentationSequential(*always, data_keys=None, keepdim=True)


def train(callbacks: list[Callback], options: argparse.Namespace) -> None:
    """An ordinary training."""
    seed_everything(0, verbose=False)
    task = ClassificationTask("test_resnet", task="multiclass", num_classes=len(MATERIALS), lr=2e-3)
    trainer = Trainer(callbacks=callbacks, **trainer_options(options))
    trainer.fit(task, datamodule=FieldsDataModule(train_size=options.train_size))


def main(arguments: Sequence[str] | None = None) -> SaliencyMonitor:
    """Train, and say what was seen."""
    options = parse(__doc__, "torchgeo_task", arguments)
    monitor = SaliencyMonitor(class_names=MATERIALS)
    train([monitor], options)
    say_what_was_seen(monitor, options.output)
    return monitor


if __name__ == "__main__":
    main()
