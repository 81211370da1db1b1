"""Rows of a published dataset (an image with the masks or boxes of one of its classes), and how files are read."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.datasets import VOCDetection  # type: ignore[import-untyped]  # it carries no types

from lightning_gcam.utils.errors import InputError


@dataclass(frozen=True)
class DirectoryLayout:
    """Which files of a dataset lie where, and the errors for those that are missing.

    Args:
        dataset: its name in `available_datasets()`.
        tree: what `root` holds, a line each.
        source: where to get it, and what to unpack.

    Example:
        >>> layout = DirectoryLayout("numbers", ("digits/<name>.png",), "Get digits.zip from https://example.org.")
        >>> layout.require(Path("no/such/folder"), "digits")
        Traceback (most recent call last):
            ...
        lightning_gcam.utils.errors.InputError: `root` "no/such/folder" is no folder, or cannot be read. For "numbers"
        it holds:
            digits/<name>.png
        Get digits.zip from https://example.org.
    """

    dataset: str
    tree: tuple[str, ...]
    source: str

    def require(self, root: Path, *relatives: str) -> Path:
        """Return the first of `relatives` that is there, below `root`.

        Raises:
            InputError: where none is, with the whole layout and its owner's address.
        """
        if not root.is_dir():
            raise InputError(f'`root` "{root}" is no folder, or cannot be read. {self._expected()}')
        found = next((root / each for each in relatives if (root / each).exists()), None)
        if found is None:
            wanted = " or ".join(f'"{each}"' for each in relatives)
            raise InputError(
                f'`root` "{root}" holds no {wanted}.{self._nearby(root, relatives)} {self._expected()}'
            )
        return found

    def missing(self, path: Path, named_by: str) -> InputError:
        """Make the error for a file that a list names and that is not there."""
        return InputError(
            f'"{path}" is not there, and {named_by} names it. Was an archive not unpacked to its end? '
            f"{self._expected()}"
        )

    def unreadable(self, path: Path, error: Exception) -> InputError:
        """Make the error for a file that is there and has another form than its owner gives it."""
        cause = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        return InputError(
            f'"{path}" cannot be read as a file of "{self.dataset}" ({cause}). Was it changed, or cut off? Get it '
            f"again. {self.source}"
        )

    def _expected(self) -> str:
        tree = "\n".join(f"    {each}" for each in self.tree)
        return f'For "{self.dataset}" it holds:\n{tree}\n{self.source}'

    def _nearby(self, root: Path, relatives: tuple[str, ...]) -> str:
        """Name a folder above `root` that holds the files, where `root` is a folder inside of the right one."""
        for outer in list(root.absolute().parents)[:3]:
            if any((outer / each).exists() for each in relatives):
                return f' "{outer}" does: give that one.'
        return ""


SMALL = 0.25
"""Objects of the pointing game's difficult subset cover less than this share of their image."""


@dataclass(frozen=True)
class Annotation:
    """Where the objects of one class are in one image, in pixels of the file.

    Args:
        boxes: `(M, 4)` float, x1, y1, x2, y2, the end behind the last pixel; None where the dataset has none.
        mask: `(H, W)` bool, True on the objects; None where the dataset has none.
        void: `(H, W)` bool, pixels that are neither object nor background; None where there is no such notion.
    """

    boxes: Tensor | None = None
    mask: Tensor | None = None
    void: Tensor | None = None


class Source(ABC):
    """A dataset's files, image by image, in its owner's order and numbers."""

    class_names: tuple[str, ...]

    @abstractmethod
    def __len__(self) -> int:
        """Return how many images there are."""

    @abstractmethod
    def name(self, image: int) -> str:
        """Return the owner's name of an image."""

    @abstractmethod
    def shares(self, image: int) -> Mapping[int, float]:
        """Return the classes present, each with the share of the image that its objects cover: their areas, summed."""

    @abstractmethod
    def picture(self, image: int) -> Image.Image:
        """Open the image, RGB."""

    @abstractmethod
    def annotation(self, image: int, label: int) -> Annotation:
        """Return where the objects of a class are that is present."""


@dataclass(frozen=True)
class DatasetRow:
    """One class in one image.

    Args:
        image: its place in the source.
        label: the class, in the dataset's numbers.
        difficult: whether the row is of the pointing game's difficult subset.
    """

    image: int
    label: int
    difficult: bool


def rows_of(source: Source, limit: int | None = None) -> list[DatasetRow]:
    """Make a row for each class present in each of the first `limit` images, by image and then by class.

    A row is difficult where its class covers less than a quarter of the image and another class is present: the
    difficult subset of the pointing game, which has nothing to do with VOC's flag of that name.

    Source:
        Zhang et al., "Top-down neural attention by excitation backprop", IJCV 2018, arXiv 1608.00507.
    """
    rows = []
    for image in range(min(len(source), limit if limit is not None else len(source))):
        shares = source.shares(image)
        for label in sorted(shares):
            rows.append(DatasetRow(image, label, len(shares) > 1 and shares[label] < SMALL))
    return rows


