"""The exchange checks on trainings with a planted cue, of batches that are `(images, labels)`: no mask, no box.

    python -m benchmarks.shortcuts.exchanges

prints the table of docs/shortcuts.md: a training a row, its last look.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence

import torch
from pytorch_lightning import Trainer, seed_everything
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.common.cues import Plan, Scenes, draw
from benchmarks.shortcuts.runs import Classifier, Undrawn, accuracy, split_scans
from lightning_gcam.shortcuts import available_properties

CUES = ("none", "corner", "frame", "texture", "tint", "mark", "ink")


class Labelled(Classifier):
    """The classifier on batches `(images, labels)`."""

    def training_step(self, batch: Sequence[torch.Tensor], batch_idx: int) -> torch.Tensor:
        return super().training_step({"image": batch[0], "label": batch[1]}, batch_idx)

    def validation_step(self, batch: Sequence[torch.Tensor], batch_idx: int) -> None:
        super().validation_step({"image": batch[0], "label": batch[1]}, batch_idx)


def loader(scenes: Scenes, shuffle: bool = False) -> DataLoader:
    """Images and labels, and nothing else."""
    return DataLoader(TensorDataset(scenes.images, scenes.labels), batch_size=64, shuffle=shuffle)


def train(plan: Plan, seed: int, options: argparse.Namespace) -> dict[str, float]:
    """Train once; the scores of the last look, with the accuracy on images in which the cue tells nothing."""
    train_scans, validation_scans = split_scans(seed)
    size = len(validation_scans.labels)
    scenes = draw(train_scans, options.train_size, plan, seed=3 * seed + 1)
    validation = draw(validation_scans, size, plan, 3 * seed + 2, validation=True)
    honest = draw(validation_scans, size, plan._replace(strength=0.0), 3 * seed + 2, validation=True)
    seed_everything(seed, verbose=False)
    properties = list(available_properties())
    monitor = Undrawn(
        scores=[], checks=properties, num_samples=options.samples, every_n_epochs=options.epochs
    )
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            accelerator="cpu",
            deterministic=True,
            max_epochs=options.epochs,
            callbacks=[monitor],
            logger=False,
            default_root_dir=folder,
            num_sanity_val_steps=0,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=False,
        )
        module = Labelled()
        trainer.fit(module, loader(scenes, shuffle=True), loader(validation))
    module.eval()
    with torch.no_grad():
        found = {"honest": float(accuracy(module(honest.images), honest.labels))}
    return {**found, "validation": float(trainer.callback_metrics["val_acc"]), **monitor.history[-1]}


def line(cue: str, strength: float, found: dict[str, float]) -> str:
    """A row of the table: for each property the accuracy that is kept, and the rate that follows."""
    pairs = [
        f"{found[f'{name}_swap_accuracy']:.2f}, {found[f'{name}_follow_rate']:.2f}"
        for name in available_properties()
    ]
    accuracies = f"{found['validation']:.2f} / {found['honest']:.2f}"
    return f"| {cue} | {strength:.2f} | {accuracies} | {' | '.join(pairs)} |"


def main(arguments: Sequence[str] | None = None) -> None:
    """Train with each cue, telling and not, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--train-size", type=int, default=1437)
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cues", nargs="+", default=list(CUES), choices=CUES)
    parser.add_argument(
        "--strengths", nargs="+", type=float, default=[0.95, 0.0], help="0: the cue tells nothing"
    )
    options = parser.parse_args(arguments)
    print(f"| cue | strength | validation / honest | {' | '.join(available_properties())} |")
    print(f"|---|---|---|{'---|' * len(available_properties())}")
    for cue in options.cues:
        for strength in options.strengths if cue != "none" else (0.0,):
            print(line(cue, strength, train(Plan(cue, strength), options.seed, options)), flush=True)


if __name__ == "__main__":
    main()
