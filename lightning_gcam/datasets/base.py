"""`DatasetModule`: a published dataset with masks or boxes as a LightningDataModule."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from PIL.Image import Image
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_gcam.datasets.rows import Annotation, RowDataset, Source, collate, rows_of
from lightning_gcam.utils.errors import InputError, check_choice, check_whole, did_you_mean, is_whole_number
from lightning_gcam.utils.lightning_compat import LightningDataModule

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Of the channels of ImageNet's training images in [0, 1]: what torchvision's and timm's weights are used to."""


class Preparation:
    """Resize pictures to a square without cropping, scale them to [0, 1], and normalize them.

    Nothing is cut off, so every object stays in the picture; what is not square is squeezed. The image is resized
    bilinearly with antialiasing. A pixel of a mask is the object where its centre lies on one, which is how the
    package reads boxes too; torchvision's own "nearest" for masks reads the corner, half a pixel off.

    Args:
        size: of a side, in pixels.
        mean: of each channel.
        std: of each channel.

    Example:
        >>> from PIL import Image
        >>> annotation = Annotation(boxes=torch.tensor([[10.0, 0.0, 20.0, 5.0]]))
        >>> sample = Preparation(8)(Image.new("RGB", (40, 20)), annotation)
        >>> sample["image"].shape, sample["boxes"]
        (torch.Size([3, 8, 8]), tensor([[2., 0., 4., 2.]]))
    """

    def __init__(
        self, size: int, mean: tuple[float, ...] = IMAGENET_MEAN, std: tuple[float, ...] = IMAGENET_STD
    ) -> None:
        from torchvision.transforms import v2  # type: ignore[import-untyped]  # slow to import

        self.size = size
        self._transform = v2.Compose(
            [
                v2.ToImage(),
                v2.Resize((size, size), antialias=True),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(mean, std),
            ]
        )

    def __call__(self, picture: Image, annotation: Annotation) -> dict[str, Any]:
        """Return `image` `(3, size, size)` float32, and of `boxes`, `mask` and `void` those that the annotation has."""
        from torchvision import tv_tensors  # type: ignore[import-untyped]

        width, height = picture.size
        boxes = annotation.boxes if annotation.boxes is not None else torch.zeros(0, 4)
        image, boxes = self._transform(
            picture, tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(height, width))
        )
        sample = {"image": image.as_subclass(Tensor)}
        if annotation.boxes is not None:
            sample["boxes"] = boxes.as_subclass(Tensor)
        for key, region in (("mask", annotation.mask), ("void", annotation.void)):
            if region is not None:
                sample[key] = self._resized(region)
        return sample

    def _resized(self, region: Tensor) -> Tensor:
        from torchvision.transforms.v2 import (  # type: ignore[import-untyped]
            InterpolationMode,
            functional,
        )

        pixels = region[None].to(torch.uint8)
        side = [self.size, self.size]
        resized: Tensor = functional.resize(pixels, side, interpolation=InterpolationMode.NEAREST_EXACT)
        return resized[0].bool()


_MOST = 1_000_000
"""Outputs of a model; the names of as many are kept in a list."""


def read_class_map(class_map: Mapping[str, int], class_names: Sequence[str]) -> dict[int, int]:
    """Convert a map from classes' names to outputs into one from the dataset's numbers to outputs.

    Args:
        class_map: name of a class to the place of its output; classes that are not in it are left out.
        class_names: of the dataset.

    Raises:
        InputError: an empty map, an unknown name, an output that is no whole number from 0, or one for two classes.

    Example:
        >>> read_class_map({"dog": 207}, ["cat", "dog"])
        {1: 207}
    """
    places = {name: place for place, name in enumerate(class_names)}
    found: dict[int, int] = {}
    for name, output in class_map.items():
        if name not in places:
            raise InputError(
                f'`class_map` names "{name}", no class of the dataset. {did_you_mean(name, places)}'
            )
        if not is_whole_number(output, 0):
            raise InputError(
                f'`class_map["{name}"]` must be the place of an output of the model, a whole number from 0; got '
                f"{output!r}. A class for which the model has several outputs has no single saliency map: leave it out."
            )
        if output >= _MOST:
            raise InputError(
                f'`class_map["{name}"]` is output {output}, and no model has so many. Give the place of one of its '
                f"outputs, at most {_MOST - 1}."
            )
        if output in found.values():
            raise InputError(
                f"`class_map` gives output {output} to two classes. Saliency for it may lie on objects of either, and "
                "only one's would count: keep one."
            )
        found[places[name]] = output
    if not found:
        raise InputError("`class_map` is empty. Map at least one class, or leave it out.")
    return found


def mapped_names(class_names: Sequence[str], labels: Mapping[int, int]) -> tuple[str, ...]:
    """Name the labels in their order; an output that no class is mapped to goes by its number.

    Example:
        >>> mapped_names(["cat", "dog"], {1: 2})
        ('0', '1', 'dog')
    """
    names = [str(place) for place in range(max(labels.values()) + 1)]
    for place, output in labels.items():
        names[output] = class_names[place]
    return tuple(names)


Subset = Literal["all", "difficult"]
SUBSETS = ("all", "difficult")


