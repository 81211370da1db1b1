"""Hugging Face's `ViTForImageClassification` in a plain LightningModule, watched without a line of it changed.

Batches are dicts with `pixel_values` and `labels`, and the model returns an `ImageClassifierOutput`. Behind the last
block only the class token reaches the head, so "the last layer" would draw a blank map: an earlier norm is found.

    pip install transformers
    python examples/attach/hugging_face_vit.py
"""

import argparse
from collections.abc import Sequence

import torch
from ordinary import parse, say_what_was_seen, trainer_options
from pytorch_lightning import Callback, LightningModule, Trainer, seed_everything
from textured_fields import CANVAS, MATERIALS, draw_scenes
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import ViTConfig, ViTForImageClassification
from transformers.modeling_outputs import ImageClassifierOutput

from lightning_gcam import SaliencyMonitor

Batch = dict[str, Tensor]


class FieldTransformer(LightningModule):
    """A small ViT from its config, not pretrained; nothing here is about saliency."""

    def __init__(self) -> None:
        super().__init__()
        config = ViTConfig(
            image_size=CANVAS, patch_size=8, hidden_size=96, intermediate_size=192, num_hidden_layers=2,
            num_attention_heads=4, num_labels=len(MATERIALS),
        )  # fmt: skip
        self.model = ViTForImageClassification(config)

    def forward(self, pixel_values: Tensor, labels: Tensor | None = None) -> ImageClassifierOutput:
        return self.model(pixel_values, labels=labels)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return self(batch["pixel_values"], batch["labels"]).loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        output = self(batch["pixel_values"], batch["labels"])
        self.log("val_acc", (output.logits.argmax(dim=1) == batch["labels"]).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


def batches(size: int, *, validation: bool = False) -> DataLoader:
    """Batches `{pixel_values, labels, mask}`, the pixels in [-1, 1] as ViT's image processor gives them."""
    scenes = draw_scenes(size, seed=int(validation), validation=validation)
    rows = zip(2 * scenes.images - 1, scenes.labels, scenes.regions > 0, strict=True)
    dataset = [{"pixel_values": image, "labels": label, "mask": mask} for image, label, mask in rows]
    return DataLoader(dataset, batch_size=16, shuffle=not validation)


def train(callbacks: list[Callback], options: argparse.Namespace) -> None:
    """An ordinary training."""
    seed_everything(0, verbose=False)
    trainer = Trainer(callbacks=callbacks, **trainer_options(options))
    trainer.fit(
        FieldTransformer(), batches(options.train_size), batches(options.train_size // 4, validation=True)
    )


def main(arguments: Sequence[str] | None = None) -> SaliencyMonitor:
    """Train, and say what was seen."""
    options = parse(__doc__, "hugging_face_vit", arguments, epochs=5)
    monitor = SaliencyMonitor(class_names=MATERIALS, normalize=(0.5, 0.5))
    train([monitor], options)
    say_what_was_seen(monitor, options.output)
    return monitor


if __name__ == "__main__":
    main()
