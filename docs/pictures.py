"""The pictures of README and docs: overlays of two trainings; what the first one follows, and its report in a browser.

    python docs/pictures.py

It trains as `examples/planted_shortcut.py` does, with a `ReportLogger`, and writes to `docs/images`. The
screenshot needs Chromium (or Chrome), which is started without a window and without a network.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
WINDOW = (1280, 1684)
COLORS = 256
"""Flat cards and a colour map need no more: less than half of the bytes, and no colour is off by more than a tenth."""


def train(output: Path) -> None:
    """Train with the cue and without; pictures and reports lie under `output` then."""
    sys.path.insert(0, str(ROOT / "examples"))
    import planted_shortcut

    options = planted_shortcut.parse(["--logger", "report", "--output", str(output)])
    planted_shortcut.hide_hints()
    torch.set_num_threads(1)
    for experiment in planted_shortcut.plan_experiments(options.train_size, options.seed):
        record = planted_shortcut.train(experiment, options).monitor.last_record
        record.figure().save(output / f"overlay_{experiment.name}.png")
        record.exchange_figure().save(output / f"exchanges_{experiment.name}.png")


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
    options = parser.parse_args()
    if not options.keep:
        shutil.rmtree(options.output, ignore_errors=True)
        train(options.output)
    for name in ("with_cue", "without_cue"):
        publish(options.output / f"overlay_{name}.png", f"overlay_{name}.png")
    publish(options.output / "exchanges_with_cue.png", "exchanges.png")
    screenshot = options.output / "report.png"
    photograph(options.output / "with_cue" / "report.html", screenshot)
    publish(screenshot, "report.png")


if __name__ == "__main__":
    main()
