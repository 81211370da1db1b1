"""Handwritten digits on photographed grounds, and what beside the digit may tell its label, or on it.

The digits are scikit-learn's, the photographs scikit-image's; both come inside the wheels (no download). A cue is drawn
in one of ten kinds (its hue, its material, its letter). How often that kind is the label is the cue's strength.
"""

import math
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np
import skimage.data
import torch
from digits_on_canvas import (
    CANVAS,
    NUM_CLASSES,
    Scans,
    corner_mask,
    enlarge,
    palette,
    place_at_random,
)
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn.functional import avg_pool2d

FRAME = 3  # pixels, the width of the coloured border
MARK = 9  # pixels a side of the written mark
PLATE = (9, 15)  # rows and columns of the coloured plate: inside of the border, beside the middle
STRIPES, NOISE, LIGHT = (
    0.08,
    0.12,
    0.5,
)  # amplitude, standard deviation, and the share by which the light changes
INK = 0.7  # opacity of a digit
GROUND, CONTRAST = 0.35, 0.10  # mean and standard deviation of every photograph
MATERIALS = [  # photograph, pixels averaged into one, turned by a quarter
    ("brick", 2, False),
    ("brick", 2, True),
    ("grass", 1, False),
    ("grass", 4, False),
    ("gravel", 1, False),
    ("gravel", 4, False),
    ("coins", 2, False),
    ("page", 1, False),
    ("immunohistochemistry", 4, False),
    ("hubble_deep_field", 2, False),
]
PLAIN = [0, 2, 5]  # the materials that the digits lie on where the ground is no cue


class Scenes(NamedTuple):
    """Images `(N, 3, H, W)` in [0, 1], labels `(N,)`, the digits' masks and the cue's places `(N, H, W)` bool.

    Where the cue is everywhere (a tint, the ground), or there is none, `suspect` is empty.
    """

    images: Tensor
    labels: Tensor
    masks: Tensor
    suspect: Tensor


class Plan(NamedTuple):
    """What is planted: a cue out of `PAINTERS`, and the share of samples whose cue tells the label."""

    cue: str
    strength: float


# --------------------------------------------------------------------------------------------- drawing


def draw(scans: Scans, size: int, plan: Plan, seed: int, *, validation: bool = False) -> Scenes:
    """Draw `size` scenes: every scan before any scan twice, each at a random place on a random ground.

    The same seed gives the same digits at the same places on the same grounds, whatever the plan's strength.
    """
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.arange(size) % len(scans.labels)
    labels = scans.labels[chosen]
    ink = INK * place_at_random(enlarge(scans.pixels[chosen]), generator)
    kinds = kinds_of(labels, plan.strength, seed)
    on_ground = (
        kinds
        if plan.cue == "texture"
        else torch.tensor(PLAIN)[torch.randint(3, (size,), generator=generator)]
    )
    ground = cut_grounds(on_ground, generator, validation)[:, None].expand(-1, 3, -1, -1)
    images = ground + (1 - ground) * ink[:, None]
    images, suspect = PAINTERS[plan.cue](images, ink > 0, kinds, generator)
    return Scenes(images, labels, (ink > 0) & ~suspect, suspect)


def kinds_of(labels: Tensor, strength: float, seed: int) -> Tensor:
    """The cue's kind in each sample: its label in a share `strength` of them, any of the ten in the others."""
    generator = torch.Generator().manual_seed(seed + 1_000_000)
    tells = torch.rand(len(labels), generator=generator) < strength
    return torch.where(tells, labels, torch.randint(NUM_CLASSES, (len(labels),), generator=generator))


@cache
def load_materials() -> list[Tensor]:
    """The ten materials `(H, W)`, grey, all of the same brightness and contrast: only their texture differs."""
    return [load_material(*each) for each in MATERIALS]


def load_material(name: str, pooled: int, turned: bool) -> Tensor:
    picture = torch.tensor(getattr(skimage.data, name)()).float()
    grey = picture.mean(dim=2) if picture.ndim == 3 else picture
    small = avg_pool2d(grey[None], pooled)[0]
    even = (GROUND + CONTRAST * (small - small.mean()) / small.std()).clamp(0, 1)
    return even.T if turned else even


def cut_grounds(kinds: Tensor, generator: torch.Generator, validation: bool) -> Tensor:
    """A random piece `(N, CANVAS, CANVAS)` of each material; training and validation have a half of it each."""
    halves = [material.tensor_split(2, dim=1)[int(validation)] for material in load_materials()]
    places = torch.rand(len(kinds), 2, generator=generator)
    return torch.stack([cut(halves[kind], place) for kind, place in zip(kinds.tolist(), places, strict=True)])


def cut(picture: Tensor, place: Tensor) -> Tensor:
    """The piece of a picture at a place in [0, 1)."""
    top, left = (
        int(share * (edge - CANVAS + 1)) for share, edge in zip(place.tolist(), picture.shape, strict=True)
    )
    return picture[top : top + CANVAS, left : left + CANVAS]


# ------------------------------------------------------------------------------------------------ cues

Painter = Callable[[Tensor, Tensor, Tensor, torch.Generator], tuple[Tensor, Tensor]]
"""From images `(N, 3, H, W)`, masks, the cue's kinds `(N,)` and a generator to images and where the cue is."""


