"""What a run of many looks costs to write: whether the thousandth look costs what the second did, for each logger.

    python -m benchmarks.cost.many_looks

A look of two tiny samples is made once, drawn once, and logged again and again at a later step, with its scores and an
alert at every tenth look. Only what is done to store and show it is timed; W&B, whose looks are the dearest, takes
fewer of them. Growth is read from the processor time: what waits for the disk, or for a busy machine, does not blur it.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import warnings
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from math import log
from pathlib import Path
from typing import Any

import torch

from benchmarks.common.measure import (
    Goal,
    Took,
    clock_once,
    describe_machine,
    load_average,
    markdown_table,
    publish,
)
from benchmarks.cost.logging_looks import LOGGERS
from lightning_gcam import SaliencyBatch, SaliencyRecord
from lightning_gcam.loggers import ReportLogger, log_alert, log_saliency, write_alert, write_look
from lightning_gcam.pipeline.record import Stamp
from lightning_gcam.pipeline.run import record_saliency

SIDE, SAMPLES, EVERY = 16, 2, 10
LIMIT = 1.1
PACKAGES = ["torch", "pytorch-lightning", "tensorboard", "wandb"]

Look = Callable[[SaliencyRecord], None]


def first_look() -> SaliencyRecord:
    """Two small images, each with a square for its object; drawn, so that drawing is not timed."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(8, 4),
    )
    masks = torch.zeros(SAMPLES, SIDE, SIDE, dtype=torch.bool)
    masks[:, 4:12, 4:12] = True
    batch = SaliencyBatch(torch.rand(SAMPLES, 3, SIDE, SIDE), torch.arange(SAMPLES) % 4, masks)
    record = record_saliency(network, batch, target_layer="0", stamp=Stamp(), checks=[])
    assert record.overlay is not None and record.table
    return record


def restamped(record: SaliencyRecord, step: int) -> SaliencyRecord:
    """The same look at another step; what was drawn and computed is kept."""
    other = copy(record)
    object.__setattr__(other, "stamp", replace(record.stamp, step=step))
    return other


# ------------------------------------------------------------------------------------------ the contenders


def without_logger(root: Path) -> tuple[Look, Callable[[], object]]:
    """Write pictures and tables, and the page beside them, as the monitor does without a logger."""
    page = ReportLogger(root)

    def look(record: SaliencyRecord) -> None:
        write_look(root, record)
        page.log_look(record)
        page.log_metrics(record.metrics, record.step)
        page.save()
        if record.step % EVERY == 0:
            write_alert(root, alert_of(record))
            page.log_alert(**alert_of(record))

    return look, partial(page.finalize, "success")


def with_logger(name: str, root: Path) -> tuple[Look, Callable[[], object]]:
    """Log picture, scores and alerts as the monitor does; what ends the run is the second."""
    logger: Any = LOGGERS[name](root)
    getattr(logger, "experiment", None)  # which the Trainer makes before the first look

    def look(record: SaliencyRecord) -> None:
        log_saliency(logger, record)
        logger.log_metrics(record.metrics, step=record.step)
        logger.save()
        if record.step % EVERY == 0:
            log_alert(logger, alert_of(record))

    def finish() -> None:
        logger.finalize("success")
        if name.startswith("W&B"):
            logger.experiment.finish()

    return look, finish


def alert_of(record: SaliencyRecord) -> dict[str, Any]:
    """An alert as `ShortcutAlarm` raises them."""
    return {"step": record.step, "message": "Measured, with n,\nand chance.", "log_prefix": "saliency"}


CONTENDERS: dict[str, Callable[[Path], tuple[Look, Callable[[], object]]]] = {
    "no logger: files and the page": without_logger,
    **{
        name: partial(with_logger, name)
        for name in ("CSV and PNG", "ReportLogger", "TensorBoard", "W&B, offline")
    },
}


# -------------------------------------------------------------------------------------------- measuring


