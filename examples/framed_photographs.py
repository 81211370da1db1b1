"""Objects out of photographs on the grounds of other photographs, with their boxes, in frames of eight colours.

The classes are what eight photographs show. An image has one of these objects at a random place, at a random size, on a
piece of another photograph that is drawn without a look at the class: the ground tells nothing. No ground is in both
splits. Of the training images 80% miss the object, as crops made by a program may, and all are a little out of focus;
validation images have the object, and are sharp.
"""

import colorsys
from typing import Any, NamedTuple

import torch
from photographs import Photograph, photographs
from torch import Tensor
from torchvision.transforms.v2.functional import gaussian_blur, resize

SIDE = 128  # pixels of an image
FRAME = 12  # pixels, the width of the frame
MARGIN = 22  # pixels between an object and the image's edge, at least
LONGEST = (44, 68)  # pixels of an object's longer side
MISSED = 0.8  # the share of the training images without an object
CLASSES = ["dung beetle", "leafhopper", "bottlecap", "dahlia", "espresso", "buckeye", "strawberry", "cat"]
GROUNDS = {
    "training": ["yurt", "goose", "palace", "cannon", "moped", "jeep on rocks"],
    "validation": ["thatch", "spoonbill", "missile", "folding chair", "jeep in a desert", "tripod"],
}


class Scenes(NamedTuple):
    """Images `(N, 3, H, W)` in [0, 1], labels `(N,)`, and the box of each object `(N, 4)`, x1, y1, x2, y2 in pixels."""

    images: Tensor
    labels: Tensor
    boxes: Tensor


def draw_scenes(size: int, split: str, seed: int) -> Scenes:
    """Draw `size` scenes of a split, as many of each class; without frames yet."""
    draw = Draw(seed)
    shown = {photograph.name: photograph for photograph in photographs()}
    # out of focus, as what lies behind an object is
    grounds = [gaussian_blur(shown[name].image / 255, [13, 13], [3.0, 3.0]) for name in GROUNDS[split]]
    missed = MISSED if split == "training" else 0
    labels = torch.arange(size) % len(CLASSES)
    images, boxes = [], []
    for label in labels.tolist():
        image = piece_of(draw.one_of(grounds), draw)
        piece, box = object_of(shown[CLASSES[label]], draw)
        if draw.between(0, 1) >= missed:
            paste(piece, image, box)
        images.append(gaussian_blur(image, [13, 13], [draw.between(0.1, 3)] * 2) if missed else image)
        boxes.append(box)
    return Scenes(torch.stack(images), labels, torch.tensor(boxes))


class Draw:
    """Random draws from a stream of their own."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def between(self, low: float, high: float) -> float:
        """A number between two others."""
        return low + (high - low) * float(torch.rand((), generator=self.generator))

    def one_of(self, things: list) -> Any:
        """One of several things."""
        return things[int(torch.randint(len(things), (), generator=self.generator))]

    def flipped(self, image: Tensor) -> Tensor:
        """The image or its mirror image."""
        return self.one_of([image, image.flip(2)])


def piece_of(ground: Tensor, draw: Draw) -> Tensor:
    """A random square of a photograph, `(3, SIDE, SIDE)`."""
    edge = int(draw.between(80, ground.shape[-1]))
    top, left = (int(draw.between(0, ground.shape[-1] - edge)) for _ in range(2))
    square = ground[:, top : top + edge, left : left + edge]
    return draw.flipped(resize(square, [SIDE, SIDE], antialias=True).clone())


def object_of(photograph: Photograph, draw: Draw) -> tuple[Tensor, tuple[int, int, int, int]]:
    """The object of a photograph at a random size `(3, h, w)`, and the box in the image that it shall fill."""
    x1, y1, x2, y2 = photograph.boxes[0]
    scale = draw.between(*LONGEST) / max(x2 - x1, y2 - y1)
    height, width = round(scale * (y2 - y1)), round(scale * (x2 - x1))
    piece = resize(photograph.image[:, y1:y2, x1:x2] / 255, [height, width], antialias=True)
    left, top = (int(draw.between(MARGIN, SIDE - MARGIN - length)) for length in (width, height))
    return draw.flipped(piece), (left, top, left + width, top + height)


def paste(piece: Tensor, image: Tensor, box: tuple[int, int, int, int]) -> None:
    """Put an object into its box of an image, as an ellipse with a soft edge."""
    left, top, right, bottom = box
    down, across = (torch.linspace(-1, 1, length) for length in piece.shape[1:])
    opacity = ((1 - torch.hypot(down[:, None], across)) / 0.12).clamp(0, 1)
    place = image[:, top:bottom, left:right]
    place.lerp_(piece, opacity)


# ------------------------------------------------------------------------------------------- the frames


def frame(scenes: Scenes, colours: Tensor) -> Scenes:
    """The same scenes in frames of the given colours `(N,)`, one of as many as there are classes."""
    images = palette()[colours][:, :, None, None].expand_as(scenes.images)
    return scenes._replace(images=images.where(frame_mask(), scenes.images))


def random_colours(size: int, seed: int) -> Tensor:
    """A colour for each scene `(N,)`, drawn without a look at the class."""
    return torch.randint(len(CLASSES), (size,), generator=torch.Generator().manual_seed(seed))


def palette() -> Tensor:
    """The colours as RGB `(8, 3)`, evenly spaced on the colour circle."""
    return torch.tensor([colorsys.hsv_to_rgb(k / len(CLASSES), 0.85, 0.85) for k in range(len(CLASSES))])


def frame_mask() -> Tensor:
    """Where the frame is, `(SIDE, SIDE)` bool."""
    mask = torch.ones(SIDE, SIDE, dtype=torch.bool)
    mask[FRAME:-FRAME, FRAME:-FRAME] = False
    return mask
