"""PASCAL VOC 2012, as its development kit lays it out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.datasets import (  # type: ignore[import-untyped]  # it carries no types
    VOCDetection,
    VOCSegmentation,
)

from lightning_gcam.datasets.base import DatasetModule, check_choice
from lightning_gcam.datasets.rows import (
    Annotation,
    Layout,
    Marked,
    MarkedImage,
    Source,
    boxes_of,
    inside,
    opened,
    read_marked,
    read_rgb,
)
from lightning_gcam.utils.errors import InputError, did_you_mean

VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *(
        "diningtable",
        "dog",
        "horse",
        "motorbike",
        "person",
        "pottedplant",
        "sheep",
        "sofa",
        "train",
        "tvmonitor",
    ),
)
"""In the devkit's order; in a segmentation the first is 1."""

VOID = 255
"""Pixels around objects, and difficult objects: neither object nor background."""

_FOLDER = "VOCdevkit/VOC2012"
VOC_LAYOUT = Layout(
    "voc2012",
    (
        f"{_FOLDER}/JPEGImages/<name>.jpg",
        f"{_FOLDER}/Annotations/<name>.xml",
        f"{_FOLDER}/ImageSets/Segmentation/val.txt",
        f"{_FOLDER}/SegmentationClass/<name>.png",
        f'{_FOLDER}/ImageSets/Main/val.txt (for `annotation="boxes"`)',
    ),
    "Get VOCtrainval_11-May-2012.tar from its owner, http://host.robots.ox.ac.uk/pascal/VOC/voc2012/, and unpack it in "
    "`root`.",
)


class Voc2012(DatasetModule):
    """PASCAL VOC 2012: twenty classes, boxes for every object, segmentations for some of the images.

    An object that its annotators marked as difficult to recognize is ignored, as in the devkit's evaluation: it is no
    part of `mask` or `boxes`, and a class all of whose objects are so marked gives no row. Pixels that the
    segmentation leaves void (255: a band around each object, and such objects) are delivered as `void`.

    Args:
        root: the folder that holds `VOCdevkit`.
        annotation: "masks" for the images with a segmentation (ImageSets/Segmentation; 1,449 in val), whose rows have
            `mask`, `void` and `boxes`; "boxes" for all that are annotated (ImageSets/Main; 5,823 in val), whose rows
            have `boxes`, and as `void` the boxes of the class's objects that are ignored. The pointing game's authors
            point at boxes.
        image_set: "val", "train" or "trainval", the devkit's lists.
        options: those of :class:`DatasetModule`.

    Raises:
        InputError: a folder or file that is missing; an argument that cannot be used.

    Source:
        Everingham et al., "The PASCAL Visual Object Classes Challenge: A Retrospective", IJCV 2015, and the
        development kit of 2012, sections 2.5 (difficult) and 2.6 (void).
    """

    def __init__(
        self,
        root: str | Path,
        *,
        annotation: Literal["masks", "boxes"] = "masks",
        image_set: Literal["train", "val", "trainval"] = "val",
        **options: Any,
    ) -> None:
        super().__init__(root, **options)
        check_choice("annotation", annotation, ("masks", "boxes"))
        check_choice("image_set", image_set, ("train", "val", "trainval"))
        self.annotation, self.image_set = annotation, image_set
        folders = ["JPEGImages", "Annotations", f"ImageSets/{_LISTS[annotation]}/{image_set}.txt"]
        if annotation == "masks":
            folders.append("SegmentationClass")
        for each in folders:
            VOC_LAYOUT.require(self.root, f"{_FOLDER}/{each}")

    def _open(self) -> Source:
        return VocSource(self.root, self.annotation, self.image_set)


_LISTS = {"masks": "Segmentation", "boxes": "Main"}


class VocSource(Source):
    """The files of VOC 2012, read by torchvision.

    Args:
        root: the folder that holds `VOCdevkit`.
        annotation: "masks" or "boxes".
        image_set: a list of the devkit.
    """

    class_names = VOC_CLASSES

    def __init__(self, root: Path, annotation: str, image_set: str) -> None:
        reader = VOCSegmentation if annotation == "masks" else VOCDetection
        listed = reader(str(root), year="2012", image_set=image_set)
        self._list = f"ImageSets/{_LISTS[annotation]}/{image_set}.txt"
        self._pictures = [Path(each) for each in listed.images]
        self._segmentations = [Path(each) for each in listed.masks] if annotation == "masks" else None
        self._annotations = root / _FOLDER / "Annotations"
        self._marked: dict[int, MarkedImage] = {}

    def __len__(self) -> int:
        return len(self._pictures)

    def name(self, image: int) -> str:
        """The name of the file, such as "2007_000033"."""
        return self._pictures[image].stem

    def shares(self, image: int) -> Mapping[int, float]:
        """By the boxes of the objects that count."""
        marked = self._read(image)
        found: dict[int, float] = {}
        for each in marked.objects:
            if not each.is_unclear:
                height, width = marked.size
                box = boxes_of([each], first=1)[0]
                area = float((box[2] - box[0]) * (box[3] - box[1]))
                label = VOC_CLASSES.index(each.name)
                found[label] = found.get(label, 0.0) + area / (height * width)
        return found

    def picture(self, image: int) -> Image.Image:
        """The image, RGB."""
        return read_rgb(self._pictures[image], VOC_LAYOUT, self._list)

    def annotation(self, image: int, label: int) -> Annotation:
        """The objects that count; void is what the segmentation, or VOC's flag, says of neither."""
        marked = self._read(image)
        of_class = [each for each in marked.objects if each.name == VOC_CLASSES[label]]
        boxes = boxes_of([each for each in of_class if not each.is_unclear], first=1)
        if self._segmentations is not None:
            numbers = self._segmentation(image)
            return Annotation(boxes, numbers == label + 1, numbers == VOID)
        unclear = boxes_of([each for each in of_class if each.is_unclear], first=1)
        void = inside(unclear, marked.size) & ~inside(boxes, marked.size)
        return Annotation(boxes, void=void)

    def _segmentation(self, image: int) -> Tensor:
        assert self._segmentations is not None
        with opened(self._segmentations[image], VOC_LAYOUT, self._list) as picture:
            return torch.from_numpy(np.array(picture))  # of the palette, the numbers

    def _read(self, image: int) -> MarkedImage:
        if image not in self._marked:
            path = self._annotations / f"{self.name(image)}.xml"
            marked = read_marked(path, VOC_LAYOUT, self._list)
            for each in marked.objects:
                _check_name(each, path)
            self._marked[image] = marked
        return self._marked[image]


def _check_name(marked: Marked, path: Path) -> None:
    if marked.name not in VOC_CLASSES:
        raise InputError(
            f'"{path}" names "{marked.name}", which is no class of VOC 2012. {did_you_mean(marked.name, VOC_CLASSES)} '
            "Is this another dataset in VOC's format?"
        )
