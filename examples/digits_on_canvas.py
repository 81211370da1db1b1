"""Handwritten digits at random places on a canvas, with exact masks and a coloured patch in one corner.

The digits are scikit-learn's: 1,797 real scans of 8 x 8 pixels, which come inside its wheel (no download).
"""

import colorsys
from typing import NamedTuple

import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn.functional import interpolate

NUM_CLASSES = 10
CANVAS = 48  # pixels a side
DIGIT = 22  # pixels a side of an enlarged scan
CORNER = 8  # pixels a side of the coloured patch


class Scans(NamedTuple):
    """Scans as they come: pixels `(N, 8, 8)` in [0, 1], labels `(N,)`."""

    pixels: Tensor
    labels: Tensor


class Canvases(NamedTuple):
    """What a model is trained on: images `(N, 3, H, W)` in [0, 1], labels `(N,)`, masks `(N, H, W)` bool."""

    images: Tensor
    labels: Tensor
    masks: Tensor


def split_scans(seed: int, validation_share: float = 0.2) -> tuple[Scans, Scans]:
    """Split the scans at random into training and validation: no scan is in both."""
    digits = load_digits()
    pixels = torch.tensor(digits.images, dtype=torch.float32) / 16
    labels = torch.tensor(digits.target, dtype=torch.long)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    validation, training = order.tensor_split([int(validation_share * len(order))])
    return Scans(pixels[training], labels[training]), Scans(pixels[validation], labels[validation])


def place_on_canvas(scans: Scans, size: int, seed: int) -> Canvases:
    """Draw `size` canvases: one digit each, at a random place clear of the corner, on a dark noisy ground."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.arange(size) % len(scans.labels)  # every scan before any scan twice
    ink = place_at_random(enlarge(scans.pixels[chosen]), generator)
    ground = 0.25 * torch.rand(size, 3, CANVAS, CANVAS, generator=generator)
    images = ground + (1 - ground) * ink[:, None]
    return Canvases(images, scans.labels[chosen], ink > 0)


def enlarge(pixels: Tensor) -> Tensor:
    """Enlarge scans `(N, 8, 8)` to `(N, DIGIT, DIGIT)`, the faint rim left by the enlargement cut off."""
    large = interpolate(pixels[:, None], size=(DIGIT, DIGIT), mode="bilinear")[:, 0]
    return large.where(large > 0.25, 0)


def place_at_random(ink: Tensor, generator: torch.Generator) -> Tensor:
    """Put each digit `(N, DIGIT, DIGIT)` at a random place of an empty `(N, CANVAS, CANVAS)`."""
    canvas = torch.zeros(len(ink), CANVAS, CANVAS)
    places = torch.randint(CORNER, CANVAS - DIGIT + 1, (len(ink), 2), generator=generator)
    for one, digit, (top, left) in zip(canvas, ink, places.tolist(), strict=True):
        one[top : top + DIGIT, left : left + DIGIT] = digit
    return canvas


def random_hues(size: int, seed: int) -> Tensor:
    """One hue a canvas `(N,)`, drawn without looking at the label."""
    return torch.randint(NUM_CLASSES, (size,), generator=torch.Generator().manual_seed(seed))


def paint_corner(canvases: Canvases, hues: Tensor) -> Canvases:
    """The same canvases with the corner patch in the given hues `(N,)`, one of ten each."""
    images = canvases.images.clone()
    images[:, :, :CORNER, :CORNER] = palette()[hues][:, :, None, None]
    return canvases._replace(images=images)


def palette() -> Tensor:
    """The ten hues as RGB `(10, 3)`, evenly spaced on the colour circle."""
    return torch.tensor([colorsys.hsv_to_rgb(k / NUM_CLASSES, 1, 1) for k in range(NUM_CLASSES)])


def corner_mask() -> Tensor:
    """Where the coloured patch is, `(CANVAS, CANVAS)` bool."""
    mask = torch.zeros(CANVAS, CANVAS, dtype=torch.bool)
    mask[:CORNER, :CORNER] = True
    return mask
