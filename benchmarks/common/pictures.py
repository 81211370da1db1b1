"""Photographs of ImageNet's classes in four kinds, and six cues that may tell the kind.

Nothing is downloaded: the photographs come from a folder. A cue is planted in one of four forms (its colour, its
direction); how often that form is the label is the cue's strength.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from digits_on_canvas import palette
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.common.cues import NUM_CLASSES, Plan

Photograph = tuple[Path, int]
"""A file, and the number of the kind that it shows."""

MEAN, DEVIATION = (
    torch.tensor(each)[:, None, None] for each in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
)
VALIDATION = 0.4  # the share of the photographs that no training sees
KINDS: dict[str, set[int]] = {
    "birds, reptiles and fish": {*range(69), *range(80, 101), *range(127, 147), *range(389, 398)},
    "dogs": {*range(151, 269)},
    "other mammals": {*range(101, 107), *range(147, 151), *range(269, 300), *range(330, 389)},
    "vehicles": {
        *(403, 404, 405, 407, 408, 417, 436, 444, 450, 466, 468, 472, 484, 510, 511, 537, 547, 554, 555, 561),
        *(565, 569, 573, 575, 576, 586, 595, 603, 609, 612, 621, 625, 627, 628, 654, 656, 657, 660, 661, 665),
        *(670, 671, 675, 690, 694, 705, 717, 724, 730, 734, 744, 751, 757, 779, 780, 802, 803, 814, 817, 820),
        *(829, 833, 847, 856, 864, 866, 867, 870, 871, 874, 880, 895, 913, 914),
    },
}
"""What is told apart: ImageNet's class numbers of each kind."""


class Pictures(NamedTuple):
    """Images `(N, 3, H, W)`, normalized as ImageNet's are, and labels `(N,)`."""

    images: Tensor
    labels: Tensor

    def loader(self, shuffle: bool = False) -> DataLoader:
        """Images and labels, and nothing else."""
        return DataLoader(TensorDataset(*self), batch_size=32, shuffle=shuffle)


def find_photographs(folder: Path) -> list[Photograph]:
    """The photographs of the kinds in a folder, in the order of their names, each with the number of its kind."""
    numbered = [(path, path.name[:4]) for path in sorted(folder.iterdir()) if path.suffix == ".jpg"]
    found = [
        (path, kind)
        for path, number in numbered
        for kind, numbers in enumerate(KINDS.values())
        if number.isdecimal() and int(number) in numbers
    ]
    if {kind for _, kind in found} != set(range(len(KINDS))):
        raise SystemExit(f"`FOLDER` {folder} does not hold photographs of every kind ({', '.join(KINDS)}).")
    return found


def draw_pictures(
    photographs: Sequence[Photograph], plan: Plan, side: int, seed: int, views: int = 0
) -> Pictures:
    """Cut the photographs and plant the cue: several views of each to train on, or with 0 the middle of each.

    The same seed gives the same views, whatever the plan's strength.
    """
    generator = torch.Generator().manual_seed(seed)
    squares = [square for path, _ in photographs for square in squares_of(path, side, views, generator)]
    images = torch.stack(squares)
    labels = torch.tensor([kind for _, kind in photographs]).repeat_interleave(views or 1)
    tells = torch.rand(len(labels), generator=generator) < plan.strength
    forms = torch.where(tells, labels, torch.randint(len(KINDS), (len(labels),), generator=generator))
    if plan.cue != "none":
        images = PAINTERS[plan.cue](images, forms, generator).clamp(0, 1)
    return Pictures((images - MEAN) / DEVIATION, labels)


