"""The figures of docs/method.md: how the map is made, when it is Grad-CAM squared, and what it loses.

    python -m benchmarks.methods.method_figures

The networks are those of `comparison.py`; they are taken from runs/ where they are kept there, and trained otherwise.
What the page says in numbers is printed.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import torch
from digits_on_canvas import split_scans
from torch import Tensor

from benchmarks import ROOT
from benchmarks.common.three_digits import LAYERS
from benchmarks.methods.networks import Unit, draw_canvases, targets_of
from benchmarks.methods.runs import Settings, be_quiet, trained_network
from benchmarks.methods.variants import grad_cam_squared
from lightning_gcam import attribute
from lightning_gcam.pipeline.attribution import Attribution
from lightning_gcam.visual import outline, overlay, to_display

METHODS: list[Any] = ["grad_cam", "hires_cam", "guidance_cam", grad_cam_squared]
TITLES = ["image", "Grad-CAM", "guidance map G (HiResCAM)", "guidance = Grad-CAM · G", "Grad-CAM squared"]
FACTOR = 4  # each pixel of a canvas is so many of the figure
SAMPLES = 48


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw the figure and print the numbers."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where networks are kept")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "images" / "method.png")
    parser.add_argument("--epochs", type=int, default=Settings().epochs)
    parser.add_argument("--train-size", type=int, default=Settings().train_size)
    options = parser.parse_args(arguments)
    be_quiet()
    settings = Settings(options.epochs, options.train_size)
    rows = [
        row_of(Unit("multi", "VGG-like", 0), "earlier", settings, options.runs),
        row_of(Unit("multi", "pooled", 0), "last", settings, options.runs),
        row_of(Unit("single", "VGG-like", 0), "last", settings, options.runs),
    ]
    draw(rows, options.output)
    print(difference_to_square(settings, options.runs))
    print(shares_of_the_strongest(settings, options.runs))


def row_of(unit: Unit, layer: str, settings: Settings, runs: Path) -> tuple[str, list[Tensor]]:
    """What one row of the figure is called, and its panels: a digit that all the maps show something of."""
    network = trained_network(unit, settings, runs).network
    targets = targets_of(unit, SAMPLES)
    found = attribute(network, targets.images, targets.classes, methods=METHODS, target_layer=LAYERS[layer])
    shown = torch.stack(list(found.peaks.values())).amin(dim=0) > 0
    right = network(targets.images).argmax(dim=1) == targets.classes
    sample = int((shown & right).nonzero()[0])
    picture = to_display(targets.images[sample : sample + 1])
    maps = [each[sample : sample + 1] for each in found.maps.values()]
    mask = targets.masks[sample : sample + 1]
    panels = [outline(each, mask) for each in [picture, *(overlay(picture, each) for each in maps)]]
    digits = "one of three classes" if unit.labels == "multi" else "three of one class"
    words = f"{unit.head} head,\n{layer} layer,\n{digits}"
    return words, [each[0].permute(1, 2, 0) for each in panels]


def draw(rows: Sequence[tuple[str, list[Tensor]]], path: Path) -> None:
    """A row a network, a column a map."""
    figure, axes = plt.subplots(len(rows), len(TITLES), figsize=(11.5, 2.35 * len(rows)), squeeze=False)
    for line, (words, panels) in zip(axes, rows, strict=True):
        line[0].set_ylabel(words, fontsize=9, rotation=0, ha="right", va="center", labelpad=8)
        for axis, panel in zip(line, panels, strict=True):
            axis.imshow(panel.numpy(), interpolation="nearest")
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
    for axis, title in zip(axes[0], TITLES, strict=True):
        axis.set_title(title, fontsize=9)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def difference_to_square(settings: Settings, runs: Path) -> str:
    """By how much guidance and Grad-CAM squared, both scaled, differ at most, by head, at the last layer."""
    words = []
    for head in ("pooled", "max-pooled", "VGG-like"):
        found, _ = explained(Unit("single", head, 0), settings, runs)
        largest = (found.maps["guidance_cam"] - found.maps["grad_cam_squared"]).abs().amax()
        words.append(f"{head} {float(largest):.0e}")
    return f"largest difference between guidance and Grad-CAM squared, maps in [0, 1], last layer: {', '.join(words)}"


def shares_of_the_strongest(settings: Settings, runs: Path) -> str:
    """Of the saliency on three digits of one class, the share on the one that has the most: 1/3 is even."""
    found, masks = explained(Unit("single", "VGG-like", 0), settings, runs)
    words = []
    for name, maps in found.maps.items():
        on_each = (maps[:, None] * masks).sum(dim=(2, 3))
        shares = on_each.amax(dim=1) / on_each.sum(dim=1)
        words.append(f"{name} {float(shares.nanmean()):.2f}")
    return f"share of the strongest of three digits, VGG-like head, last layer: {', '.join(words)}"


def explained(unit: Unit, settings: Settings, runs: Path) -> tuple[Attribution, Tensor]:
    """The maps of unseen canvases with three digits of one class, at the last layer, and each digit's mask."""
    network = trained_network(unit, settings, runs).network
    drawn = draw_canvases(split_scans(unit.seed)[1], SAMPLES, unit.labels, 3 * unit.seed + 3, validation=True)
    options = {"methods": METHODS, "target_layer": LAYERS["last"]}
    return attribute(network, drawn.images, drawn.classes[:, 0], **options), drawn.masks


if __name__ == "__main__":
    main()
