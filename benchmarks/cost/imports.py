"""What `import lightning_gcam` adds to `import pytorch_lightning`, beside the imports of other explainers.

    python -m benchmarks.cost.imports

Every import runs in a fresh process, one of each a round, in an order drawn anew; the script calls itself for that.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from benchmarks import ROOT
from benchmarks.common.measure import (
    Goal,
    can_measure_memory,
    markdown_table,
    measured_on,
    publish,
    spread,
)

LIMIT = 0.1  # seconds of processor time
LIGHTNING = "import pytorch_lightning"
OURS = "from lightning_gcam import SaliencyMonitor, ShortcutAlarm"

IMPORTS = {
    "`torch`": ("import torch", ""),
    "`pytorch_lightning`": (LIGHTNING, ""),
    "`+ import lightning_gcam`": (LIGHTNING, "import lightning_gcam"),
    "**`+ SaliencyMonitor, ShortcutAlarm`**": (LIGHTNING, OURS),
    "`+ torchcam`": (LIGHTNING, "import torchcam.methods"),
    "`+ captum.attr`": (LIGHTNING, "import captum.attr"),
    "`+ pytorch_grad_cam`": (LIGHTNING, "import pytorch_grad_cam"),
    "`+ monai.visualize`": (LIGHTNING, "import monai.visualize"),
    "`+ lightning.pytorch`": (LIGHTNING, "import lightning.pytorch"),
}
"""By the names of the table's rows: what is imported first, and what is measured by itself behind that."""


class Cost(NamedTuple):
    """Seconds on the wall's clock and of processor time, and MiB of resident memory, of one import."""

    wall: float
    processor: float
    memory: float


MEASURE = """
import json, time
def resident():
    try:
        lines = open("/proc/self/status").read().splitlines()
    except OSError:
        return 0.0
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / 1024
{first}
before = time.perf_counter(), time.process_time(), resident()
{then}
after = time.perf_counter(), time.process_time(), resident()
print(json.dumps([end - start for start, end in zip(before, after)]))
"""


# Compiled files of all packages, kept for the next run: an environment may never have written its own.
CACHE = sys.pycache_prefix or os.path.join(tempfile.gettempdir(), "lightning_gcam_imports")


def measure_apart(first: str, then: str) -> Cost:
    """What an import costs in a process of its own; `first` itself where nothing follows it."""
    script = MEASURE.format(first=first if then else "", then=then or first)
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": CACHE, "PYTHONPATH": str(ROOT)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    command = [sys.executable, "-W", "ignore", "-c", script]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT, env=environment)
    return Cost(*json.loads(done.stdout.splitlines()[-1]))


def measure(rounds: int) -> dict[str, list[Cost]]:
    """The costs of every import that can be made here; a first round, which compiles, is not counted."""
    there = {name: both for name, both in IMPORTS.items() if is_installed(both[1] or both[0])}
    found: dict[str, list[Cost]] = {name: [] for name in there}
    draw = random.Random(0)
    with tqdm(total=(rounds + 1) * len(there), unit="process") as bar:
        for counted in [False] + [True] * rounds:
            for name in draw.sample(list(there), len(there)):
                cost = measure_apart(*there[name])
                if counted:
                    found[name].append(cost)
                bar.update()
    return found


def is_installed(statement: str) -> bool:
    """Whether the package of an import statement is installed."""
    return find_spec(statement.split()[1].partition(".")[0]) is not None


def report(rounds: int, found: dict[str, list[Cost]]) -> str:
    """The section for `docs/benchmarks.md`."""
    middle = {
        name: Cost(*(spread(list(each)).median for each in zip(*costs, strict=True)))
        for name, costs in found.items()
    }
    unit = middle["`pytorch_lightning`"].processor
    rows = [
        [
            name,
            f"{each.processor:.2f}",
            f"{each.processor / unit:.3f}",
            f"{each.wall:.2f}",
            f"{each.memory:.0f}" if can_measure_memory() else "not measured",
        ]
        for name, each in middle.items()
    ]
    added = middle["**`+ SaliencyMonitor, ShortcutAlarm`**"].processor
    goal = Goal(f"at most {LIMIT} s of processor time added: {added:.3f} s", added, LIMIT)
    header = ["", "processor time, s", "in imports of `pytorch_lightning`", "wall, s", "memory, MiB"]
    lines = [
        f"`python -m benchmarks.cost.imports --rounds {rounds}`\n",
        f"Medians of {rounds} fresh processes; a row with + is what the import adds behind `pytorch_lightning`.\n",
        markdown_table(header, rows) + "\n",
        f"- Goal {goal}.\n",
        measured_on(["torch", "pytorch-lightning"]),
    ]
    return "\n".join(lines)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3, help="how often each is imported")
    parser.add_argument("--output", type=Path, help="a Markdown page whose section imports is written anew")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write where asked to."""
    options = parse(arguments)
    publish(options.output, "imports", report(options.rounds, measure(options.rounds)))


if __name__ == "__main__":
    main()
