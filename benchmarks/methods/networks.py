"""The networks of `comparison.py`: digits on photographed grounds, two kinds of labels, three heads, small trainings.

The digits are scikit-learn's, the photographs scikit-image's; both come inside the wheels (no download).
"""

from typing import NamedTuple

import torch
from digits_on_canvas import Scans, split_scans
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from benchmarks.common.cues import NUM_CLASSES, load_materials
from benchmarks.common.three_digits import CANVAS, Digits, Targets, build, draw_ink

LABELS = ("single", "multi")
HEADS = ("pooled", "max-pooled", "VGG-like")
STRIDES = (2, 2, 1, 2, 1)  # a grid of 16 x 16 at the third convolution, of 8 x 8 at the last
INK = 0.7  # opacity of a digit
BATCH = 64
VALIDATED = 256  # canvases that the accuracy is measured on


class Unit(NamedTuple):
    """One network: what its canvases are labelled with, its head, and the seed of its data and weights."""

    labels: str
    head: str
    seed: int


class Trained(NamedTuple):
    """A network in eval mode, and the share of its answers on unseen canvases that are right."""

    network: nn.Module
    accuracy: float


# ----------------------------------------------------------------------------------------------- canvases


def draw_canvases(scans: Scans, size: int, labels: str, seed: int, *, validation: bool = False) -> Digits:
    """Three digits on each canvas, each in a quarter of its own, on a photographed ground.

    Args:
        scans: the digits to draw from.
        size: how many canvases.
        labels: "single", three digits of one class; "multi", of three classes.
        seed: of everything that is drawn.
        validation: which half of each photograph the grounds are cut from: no pixel is in both.
    """
    generator = torch.Generator().manual_seed(seed)
    classes = torch.stack([torch.randperm(NUM_CLASSES, generator=generator)[:3] for _ in range(size)])
    if labels == "single":
        classes = classes[:, :1].expand(-1, 3)
    ink = draw_ink(scans, classes, generator)
    ground = cut_grounds(size, generator, validation)[:, None]
    images = ground + (1 - ground) * INK * ink.amax(dim=1, keepdim=True)
    return Digits(images.expand(-1, 3, -1, -1).contiguous(), classes, ink > 0)


def cut_grounds(size: int, generator: torch.Generator, validation: bool) -> Tensor:
    """A random piece `(size, CANVAS, CANVAS)` of a random photograph each."""
    halves = [material.tensor_split(2, dim=1)[int(validation)] for material in load_materials()]
    kinds = torch.randint(len(halves), (size,), generator=generator).tolist()
    places = torch.rand(size, 2, generator=generator)
    return torch.stack([cut(halves[kind], place) for kind, place in zip(kinds, places, strict=True)])


def cut(picture: Tensor, place: Tensor) -> Tensor:
    """The piece of a picture at a place in [0, 1)."""
    top, left = ((place * (torch.tensor(picture.shape) - CANVAS + 1)).int()).tolist()
    return picture[top : top + CANVAS, left : left + CANVAS]


def marks_of_classes(classes: Tensor) -> Tensor:
    """The classes `(N, 3)` as marks `(N, NUM_CLASSES)`, float."""
    return torch.zeros(len(classes), NUM_CLASSES).scatter(1, classes, 1.0)


# ---------------------------------------------------------------------------------------------- trainings


def train(unit: Unit, epochs: int, size: int) -> Trained:
    """Train once; the network, and how right it is on canvases of digits and grounds it never saw."""
    torch.manual_seed(unit.seed)
    scans, unseen = split_scans(unit.seed)
    canvases = draw_canvases(scans, size, unit.labels, 3 * unit.seed + 1)
    network = build_network(unit.head)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    steps = epochs * -(-size // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    for _ in range(epochs):
        for rows in torch.randperm(size).split(BATCH):
            loss = loss_of(network(canvases.images[rows]), canvases.classes[rows], unit.labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    network.eval()
    tried = draw_canvases(unseen, VALIDATED, unit.labels, 3 * unit.seed + 2, validation=True)
    return Trained(network, accuracy(network, tried, unit.labels))


def build_network(head: str) -> nn.Module:
    """Five convolutions on two grids, and one of the heads."""
    return build(head, STRIDES)


def loss_of(logits: Tensor, classes: Tensor, labels: str) -> Tensor:
    """Cross entropy of one class of ten, or of each class by itself."""
    if labels == "single":
        return cross_entropy(logits, classes[:, 0])
    return binary_cross_entropy_with_logits(logits, marks_of_classes(classes))


@torch.no_grad()
def accuracy(network: nn.Module, canvases: Digits, labels: str) -> float:
    """The share of canvases whose class is named, or of digits that are among the three highest logits."""
    named = 1 if labels == "single" else 3
    top = torch.cat([network(images).topk(named).indices for images in canvases.images.split(BATCH)])
    return float((top[:, :, None] == canvases.classes[:, None, :named]).any(dim=1).float().mean())


# ---------------------------------------------------------------------------------- what is explained


def targets_of(unit: Unit, size: int) -> Targets:
    """Rows to explain, on canvases that were never seen: each digit by itself, or where they share a class, all three.

    Args:
        unit: the network that is asked.
        size: how many rows; of a "multi" unit three in a row are of one canvas.
    """
    each = 1 if unit.labels == "single" else 3
    unseen = split_scans(unit.seed)[1]
    drawn = draw_canvases(unseen, -(-size // each), unit.labels, 3 * unit.seed + 3, validation=True)
    masks = drawn.masks.any(dim=1, keepdim=True) if each == 1 else drawn.masks
    images = drawn.images.repeat_interleave(each, dim=0)
    return Targets(images[:size], drawn.classes[:, :each].flatten()[:size], masks.flatten(0, 1)[:size])


def canvas_of_row(unit: Unit, size: int) -> Tensor:
    """The canvas that each row is of, `(size,)`: rows of one canvas are not independent of each other."""
    return torch.arange(size) // (1 if unit.labels == "single" else 3)