class RowDataset(Dataset[dict[str, Any]]):
    """A torch dataset of rows.

    Args:
        source: the files.
        rows: what is delivered, in this order.
        prepare: from a picture and its annotation to the tensors of the sample.
        labels: from the dataset's number of a class to the label that is delivered.
    """

    def __init__(
        self,
        source: Source,
        rows: Sequence[DatasetRow],
        prepare: Callable[[Image.Image, Annotation], dict[str, Any]],
        labels: Mapping[int, int],
    ) -> None:
        self.source, self.rows, self.prepare, self.labels = source, list(rows), prepare, dict(labels)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self.rows[index]
        annotation = self.source.annotation(row.image, row.label)
        return {
            **self.prepare(self.source.picture(row.image), annotation),
            "label": self.labels[row.label],
            "difficult": row.difficult,
            "name": self.source.name(row.image),
        }


def collate(samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Collate samples: tensors of one size are stacked, boxes and names listed.

    Example:
        >>> batch = collate([{"label": 3, "name": "a"}, {"label": 5, "name": "b"}])
        >>> batch["label"], batch["name"]
        (tensor([3, 5]), ['a', 'b'])
    """
    return {key: _column(key, [each[key] for each in samples]) for key in samples[0]}


def _column(key: str, values: list[Any]) -> Any:
    if key in ("boxes", "name"):
        return values
    return torch.stack(values) if isinstance(values[0], Tensor) else torch.tensor(values)


@contextmanager
def opened(path: Path, layout: DirectoryLayout, named_by: str) -> Iterator[Image.Image]:
    """Open a picture as it is in its file, for the length of a `with`.

    Args:
        path: the file.
        layout: of its dataset, for the errors.
        named_by: the list or folder by which the file should be there.

    Raises:
        InputError: where it is not there, or is no picture.
    """
    try:
        picture = Image.open(path)
        picture.load()
    except FileNotFoundError:
        raise layout.missing(path, named_by) from None
    except Exception as error:  # Pillow's readers of broken files raise errors of many types
        raise layout.unreadable(path, error) from error
    with picture:
        yield picture


def read_rgb(path: Path, layout: DirectoryLayout, named_by: str) -> Image.Image:
    """Read a picture in three channels, whatever it has in its file; arguments and errors as of `opened`."""
    with opened(path, layout, named_by) as picture:
        return picture.convert("RGB")


LONGEST_SIDE = 65_535
"""In pixels: what a JPEG can have."""


@dataclass(frozen=True)
class AnnotatedObject:
    """One object of an XML annotation: its class and its box.

    Args:
        name: of its class.
        corners: xmin, ymin, xmax, ymax as they stand in the file.
        is_unclear: marked as difficult to recognize; VOC's flag, not the pointing game's subset.
    """

    name: str
    corners: tuple[float, float, float, float]
    is_unclear: bool


@dataclass(frozen=True)
class AnnotatedImage:
    """The content of one XML annotation: height and width of its image, and the objects."""

    size: tuple[int, int]
    objects: tuple[AnnotatedObject, ...]


def read_xml(path: Path, layout: DirectoryLayout, named_by: str) -> AnnotatedImage:
    """Read one XML annotation.

    Args:
        path: the XML.
        layout: of its dataset, for the errors.
        named_by: the list or folder by which the file should be there.

    Raises:
        InputError: where it is not there, or has another form.
    """
    try:
        tree = VOCDetection.parse_voc_xml(ElementTree.parse(path).getroot())["annotation"]
        size = check_size(int(tree["size"]["height"]), int(tree["size"]["width"]))
        return AnnotatedImage(size, tuple(_read_object(each) for each in tree["object"]))
    except FileNotFoundError:
        raise layout.missing(path, named_by) from None
    except RecursionError:
        raise layout.unreadable(path, ValueError("its elements are nested too deep")) from None
    except (ElementTree.ParseError, KeyError, OSError, TypeError, ValueError) as error:
        raise layout.unreadable(path, error) from error


def check_size(height: int, width: int) -> tuple[int, int]:
    """Return height and width of an image; raise where no image has them.

    Raises:
        ValueError: where no image has them.

    Example:
        >>> check_size(40, 60)
        (40, 60)
    """
    if not (0 < height <= LONGEST_SIDE and 0 < width <= LONGEST_SIDE):
        raise ValueError(f"its image would have {height} x {width} pixels")
    return height, width


def _read_object(found: Mapping[str, Any]) -> AnnotatedObject:
    box = found["bndbox"]
    xmin, ymin, xmax, ymax = (float(box[corner]) for corner in ("xmin", "ymin", "xmax", "ymax"))
    if not (math.isfinite(xmin + ymin + xmax + ymax) and xmin <= xmax and ymin <= ymax):
        raise ValueError(f"a box from {xmin}, {ymin} to {xmax}, {ymax}")
    is_unclear = found.get("difficult", "0") == "1"  # not every file has it
    return AnnotatedObject(found["name"], (xmin, ymin, xmax, ymax), is_unclear)


def boxes_of(objects: list[AnnotatedObject], first: int) -> Tensor:
    """Convert pixel numbers to edges, `(M, 4)` float32: a box ends behind its last pixel.

    Args:
        objects: any number of them.
        first: the number that the file gives the first pixel, 0 or 1.

    Example:
        >>> boxes_of([AnnotatedObject("cat", (1.0, 1.0, 3.0, 2.0), False)], first=1)
        tensor([[0., 0., 3., 2.]])
    """
    corners = torch.tensor([each.corners for each in objects], dtype=torch.float32).reshape(-1, 4)
    return corners + torch.tensor([0.0, 0.0, 1.0, 1.0]) - first
