"""What one map of each method costs: images that go through the model, time in forwards, and peak memory.

Times are of one process, one call of each method a round; memory is of another one, whose allocator gives back at once
what is freed: the script is called for that by `comparison.py` with `--memory`.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from benchmarks import ROOT
from benchmarks.common.measure import (
    EXACT_MALLOC,
    can_measure_memory,
    clock_interleaved,
    peak_extra_memory,
    spread,
)
from benchmarks.common.three_digits import LAYERS
from benchmarks.methods.networks import build_network
from lightning_gcam import attribute

FORWARD = "a plain forward"
DEAR = 20  # images asked a map: from here on, a method is timed once


class Scene(NamedTuple):
    """A network with random weights, images, and the layer."""

    network: nn.Module
    images: Tensor
    layer: str

    def forward(self) -> Tensor:
        """What everything is counted in."""
        with torch.no_grad():
            return self.network(self.images)

    def explain(self, method: str) -> object:
        """One map of each image."""
        classes = torch.zeros(len(self.images), dtype=torch.long)
        return attribute(self.network, self.images, classes, methods=method, target_layer=self.layer)


def set_scene(batch: int, size: int) -> Scene:
    torch.manual_seed(0)
    return Scene(build_network("pooled").eval(), torch.rand(batch, 3, size, size), LAYERS["last"])


def images_asked(scene: Scene, method: str) -> float:
    """How many images go through the model for one map, its own forward included."""
    seen: list[int] = []
    handle = scene.network.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    scene.explain(method)
    handle.remove()
    return sum(seen) / len(scene.images)


def measure_cost(methods: Sequence[str], batch: int, size: int, rounds: int) -> list[dict[str, Any]]:
    """A row for each method: images asked, median time in forwards by both clocks, and MiB."""
    scene = set_scene(batch, size)
    asked = {method: images_asked(scene, method) for method in methods}
    cheap = [method for method in methods if asked[method] < DEAR]
    times = in_forwards(scene, cheap, rounds) | in_forwards(scene, [m for m in methods if m not in cheap], 1)
    memory = measure_memory_apart(methods, batch, size) if can_measure_memory() else {}
    return [
        {
            "method": method,
            "asked": round(asked[method], 2),
            "wall": round(times[method][0], 2),
            "processor": round(times[method][1], 2),
            "memory": round(memory[method], 1) if method in memory else None,
        }
        for method in methods
    ]


def in_forwards(scene: Scene, methods: Sequence[str], rounds: int) -> dict[str, tuple[float, float]]:
    """Median time of each method in median plain forwards, on the wall's clock and of processor time."""
    calls = {FORWARD: scene.forward, **{method: partial(scene.explain, method) for method in methods}}
    took = clock_interleaved(calls, rounds)
    wall, processor = (
        {name: spread([getattr(once, clock) for once in each]).median for name, each in took.items()}
        for clock in ("wall", "processor")
    )
    return {name: (wall[name] / wall[FORWARD], processor[name] / processor[FORWARD]) for name in methods}


# ---------------------------------------------------------------------------------------------- memory


def measure_memory_apart(methods: Sequence[str], batch: int, size: int) -> dict[str, float]:
    """MiB of every method's call, in a process of its own whose freed memory is gone at once."""
    command = [sys.executable, "-m", "benchmarks.methods.cost", "--memory", str(batch), str(size), *methods]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT, env=os.environ | EXACT_MALLOC
    )
    return dict(json.loads(done.stdout.splitlines()[-1]))


def measure_memory_here(methods: Sequence[str], batch: int, size: int) -> dict[str, float]:
    """MiB of the second call of every method in this process: the first one may import and build what stays."""
    torch.set_num_threads(1)
    scene = set_scene(batch, size)
    found = {}
    for method in methods:
        Scene(scene.network, scene.images[:1], scene.layer).explain(method)
        found[method] = peak_extra_memory(partial(scene.explain, method))
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """The memory of some methods, for `measure_memory_apart`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--memory", type=int, nargs=2, required=True, metavar=("BATCH", "SIZE"))
    parser.add_argument("methods", nargs="+")
    options = parser.parse_args(arguments)
    print(json.dumps(measure_memory_here(options.methods, *options.memory)))


if __name__ == "__main__":
    main()
