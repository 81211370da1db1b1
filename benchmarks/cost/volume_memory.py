"""How much memory the map of a volume takes at its peak, in that of a plain forward without gradients.

    python -m benchmarks.cost.volume_memory

Each call runs in a fresh process: the script calls itself for that. The layer is found in the same call.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from benchmarks import ROOT
from benchmarks.common.measure import EXACT_MALLOC, markdown_table, peak_extra_memory
from lightning_gcam import attribute

LIMIT = 3.0  # of a plain forward's peak


class DenseLayer(nn.Module):
    """A layer of a 3-D DenseNet: what it computes goes behind its input."""

    def __init__(self, channels: int, growth: int = 8) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.BatchNorm3d(channels), nn.ReLU(), nn.Conv3d(channels, 4 * growth, 1, bias=False)),
            *(nn.BatchNorm3d(4 * growth), nn.ReLU(), nn.Conv3d(4 * growth, growth, 3, padding=1, bias=False)),
        )

    def forward(self, volumes: Tensor) -> Tensor:
        return torch.cat([volumes, self.layers(volumes)], dim=1)


def dense() -> nn.Module:
    """A small 3-D DenseNet, as MONAI's: a strided stem, three blocks, the grid halved between them."""
    parts: list[nn.Module] = [nn.Conv3d(1, 16, 7, 2, 3), nn.BatchNorm3d(16), nn.ReLU(), nn.MaxPool3d(3, 2, 1)]
    channels = 16
    for count in (2, 3, 3):
        for _ in range(count):
            parts.append(DenseLayer(channels))
            channels += 8
        parts += [nn.BatchNorm3d(channels), nn.ReLU(), nn.Conv3d(channels, channels // 2, 1), nn.AvgPool3d(2)]
        channels //= 2
    return nn.Sequential(*parts[:-2], nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(2 * channels, 3))


def plain() -> nn.Module:
    """Three convolutions, the first at the size of the volume."""
    parts: list[nn.Module] = []
    for inside, outside in ((1, 8), (8, 16), (16, 32)):
        parts += [
            nn.Conv3d(inside, outside, 3, padding=1),
            nn.BatchNorm3d(outside),
            nn.ReLU(),
            nn.MaxPool3d(2),
        ]
    return nn.Sequential(*parts[:-1], nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(32, 3))


class UNet(nn.Module):
    """Logits at every voxel, by three levels."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = (
            nn.Sequential(nn.Conv3d(inside, outside, 3, padding=1), nn.BatchNorm3d(outside), nn.ReLU())
            for inside, outside in ((1, 8), (8, 16))
        )
        self.bottom = nn.Sequential(nn.Conv3d(16, 32, 3, padding=1), nn.BatchNorm3d(32), nn.ReLU())
        self.third, self.fourth = nn.Conv3d(48, 16, 3, padding=1), nn.Conv3d(24, 8, 3, padding=1)
        self.head = nn.Conv3d(8, 3, 1)

    def forward(self, volumes: Tensor) -> Tensor:
        first = self.first(volumes)
        second = self.second(nn.functional.max_pool3d(first, 2))
        up = nn.functional.interpolate(self.bottom(nn.functional.max_pool3d(second, 2)), scale_factor=2)
        up = nn.functional.interpolate(self.third(torch.cat([second, up], dim=1)).relu(), scale_factor=2)
        return self.head(self.fourth(torch.cat([first, up], dim=1)).relu())


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "dense": dense,
    "plain": plain,
    "u-net": UNet,
    "u-net, layer named": UNet,
}


def measure_here(name: str, what: str, size: int) -> float:
    """MiB of one call in this process, after one on small volumes and its imports."""
    torch.manual_seed(0)
    model = NETWORKS[name]().eval()
    attribute(model, torch.rand(1, 1, 32, 32, 32))
    volumes = torch.rand(1, 1, size, size, size)
    with torch.no_grad():
        layer = "bottom" if name.endswith("layer named") else None
        if what == "map":
            return peak_extra_memory(lambda: attribute(model, volumes, target_layer=layer))
        return peak_extra_memory(lambda: model(volumes))


def measure_apart(name: str, what: str, size: int) -> float:
    """MiB of one call, from a process of its own."""
    command = [sys.executable, "-m", "benchmarks.cost.volume_memory", f"--of={name}", f"--what={what}"]
    done = subprocess.run(
        [*command, f"--size={size}"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        cwd=ROOT,
        env=os.environ | EXACT_MALLOC,
    )
    return float(done.stdout.splitlines()[-1])


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a table; 1 where a map takes more than `LIMIT` times a forward."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=128, help="the side of the volumes")
    parser.add_argument("--of", choices=NETWORKS, help=argparse.SUPPRESS)
    parser.add_argument("--what", choices=["forward", "map"], help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if options.of is not None:
        print(measure_here(options.of, options.what, options.size))
        return 0
    rows, ratios = [], []
    for name in NETWORKS:
        forward, mapped = (measure_apart(name, what, options.size) for what in ("forward", "map"))
        ratios.append(mapped / forward)
        rows.append([name, f"{forward:.0f}", f"{mapped:.0f}", f"{ratios[-1]:.2f}"])
    print(markdown_table(["network", "plain forward, MiB", "map, MiB", "forwards"], rows))
    return int(max(ratios) > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
