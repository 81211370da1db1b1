"""What the report costs: the size of its page, the time a look takes to write, and how soon a browser has it open.

    python -m benchmarks.cost.report_page                         # 200 looks of 16 samples at 224 x 224
    python -m benchmarks.cost.report_page --looks 50 --methods 3

Maps are a random resnet18's, moved about from look to look; images are crops of scikit-image's photographs.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from skimage import data
from torch import Tensor
from torchvision.models import resnet18

from lightning_gcam import SaliencyBatch, SaliencyRecord
from lightning_gcam.cam import available_methods
from lightning_gcam.loggers import ReportLogger
from lightning_gcam.pipeline.record import Stamp
from lightning_gcam.pipeline.run import record_saliency

SIZE = 224


def photographs(n: int) -> Tensor:
    """Crops `(n, 3, 224, 224)` of photographs, so that they compress as photographs do."""
    sources = [
        torch.from_numpy(each) for each in (data.astronaut(), data.coffee(), data.chelsea(), data.rocket())
    ]
    generator, crops = torch.Generator().manual_seed(0), []
    for index in range(n):
        source = sources[index % len(sources)]
        top, left = (int(torch.randint(side - SIZE, (), generator=generator)) for side in source.shape[:2])
        crops.append(source[top : top + SIZE, left : left + SIZE].permute(2, 0, 1))
    return torch.stack(crops).float() / 255


def moved(record: SaliencyRecord, look: int) -> SaliencyRecord:
    """The look with its maps moved, so that no two looks are alike."""
    attribution = record.attribution
    maps = {name: each.roll((3 * look, 5 * look), dims=(1, 2)) for name, each in attribution.maps.items()}
    stamp = replace(record.stamp, step=500 * look, epoch=look)
    return replace(record, attribution=replace(attribution, maps=maps), stamp=stamp)


def opening(page: Path) -> str:
    """How long Chromium takes from its start until the page's own script has drawn everything."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        return "no Chromium here"
    seconds = {name: min(_dump(browser, path) for _ in range(3)) for name, path in _pages(page).items()}
    return f"{seconds['report'] - seconds['empty']:.2f} s more than an empty page's {seconds['empty']:.2f} s"


def _pages(page: Path) -> dict[str, Path]:
    empty = page.with_name("empty.html")
    empty.write_text("<!doctype html><title>empty</title>", encoding="utf-8")
    return {"report": page, "empty": empty}


def _dump(browser: str, page: Path) -> float:
    with tempfile.TemporaryDirectory() as profile:
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}"]
        picture = f"--screenshot={profile}/page.png"
        began = time.perf_counter()
        command = [browser, *options, picture, page.resolve().as_uri()]
        subprocess.run(command, capture_output=True, check=True, timeout=120)
        return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--looks", type=int, default=200)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--methods", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="a directory to leave the page in")
    options = parser.parse_args()
    torch.manual_seed(0)
    n = options.samples
    masks = torch.zeros(n, SIZE, SIZE, dtype=torch.bool)
    masks[:, 60:160, 70:170] = True
    batch = SaliencyBatch(photographs(n), torch.arange(n) % 10, masks)
    methods = list(available_methods())[: options.methods]
    record = record_saliency(resnet18(num_classes=10), batch, methods=methods, stamp=Stamp(), checks=[])
    with tempfile.TemporaryDirectory() as temporary:
        logger = ReportLogger(options.keep or temporary)
        seconds = []
        for look in range(options.looks):
            this = moved(record, look)
            _ = this.measurements  # other loggers ask for them too
            logger.log_metrics({"val_acc": look / options.looks, "val_loss": 1 / (look + 1)}, step=500 * look)
            began = time.perf_counter()
            logger.log_look(this)
            seconds.append(time.perf_counter() - began)
        began = time.perf_counter()
        logger.finalize("success")
        writing, page = time.perf_counter() - began, logger.report_path
        print(f"{options.looks} looks of {n} samples, {len(methods)} maps each, {SIZE} x {SIZE}")
        print(f"page             {page.stat().st_size / 1e6:.1f} MB")
        print(f"first look       {seconds[0] * 1e3:.0f} ms (the samples' pictures are made here)")
        print(f"second look      {seconds[1] * 1e3:.0f} ms")
        print(f"last look        {seconds[-1] * 1e3:.0f} ms")
        print(f"whole page       {writing * 1e3:.0f} ms (when the run ends)")
        print(f"opens in         {opening(page)}")


if __name__ == "__main__":
    main()
