"""A row for each class present in an image: the unit in which saliency is asked for, and scored."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor
from torch.utils.data import Dataset

SMALL = 0.25
"""Objects of the pointing game's difficult subset cover less than this share of their image."""


@dataclass(frozen=True)
class Annotation:
    """Where the objects of one class are in one image, as its owner says, in pixels of the file.

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
        """How many images."""

    @abstractmethod
    def name(self, image: int) -> str:
        """What the owner calls an image."""

    @abstractmethod
    def shares(self, image: int) -> Mapping[int, float]:
        """Each class present, and the share of the image that its objects cover: their areas, summed."""

    @abstractmethod
    def picture(self, image: int) -> Image:
        """The image, RGB."""

    @abstractmethod
    def annotation(self, image: int, label: int) -> Annotation:
        """Where the objects of a class are that is present."""


@dataclass(frozen=True)
class Row:
    """One class in one image.

    Args:
        image: its place in the source.
        label: the class, in the dataset's numbers.
        difficult: whether the row is of the pointing game's difficult subset.
    """

    image: int
    label: int
    difficult: bool


def rows_of(source: Source, limit: int | None = None) -> list[Row]:
    """A row for each class present in each of the first `limit` images, by image and then by class.

    A row is difficult where its class covers less than a quarter of the image and another class is present: the
    difficult subset of the pointing game, which has nothing to do with VOC's flag of that name.

    Source:
        Zhang et al., "Top-down neural attention by excitation backprop", IJCV 2018, arXiv 1608.00507.
    """
    rows = []
    for image in range(min(len(source), limit if limit is not None else len(source))):
        shares = source.shares(image)
        for label in sorted(shares):
            rows.append(Row(image, label, len(shares) > 1 and shares[label] < SMALL))
    return rows


class Rows(Dataset[dict[str, Any]]):
    """The rows as samples.

    Args:
        source: the files.
        rows: what is delivered, in this order.
        prepare: from a picture and its annotation to the tensors of the sample.
        labels: from the dataset's number of a class to the label that is delivered.
    """

    def __init__(
        self,
        source: Source,
        rows: Sequence[Row],
        prepare: Callable[[Image, Annotation], dict[str, Any]],
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
    """Samples as one batch: tensors of one size stacked, boxes and names listed.

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
