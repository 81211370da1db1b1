"""Datasets with an annotation of every object: PASCAL VOC 2012 and COCO 2014, as their owners lay them out.

torchvision lists the files and parses VOC's XML, and pycocotools decodes COCO's outlines.
`wrap_dataset_for_transforms_v2` is not laid over them: it gives whole images with all objects, where a row here is one
class, known before a picture is opened; it takes VOC's pixel numbers, which count from 1, as edges and fails at those
with a fraction; it drops VOC's flag `difficult`; and beside a segmentation it has no boxes.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.datasets import (  # type: ignore[import-untyped]  # it carries no types
    CocoDetection,
    VOCDetection,
    VOCSegmentation,
)
from torchvision.ops import box_convert  # type: ignore[import-untyped]

from lightning_gcam.data.saliency_batch import boxes_to_masks
from lightning_gcam.datasets.base import DatasetModule
from lightning_gcam.datasets.rows import (
    AnnotatedImage,
    AnnotatedObject,
    Annotation,
    DirectoryLayout,
    Source,
    boxes_of,
    check_size,
    opened,
    read_rgb,
    read_xml,
)
from lightning_gcam.utils.errors import InputError, check_choice, did_you_mean

VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable"),
    *("dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
"""In the devkit's order; in a segmentation the first is 1."""

VOID = 255
"""Pixels around objects, and difficult objects: neither object nor background."""