def squares_of(path: Path, side: int, views: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Random squares of a photograph, half of them flipped; with no views the one in its middle."""
    with Image.open(path) as file:
        picture = file.convert("RGB")
    if not views:
        yield cut(picture, 1, 0.5, 0.5, side)
    for _ in range(views):
        share, across, down, flip = torch.rand(4, generator=generator).tolist()
        square = cut(picture, 0.6 + 0.4 * share, across, down, side)
        yield square.flip(2) if flip < 0.5 else square


def cut(picture: Image.Image, share: float, across: float, down: float, side: int) -> Tensor:
    """A square of a picture, `(3, side, side)` in [0, 1].

    Args:
        picture: in RGB.
        share: the square's edge, as a share of the picture's shorter one.
        across: where it lies, 0 at the left and 1 at the right.
        down: the same from top to bottom.
        side: of the result.
    """
    edge = share * min(picture.size)
    left, top = across * (picture.width - edge), down * (picture.height - edge)
    square = picture.resize((side, side), Image.Resampling.BICUBIC, box=(left, top, left + edge, top + edge))
    return torch.tensor(np.array(square)).permute(2, 0, 1) / 255


def split(photographs: Sequence[Photograph], seed: int) -> tuple[list[Photograph], ...]:
    """Photographs to train on and to validate on, of each kind the same share."""
    generator = torch.Generator().manual_seed(seed)
    parts: tuple[list[Photograph], ...] = ([], [])
    for kind in range(len(KINDS)):
        own = [each for each in photographs if each[1] == kind]
        order = torch.randperm(len(own), generator=generator).tolist()
        first = round(VALIDATION * len(own))
        parts[0].extend(own[row] for row in order[first:])
        parts[1].extend(own[row] for row in order[:first])
    return parts


# -------------------------------------------------------------------------------------------------- cues


Painter = Callable[[Tensor, Tensor, torch.Generator], Tensor]
"""From images `(N, 3, H, W)` in [0, 1], the cue's forms `(N,)` and a generator to images."""


def colours(forms: Tensor) -> Tensor:
    """A hue for each form, far from each other, `(N, 3, 1, 1)`."""
    return palette()[forms * (NUM_CLASSES // len(KINDS))][:, :, None, None]


def corner(images: Tensor, forms: Tensor, generator: torch.Generator) -> Tensor:
    """A coloured patch in one corner, inside of the outer 17%."""
    return filled(images, forms, 0, images.shape[-1] // 6)


def plate(images: Tensor, forms: Tensor, generator: torch.Generator) -> Tensor:
    """A coloured patch at another fixed place, beside the middle and inside of the border."""
    side = images.shape[-1]
    return filled(images, forms, side // 5, side // 5 + side // 6)


def filled(images: Tensor, forms: Tensor, begin: int, end: int) -> Tensor:
    images = images.clone()
    images[:, :, begin:end, begin:end] = colours(forms)
    return images


def frame(images: Tensor, forms: Tensor, generator: torch.Generator) -> Tensor:
    """A coloured border."""
    width = images.shape[-1] // 16
    framed = colours(forms).expand_as(images).clone()
    framed[:, :, width:-width, width:-width] = images[:, :, width:-width, width:-width]
    return framed


def tint(images: Tensor, forms: Tensor, generator: torch.Generator) -> Tensor:
    """A colour over everything."""
    return images * (0.4 + 0.6 * colours(forms))


def stripes(images: Tensor, forms: Tensor, generator: torch.Generator) -> Tensor:
    """Faint stripes over everything, in a direction for each form; where they begin is drawn at random."""
    axis = torch.arange(images.shape[-1]).float()
    angles = forms[:, None, None] * (math.pi / len(KINDS))
    along = angles.sin() * axis[:, None] + angles.cos() * axis
    begin = torch.rand(len(forms), 1, 1, generator=generator)
    return images + 0.12 * (2 * math.pi * (along / 6 + begin)).sin()[:, None]


def noise(images: Tensor, forms: Tensor, generator: torch.Generator) -> Tensor:
    """A sensor's noise, in one colour for each form."""
    return images + 0.15 * torch.randn(len(forms), 1, *images.shape[2:], generator=generator) * colours(forms)


PAINTERS: dict[str, Painter] = {
    "frame": frame,
    "tint": tint,
    "stripes": stripes,
    "corner": corner,
    "noise": noise,
    "plate": plate,
}
