"""Natural images to tell apart, in which `picture_cues.py` plants cues.

Three tasks: objects cut out of the photographs of `examples/photographs.py`, on their own ground or on another one;
solar cells (ELPV) with a defect or without; and photographs of ImageNet's classes out of a folder, in four kinds.
Nothing is downloaded.
"""

import csv
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from photographs import Box, folder_of, photographs
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from benchmarks.common.cues import Plan
from benchmarks.common.picture_cues import Pictures, planted
from lightning_gcam.shortcuts import remove_regions

VALIDATION = 0.4  # the share of the files that no training sees


class Sizes(NamedTuple):
    """How many pictures there are to train on and to validate on, and their side in pixels."""

    training: int
    validation: int
    side: int


class Drawn(NamedTuple):
    """The pictures of a training: to train on, to validate on, and the latter with a cue that tells nothing."""

    training: Pictures
    validation: Pictures
    honest: Pictures


Task = Callable[[Plan, int, Sizes], Drawn]
"""From what is planted, a seed and the sizes to the pictures of a training."""


def drawn_thrice(draw: Callable[[bool], Pictures], plan: Plan, num_forms: int, seed: int) -> Drawn:
    """Plant a cue in the pictures to train on, and twice in those to validate on.

    `draw` makes the one or the other, `draw(True)` those to validate on.
    """

    def with_cue(validation: bool, strength: float) -> Pictures:
        generator = torch.Generator().manual_seed(2 * seed + validation)
        return planted(draw(validation), plan._replace(strength=strength), num_forms, generator)

    return Drawn(with_cue(False, plan.strength), with_cue(True, plan.strength), with_cue(True, 0.0))


# ------------------------------------------------------------------------------- objects of photographs

OBJECTS: dict[str, tuple[str, ...]] = {
    "jeep": ("jeep in a desert", "jeep on rocks"),
    "beaker": ("beaker",),
    "strawberry": ("strawberry",),
    "goose": ("goose",),
    "mastiff": ("bull mastiff",),
    "leafhopper": ("leafhopper",),
}
"""The classes, and the photographs of each."""
_MOST = 0.5  # of a photograph may lie in boxes where its ground is used
_SMALLEST, _LARGEST = 0.35, 0.75  # the object's longer side, as a share of the picture's


def cut_objects(context: float, plan: Plan, seed: int, sizes: Sizes) -> Drawn:
    """Objects of six classes, each on its own ground in a share `context` of the pictures, else on any of them."""

    def draw(validation: bool) -> Pictures:
        generator = torch.Generator().manual_seed(2 * seed + 1_000 + validation)
        count = sizes.validation if validation else sizes.training
        rows = [
            composed(label % len(OBJECTS), validation, context, sizes.side, generator)
            for label in range(count)
        ]
        images, masks = (torch.stack(each) for each in zip(*rows, strict=True))
        return Pictures(images, torch.arange(count) % len(OBJECTS), masks)

    return drawn_thrice(draw, plan, len(OBJECTS), seed)


