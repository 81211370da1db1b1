"""Pictures, and eight cues that may tell their class.

A cue is planted in one form for each class (a colour, a direction, a letter); how often that form is the label is the
cue's strength.
"""

import math
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from digits_on_canvas import palette
from photographs import normalized
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.utils.data import DataLoader

from benchmarks.common.cues import Plan


class Pictures(NamedTuple):
    """Images `(N, 3, H, W)` in [0, 1], labels `(N,)`, and masks `(N, H, W)` bool where boxes are known."""

    images: Tensor
    labels: Tensor
    masks: Tensor | None = None

    def loader(self, shuffle: bool = False) -> DataLoader:
        """Batches of normalized images, labels, and masks where there are any."""
        columns = {"image": normalized(self.images), "label": self.labels, "mask": self.masks}
        rows = [
            {name: column[row] for name, column in columns.items() if column is not None}
            for row in range(len(self.labels))
        ]
        return DataLoader(rows, batch_size=32, shuffle=shuffle)


class Canvas(NamedTuple):
    """What a cue is painted on.

    Attributes:
        images: `(N, 3, H, W)` in [0, 1].
        masks: `(N, H, W)` bool, the objects; empty where they are not known.
        forms: `(N,)`, the cue's form in each.
        num_forms: how many there are.
        generator: of random places.
    """

    images: Tensor
    masks: Tensor
    forms: Tensor
    num_forms: int
    generator: torch.Generator

    @property
    def side(self) -> int:
        """Of the images, in pixels."""
        return self.images.shape[-1]

    @property
    def colours(self) -> Tensor:
        """A hue for each form, far from each other, `(N, 3, 1, 1)`."""
        hues = palette()
        return hues[self.forms * len(hues) // self.num_forms][:, :, None, None]


def corner(canvas: Canvas) -> Tensor:
    """A coloured patch in one corner, inside of the outer 17%."""
    return filled(canvas, 0, canvas.side // 6)


def plate(canvas: Canvas) -> Tensor:
    """A coloured patch at another fixed place, beside the middle and inside of the border."""
    return filled(canvas, canvas.side // 5, canvas.side // 5 + canvas.side // 6)


def filled(canvas: Canvas, begin: int, end: int) -> Tensor:
    images = canvas.images.clone()
    images[:, :, begin:end, begin:end] = canvas.colours
    return images


def frame(canvas: Canvas) -> Tensor:
    """A coloured border."""
    width = canvas.side // 16
    framed = canvas.colours.expand_as(canvas.images).clone()
    framed[:, :, width:-width, width:-width] = canvas.images[:, :, width:-width, width:-width]
    return framed


def tint(canvas: Canvas) -> Tensor:
    """A colour over everything."""
    return canvas.images * (0.4 + 0.6 * canvas.colours)


def hue(canvas: Canvas) -> Tensor:
    """A colour of the object itself, which no mask of it tells from what it is."""
    return torch.where(canvas.masks[:, None], tint(canvas), canvas.images)


def stripes(canvas: Canvas) -> Tensor:
    """Faint stripes over everything, in a direction for each form; where they begin is drawn at random."""
    axis = torch.arange(canvas.side).float()
    angles = canvas.forms[:, None, None] * (math.pi / canvas.num_forms)
    along = angles.sin() * axis[:, None] + angles.cos() * axis
    begin = torch.rand(len(canvas.forms), 1, 1, generator=canvas.generator)
    return canvas.images + 0.12 * (2 * math.pi * (along / 6 + begin)).sin()[:, None]


def noise(canvas: Canvas) -> Tensor:
    """A sensor's noise, in one colour for each form."""
    grain = torch.randn(len(canvas.forms), 1, canvas.side, canvas.side, generator=canvas.generator)
    return canvas.images + 0.15 * grain * canvas.colours


def mark(canvas: Canvas) -> Tensor:
    """A letter on a dark plate, at a place drawn at random."""
    images, edge = canvas.images.clone(), canvas.side // 6
    places = torch.rand(len(images), 2, generator=canvas.generator) * (canvas.side - edge)
    for image, form, place in zip(images, canvas.forms.tolist(), places.int().tolist(), strict=True):
        image[:, place[0] : place[0] + edge, place[1] : place[1] + edge] = letter("ACEHKLOSTX"[form], edge)
    return images


@cache
def letter(text: str, edge: int) -> Tensor:
    """A letter, white on black, `(edge, edge)` in [0, 1]."""
    written = Image.new("L", (4 * edge, 4 * edge))
    ImageDraw.Draw(written).text(
        (2 * edge, 2 * edge), text, 255, ImageFont.load_default(4 * edge), anchor="mm"
    )
    return torch.tensor(np.array(written.resize((edge, edge), Image.Resampling.BOX))) / 255


PAINTERS: dict[str, Callable[[Canvas], Tensor]] = {
    "corner": corner,
    "plate": plate,
    "frame": frame,
    "mark": mark,
    "tint": tint,
    "stripes": stripes,
    "noise": noise,
    "hue": hue,
}
BEHIND = ("corner", "plate", "frame", "mark")  # where an object's box is known they lie behind it
ON_THE_OBJECT = "hue"


def planted(pictures: Pictures, plan: Plan, num_forms: int, generator: torch.Generator) -> Pictures:
    """The pictures with a cue; the same generator paints the same places, whatever the plan's strength."""
    labels = pictures.labels
    tells = torch.rand(len(labels), generator=generator) < plan.strength
    forms = torch.where(tells, labels, torch.randint(num_forms, (len(labels),), generator=generator))
    if plan.cue not in PAINTERS:
        return pictures
    masks = torch.zeros_like(pictures.images[:, 0]).bool() if pictures.masks is None else pictures.masks
    images = PAINTERS[plan.cue](Canvas(pictures.images, masks, forms, num_forms, generator)).clamp(0, 1)
    if plan.cue in BEHIND:
        images = torch.where(masks[:, None], pictures.images, images)
    return pictures._replace(images=images)
