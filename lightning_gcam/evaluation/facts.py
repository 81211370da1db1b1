"""What it takes to make a table again: versions, seed, command, device, layer, and what it cost."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

_PACKAGES = (
    "lightning-gcam",
    "torch",
    "torchvision",
    "pytorch-lightning",
    "lightning",
    "torchmetrics",
    "timm",
)


@dataclass(frozen=True)
class Facts:
    """How the numbers of a table came about; the fields are plain Python.

    Args:
        methods: the names of the maps, in order.
        scores: the names of the scores, in order.
        target_layer: whose activations the maps are of, in words.
        targets: what the maps explain, in words.
        samples: how many samples were scored.
        unlabelled: how many had a negative label, and were not.
        failed: how many could not be: their batch raised.
        forwards: how many images went through the model for one sample, on average: maps and scores together.
        seconds: how long maps and scores of all samples took, the processes' times added up.
        device: that the model was on.
        processes: that shared the work.
        precision: of the Trainer.
        seed: that `seed_everything` was called with; None where it was not.
        weights: a checksum of parameters and buffers.
        versions: of Python and the packages.
        command: that was run.
        resamples: of the bootstrap.
        level: of its intervals.
        about: further facts of whoever evaluates, such as a dataset's name.
    """

    methods: list[str]
    scores: list[str]
    target_layer: str
    targets: str
    samples: int
    unlabelled: int = 0
    failed: int = 0
    forwards: float = 0.0
    seconds: float = 0.0
    device: str = "cpu"
    processes: int = 1
    precision: str = "32-true"
    seed: int | None = None
    weights: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    command: str = ""
    resamples: int = 1000
    level: float = 0.95
    about: dict[str, Any] = field(default_factory=dict)


def versions(packages: Iterable[str] = _PACKAGES) -> dict[str, str]:
    """The version of Python, and of each package that is installed.

    Example:
        >>> sorted(versions(["torch", "no-such-package"]))
        ['python', 'torch']
    """
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    if torch.cuda.is_available() and torch.version.cuda is not None:
        found["cuda"] = torch.version.cuda
    return found


def command() -> str:
    """The command line of this process, as a shell would take it."""
    given = getattr(sys, "orig_argv", sys.argv)
    program = Path(sys.argv[0]).name if sys.argv and sys.argv[0] else ""
    is_script = program and program not in ("-c", "-m") and not program.endswith(".py")
    return shlex.join([program, *sys.argv[1:]] if is_script else [Path(given[0]).name, *given[1:]])


def seed() -> int | None:
    """What Lightning's `seed_everything` was called with; None where it was not."""
    found = os.environ.get("PL_GLOBAL_SEED", "")
    return int(found) if found.lstrip("-").isdigit() else None


def device_in_words(device: torch.device) -> str:
    """A device, with the name of its kind where it has one.

    Example:
        >>> device_in_words(torch.device("cpu"))
        'cpu'
    """
    if device.type == "cuda":
        return f"{device.type} ({torch.cuda.get_device_name(device)})"
    return device.type
