"""The XML annotation that VOC's devkit introduced and ImageNet's localization task took over: objects in boxes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import torch
from torch import Tensor
from torchvision.datasets import VOCDetection  # type: ignore[import-untyped]  # it carries no types

from lightning_gcam.datasets.layout import Layout

LONGEST_SIDE = 65_535
"""In pixels: what a JPEG can have."""


@dataclass(frozen=True)
class Marked:
    """One object in a box.

    Args:
        name: of its class.
        corners: xmin, ymin, xmax, ymax as they stand in the file.
        is_unclear: marked as difficult to recognize; VOC's flag, not the pointing game's subset.
    """

    name: str
    corners: tuple[float, float, float, float]
    is_unclear: bool


@dataclass(frozen=True)
class MarkedImage:
    """What one file says: height and width of its image, and the objects."""

    size: tuple[int, int]
    objects: tuple[Marked, ...]


def read_marked(path: Path, layout: Layout, named_by: str) -> MarkedImage:
    """Read one file.

    Args:
        path: the XML.
        layout: of its dataset, for the errors.
        named_by: what says that the file should be there.

    Raises:
        InputError: where it is not there, or has another form.
    """
    try:
        tree = VOCDetection.parse_voc_xml(ElementTree.parse(path).getroot())["annotation"]
        size = check_size(int(tree["size"]["height"]), int(tree["size"]["width"]))
        return MarkedImage(size, tuple(_marked(each) for each in tree["object"]))
    except FileNotFoundError:
        raise layout.missing(path, named_by) from None
    except RecursionError:
        raise layout.unreadable(path, ValueError("its elements are nested too deep")) from None
    except (ElementTree.ParseError, KeyError, OSError, TypeError, ValueError) as error:
        raise layout.unreadable(path, error) from error


def check_size(height: int, width: int) -> tuple[int, int]:
    """Height and width of an image, as a file states them.

    Raises:
        ValueError: where no image has them.

    Example:
        >>> check_size(40, 60)
        (40, 60)
    """
    if not (0 < height <= LONGEST_SIDE and 0 < width <= LONGEST_SIDE):
        raise ValueError(f"its image would have {height} x {width} pixels")
    return height, width


def _marked(found: Mapping[str, Any]) -> Marked:
    box = found["bndbox"]
    xmin, ymin, xmax, ymax = (float(box[corner]) for corner in ("xmin", "ymin", "xmax", "ymax"))
    if not (math.isfinite(xmin + ymin + xmax + ymax) and xmin <= xmax and ymin <= ymax):
        raise ValueError(f"a box from {xmin}, {ymin} to {xmax}, {ymax}")
    is_unclear = found.get("difficult", "0") == "1"  # left out where nobody was asked
    return Marked(found["name"], (xmin, ymin, xmax, ymax), is_unclear)


def boxes_of(objects: list[Marked], first: int) -> Tensor:
    """The objects' boxes `(M, 4)` float32, from pixel numbers to edges: a box ends behind its last pixel.

    Args:
        objects: any number of them.
        first: the number that the file gives the first pixel, 0 or 1.

    Example:
        >>> boxes_of([Marked("cat", (1.0, 1.0, 3.0, 2.0), False)], first=1)
        tensor([[0., 0., 3., 2.]])
    """
    corners = torch.tensor([each.corners for each in objects], dtype=torch.float32).reshape(-1, 4)
    return corners + torch.tensor([0.0, 0.0, 1.0, 1.0]) - first