def composed(
    label: int, validation: bool, context: float, side: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """One picture and its object's mask: a box of a photograph with a soft edge on a piece of a ground."""
    own = cutouts()[label][validation]
    which, ground, large, flip, name, *places = torch.rand(11, generator=generator).tolist()
    here = [name for name in OBJECTS[list(OBJECTS)[label]] if name in grounds()]
    names = here if ground < context else list(grounds())
    picture = piece(grounds()[names[int(name * len(names))]], *places[:4], side)
    thing = own[int(which * len(own))]
    longer = side * (_SMALLEST + (_LARGEST - _SMALLEST) * large)
    height, width = (max(round(longer * edge / max(thing.shape[1:])), 4) for edge in thing.shape[1:])
    thing = resized(thing, height, width)
    thing = thing.flip(2) if flip < 0.5 else thing
    top, left = (
        int(place * (side - edge + 1)) for place, edge in zip(places[4:6], (height, width), strict=True)
    )
    at = (slice(top, top + height), slice(left, left + width))
    soft = soft_edge(height, width)
    picture[:, at[0], at[1]] = soft * thing + (1 - soft) * picture[:, at[0], at[1]]
    mask = torch.zeros(side, side, dtype=torch.bool)
    mask[at] = True
    return picture, mask


@cache
def cutouts() -> list[tuple[list[Tensor], list[Tensor]]]:
    """By class, what to train on and what to validate on: of several objects the last one is only for the latter."""
    found = {each.name: each for each in photographs()}
    parts = []
    for names in OBJECTS.values():
        boxes = [(found[name].image / 255, box) for name in names for box in found[name].boxes]
        things = [image[:, top:bottom, left:right] for image, (left, top, right, bottom) in boxes]
        parts.append((things[:-1] or things, things[-1:]))
    return parts


@cache
def grounds() -> dict[str, Tensor]:
    """Photographs without their objects, where these leave half of the picture, by name."""
    found = {each.name: each for each in photographs() if each.boxes}
    taken = {name: mask_of(each.boxes, each.image.shape[1]) for name, each in found.items()}
    return {
        name: without(each.image[None] / 255, each.boxes)[0]
        for name, each in found.items()
        if taken[name].float().mean() <= _MOST
    }


def without(images: Tensor, boxes: Sequence[Box]) -> Tensor:
    """An image `(1, 3, H, W)` with one box after the other removed."""
    for box in boxes:
        images = remove_regions(images, mask_of([box], images.shape[-1])[None], "neighbours")
    return images


def mask_of(boxes: Sequence[Box], side: int) -> Tensor:
    mask = torch.zeros(side, side, dtype=torch.bool)
    for left, top, right, bottom in boxes:
        mask[top:bottom, left:right] = True
    return mask


def piece(picture: Tensor, share: float, across: float, down: float, flip: float, side: int) -> Tensor:
    """A random square of a picture, at least 0.6 of its side, resized; half of them flipped."""
    edge = round((0.6 + 0.4 * share) * picture.shape[1])
    left, top = (int(place * (picture.shape[1] - edge + 1)) for place in (across, down))
    cut = resized(picture[:, top : top + edge, left : left + edge], side, side)
    return cut.flip(2) if flip < 0.5 else cut


def resized(picture: Tensor, height: int, width: int) -> Tensor:
    return interpolate(picture[None], (height, width), mode="bilinear", antialias=True)[0]


def soft_edge(height: int, width: int) -> Tensor:
    """The weight of an object's box `(height, width)`: 1 inside, falling to 0 over the outer twelfth."""
    ramps = []
    for edge in (height, width):
        away = torch.arange(edge).minimum(torch.arange(edge).flip(0)) + 0.5
        ramps.append((away / (edge / 12)).clamp(max=1))
    return ramps[0][:, None] * ramps[1]


# ------------------------------------------------------------------------------------------ solar cells


def solar_cells(folder: Path | None, plan: Plan, seed: int, sizes: Sizes) -> Drawn:
    """Cells with a defect (1) or without (0). The cue "module": cells with a defect are polycrystalline.

    Args:
        folder: of the package `elpv_dataset`; None for the installed one.
        plan: its cue may be "module", which chooses among the cells instead of painting them.
        seed: of the draws.
        sizes: of the pictures.
    """
    cells = read_cells(folder or folder_of("elpv_dataset"))
    pools = {
        (defect, poly): [p for p, *of in cells if of == [defect, poly]]
        for defect in (0, 1)
        for poly in (0, 1)
    }

    def chosen(validation: bool, strength: float) -> Pictures:
        generator = torch.Generator().manual_seed(2 * seed + 2_000 + validation)
        count = sizes.validation if validation else sizes.training
        labels = torch.arange(count) % 2
        tells = torch.rand(count, generator=generator) < strength
        kinds = torch.where(tells, labels, torch.randint(2, (count,), generator=generator))
        parts = {key: iter(part(pool, seed, validation)) for key, pool in pools.items()}
        paths = [next(parts[key]) for key in zip(labels.tolist(), kinds.tolist(), strict=True)]
        return Pictures(torch.stack([read_cell(path, sizes.side) for path in paths]), labels)

    if plan.cue == "module":
        return Drawn(chosen(False, plan.strength), chosen(True, plan.strength), chosen(True, 0.0))
    return drawn_thrice(lambda validation: chosen(validation, 0.0), plan, 2, seed)


def read_cells(folder: Path) -> list[list]:
    """Of each cell that is certain: its file, whether it has a defect, whether it is polycrystalline."""
    rows = csv.reader(
        (folder / "data" / "labels.csv").read_text().splitlines(), delimiter=" ", skipinitialspace=True
    )
    return [
        [folder / "data" / file, int(float(defect)), int(kind == "poly")]
        for file, defect, kind in rows
        if float(defect) in (0, 1)
    ]


def part(files: Sequence[Path], seed: int, validation: bool) -> list[Path]:
    """The files to validate on or those to train on, in an order drawn at random."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(files), generator=generator).tolist()
    first = round(VALIDATION * len(files))
    return [files[row] for row in (order[:first] if validation else order[first:])]


def read_cell(path: Path, side: int) -> Tensor:
    with Image.open(path) as file:
        grey = file.convert("L").resize((side, side), Image.Resampling.BICUBIC)
    return torch.tensor(np.array(grey)).expand(3, -1, -1) / 255


# ------------------------------------------------------------------------------- photographs of a folder

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


def whole_photographs(folder: Path, plan: Plan, seed: int, sizes: Sizes) -> Drawn:
    """Squares of photographs of four kinds: random ones to train on, the middle of each other file to validate on."""
    found = find_photographs(folder)

    def draw(validation: bool) -> Pictures:
        generator = torch.Generator().manual_seed(2 * seed + 3_000 + validation)
        files = [
            file
            for kind in range(len(KINDS))
            for file in part([f for f in found if f[1] == kind], seed, validation)
        ]
        views = 0 if validation else max(sizes.training // len(files), 1)
        squares = [square for path, _ in files for square in squares_of(path, sizes.side, views, generator)]
        return Pictures(
            torch.stack(squares), torch.tensor([kind for _, kind in files]).repeat_interleave(views or 1)
        )

    return drawn_thrice(draw, plan, len(KINDS), seed)


def find_photographs(folder: Path) -> list[tuple[Path, int]]:
    """The photographs of the kinds in a folder, in the order of their names, each with the number of its kind."""
    numbered = [(path, path.name[:4]) for path in sorted(folder.iterdir()) if path.suffix == ".jpg"]
    found = [
        (path, kind)
        for path, number in numbered
        for kind, numbers in enumerate(KINDS.values())
        if number.isdecimal() and int(number) in numbers
    ]
    if {kind for _, kind in found} != set(range(len(KINDS))):
        raise SystemExit(f"`--folder` {folder} does not hold photographs of every kind ({', '.join(KINDS)}).")
    return found


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
