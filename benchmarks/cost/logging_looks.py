"""What a look costs each logger: time beyond drawing it, and bytes on disk.

    python -m benchmarks.cost.logging_looks                     # 8 looks of 16 samples at 224 x 224
    python -m benchmarks.cost.logging_looks --looks 20 --sample-images

Maps are a random resnet18's, moved about from look to look; images are crops of scikit-image's photographs, each with a
mask. The first look of each logger, which opens files and connections, is not counted.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.loggers import CSVLogger, MLFlowLogger, TensorBoardLogger, WandbLogger
from torchvision.models import resnet18

from benchmarks.cost.report_page import SIZE, moved, photographs
from lightning_gcam import SaliencyBatch, SaliencyRecord
from lightning_gcam.loggers import ReportLogger, log_saliency
from lightning_gcam.pipeline.record import Stamp
from lightning_gcam.pipeline.run import record_saliency

LOGGERS: dict[str, Callable[[Path], Any]] = {
    "TensorBoard": lambda root: TensorBoardLogger(root),
    "CSV and PNG": lambda root: CSVLogger(root),
    "ReportLogger": lambda root: ReportLogger(root),
    "MLflow, SQLite": lambda root: MLFlowLogger(
        "looks", tracking_uri=f"sqlite:///{root / 'store.db'}", artifact_location=str(root / "artifacts")
    ),
    "W&B, offline": lambda root: WandbLogger(save_dir=root, offline=True),
}


def first_look(samples: int) -> SaliencyRecord:
    """Sixteen photographs, each with a square for its object."""
    torch.manual_seed(0)
    masks = torch.zeros(samples, SIZE, SIZE, dtype=torch.bool)
    masks[:, 60:160, 60:160] = True
    batch = SaliencyBatch(photographs(samples), torch.arange(samples) % 4, masks)
    return record_saliency(resnet18(num_classes=4), batch, stamp=Stamp(), checks=[])


def measure(name: str, records: list[SaliencyRecord], root: Path) -> tuple[float, float]:
    """Seconds for a look, the median; and megabytes for a look."""
    root.mkdir()
    logger, seconds, sizes = LOGGERS[name](root), [], []
    for record in records:
        began = time.perf_counter()
        log_saliency(logger, record)
        seconds.append(time.perf_counter() - began)
        sizes.append(sum(path.stat().st_size for path in root.rglob("*") if path.is_file()))
    if isinstance(logger, WandbLogger):
        logger.experiment.finish()
    return statistics.median(seconds[1:]), (sizes[-1] - sizes[0]) / (len(sizes) - 1) / 1e6


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--looks", type=int, default=8, help="looks, the first of which is not counted")
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--sample-images", action="store_true", help="each sample by itself as well")
    options = parser.parse_args()
    torch.set_num_threads(1)
    os.environ |= {"WANDB_SILENT": "true", "MLFLOW_DISABLE_TELEMETRY": "true"}
    first, drawing = first_look(options.samples), []
    first = replace(first, stamp=replace(first.stamp, sample_images=options.sample_images))
    records = [moved(first, look) for look in range(options.looks)]
    for record in records:
        began = time.perf_counter()
        assert record.overlay is not None and record.table
        drawing.append(time.perf_counter() - began)
    print(f"drawing, once for all loggers: {1000 * statistics.median(drawing[1:]):.0f} ms a look\n")
    print(f"| {'logger':14} | ms a look | MB a look |\n|{'-' * 16}|-----------|-----------|")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["WANDB_DATA_DIR"] = str(Path(folder) / "staged")
        for name in LOGGERS:
            seconds, megabytes = measure(name, records, Path(folder) / name.split()[0].strip(","))
            print(f"| {name:14} | {1000 * seconds:9.0f} | {megabytes:9.2f} |", flush=True)


if __name__ == "__main__":
    main()
