"""ImageNet (ILSVRC 2012), its validation images and their boxes, as its owner lays them out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image
from torchvision.datasets import ImageFolder  # type: ignore[import-untyped]  # it carries no types

from lightning_gcam._errors import InputError
from lightning_gcam.datasets.layout import Layout
from lightning_gcam.datasets.marked import boxes_of, read_marked
from lightning_gcam.datasets.module import DatasetModule, check_choice
from lightning_gcam.datasets.pictures import read_rgb
from lightning_gcam.datasets.rows import Annotation, Source
from lightning_gcam.datasets.synsets import MAPPING, META, SOLUTION, TRUTH, names_of, wnids_of, words_of

_KAGGLE = "ILSVRC/Data/CLS-LOC/val"
_IMAGES = ("val", _KAGGLE)
_BOXES = ("ILSVRC2012_bbox_val_v3/val", "val", "ILSVRC/Annotations/CLS-LOC/val")
_ENDINGS = (".jpeg", ".jpg")

IMAGENET_LAYOUT = Layout(
    "imagenet",
    (
        "val/<wnid>/ILSVRC2012_val_<number>.JPEG, or all of them in val/ with",
        f"    {TRUTH}",
        f"    {META}",
        "val/ILSVRC2012_val_<number>.xml, or ILSVRC2012_bbox_val_v3/val/ILSVRC2012_val_<number>.xml",
        "or, as Kaggle gives it out:",
        f"    {_KAGGLE}/ILSVRC2012_val_<number>.JPEG",
        "    ILSVRC/Annotations/CLS-LOC/val/ILSVRC2012_val_<number>.xml",
        f"    {MAPPING}, {SOLUTION}",
    ),
    "Get ILSVRC2012_img_val.tar, ILSVRC2012_devkit_t12.tar.gz and ILSVRC2012_bbox_val_v3.tgz from their owner, "
    "https://image-net.org/challenges/LSVRC/2012/2012-downloads.php, and unpack the images in `root`/val and the "
    "others in `root`; or https://www.kaggle.com/c/imagenet-object-localization-challenge, unpacked in `root`.",
)


class ImageNet(DatasetModule):
    """ImageNet (ILSVRC 2012) val: a thousand classes, one in each image, and a box around each object of that class.

    A label is the place of the class among the WordNet ids in their order, which is how torchvision's and timm's models
    count; of class folders without a list of the classes it is the place of the folder. The order of the rows is that
    of the images' names in every layout.

    Args:
        root: the folder that holds `val`, or Kaggle's `ILSVRC`.
        annotation: "boxes", whose rows have `boxes`; "labels" for images whose boxes were not had, of which only
            scores that need no object can be taken.
        options: those of :class:`DatasetModule`.

    Raises:
        InputError: a folder or file that is missing, or scipy where the devkit's lists are read; an argument that
            cannot be used.

    Source:
        Russakovsky et al., "ImageNet Large Scale Visual Recognition Challenge", IJCV 2015, arXiv 1409.0575.
    """

    def __init__(
        self, root: str | Path, *, annotation: Literal["boxes", "labels"] = "boxes", **options: Any
    ) -> None:
        super().__init__(root, **options)
        check_choice("annotation", annotation, ("boxes", "labels"))
        if self.subset == "difficult":
            raise InputError(
                '`subset="difficult"` asks for another class in the image, and ImageNet names one class an image. Use '
                '"voc2012" or "coco2014".'
            )
        self.annotation = annotation
        IMAGENET_LAYOUT.require(self.root, *_IMAGES)
        if annotation == "boxes":
            _boxes_folder(self.root)

    def _open(self) -> Source:
        return ImageNetSource(self.root, with_boxes=self.annotation == "boxes")


class ImageNetSource(Source):
    """The files of ImageNet's validation set.

    Args:
        root: the folder that holds them.
        with_boxes: whether the boxes are read.
    """

    def __init__(self, root: Path, *, with_boxes: bool) -> None:
        folder = IMAGENET_LAYOUT.require(root, *_IMAGES)
        self._paths, self._wnids = _listed(root, folder)
        words = words_of(root, IMAGENET_LAYOUT)
        classes = sorted(words) or sorted(_folders(folder)) or sorted(set(self._wnids))
        unknown = next((wnid for wnid in self._wnids if wnid not in set(classes)), None)
        if unknown is not None:
            raise InputError(
                f'`root` "{root}" holds images of "{unknown}", which is none of the {len(classes)} classes of its '
                "list. Are images and list of the same set?"
            )
        self.class_names = names_of(classes, words)
        self._labels = {wnid: place for place, wnid in enumerate(classes)}
        self._boxes = _boxes_folder(root) if with_boxes else None

    def __len__(self) -> int:
        return len(self._paths)

    def name(self, image: int) -> str:
        """The name of the file, such as "ILSVRC2012_val_00000001"."""
        return self._paths[image].stem

    def shares(self, image: int) -> Mapping[int, float]:
        """The image's only class; how much it covers is not asked of an image without another."""
        return {self._labels[self._wnids[image]]: 1.0}

    def picture(self, image: int) -> Image.Image:
        """The image, RGB; a few of the owner's are grey or CMYK."""
        return read_rgb(self._paths[image], IMAGENET_LAYOUT, "its folder")

    def annotation(self, image: int, label: int) -> Annotation:
        """The boxes of the image's class, inside of the image."""
        if self._boxes is None:
            return Annotation()
        path = self._boxes / f"{self.name(image)}.xml"
        marked = read_marked(path, IMAGENET_LAYOUT, "the image of that name")
        boxes = boxes_of([each for each in marked.objects if each.name == self._wnids[image]], first=0)
        height, width = marked.size
        return Annotation(torch.minimum(boxes, torch.tensor([width, height, width, height])))


def _folders(folder: Path) -> list[str]:
    return [each.name for each in folder.iterdir() if each.is_dir()]


def _listed(root: Path, folder: Path) -> tuple[list[Path], list[str]]:
    """The images in the order of their names, and the wnid of each."""
    if _folders(folder):
        try:
            reader = ImageFolder(str(folder))
        except FileNotFoundError as error:  # a class without an image
            raise IMAGENET_LAYOUT.unreadable(folder, error) from error
        pairs = sorted((Path(path), reader.classes[place]) for path, place in reader.samples)
        pairs.sort(key=lambda pair: pair[0].name)
        return [path for path, _ in pairs], [wnid for _, wnid in pairs]
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in _ENDINGS)
    return paths, wnids_of(root, [path.stem for path in paths], IMAGENET_LAYOUT)


def _boxes_folder(root: Path) -> Path:
    """The first folder that holds an annotation."""
    for each in _BOXES:
        if next((root / each).glob("*.xml"), None) is not None:
            return root / each
    return IMAGENET_LAYOUT.require(root, *(f"{each}/ILSVRC2012_val_00000001.xml" for each in _BOXES))
