"""ImageNet's validation set with its boxes.

torchvision's `ImageFolder` lists the images where they lie in folders of classes. Its `ImageNet` is not used: it needs
the archive of the devkit beside them, and reads neither boxes nor Kaggle's layout.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from PIL import Image
from torchvision.datasets import ImageFolder  # type: ignore[import-untyped]  # it carries no types

from lightning_gcam.datasets.base import DatasetModule
from lightning_gcam.datasets.rows import Annotation, DirectoryLayout, Source, boxes_of, read_rgb, read_xml
from lightning_gcam.utils.errors import InputError, check_choice

T = TypeVar("T")

DEVKIT = "ILSVRC2012_devkit_t12/data"
TRUTH = f"{DEVKIT}/ILSVRC2012_validation_ground_truth.txt"
META = f"{DEVKIT}/meta.mat"
MAPPING = "LOC_synset_mapping.txt"
SOLUTION = "LOC_val_solution.csv"


def read_mapping(path: Path) -> dict[str, str]:
    """Read the words of each wnid from Kaggle's list: "n01440764 tench, Tinca tinca" on each line."""
    pairs = (line.split(maxsplit=1) for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    return {wnid: words.strip() for wnid, words in pairs}


def read_solution(path: Path) -> dict[str, str]:
    """Read the wnid of each image from Kaggle's table: "ILSVRC2012_val_00048981,n03995372 85 1 499 272"."""
    with path.open(encoding="utf-8", newline="") as file:
        return {row["ImageId"]: row["PredictionString"].split()[0] for row in csv.DictReader(file)}


def read_meta(path: Path) -> list[tuple[int, str, str]]:
    """Read ILSVRC id, wnid and words of each class from the devkit's meta.mat; those with children are no classes.

    Raises:
        InputError: without scipy.
    """
    try:
        from scipy.io import loadmat  # type: ignore[import-untyped]  # it carries no types
    except ImportError as error:
        raise InputError(
            f'"{META}" is read with scipy, which is not installed. Install `lightning-gcam[datasets]`.'
        ) from error
    rows = loadmat(path, squeeze_me=True)["synsets"]
    classes = (row for row in rows if int(row["num_children"]) == 0)
    return [(int(row["ILSVRC2012_ID"]), str(row["WNID"]), str(row["words"])) for row in classes]


def read_truth(path: Path, meta: Iterable[tuple[int, str, str]]) -> list[str]:
    """Read the wnid of each image, in the order of their numbers, from the devkit's list of ILSVRC ids."""
    wnids = {number: wnid for number, wnid, _ in meta}
    return [wnids[int(line)] for line in path.read_text(encoding="ascii").split()]


def class_words(root: Path, layout: DirectoryLayout) -> dict[str, str]:
    """Return the words of each wnid from whichever list is there; empty where there is none.

    Raises:
        InputError: where a list is in another form.
    """
    if (root / MAPPING).is_file():
        return read_file(layout, root / MAPPING, read_mapping)
    if (root / META).is_file():
        return {wnid: words for _, wnid, words in read_file(layout, root / META, read_meta)}
    return {}


def wnids_of(root: Path, names: Sequence[str], layout: DirectoryLayout) -> list[str]:
    """Return the wnid of each of the images from whichever list is there.

    Args:
        root: the folder with the lists.
        names: of the images' files, without their ending.
        layout: for the errors.

    Raises:
        InputError: where no list is there, it is in another form, or it lacks an image.
    """
    found = layout.require(root, SOLUTION, TRUTH)
    if found.name == SOLUTION:
        solution = read_file(layout, found, read_solution)
        lacking = next((name for name in names if name not in solution), None)
        if lacking is None:
            return [solution[name] for name in names]
        raise InputError(f'"{found}" has no line for "{lacking}". Are image and list of the same set?')
    meta = read_file(layout, layout.require(root, META), read_meta)
    truth = read_file(layout, found, lambda path: read_truth(path, meta))
    return [truth[_number_of(name, len(truth), found)] for name in names]


def _number_of(name: str, count: int, path: Path) -> int:
    """Return the place of an image in the devkit's list, from its name: ILSVRC2012_val_00000001 is the first."""
    number = name.rpartition("_")[2]
    if not number.isdecimal() or not 0 < int(number) <= count:
        raise InputError(
            f'"{path}" has {count} lines, one for each number of an image, and none is for "{name}". Are image and '
            "list of the same set, and is the image's name its owner's?"
        )
    return int(number) - 1


def read_file(layout: DirectoryLayout, path: Path, read: Callable[[Path], T]) -> T:
    """Read a file of the dataset by `read`; an error names the file.

    Raises:
        InputError: where it fails.
    """
    try:
        return read(path)
    except InputError:
        raise
    except Exception as error:  # a reader of someone else's format may raise anything
        raise layout.unreadable(path, error) from error


def names_of(wnids: Sequence[str], words: Mapping[str, str]) -> tuple[str, ...]:
    """Name each class: its first word, with the wnid where two have the same; the wnid where there are no words.

    Example:
        >>> names_of(["n02012849", "n03126707", "n99999999"], {"n02012849": "crane, bird", "n03126707": "crane"})
        ('crane (n02012849)', 'crane (n03126707)', 'n99999999')
    """
    first = [words[wnid].split(",")[0] if wnid in words else wnid for wnid in wnids]
    counts = Counter(first)
    return tuple(
        f"{name} ({wnid})" if counts[name] > 1 else name for name, wnid in zip(first, wnids, strict=True)
    )


_KAGGLE = "ILSVRC/Data/CLS-LOC/val"
_IMAGES = ("val", _KAGGLE)
_BOXES = ("ILSVRC2012_bbox_val_v3/val", "val", "ILSVRC/Annotations/CLS-LOC/val")
_ENDINGS = (".jpeg", ".jpg")

IMAGENET_LAYOUT = DirectoryLayout(
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
        options: those of `DatasetModule`.

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
        words = class_words(root, IMAGENET_LAYOUT)
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
        """Return the name of the file, such as "ILSVRC2012_val_00000001"."""
        return self._paths[image].stem

    def shares(self, image: int) -> Mapping[int, float]:
        """Return the image's only class, with a share of 1: nothing else in the image is annotated."""
        return {self._labels[self._wnids[image]]: 1.0}

    def picture(self, image: int) -> Image.Image:
        """Open the image, RGB; a few of the owner's are grey or CMYK."""
        return read_rgb(self._paths[image], IMAGENET_LAYOUT, "its folder")

    def annotation(self, image: int, label: int) -> Annotation:
        """Return the boxes of the image's class, cut off at the image's edge."""
        if self._boxes is None:
            return Annotation()
        path = self._boxes / f"{self.name(image)}.xml"
        annotated = read_xml(path, IMAGENET_LAYOUT, "the image of that name")
        boxes = boxes_of([each for each in annotated.objects if each.name == self._wnids[image]], first=0)
        height, width = annotated.size
        return Annotation(torch.minimum(boxes, torch.tensor([width, height, width, height])))


def _folders(folder: Path) -> list[str]:
    return [each.name for each in folder.iterdir() if each.is_dir()]


def _listed(root: Path, folder: Path) -> tuple[list[Path], list[str]]:
    """List the images in the order of their names, and the wnid of each."""
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
    """Return the first folder that holds an annotation."""
    for each in _BOXES:
        if next((root / each).glob("*.xml"), None) is not None:
            return root / each
    return IMAGENET_LAYOUT.require(root, *(f"{each}/ILSVRC2012_val_00000001.xml" for each in _BOXES))
