"""Guidance beside every method the package knows, by nine scores, on digits: where it wins, where it loses, and why.

    python -m benchmarks.methods.comparison

Trains small networks (three heads, two kinds of labels, three seeds), explains the same digits by every method at two
layers, and scores every map with the package's own scores. What ends is kept in runs/, so that a run that was stopped
goes on. The summary, the tables and the figure are made of that: `--tables` makes them again from the summary alone.
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks import ROOT
from benchmarks.common.measure import describe_machine, write_section
from benchmarks.methods.cost import measure_cost
from benchmarks.methods.figure import draw_differences
from benchmarks.methods.report import report
from benchmarks.methods.runs import Settings, be_quiet, fingerprint, fingerprint_of, plan_runs, run_all
from benchmarks.methods.summary import Row, read_summary, summarize, write_summary

PACKAGES = ["torch", "torchvision", "scikit-learn", "scikit-image"]
COMMAND = "python -m benchmarks.methods.comparison"
COST = (
    "{0} images of {1} x {1}, the pooled network with random weights, one thread, medians of {2} rounds; what asks for "
    "20 images or more is timed once. "
)
WORDS = (
    "{minutes:.0f} minutes of processor time beside the trainings. Measured on: {machine}. All numbers: "
    "[benchmarks/results/comparison.jsonl](../benchmarks/results/comparison.jsonl)."
)
SUMMARY = ROOT / "benchmarks" / "results" / "comparison.jsonl"


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add, usual = parser.add_argument, Settings()
    add("--seeds", type=int, default=3, help="networks of each kind (3)")
    add("--epochs", type=int, default=usual.epochs, help=f"of each training ({usual.epochs})")
    add(
        "--train-size",
        type=int,
        default=usual.train_size,
        help=f"canvases of each training ({usual.train_size})",
    )
    add(
        "--samples",
        type=int,
        default=usual.samples,
        help=f"digits explained, a network and layer ({usual.samples})",
    )
    add("--methods", nargs="+", default=(), help="names; all that the package knows where it is left out")
    add(
        "--cost",
        type=int,
        nargs=3,
        default=(8, 128, 7),
        metavar=("BATCH", "SIZE", "ROUNDS"),
        help="(8 128 7)",
    )
    add("--workers", type=int, default=2, help="processes that work at the same time (2)")
    add("--runs", type=Path, default=Path("runs"), help="where networks and results are kept")
    add("--tables", action="store_true", help="measure nothing: tables and figure again, from the summary")
    add("--summary", type=Path, default=SUMMARY)
    add("--output", type=Path, default=ROOT / "docs" / "paper.md", help="the page whose section is written")
    add("--figure", type=Path, default=ROOT / "docs" / "images" / "comparison.png")
    return parser.parse_args(arguments)


def measure(options: argparse.Namespace) -> list[Row]:
    """All that is measured, as the rows of the summary."""
    settings = Settings.of(options.epochs, options.train_size, options.samples, options.methods)
    lines = run_all(plan_runs(options.seeds), settings, options.runs, options.workers)
    cost = cost_kept(settings, options)
    machine = describe_machine(PACKAGES)
    minutes = sum(line["seconds"] for line in lines) / 60
    about = {
        "kind": "about",
        "settings": settings._asdict(),
        "seeds": options.seeds,
        "fingerprint": fingerprint_of(settings),
        "cost": COST.format(*options.cost),
        "words": WORDS.format(
            minutes=minutes, machine="; ".join(f"{key} {value}" for key, value in machine.items())
        ),
    }
    return [about, *summarize(lines), *({"kind": "cost", **row} for row in cost)]


def cost_kept(settings: Settings, options: argparse.Namespace) -> list[dict[str, Any]]:
    """What each method costs, measured once for the same settings and code."""
    path = options.runs / "comparison_cost.json"
    code = [ROOT / "benchmarks" / "methods" / "cost.py"]
    mark = fingerprint([fingerprint_of(settings), list(options.cost)], code)
    kept = json.loads(path.read_text()) if path.exists() else {}
    if kept.get("fingerprint") != mark:
        kept = {"fingerprint": mark, "rows": measure_cost(settings.methods, *options.cost)}
        path.write_text(json.dumps(kept))
    return list(kept["rows"])


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is missing, then write the summary, the page's section and the figure."""
    options = parse(arguments)
    be_quiet()
    began = time.monotonic()
    if not options.tables:
        write_summary(measure(options), options.summary)
    rows = read_summary(options.summary)
    text = report(rows, COMMAND)
    print(text)
    write_section(options.output, "comparison", text)
    draw_differences(rows, options.figure)
    print(f"\n{time.monotonic() - began:.0f} s, {torch.get_num_threads()} thread a process")


if __name__ == "__main__":
    main()