class DatasetModule(LightningDataModule):
    """Images, labels, masks and boxes of a published dataset, for validation and test.

    A batch is a dict. An image in which several classes are present comes once for each of them, as another row:

    - `image` `(N, 3, S, S)` float32, normalized; `label` `(N,)` int64, the class of the row;
    - `mask` `(N, S, S)` bool, the objects of that class, where the dataset has masks;
    - `boxes`, N tensors `(M, 4)` float32, x1, y1, x2, y2 of its objects in pixels of the delivered image;
    - `void` `(N, S, S)` bool, pixels that are neither object nor background, where the dataset has such. They are
      out of `mask`, so that a score takes them for background;
    - `difficult` `(N,)` bool, the pointing game's difficult subset; `name`, N names of images.

    The order is the owner's, image by image and class by class; nothing is shuffled or drawn.

    Args:
        root: the folder that holds what the owner publishes, unpacked.
        batch_size: rows in a batch.
        num_workers: processes that read.
        image_size: S, the side of the square to which images, masks and boxes are resized, in pixels.
        limit: the first so many images of the owner's list, whatever is in them; all, where it is left out.
        subset: "difficult" for the rows of the pointing game's difficult subset alone.
        class_map: for a model with other outputs than the dataset has classes: the name of a class to the place of
            its output. Labels are then places of outputs, and classes that are not in it are left out.

    Raises:
        InputError: a folder or file that is missing, with what was looked for and where to get it; an argument that
            cannot be used.
    """

    normalize = (IMAGENET_MEAN, IMAGENET_STD)
    """Mean and standard deviation of each channel, as `SaliencyMonitor(normalize=...)` takes them."""

    def __init__(
        self,
        root: str | Path,
        *,
        batch_size: int = 16,
        num_workers: int = 0,
        image_size: int = 224,
        limit: int | None = None,
        subset: Subset = "all",
        class_map: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__()
        _check_whole("batch_size", batch_size, 1)
        _check_whole("num_workers", num_workers, 0)
        _check_whole("image_size", image_size, 1)
        if limit is not None:
            _check_whole("limit", limit, 1)
        check_choice("subset", subset, SUBSETS)
        self.root = Path(root).expanduser()
        self.batch_size, self.num_workers, self.image_size = batch_size, num_workers, image_size
        self.limit, self.subset, self.class_map = limit, subset, class_map

    @abstractmethod
    def _open(self) -> Source:
        """Open the files under `root`."""

    @cached_property
    def source(self) -> Source:
        """The dataset's files, opened at the first use."""
        return self._open()

    @cached_property
    def labels(self) -> dict[int, int]:
        """The label that is delivered for each of the dataset's class numbers."""
        names = self.source.class_names
        if self.class_map is None:
            return {place: place for place in range(len(names))}
        return read_class_map(self.class_map, names)

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """The names of the labels, in their order."""
        return mapped_names(self.source.class_names, self.labels)

    @property
    def num_classes(self) -> int:
        """How many outputs a model must have; with a `class_map`, how many at least."""
        return len(self.class_names)

    @cached_property
    def dataset(self) -> RowDataset:
        """The rows, each as a dict without the batch dimension.

        Raises:
            InputError: where there is none.
        """
        rows = [row for row in rows_of(self.source, self.limit) if row.label in self.labels]
        if self.subset == "difficult":
            rows = [row for row in rows if row.difficult]
        if not rows:
            among = f"the first {self.limit}" if self.limit is not None else f"all {len(self.source)}"
            raise InputError(
                f'`root` "{self.root}": among {among} images no row is left with `subset="{self.subset}"`'
                f"{' and this `class_map`' if self.class_map is not None else ''}. Ask for more."
            )
        return RowDataset(self.source, rows, Preparation(self.image_size, *self.normalize), self.labels)

    def check_outputs(self, outputs: int) -> None:
        """Refuse a model whose outputs cannot be the classes.

        Args:
            outputs: how many the model has.

        Raises:
            InputError: without a `class_map`, any other number than `num_classes`; with one, too few.
        """
        if self.class_map is None and outputs != self.num_classes:
            raise InputError(
                f"The model has {outputs} outputs, and {type(self).__name__} has {self.num_classes} classes: they "
                "cannot be the same ones. Take a model that was trained on this dataset, or say which output stands "
                f'for which class, as in `class_map={{"{self.class_names[0]}": 0}}`.'
            )
        if outputs < self.num_classes:
            raise InputError(
                f"`class_map` names output {self.num_classes - 1}, and the model has {outputs} (0 to {outputs - 1}). "
                "Map to outputs that it has."
            )

    def setup(self, stage: str | None = None) -> None:
        """Read the annotation of every image in use."""
        self.dataset  # noqa: B018 - what is missing is said before the first batch

    def val_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Return the rows in order; the same as for the test."""
        return self._loader()

    def test_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Return the rows in order."""
        return self._loader()

    def _loader(self) -> DataLoader[dict[str, Any]]:
        return DataLoader(
            self.dataset, batch_size=self.batch_size, num_workers=self.num_workers, collate_fn=collate
        )


def _check_whole(name: str, value: Any, least: int) -> None:
    """Raise where an argument is no whole number of at least `least`."""
    expected = f"a whole number, {least} or more"
    check_whole(name, value, least, expected=expected, remedy="Give such a number.")
