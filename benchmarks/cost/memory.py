"""How much memory a look takes at its peak, in that of a plain forward of the same batch.

    python -m benchmarks.cost.memory

Each look is taken in a fresh process: the script calls itself for that. Beside the figures of whole looks, those of
their steps show where a peak is.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from tqdm import tqdm

from benchmarks import ROOT
from benchmarks.common.measure import (
    EXACT_MALLOC,
    Goal,
    can_measure_memory,
    markdown_table,
    measured_on,
    peak_extra_memory,
    publish,
    resident,
    spread,
)
from benchmarks.cost.explainers import SIX_METHODS
from lightning_gcam import SaliencyBatch
from lightning_gcam.loggers import log_saliency
from lightning_gcam.pipeline import run
from lightning_gcam.pipeline.config import LookConfig
from lightning_gcam.pipeline.record import LookHistory, Stamp
from lightning_gcam.shortcuts import available_checks, available_properties

LIMIT = 1.15  # of a plain forward's peak
CLASSES = 10
SETTINGS = ("model", "batch", "size", "threads")
PACKAGES = ["torch", "torchvision", "pytorch-lightning"]

LOOKS: dict[str, tuple[str, dict[str, Any]]] = {
    "masks": ("a default look, with masks", {}),
    "labels": ("a default look, with labels only", {}),
    "bare": ("without checks", {"checks": []}),
    "six": ("six methods", {"methods": SIX_METHODS}),
    "all": ("every check there is", {"checks": [*available_checks(), *available_properties()]}),
}
"""The looks by name: how the table calls them, and their arguments."""


def set_scene(model: str, batch: int, size: int, masks: bool) -> tuple[torch.nn.Module, SaliencyBatch]:
    """A torchvision model with random weights in eval mode, and labelled random images, a square on each."""
    from torchvision.models import get_model

    torch.manual_seed(0)
    network = get_model(model, weights=None, num_classes=CLASSES).eval()
    square = torch.zeros(batch, size, size, dtype=torch.bool)
    square[:, size // 4 : size // 2, size // 4 : size // 2] = True
    images = torch.randn(batch, 3, size, size)
    return network, SaliencyBatch(images, torch.arange(batch) % CLASSES, masks=square if masks else None)


def measure_here(name: str, options: argparse.Namespace) -> dict[str, float]:
    """MiB of a plain forward, of one look, and of its steps, each beside what was resident before the look."""
    network, batch = set_scene(options.model, options.batch, options.size, name != "labels")
    config = LookConfig(
        target_layer="layer4" if options.model.startswith("resnet") else None, **LOOKS[name][1]
    )

    def forward() -> None:
        with torch.no_grad():
            network(batch.images)

    with tempfile.TemporaryDirectory() as directory:
        logger = pl.loggers.TensorBoardLogger(directory)
        small, tiny = batch.select([0, 1]), torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3), *head())
        log_saliency(logger, look(tiny, small, LookConfig()))  # what is built once: fonts, threads, imports
        forward()
        peak = peak_extra_memory(forward)
        before, highest = resident("VmRSS"), dict[str, float]()
        with measured_steps(highest, before):
            whole = peak_extra_memory(lambda: log_saliency(logger, look(network, batch, config)))
    return {"forward": peak, "look": max(whole, *highest.values()), **highest}


def head() -> list[torch.nn.Module]:
    """The rest of a tiny classifier."""
    return [torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(2, CLASSES)]


def look(network: torch.nn.Module, batch: SaliencyBatch, config: LookConfig) -> Any:
    """The first look of a run."""
    return run.analyze(network, batch, config, stamp=Stamp(), history=LookHistory())


STEPS = ("attribution", "perturbed_outputs", "scores", "checks")


@contextmanager
def measured_steps(highest: dict[str, float], before: float) -> Iterator[None]:
    """Measure the peak of each step of a look inside, in MiB above `before`."""
    kept = {step: getattr(run._Look, step) for step in STEPS}

    def measured(step: str, work: Callable[..., Any], *arguments: Any) -> Any:
        result: list[Any] = []
        extra = peak_extra_memory(lambda: result.append(work(*arguments)))
        highest[step] = max(highest.get(step, 0.0), resident("VmHWM") - before, extra)
        return result[0]

    def wrapped(step: str) -> Callable[..., Any]:
        return lambda *arguments: measured(step, kept[step], *arguments)

    try:
        for step in STEPS:
            setattr(run._Look, step, wrapped(step))
        yield
    finally:
        for step, work in kept.items():
            setattr(run._Look, step, work)


def measure_apart(name: str, options: argparse.Namespace) -> dict[str, float]:
    """The same, from a process of its own."""
    scene = [f"--{key}={vars(options)[key]}" for key in SETTINGS]
    command = [sys.executable, "-m", "benchmarks.cost.memory", *scene, f"--memory-of={name}"]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT, env=os.environ | EXACT_MALLOC
    )
    return dict(json.loads(done.stdout.splitlines()[-1]))


def report(options: argparse.Namespace, found: dict[str, list[dict[str, float]]]) -> str:
    """The section for `docs/benchmarks.md`."""
    middle = {
        name: {key: spread([each[key] for each in runs]).median for key in runs[0]}
        for name, runs in found.items()
    }
    unit = spread([each["forward"] for each in middle.values()]).median
    rows = [["a plain forward", f"{unit:.0f}", "1.00", *["" for _ in STEPS]]]
    for name, peaks in middle.items():
        steps = [f"{peaks[step]:.0f}" if step in peaks else "-" for step in STEPS]
        rows.append([LOOKS[name][0], f"{peaks['look']:.0f}", f"{peaks['look'] / unit:.2f}", *steps])
    highest = max(each["look"] for each in middle.values()) / unit
    goal = Goal(f"the dearest look takes at most {LIMIT} of a plain forward: {highest:.2f}", highest, LIMIT)
    command = " ".join(f"--{key} {vars(options)[key]}" for key in SETTINGS)
    names = ["maps", "perturbed outputs", "scores", "checks"]
    lines = [
        f"`python -m benchmarks.cost.memory {command}`\n",
        f"{options.model} (random weights, eval mode), {options.batch} x 3 x {options.size} x {options.size}; peak "
        "extra memory in MiB, at the whole look and inside of its steps.\n",
        markdown_table(["", "whole", "in forwards", *names], rows) + "\n",
        f"- Goal {goal}.\n",
        measured_on(PACKAGES),
    ]
    return "\n".join(lines)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--rounds", type=int, default=1, help="fresh processes for each look")
    add("--model", default="resnet50", help="any torchvision classifier")
    add("--batch", type=int, default=16, help="images in the batch")
    add("--size", type=int, default=224, help="height and width of the images")
    add("--threads", type=int, default=2, help="threads that torch may use")
    add("--output", type=Path, help="a Markdown page whose section memory is written anew")
    add("--memory-of", choices=LOOKS, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write where asked to."""
    options = parse(arguments)
    warnings.simplefilter("ignore")
    torch.set_num_threads(options.threads)
    if options.memory_of:
        print(json.dumps(measure_here(options.memory_of, options)))
        return
    if not can_measure_memory():
        sys.exit("Memory is measured on Linux only.")
    found: dict[str, list[dict[str, float]]] = {name: [] for name in LOOKS}
    for name in tqdm([name for _ in range(options.rounds) for name in LOOKS], unit="process"):
        found[name].append(measure_apart(name, options))
    publish(options.output, "memory", report(options, found))


if __name__ == "__main__":
    main()
