"""The pictures of README and docs: overlays of two trainings; what the first one follows, and its report in a browser.

    python docs/pictures.py

It trains as `examples/shortcut_on_photographs.py` does, with a `ReportLogger`, and writes to `docs/images`. The
screenshot needs Chromium (or Chrome), which is started without a window and without a network.
`--only dimensions` makes those of volumes, videos and signals alone, by small networks.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image
from torch import nn

from lightning_gcam import SaliencyBatch
from lightning_gcam.pipeline.record import SaliencyRecord, Stamp
from lightning_gcam.pipeline.run import record_saliency

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
WINDOW = (1280, 1684)
COLORS = 256
"""Flat cards and a colour map need no more: less than half of the bytes, and no colour is off by more than a tenth."""


def train(output: Path) -> None:
    """Train with the cue and without; pictures and reports lie under `output` then."""
    sys.path.insert(0, str(ROOT / "examples"))
    import shortcut_on_photographs as demo

    for name, probe in demo.main(["--logger", "report", "tensorboard", "--output", str(output)]).items():
        draw_looks({prefix: each.last_record for prefix, each in probe.monitors.items()}, name, output)


def draw_looks(records: dict[str, SaliencyRecord], name: str, output: Path) -> None:
    """One sample of each class with its heatmap, and what the predictions follow."""
    record = records["with_boxes"]
    labels = record.batch.labels.tolist()
    rows = [labels.index(label) for label in sorted(set(labels))]
    few = replace(record, batch=record.batch.select(rows), attribution=record.attribution.select(rows))
    few.figure().save(output / f"overlay_{name}.png")
    records["labels_only"].exchange_figure().save(output / f"exchanges_{name}.png")


SIZES = {"volume": (16, 32, 32), "video": (12, 32, 32), "signal": (240,)}
KINDS = {"volume": ["bright", "dark"], "video": ["bright", "dark"], "signal": ["wide", "narrow"]}


def samples_of(kind: str, n: int) -> SaliencyBatch:
    """Samples of two classes with an object: a nodule in a body, a ball that flies, a beat of a pulse that goes on."""
    size, labels = SIZES[kind], torch.arange(n) % 2
    grid = torch.stack(torch.meshgrid(*(torch.linspace(0, 1, side) for side in size), indexing="ij"))
    at = 0.3 + 0.4 * torch.rand(n, len(size), *[1] * len(size))
    noise = 0.04 * torch.randn(n, 3 if kind == "video" else 1, *size)
    sign = (1 - 2.0 * labels).view(-1, *[1] * len(size))
    if kind == "signal":
        width = torch.where(labels == 0, 0.04, 0.015)[:, None]
        beats = sum(torch.exp(-(((grid[0] - place) / 0.02) ** 2)) for place in (0.08, 0.92)) + 0 * at[..., 0]
        own = torch.exp(-(((grid[0] - at[:, 0]) / width) ** 2))
        return SaliencyBatch((beats + own)[:, None] + noise, labels, (grid[0] - at[:, 0]).abs() < 0.09)
    if kind == "video":
        at = at + torch.tensor([0.0, 0.4, 0.0]).view(3, 1, 1, 1) * (grid[0] - 0.5)  # it falls
    masks = ((grid - at) ** 2)[:, kind == "video" :].sum(dim=1) < 0.12**2
    if kind == "video":
        waves = 0.5 + 0.3 * torch.sin(9 * grid[1] + 4 * grid[2])
        ground = waves * torch.tensor([1.0, 0.6, 0.2]).view(3, 1, 1, 1)
        return SaliencyBatch((ground + 0.45 * (masks * sign)[:, None] + noise).clamp(0, 1), labels, masks)
    body = (((grid - 0.5) / torch.tensor([0.48, 0.4, 0.46]).view(3, 1, 1, 1)) ** 2).sum(dim=0) < 1
    return SaliencyBatch((body[None] + 0.5 * masks * sign)[:, None] + noise, labels, masks)


def network_of(kind: str) -> nn.Sequential:
    """A few convolutions over one or three dimensions."""
    conv, pool = (nn.Conv1d, nn.AdaptiveAvgPool1d) if kind == "signal" else (nn.Conv3d, nn.AdaptiveMaxPool3d)
    width, layers = 3 if kind == "video" else 1, list[nn.Module]()
    for stride in (2, 1, 1):
        layers += [conv(width, 12, 3, stride=stride, padding=1), nn.ReLU()]
        width = 12
    return nn.Sequential(*layers, pool(1), nn.Flatten(), nn.Linear(12, 2))


def draw_dimensions(output: Path, steps: int = 80) -> None:
    """Train a network on volumes, on videos and on signals; the picture of each lies under `output` then."""
    output.mkdir(parents=True, exist_ok=True)
    for kind, names in KINDS.items():
        torch.manual_seed(0)
        network = network_of(kind)
        optimizer = torch.optim.Adam(network.parameters(), 5e-3)
        for _ in range(steps):
            batch = samples_of(kind, 8)
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(batch.images), batch.labels).backward()
            optimizer.step()
        stamp = Stamp(steps, 0, class_names=names)
        record = record_saliency(network.eval(), samples_of(kind, 2), checks=[], stamp=stamp)
        record.figure().save(output / f"overlay_{kind}.png")


def photograph(page: Path, picture: Path) -> None:
    """What Chromium shows of a page, with a few more pixels than it needs."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        sys.exit("The screenshot of the report needs Chromium: apt-get install chromium")
    with tempfile.TemporaryDirectory() as profile:
        options = [
            "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--force-device-scale-factor=1.25",
            "--blink-settings=preferredColorScheme=0", "--virtual-time-budget=20000", f"--user-data-dir={profile}",
            f"--window-size={WINDOW[0]},{WINDOW[1]}", f"--screenshot={picture}",
        ]  # fmt: skip
        subprocess.run(
            [browser, *options, page.resolve().as_uri()], check=True, timeout=120, capture_output=True
        )


def publish(source: Path, name: str) -> None:
    """Write a picture with few colours to `docs/images`, and say how large it is."""
    target = IMAGES / name
    with Image.open(source) as opened:
        rich = opened.convert("RGB")
        # not the median cut: it greys the few pixels that are colourful, the corners
        picture = rich.quantize(COLORS, method=Image.Quantize.MAXCOVERAGE, kmeans=2, dither=Image.Dither.NONE)
        picture.save(target, optimize=True)
    print(
        f"{target.relative_to(ROOT)}: {picture.width} x {picture.height}, {target.stat().st_size / 1e3:.0f} kB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--output", type=Path, default=ROOT / "runs" / "pictures", help="where the trainings write"
    )
    parser.add_argument("--keep", action="store_true", help="take the trainings that are there already")
    parser.add_argument("--only", choices=["dimensions"], help="make these pictures alone")
    options = parser.parse_args()
    draw_dimensions(options.output)
    for kind in KINDS:
        publish(options.output / f"overlay_{kind}.png", f"overlay_{kind}.png")
    if options.only:
        return
    if not options.keep:
        for name in ("with_cue", "without_cue"):
            shutil.rmtree(options.output / name, ignore_errors=True)
        train(options.output)
    for name in ("with_cue", "without_cue"):
        publish(options.output / f"overlay_{name}.png", f"overlay_{name}.png")
    publish(options.output / "exchanges_with_cue.png", "exchanges.png")
    screenshot = options.output / "report.png"
    photograph(options.output / "with_cue" / "report.html", screenshot)
    publish(screenshot, "report.png")


if __name__ == "__main__":
    main()