@dataclass(frozen=True)
class Course:
    """What a run took: each look but the first, which opens files, and the run's end."""

    looks: tuple[Took, ...]
    end: Took

    @property
    def processor(self) -> float:
        """The seconds of processor time of all of it."""
        return sum(each.processor for each in (*self.looks, self.end))

    @property
    def wall(self) -> float:
        """The seconds of a look on the wall's clock, the run's end shared out among them."""
        return sum(each.wall for each in (*self.looks, self.end)) / len(self.looks)

    @property
    def tenths(self) -> list[float]:
        """The mean processor time of a look in each tenth of the run."""
        bounds = [round(tenth * len(self.looks) / 10) for tenth in range(11)]
        return [statistics.mean(each.processor for each in self.looks[a:b]) for a, b in pairwise(bounds)]


def measure(name: str, record: SaliencyRecord, looks: int) -> Course:
    """Log so many looks into a directory of their own."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["WANDB_DATA_DIR"] = str(Path(folder) / "staged")
        look, finish = CONTENDERS[name](Path(folder) / "run")
        took = [clock_once(partial(look, restamped(record, step))) for step in range(looks + 1)]
        return Course(tuple(took[1:]), clock_once(finish))


def exponent(totals: dict[int, float]) -> float:
    """The k of `seconds = c * looks ** k`, by least squares over the logarithms: 1 where every look costs the same."""
    counts, seconds = [log(each) for each in totals], [log(each) for each in totals.values()]
    return statistics.linear_regression(counts, seconds).slope


# ------------------------------------------------------------------------------------------- the report


def report(found: dict[str, dict[int, Course]], looks: Sequence[int], machine: dict[str, str]) -> str:
    """The section for `docs/benchmarks.md`."""
    header = ["", *(f"{each} looks, s" for each in looks), "exponent"]
    header += [f"ms a look, {each} tenth" for each in ("first", "second", "fifth", "last")]
    header += ["ms a look, wall's clock"]
    rows, goals = [], []
    for name, courses in found.items():
        totals = {count: course.processor for count, course in courses.items()}
        longest = courses[max(courses)]
        rows.append(
            [
                name,
                *(f"{totals[count]:.2f}" if count in totals else "" for count in looks),
                f"{exponent(totals):.2f}",
                *(f"{1e3 * longest.tenths[at]:.1f}" for at in (0, 1, 4, 9)),
                f"{1e3 * longest.wall:.1f}",
            ]
        )
        text = f"{name}: {max(totals)} looks take {totals[max(totals)] / totals[min(totals)]:.1f} times what "
        text += (
            f"{min(totals)} take, {max(totals) / min(totals):.0f} times as many (exponent at most {LIMIT})"
        )
        goals.append(f"- {Goal(text, exponent(totals), LIMIT)}")
    return "\n".join(
        [
            f"`python -m benchmarks.cost.many_looks --looks {' '.join(map(str, looks))}`\n",
            f"{SAMPLES} samples of {SIDE} x {SIDE}. Processor time but in the last column; tenths and last column "
            "are of each one's longest run.\n",
            markdown_table(header, rows) + "\n",
            *goals,
            f"\nMeasured on: {'; '.join(f'{key} {value}' for key, value in machine.items())}.",
        ]
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write where asked to."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--looks", type=int, nargs="+", default=[50, 200, 1000], help="of a run")
    parser.add_argument("--only", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument(
        "--output", type=Path, help="a Markdown page whose section many_looks is written anew"
    )
    options = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    os.environ |= {"WANDB_SILENT": "true"}
    before, record = load_average(), first_look()
    found = {
        name: {
            looks: measure(name, record, looks)
            for looks in options.looks
            if looks <= 200 or not name.startswith("W&B")
        }
        for name in options.only
    }
    machine = describe_machine(PACKAGES)
    machine["load average"] = f"{before} before, {machine['load average']} after"
    publish(options.output, "many_looks", report(found, options.looks, machine))


if __name__ == "__main__":
    main()