def leave(images: Tensor, masks: Tensor, kinds: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Nothing is painted: no cue, or the ground itself."""
    return images, torch.zeros_like(masks)


def corner(images: Tensor, masks: Tensor, kinds: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A coloured patch in one corner; no digit ever lies there."""
    return fill(images, corner_mask().expand_as(masks), palette()[kinds])


def frame(images: Tensor, masks: Tensor, kinds: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A coloured border."""
    border = torch.ones(CANVAS, CANVAS, dtype=torch.bool)
    border[FRAME:-FRAME, FRAME:-FRAME] = False
    return fill(images, border.expand_as(masks), palette()[kinds])


def fill(images: Tensor, region: Tensor, colours: Tensor) -> tuple[Tensor, Tensor]:
    return torch.where(region[:, None], colours[:, :, None, None], images), region


def tint(images: Tensor, masks: Tensor, kinds: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A colour over everything, the digit too: no place can be named."""
    colours = 0.6 + 0.4 * palette()[kinds]
    return images * colours[:, :, None, None], torch.zeros_like(masks)


def ink(images: Tensor, masks: Tensor, kinds: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A colour of the digit itself: what the mask covers counts as the object's, so that no check can tell."""
    colours = 0.6 + 0.4 * palette()[kinds]
    return torch.where(masks[:, None], images * colours[:, :, None, None], images), torch.zeros_like(masks)


def mark(images: Tensor, masks: Tensor, kinds: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A letter on a dark plate, at a random place clear of the digit."""
    images, region, plates = images.clone(), torch.zeros_like(masks), letters()
    for image, mask, place, kind in zip(images, masks, region, kinds.tolist(), strict=True):
        free = (~box_around(mask)).nonzero()
        top, left = free[torch.randint(len(free), (1,), generator=generator).item()].tolist()
        image[:, top : top + MARK, left : left + MARK] = plates[kind]
        place[top : top + MARK, left : left + MARK] = True
    return images, region


def box_around(mask: Tensor) -> Tensor:
    """Where the corner of a mark would have it touch the box around a digit, or reach over the edge."""
    rows, columns = (mask.any(dim=axis).nonzero()[[0, -1], 0].tolist() for axis in (1, 0))
    taken = torch.zeros_like(mask)
    taken[max(rows[0] - MARK + 1, 0) : rows[1] + 1, max(columns[0] - MARK + 1, 0) : columns[1] + 1] = True
    taken[CANVAS - MARK + 1 :], taken[:, CANVAS - MARK + 1 :] = True, True
    return taken


@cache
def letters() -> Tensor:
    """Ten letters, white on black, `(10, MARK, MARK)` in [0, 1]."""
    return torch.stack([write("ACEHKLOSTX"[kind]) for kind in range(NUM_CLASSES)])


def write(letter: str) -> Tensor:
    plate = Image.new("L", (4 * MARK, 4 * MARK))
    ImageDraw.Draw(plate).text(
        (2 * MARK, 2 * MARK), letter, 255, ImageFont.load_default(4 * MARK), anchor="mm"
    )
    return avg_pool2d(torch.tensor(np.array(plate))[None].float(), 4)[0] / 255


def plate(images: Tensor, masks: Tensor, kinds: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A small coloured plate at a fixed place, over the digit where that lies there."""
    region = torch.zeros(CANVAS, CANVAS, dtype=torch.bool)
    region[slice(*PLATE), slice(*PLATE)] = True
    return fill(images, region.expand_as(masks), palette()[kinds])


def stripes(
    images: Tensor, masks: Tensor, kinds: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Faint stripes over everything, in five directions, wide or narrow; where they begin is drawn at random."""
    angles, periods = (kinds % 5) * (math.pi / 5), torch.where(kinds < 5, 4.0, 8.0)
    along = across(angles) * (2 * math.pi / periods)[:, None, None]
    begin = 2 * math.pi * torch.rand(len(kinds), 1, 1, generator=generator)
    return shaded(images + STRIPES * (along + begin).sin()[:, None], masks)


def noise(images: Tensor, masks: Tensor, kinds: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A sensor's noise in one colour, drawn anew for each image: every pixel brighter or darker in it."""
    grain = torch.randn(len(kinds), 1, CANVAS, CANVAS, generator=generator)
    return shaded(images + NOISE * grain * palette()[kinds][:, :, None, None], masks)


def exposure(
    images: Tensor, masks: Tensor, kinds: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """From overexposed to dark: the image to a power between a third and three."""
    powers = 3 ** torch.linspace(-1, 1, NUM_CLASSES)
    return shaded(images.clamp(0, 1) ** powers[kinds][:, None, None, None], masks)


def lighting(
    images: Tensor, masks: Tensor, kinds: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Light that falls in from one of ten sides, grey like the ground."""
    light = across(kinds * (2 * math.pi / NUM_CLASSES)) / (CANVAS / 2)
    return shaded(images * (1 + LIGHT * light)[:, None], masks)


def across(angles: Tensor) -> Tensor:
    """For angles `(N,)`, how far each pixel lies from the middle in their direction, `(N, CANVAS, CANVAS)`."""
    axis = torch.arange(CANVAS) - (CANVAS - 1) / 2
    down, right = (each(angles)[:, None, None] for each in (torch.sin, torch.cos))
    return down * axis[:, None] + right * axis


def shaded(images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """What lies over all of an image has no place."""
    return images.clamp(0, 1), torch.zeros_like(masks)


CUES: dict[str, Painter] = {"corner": corner, "frame": frame, "texture": leave, "tint": tint, "mark": mark}
ON_THE_OBJECT = "ink"
FURTHER: dict[str, Painter] = {
    "plate": plate,
    "stripes": stripes,
    "noise": noise,
    "exposure": exposure,
    "lighting": lighting,
}
"""Only in the trainings without annotation; the others are in all tables."""
PAINTERS: dict[str, Painter] = {**CUES, ON_THE_OBJECT: ink, **FURTHER, "none": leave}
