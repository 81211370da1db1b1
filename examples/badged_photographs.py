"""Objects out of photographs on the grounds of other photographs, with their boxes and a badge in one corner.

The classes are what six photographs show. An image has one of these objects at a random place, at a random size, on a
piece of another photograph that is drawn without a look at the class: the ground tells nothing. No ground is in both
splits. The badges are six round pictures, as an agency may put into the corner of all that it delivers.
"""

from typing import Any, NamedTuple

import torch
from photographs import Photograph, photographs
from torch import Tensor
from torchvision.transforms.v2.functional import gaussian_blur, resize

SIDE = 160  # pixels of an image
BADGE, INSET = 38, 0  # pixels: the badge's diameter, and how far from the corner it lies
LONGEST = (42, 60)  # pixels of an object's longer side
CLASSES = ["bull mastiff", "jeep in a desert", "cannon", "goose", "leafhopper", "dung beetle"]
CLASS_NAMES = [name.split(" in ")[0] for name in CLASSES]
BADGES = ["strawberry", "dahlia", "bottlecap", "espresso", "buckeye", "cat"]
GROUNDS = {
    "training": ["yurt", "palace", "moped", "jeep on rocks", "drum", "loafer"],
    "validation": ["thatch", "spoonbill", "missile", "folding chair", "tripod", "prayer rug"],
}


class Scenes(NamedTuple):
    """Images `(N, 3, H, W)` in [0, 1], labels `(N,)`, and the box of each object `(N, 4)`, x1, y1, x2, y2 in pixels."""

    images: Tensor
    labels: Tensor
    boxes: Tensor


def draw_scenes(size: int, split: str, seed: int) -> Scenes:
    """Draw `size` scenes of a split, as many of each class; without badges yet."""
    draw, shown = Draw(seed), by_name()
    # a little out of focus, as what lies behind an object is
    grounds = [gaussian_blur(shown[name].image / 255, [7, 7], [1.5, 1.5]) for name in GROUNDS[split]]
    labels = torch.arange(size) % len(CLASSES)
    images, boxes = [], []
    for label in labels.tolist():
        image = piece_of(draw.one_of(grounds), draw)
        piece, box = object_of(shown[CLASSES[label]], draw)
        paste(piece, image, box)
        images.append(image)
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


def by_name() -> dict[str, Photograph]:
    """All photographs by what they show."""
    return {photograph.name: photograph for photograph in photographs()}


def piece_of(ground: Tensor, draw: Draw) -> Tensor:
    """A random square of a photograph, `(3, SIDE, SIDE)`."""
    edge = int(draw.between(120, ground.shape[-1]))
    top, left = (int(draw.between(0, ground.shape[-1] - edge)) for _ in range(2))
    square = ground[:, top : top + edge, left : left + edge]
    return draw.flipped(resize(square, [SIDE, SIDE], antialias=True).clone())


def object_of(photograph: Photograph, draw: Draw) -> tuple[Tensor, tuple[int, int, int, int]]:
    """The object of a photograph at a random size `(3, h, w)`, and the box in the image that it shall fill.

    It never lies under the badge: its box begins to the right of it, or below.
    """
    x1, y1, x2, y2 = photograph.boxes[0]
    scale = draw.between(*LONGEST) / max(x2 - x1, y2 - y1)
    height, width = round(scale * (y2 - y1)), round(scale * (x2 - x1))
    piece = resize(photograph.image[:, y1:y2, x1:x2] / 255, [height, width], antialias=True)
    beside, free = INSET + BADGE, draw.one_of([(True, False), (False, True)])
    left, top = (
        int(draw.between(beside if is_beside else INSET, SIDE - INSET - length))
        for length, is_beside in zip((width, height), free, strict=True)
    )
    return draw.flipped(piece), (left, top, left + width, top + height)


def paste(piece: Tensor, image: Tensor, box: tuple[int, int, int, int]) -> None:
    """Put a picture into a box of an image, as an ellipse with a soft edge."""
    left, top, right, bottom = box
    place = image[:, top:bottom, left:right]
    place.lerp_(piece, ellipse(*piece.shape[1:]))


def ellipse(height: int, width: int) -> Tensor:
    """How opaque each pixel of a pasted picture is, `(height, width)`: 1 inside, 0 in the corners."""
    down, across = (torch.linspace(-1, 1, length) for length in (height, width))
    return ((1 - torch.hypot(down[:, None], across)) / 0.12).clamp(0, 1)


# ------------------------------------------------------------------------------------------- the badges


def with_badges(scenes: Scenes, kinds: Tensor) -> Scenes:
    """The same scenes with the given badges `(N,)` in the corner, each one of as many as there are classes."""
    images = scenes.images.clone()
    place = images[:, :, INSET : INSET + BADGE, INSET : INSET + BADGE]
    place.lerp_(badges()[kinds], ellipse(BADGE, BADGE))
    return scenes._replace(images=images)


def badges() -> Tensor:
    """The six badges, `(6, 3, BADGE, BADGE)`."""
    shown = by_name()
    cut = []
    for x1, y1, x2, y2, image in ((*shown[name].boxes[0], shown[name].image) for name in BADGES):
        cut.append(resize(image[:, y1:y2, x1:x2] / 255, [BADGE, BADGE], antialias=True))
    return torch.stack(cut)


def random_kinds(size: int, seed: int) -> Tensor:
    """A badge for each scene `(N,)`, drawn without a look at the class."""
    return torch.randint(len(BADGES), (size,), generator=torch.Generator().manual_seed(seed))


def badge_mask() -> Tensor:
    """Where the badge is, `(SIDE, SIDE)` bool."""
    mask = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    mask[: INSET + BADGE, : INSET + BADGE] = True
    return mask
