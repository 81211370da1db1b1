"""The pictures that the guides open with: photographs and their maps, a table, a page in a browser, a chart, a diagram.

    python docs/guide_pictures.py            # all of them, to docs/images
    python docs/guide_pictures.py layers     # this one alone

Photographs and network come from the wheels of `examples/photographs.py`; `evaluation` and `runs` need Chromium.
"""

from __future__ import annotations

import io
import os
import re
import sys
import tempfile
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import torch
from matplotlib import pyplot
from matplotlib.patches import FancyBboxPatch
from PIL import Image, ImageChops
from torch import Tensor

from lightning_gcam import SaliencyBatch, SaliencyEvaluation
from lightning_gcam.callbacks.budget import Interval
from lightning_gcam.cli import main as command
from lightning_gcam.pipeline.record import Stamp
from lightning_gcam.pipeline.run import record_saliency

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "examples"), str(ROOT / "docs")]

import pictures  # noqa: E402
from photographs import MEAN, STD, Photograph, normalized, photographs, pretrained  # noqa: E402

LAYERS = ["blocks.2", "blocks.4", "bn2"]
BLUE, ORANGE, GREY, PALE = "#3b82c4", "#e07b39", "#6b7280", "#eef2f7"


# ------------------------------------------------------------------------------------------------ photographs


def chosen(*names: str) -> list[Photograph]:
    """Photographs by name, in this order."""
    by_name = {each.name: each for each in photographs()}
    return [by_name[name] for name in names]


def batch_of(shown: list[Photograph], **fields: Any) -> SaliencyBatch:
    """The photographs as the network takes them, with their labels, and other fields of a batch."""
    images = normalized(torch.stack([each.image for each in shown]))
    return SaliencyBatch(images, torch.tensor([each.label for each in shown]), **fields)


def stamp_of(shown: list[Photograph]) -> Stamp:
    """Captions with the names of the photographs at their classes, and the number of any other class."""
    names = [f"class {each}" for each in range(1000)]
    for each in shown:
        names[int(each.label or 0)] = each.name
    return Stamp(0, 0, class_names=names, normalize=(MEAN, STD))


def mask_of(boxes: Any) -> Tensor:
    """The pixels in any of the boxes, `(224, 224)` bool."""
    inside = torch.zeros(224, 224, dtype=torch.bool)
    for x1, y1, x2, y2 in boxes:
        inside[y1:y2, x1:x2] = True
    return inside


def draw_batch(target: Path) -> None:
    """A photograph with a mask, one with a box, one with several, one with a region that should not matter."""
    shown = chosen("loafer", "jeep in a desert", "goose", "cannon")
    masks = torch.stack([mask_of(each.boxes) for each in shown])
    masks[0] &= shown[0].image.float().mean(dim=0) < 190
    suspect = torch.zeros(4, 224, 224, dtype=torch.bool)
    suspect[3, :34, 120:] = True
    batch = batch_of(shown, masks=masks, suspect=suspect)
    record_saliency(pretrained(), batch, checks=[], stamp=stamp_of(shown)).figure().save(target)


def draw_layers(target: Path) -> None:
    """One photograph, at three layers by two methods."""
    shown = chosen("jeep in a desert")
    batch = batch_of(shown, masks=torch.stack([mask_of(shown[0].boxes)]))
    look = {"methods": ["guidance_cam", "layer_cam"], "target_layer": LAYERS, "checks": []}
    record_saliency(pretrained(), batch, stamp=stamp_of(shown), **look).figure().save(target)


# ------------------------------------------------------------------------------------- a terminal, a browser


