"""Three digits on a canvas, a mask each: all methods on all scores, at two layers, under two kinds of head.

One digit is explained at a time, so that a map which lights up every digit loses. The second
part of `shortcuts/shortcuts.py`.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from digits_on_canvas import DIGIT, Scans, enlarge, split_scans
from planted_shortcut import convolution
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from tqdm import trange

from benchmarks.common.cues import NUM_CLASSES
from lightning_gcam import attribute
from lightning_gcam.cam import available_methods
from lightning_gcam.metrics import functional as scores
from lightning_gcam.metrics.functional import centre_map, uniform_map

CANVAS = 64  # pixels a side
QUARTER = CANVAS // 2
LAYERS = {"last": "features.4", "earlier": "features.2"}
STEPS = 20  # of insertion and deletion
HIGH, LOW = 1, -1
BETTER = {
    "energy": HIGH,
    "pointing_game": HIGH,
    "rank_accuracy": HIGH,
    "iou": HIGH,
    "best_iou": HIGH,
    "pixel_average_precision": HIGH,
    "max_box_accuracy": HIGH,
    "average_drop": LOW,
    "average_increase": HIGH,
    "average_gain": HIGH,
    "insertion": HIGH,
    "deletion": LOW,
    "coherency": HIGH,
    "adcc": HIGH,
}
"""Every score, and which end of it is better."""


class Digits(NamedTuple):
    """Canvases `(N, 3, H, W)`, the classes `(N, 3)` of the digits on each, and their masks `(N, 3, H, W)` bool."""

    images: Tensor
    classes: Tensor
    masks: Tensor


class Targets(NamedTuple):
    """One digit to explain a row: its canvas, its class, its mask."""

    images: Tensor
    classes: Tensor
    masks: Tensor


# ------------------------------------------------------------------------------------ data and network


def draw_three(scans: Scans, size: int, seed: int) -> Digits:
    """Three digits of different classes on each canvas, each somewhere in a quarter of its own, on dark noise."""
    generator = torch.Generator().manual_seed(seed)
    classes = torch.stack([torch.randperm(NUM_CLASSES, generator=generator)[:3] for _ in range(size)])
    ink = draw_ink(scans, classes, generator)
    ground = 0.25 * torch.rand(size, 3, CANVAS, CANVAS, generator=generator)
    return Digits(ground + (1 - ground) * ink.amax(dim=1, keepdim=True), classes, ink > 0)


def draw_ink(scans: Scans, classes: Tensor, generator: torch.Generator) -> Tensor:
    """A layer of its own `(N, 3, CANVAS, CANVAS)` for each digit of the classes `(N, 3)`, in a quarter of its own."""
    ink = torch.zeros(len(classes), 3, CANVAS, CANVAS)
    large = enlarge(scans.pixels)
    of_class = [large[scans.labels == each] for each in range(NUM_CLASSES)]
    for canvas, three in zip(ink, classes.tolist(), strict=True):
        quarters = torch.randperm(4, generator=generator).tolist()
        for layer, digit, quarter in zip(canvas, three, quarters, strict=False):
            place_in_quarter(layer, of_class[digit], quarter, generator)
    return ink


def place_in_quarter(layer: Tensor, scans: Tensor, quarter: int, generator: torch.Generator) -> None:
    """Draw one of the scans at a random place in a quarter of a layer `(CANVAS, CANVAS)`."""
    down, across = torch.randint(QUARTER - DIGIT + 1, (2,), generator=generator).tolist()
    top, left = QUARTER * (quarter // 2) + down, QUARTER * (quarter % 2) + across
    chosen = int(torch.randint(len(scans), (1,), generator=generator))
    layer[top : top + DIGIT, left : left + DIGIT] = scans[chosen]


def build(head: str, strides: Sequence[int] = (2, 2, 1, 1, 1)) -> nn.Module:
    """Five convolutions, then a head.

    Args:
        head: "pooled", the mean over space and one linear layer; "max-pooled", the same with the maximum; "VGG-like",
            two linear layers on a grid.
        strides: of the convolutions.
    """
    widths = [3, 16, 32, 48, 64, 64]
    layers = [
        convolution(*pair, stride=stride) for pair, stride in zip(pairwise(widths), strides, strict=True)
    ]
    features = nn.Sequential(*(nn.Sequential(*layer) for layer in layers))
    heads: dict[str, Callable[[], list[nn.Module]]] = {
        "pooled": lambda: [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, NUM_CLASSES)],
        "max-pooled": lambda: [nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(64, NUM_CLASSES)],
        "VGG-like": lambda: [
            nn.AdaptiveMaxPool2d(8),
            nn.Flatten(),
            nn.Linear(64 * 64, 128),
            nn.ReLU(),
            nn.Linear(128, NUM_CLASSES),
        ],
    }
    return nn.Sequential(OrderedDict(features=features, head=nn.Sequential(*heads[head]())))


def train(head: str, epochs: int, size: int, seed: int = 0) -> tuple[nn.Module, float]:
    """A network that names the digits on a canvas, and how many of its answers are right on unseen ones."""
    torch.manual_seed(seed)
    scans, unseen = split_scans(seed)
    digits, network = draw_three(scans, size, seed), build(head)
    present = torch.zeros(size, NUM_CLASSES).scatter(1, digits.classes, 1.0)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    steps = epochs * -(-size // 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    for _ in trange(epochs, desc=f"three digits, {head}", leave=False):
        for rows in torch.randperm(size).split(64):
            loss = binary_cross_entropy_with_logits(network(digits.images[rows]), present[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    network.eval()
    tried = draw_three(unseen, 256, seed + 1)
    with torch.no_grad():
        top = torch.cat([network(images).topk(3).indices for images in tried.images.split(64)])
    return network, float((top[:, :, None] == tried.classes[:, None]).any(dim=1).float().mean())


def targets_of(size: int, seed: int = 0) -> Targets:
    """Digits to explain, on canvases that were never trained on: one row a digit."""
    digits = draw_three(split_scans(seed)[1], -(-size // 3), seed + 2)
    images = digits.images.repeat_interleave(3, dim=0)[:size]
    return Targets(images, digits.classes.flatten()[:size], digits.masks.flatten(0, 1)[:size])


# ------------------------------------------------------------------------------------------ the scores


def measure_methods(network: nn.Module, layer: str, targets: Targets) -> dict[str, dict[str, float]]:
    """Every score of every method at one layer, and of the two maps that see no image."""
    maps = explain(network, targets.images, targets.classes, layer)
    found = {name: measure_maps(network, layer, name, each, targets) for name, each in maps.items()}
    for name, make in {"centre": centre_map, "uniform": uniform_map}.items():
        found[name] = measure_maps(
            network, layer, "", make((CANVAS, CANVAS)).expand_as(targets.masks), targets
        )
    return found


def explain(network: nn.Module, images: Tensor, classes: Tensor, layer: str) -> dict[str, Tensor]:
    """The maps of all methods."""
    methods = available_methods()[:6]
    return attribute(network, images, classes, methods=methods, target_layer=layer).maps


def measure_maps(
    network: nn.Module, layer: str, method: str, maps: Tensor, targets: Targets
) -> dict[str, float]:
    """All scores of one map a target; coherency only where there is a method to explain the kept image with."""
    blank = maps.flatten(1).amax(dim=1) == 0
    found = {
        "energy": scores.energy_pointing_game(maps, targets.masks),
        "pointing_game": scores.pointing_game(maps, targets.masks),
        "rank_accuracy": scores.relevance_rank_accuracy(maps, targets.masks),
        "iou": scores.saliency_iou(maps, targets.masks),
        "best_iou": scores.best_saliency_iou(maps, targets.masks),
        "pixel_average_precision": scores.pixel_average_precision(maps, targets.masks),
        "max_box_accuracy": scores.max_box_accuracy(maps, targets.masks),
    }
    kept = scores.keep_salient(targets.images, maps)
    before, after = (confidence(network, images, targets.classes) for images in (targets.images, kept))
    found |= {
        "average_drop": scores.average_drop(before, after, blank),
        "average_increase": scores.average_increase(before, after, blank),
        "average_gain": scores.average_gain(before, after, blank),
        "insertion": scores.insertion_auc(curve(network, scores.insertion_steps, maps, targets), blank),
        "deletion": scores.deletion_auc(curve(network, scores.deletion_steps, maps, targets), blank),
    }
    if method:
        again = explain(network, kept, targets.classes, layer)[method]
        found |= {
            "coherency": scores.coherency(maps, again),
            "adcc": scores.adcc(maps, again, before, after),
        }
    return {name: float(value) for name, value in found.items()}


@torch.no_grad()
def confidence(network: nn.Module, images: Tensor, classes: Tensor) -> Tensor:
    """The probability of each row's class, `(N,)`: the answers are independent of each other, so a sigmoid."""
    return network(images).sigmoid().gather(1, classes[:, None])[:, 0]


Steps = Callable[[Tensor, Tensor, int], Iterator[tuple[Tensor, Tensor]]]


def curve(network: nn.Module, steps: Steps, maps: Tensor, targets: Targets) -> Tensor:
    """The probability of each row's class as its pixels come or go, `(N, steps + 1)`."""
    curves = torch.empty(len(maps), STEPS + 1)
    for index, images in steps(targets.images, maps, STEPS):
        row, step = index.unbind(dim=1)
        curves[row, step] = confidence(network, images, targets.classes[row])
    return curves


def measure_all(epochs: int, size: int, targets: int) -> dict[str, Any]:
    """By head: how right the network is; and by head, layer and method every score."""
    found: dict[str, Any] = {}
    for head in ("pooled", "VGG-like"):
        network, right = train(head, epochs, size)
        rows = targets_of(targets)
        found[head] = {
            "right": right,
            "layers": {name: measure_methods(network, layer, rows) for name, layer in LAYERS.items()},
        }
    return found