_VOC_FOLDER = "VOCdevkit/VOC2012"
VOC_LAYOUT = DirectoryLayout(
    "voc2012",
    (
        f"{_VOC_FOLDER}/JPEGImages/<name>.jpg",
        f"{_VOC_FOLDER}/Annotations/<name>.xml",
        f"{_VOC_FOLDER}/ImageSets/Segmentation/val.txt",
        f"{_VOC_FOLDER}/SegmentationClass/<name>.png",
        f'{_VOC_FOLDER}/ImageSets/Main/val.txt (for `annotation="boxes"`)',
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
        options: those of `DatasetModule`.

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
        folders = ["JPEGImages", "Annotations", f"ImageSets/{_VOC_LISTS[annotation]}/{image_set}.txt"]
        if annotation == "masks":
            folders.append("SegmentationClass")
        for each in folders:
            VOC_LAYOUT.require(self.root, f"{_VOC_FOLDER}/{each}")

    def _open(self) -> Source:
        return VocSource(self.root, self.annotation, self.image_set)


_VOC_LISTS = {"masks": "Segmentation", "boxes": "Main"}


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
        self._list = f"ImageSets/{_VOC_LISTS[annotation]}/{image_set}.txt"
        self._pictures = [Path(each) for each in listed.images]
        self._segmentations = [Path(each) for each in listed.masks] if annotation == "masks" else None
        self._annotations = root / _VOC_FOLDER / "Annotations"
        self._annotated: dict[int, AnnotatedImage] = {}

    def __len__(self) -> int:
        return len(self._pictures)

    def name(self, image: int) -> str:
        """Return the name of the file, such as "2007_000033"."""
        return self._pictures[image].stem

    def shares(self, image: int) -> Mapping[int, float]:
        """Return the share of the image that each class's boxes cover, without ignored objects."""
        annotated = self._read(image)
        found: dict[int, float] = {}
        for each in annotated.objects:
            if not each.is_unclear:
                height, width = annotated.size
                box = boxes_of([each], first=1)[0]
                area = float((box[2] - box[0]) * (box[3] - box[1]))
                label = VOC_CLASSES.index(each.name)
                found[label] = found.get(label, 0.0) + area / (height * width)
        return found

    def picture(self, image: int) -> Image.Image:
        """Open the image, RGB."""
        return read_rgb(self._pictures[image], VOC_LAYOUT, self._list)

    def annotation(self, image: int, label: int) -> Annotation:
        """Return the class's objects; void is what the segmentation leaves void, or the boxes of ignored objects."""
        annotated = self._read(image)
        of_class = [each for each in annotated.objects if each.name == VOC_CLASSES[label]]
        boxes = boxes_of([each for each in of_class if not each.is_unclear], first=1)
        if self._segmentations is not None:
            numbers = self._segmentation(image)
            return Annotation(boxes, numbers == label + 1, numbers == VOID)
        unclear = boxes_of([each for each in of_class if each.is_unclear], first=1)
        void, objects = (boxes_to_masks(each, annotated.size).any(dim=0) for each in (unclear, boxes))
        return Annotation(boxes, void=void & ~objects)

    def _segmentation(self, image: int) -> Tensor:
        assert self._segmentations is not None
        with opened(self._segmentations[image], VOC_LAYOUT, self._list) as picture:
            return torch.from_numpy(np.array(picture))  # of the palette, the numbers

    def _read(self, image: int) -> AnnotatedImage:
        if image not in self._annotated:
            path = self._annotations / f"{self.name(image)}.xml"
            annotated = read_xml(path, VOC_LAYOUT, self._list)
            for each in annotated.objects:
                _check_class(each, path)
            self._annotated[image] = annotated
        return self._annotated[image]


def _check_class(found: AnnotatedObject, path: Path) -> None:
    """Raise where an object is of no class of VOC."""
    if found.name not in VOC_CLASSES:
        raise InputError(
            f'"{path}" names "{found.name}", which is no class of VOC 2012. {did_you_mean(found.name, VOC_CLASSES)} '
            "Is this another dataset in VOC's format?"
        )


_COCO_INSTANCES = "annotations/instances_val2014.json"
_COCO_IMAGES = "val2014"
COCO_LAYOUT = DirectoryLayout(
    "coco2014",
    (f"{_COCO_IMAGES}/COCO_val2014_<number>.jpg", _COCO_INSTANCES),
    "Get val2014.zip and annotations_trainval2014.zip from their owner, https://cocodataset.org/#download, and unpack "
    "both in `root`.",
)


class Coco2014(DatasetModule):
    """COCO 2014 val: eighty classes, an outline and a box for every object.

    The mask of a row is the union of the class's instances. A crowd (`iscrowd`: one region around many objects, and
    what lies between them) is neither object nor background: it is no part of `mask` and `boxes`, it is delivered as
    `void` except where an instance lies in it, and a class of which there is only a crowd gives no row.

    A label is the place of its category among those of the file in the order of their ids, 0 to 79. torchvision's
    detection models count by the ids themselves, 1 to 90.

    Args:
        root: the folder that holds `val2014` and `annotations`.
        options: those of `DatasetModule`.

    Raises:
        InputError: a folder or file that is missing, or pycocotools; an argument that cannot be used.

    Source:
        Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014, arXiv 1405.0312.
    """

    def __init__(self, root: str | Path, **options: Any) -> None:
        super().__init__(root, **options)
        for each in (_COCO_IMAGES, _COCO_INSTANCES):
            COCO_LAYOUT.require(self.root, each)
        _require_pycocotools()

    def _open(self) -> Source:
        return CocoSource(self.root)


class CocoSource(Source):
    """The files of COCO 2014 val, read by torchvision and pycocotools.

    Args:
        root: the folder that holds `val2014` and `annotations`.
    """

    def __init__(self, root: Path) -> None:
        self._folder, self._path = root / _COCO_IMAGES, root / _COCO_INSTANCES
        try:
            self._coco, self._ids = _read_coco(self._folder, self._path)
            categories = sorted(self._coco.cats.values(), key=lambda each: int(each["id"]))
            self.class_names = tuple(str(each["name"]) for each in categories)
            self._labels = {each["id"]: place for place, each in enumerate(categories)}
            _check_categories(self._coco.anns.values(), self._labels)
            for about in self._coco.imgs.values():
                check_size(about["height"], about["width"])
        except RecursionError:
            raise COCO_LAYOUT.unreadable(self._path, ValueError("its values are nested too deep")) from None
        except (AssertionError, AttributeError, KeyError, OSError, TypeError, ValueError) as error:
            raise COCO_LAYOUT.unreadable(self._path, error) from error

    def __len__(self) -> int:
        return len(self._ids)

    def name(self, image: int) -> str:
        """Return the name of the file, such as "COCO_val2014_000000000042"."""
        return Path(self._about(image)["file_name"]).stem

    def shares(self, image: int) -> Mapping[int, float]:
        """Return the share of the image that each class's instances cover, as the file states it, without crowds."""
        about = self._about(image)
        found: dict[int, float] = {}
        for each in self._instances(image):
            if not each["iscrowd"] and each["area"] > 0:
                label = self._labels[each["category_id"]]
                found[label] = found.get(label, 0.0) + each["area"] / (about["height"] * about["width"])
        return found

    def picture(self, image: int) -> Image.Image:
        """Open the image, RGB."""
        return read_rgb(self._folder / self._about(image)["file_name"], COCO_LAYOUT, _COCO_INSTANCES)

    def annotation(self, image: int, label: int) -> Annotation:
        """Return the class's instances; void is its crowds."""
        of_class = [each for each in self._instances(image) if self._labels[each["category_id"]] == label]
        objects = [each for each in of_class if not each["iscrowd"]]
        mask = self._union(image, objects)
        void = self._union(image, [each for each in of_class if each["iscrowd"]])
        extents = torch.tensor([each["bbox"] for each in objects], dtype=torch.float32).reshape(-1, 4)
        return Annotation(box_convert(extents, in_fmt="xywh", out_fmt="xyxy"), mask, void & ~mask)

    def _about(self, image: int) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self._coco.imgs[self._ids[image]]
        return found

    def _instances(self, image: int) -> list[Mapping[str, Any]]:
        found: list[Mapping[str, Any]] = self._coco.imgToAnns[self._ids[image]]
        return found

    def _union(self, image: int, instances: list[Mapping[str, Any]]) -> Tensor:
        about = self._about(image)
        union = torch.zeros(about["height"], about["width"], dtype=torch.bool)
        for each in instances:
            try:
                union |= torch.from_numpy(self._coco.annToMask(each)).bool()
            except Exception as error:  # pycocotools raises errors of many types
                raise COCO_LAYOUT.unreadable(self._path, error) from error
        return union


def _read_coco(folder: Path, path: Path) -> tuple[Any, list[int]]:
    """Return pycocotools' index and the images' ids in order, and suppress what it prints."""
    with contextlib.redirect_stdout(io.StringIO()):
        reader = CocoDetection(str(folder), annFile=str(path))
    return reader.coco, list(reader.ids)


def _check_categories(annotations: Iterable[Mapping[str, Any]], labels: Mapping[int, int]) -> None:
    """Raise where an annotation is of no category of the file."""
    unknown = next((each["category_id"] for each in annotations if each["category_id"] not in labels), None)
    if unknown is not None:
        raise ValueError(f"category {unknown} is not among its categories")


def _require_pycocotools() -> None:
    """Raise where pycocotools is not installed."""
    try:
        import pycocotools.coco  # type: ignore[import-untyped]  # noqa: F401 - it carries no types
    except ImportError as error:
        raise InputError(
            '"coco2014" is read with pycocotools, which is not installed. Install `lightning-gcam[datasets]`.'
        ) from error