def draw_evaluation(target: Path) -> None:
    """The table of four methods over the photographs, as a terminal shows it."""
    from pytorch_lightning import LightningModule, Trainer
    from rich.console import Console
    from rich.terminal_theme import MONOKAI
    from rich.text import Text
    from torch.utils.data import DataLoader

    from lightning_gcam.evaluation import print_table

    class Classifier(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = pretrained()

        def forward(self, images: Tensor) -> Tensor:
            return self.network(images)

        def test_step(self, batch: Any, batch_idx: int) -> None: ...

    shown = [each for each in photographs() if each.label is not None and each.boxes]
    images = normalized(torch.stack([each.image for each in shown]))
    samples = [
        {"image": image, "label": each.label, "mask": mask_of(each.boxes)}
        for image, each in zip(images, shown, strict=True)
    ]
    evaluation = SaliencyEvaluation(
        methods=["guidance_cam", "grad_cam", "layer_cam", "hires_cam"],
        scores=["energy", "pointing_game", "average_drop"],
        checks=[],
        directory=target.parent / "table",
        resume=False,
    )
    with redirect_stdout(io.StringIO()):
        Trainer(callbacks=[evaluation], logger=False, enable_progress_bar=False).test(
            Classifier(), DataLoader(samples, batch_size=8)
        )
    os.environ |= {"FORCE_COLOR": "1", "COLUMNS": "100"}
    printed = io.StringIO()
    print_table(evaluation.result, printed)
    console = Console(record=True, width=100, file=io.StringIO())
    console.print(Text.from_ansi(printed.getvalue()))
    page = target.with_suffix(".html")
    page.write_text(console.export_html(theme=MONOKAI), encoding="utf-8")
    shot = target.with_name("shot.png")
    pictures.photograph(page, shot)
    cropped(shot).save(target)


def cropped(picture: Path, margin: int = 24) -> Image.Image:
    """The picture without the even ground around what it shows."""
    with Image.open(picture) as opened:
        whole = opened.convert("RGB")
    ground = Image.new("RGB", whole.size, whole.getpixel((whole.width - 1, whole.height - 1)))
    left, top, right, bottom = ImageChops.difference(whole, ground).getbbox() or (0, 0, *whole.size)
    return whole.crop((max(left - margin, 0), max(top - margin, 0), right + margin, bottom + margin))


def draw_runs(target: Path) -> None:
    """The page of the two runs that docs/guides/many_runs.md trains, by its own code."""
    pages = {
        name: (ROOT / "docs" / name).read_text(encoding="utf-8")
        for name in ("start.md", "guides/many_runs.md")
    }
    blocks = {
        name: re.findall(r"^```python\n(.*?)^```", page, flags=re.M | re.S) for name, page in pages.items()
    }
    names: dict[str, Any] = {}
    here = Path.cwd()
    os.chdir(target.parent)
    try:
        exec(next(each for each in blocks["start.md"] if "class Net" in each), names)
        exec(blocks["guides/many_runs.md"][0], names)
        command(["report", "runs/corner", "runs/shuffled", "-o", "comparison.html", "--force"])
        shot = Path("shot.png").resolve()
        pictures.WINDOW = (1280, 1778)
        pictures.photograph(Path("comparison.html"), shot)
    finally:
        os.chdir(here)
    with Image.open(shot) as opened:
        opened.resize((1000, 1000 * opened.height // opened.width), Image.Resampling.LANCZOS).save(target)


# --------------------------------------------------------------------------------------- a chart, a diagram


def draw_budget(target: Path) -> None:
    """What looks cost for several sizes of a training: with all checks, and as `max_overhead` has them."""
    sizes = [200, 500, 1_000, 2_000, 5_000, 10_000]
    every, bounded = [], []
    for n in sizes:
        interval = Interval(3 * n + n // 5, maps=16, checks=22 * 16, step=2, steps=1)
        often = interval.looks_per_check(0.05)
        every.append(100 * (interval.maps + interval.checks) / interval.training)
        bounded.append(100 * (interval.maps + interval.checks / often) / interval.training)
    figure, axes = pyplot.subplots(figsize=(8, 3.6), dpi=130, layout="constrained")
    places = range(len(sizes))
    axes.bar(
        [each - 0.2 for each in places], every, 0.38, color=PALE, edgecolor=GREY, label="checks at every look"
    )
    axes.bar(
        [each + 0.2 for each in places], bounded, 0.38, color=BLUE, label="checks at one look in so many"
    )
    axes.axhline(5, color=ORANGE, linestyle="--", linewidth=1.2)
    axes.text(5.5, 5.6, "max_overhead=0.05", color=ORANGE, ha="right")
    axes.set_xticks(list(places), [f"{n:,}" for n in sizes])
    axes.set_xlabel("training samples (16 samples a look, with masks)")
    axes.set_ylabel("looks, % of the training's forwards")
    axes.set_ylim(0, 60)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(target)
    pyplot.close(figure)


def draw_processes(target: Path) -> None:
    """Two processes that share a look, from left to right."""
    figure, axes = pyplot.subplots(figsize=(9.4, 3.3), dpi=130, layout="constrained")
    columns = [
        ["validates\nits half of the data", "validates\nthe other half"],
        ["16 fixed samples,\nthe same in both"],
        ["explains\nsamples 1 to 8", "explains\nsamples 9 to 16"],
        ["maps, scores, checks:\nthe same record in both"],
        ["writes to the loggers", "writes nothing"],
    ]
    for place, column in enumerate(columns):
        for row, words in enumerate(column):
            x, height = 2.3 * place, 2.6 if len(column) == 1 else 1.1
            y = 0.0 if len(column) == 1 else 1.5 * (1 - row)
            color = PALE if len(column) == 1 else "#dbe9f6" if row == 0 else "#fbe5d6"
            axes.add_patch(FancyBboxPatch((x, y), 1.75, height, "round,pad=0.06", fc=color, ec=GREY, lw=0.8))
            axes.text(x + 0.875, y + height / 2, words, ha="center", va="center", fontsize=8.5)
        for y in (0.55, 2.05) if place < 4 else ():
            axes.annotate(
                "",
                (2.3 * place + 2.21, y),
                (2.3 * place + 1.84, y),
                arrowprops={"arrowstyle": "->", "color": GREY},
            )
    for row, name in enumerate(("process 0", "process 1")):
        axes.text(-0.2, 2.05 - 1.5 * row, name, rotation=90, ha="center", va="center", color=GREY, fontsize=9)
    axes.set(xlim=(-0.5, 11.2), ylim=(-0.2, 2.8))
    axes.axis("off")
    figure.savefig(target)
    pyplot.close(figure)


PICTURES: dict[str, Callable[[Path], None]] = {
    "batch": draw_batch,
    "layers": draw_layers,
    "evaluation": draw_evaluation,
    "runs": draw_runs,
    "budget": draw_budget,
    "processes": draw_processes,
}


def main(names: list[str]) -> None:
    if unknown := set(names) - set(PICTURES):
        sys.exit(f"No such picture: {', '.join(sorted(unknown))}. There are {', '.join(PICTURES)}.")
    with tempfile.TemporaryDirectory() as folder:
        for name in names or PICTURES:
            torch.manual_seed(0)
            target = Path(folder) / f"{name}.png"
            PICTURES[name](target)
            pictures.publish(target, target.name)


if __name__ == "__main__":
    main(sys.argv[1:])
