"""Small trees of files in the very format in which the datasets' owners publish them.

Each image is a cut of 40 x 60 pixels from a real photograph (scikit-image's). Its objects are given by rectangles, in
pixels from 0 and with the end left out; what an owner's file says of them is written in the owner's way.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.io import savemat
from skimage import data

HEIGHT, WIDTH = 40, 60

Rectangle = tuple[int, int, int, int]
"""x1, y1, x2, y2."""


@dataclass(frozen=True)
class Thing:
    """An object in an image.

    Args:
        name: of its class.
        box: where it is.
        difficult: VOC's flag.
        crowd: COCO's flag.
    """

    name: str
    box: Rectangle
    difficult: bool = False
    crowd: bool = False


@dataclass(frozen=True)
class Scene:
    """An image and what is in it."""

    name: str
    things: Sequence[Thing] = field(default_factory=tuple)


def photograph(number: int) -> Image.Image:
    """Another cut of a real photograph for each number."""
    pixels = data.astronaut()
    top, left = 40 * (number % 10), 60 * (number // 10 % 8)
    return Image.fromarray(pixels[top : top + HEIGHT, left : left + WIDTH])


# ------------------------------------------------------------------------------------------------------ VOC

VOC_SCENES = (
    Scene("2007_000033", [Thing("dog", (10, 8, 22, 20)), Thing("person", (30, 4, 54, 36))]),
    Scene("2007_000042", [Thing("cat", (4, 4, 16, 16)), Thing("cat", (40, 20, 52, 32), difficult=True)]),
    Scene("2007_000061", [Thing("car", (6, 10, 50, 30), difficult=True)]),
    Scene("2007_000123", [Thing("aeroplane", (0, 0, 60, 40))]),
)
"""Two classes, one of them small; a second object that is marked difficult; nothing but such; one of full size."""

VOC_NAMES = (
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


def write_voc(root: Path, scenes: Sequence[Scene] = VOC_SCENES, image_set: str = "val") -> Path:
    """VOCdevkit/VOC2012: pictures, XML, palette PNGs with a band of void around each object, and the lists."""
    base = root / "VOCdevkit" / "VOC2012"
    folders = ("JPEGImages", "Annotations", "SegmentationClass", "SegmentationObject")
    for each in (*folders, "ImageSets/Main", "ImageSets/Segmentation"):
        (base / each).mkdir(parents=True, exist_ok=True)
    for number, scene in enumerate(scenes):
        photograph(number).save(base / "JPEGImages" / f"{scene.name}.jpg", quality=95)
        (base / "Annotations" / f"{scene.name}.xml").write_text(_voc_xml(scene))
        classes, objects = _voc_segmentation(scene)
        _save_palette(base / "SegmentationClass" / f"{scene.name}.png", classes)
        _save_palette(base / "SegmentationObject" / f"{scene.name}.png", objects)
    names = "".join(f"{scene.name}\n" for scene in scenes)
    for task in ("Main", "Segmentation"):
        (base / "ImageSets" / task / f"{image_set}.txt").write_text(names)
    return root


def _voc_xml(scene: Scene) -> str:
    """As in the devkit: numbers of pixels from 1, the last one included."""
    objects = "".join(
        f"""
\t<object>
\t\t<name>{thing.name}</name>
\t\t<pose>Unspecified</pose>
\t\t<truncated>0</truncated>
\t\t<difficult>{int(thing.difficult)}</difficult>
\t\t<bndbox>
\t\t\t<xmin>{thing.box[0] + 1}</xmin>
\t\t\t<ymin>{thing.box[1] + 1}</ymin>
\t\t\t<xmax>{thing.box[2]}</xmax>
\t\t\t<ymax>{thing.box[3]}</ymax>
\t\t</bndbox>
\t</object>"""
        for thing in scene.things
    )
    return f"""<annotation>
\t<folder>VOC2012</folder>
\t<filename>{scene.name}.jpg</filename>
\t<source>
\t\t<database>The VOC2007 Database</database>
\t\t<annotation>PASCAL VOC2007</annotation>
\t\t<image>flickr</image>
\t</source>
\t<size>
\t\t<width>{WIDTH}</width>
\t\t<height>{HEIGHT}</height>
\t\t<depth>3</depth>
\t</size>
\t<segmented>1</segmented>{objects}
</annotation>
"""


def _voc_segmentation(scene: Scene) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Numbers of classes and of objects: void in a band one pixel wide inside each box, and all over difficult ones."""
    classes = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    objects = np.zeros_like(classes)
    for number, thing in enumerate(scene.things, start=1):
        x1, y1, x2, y2 = thing.box
        for picture, value in ((classes, VOC_NAMES.index(thing.name) + 1), (objects, number)):
            picture[y1:y2, x1:x2] = 255
            if not thing.difficult:
                picture[y1 + 1 : y2 - 1, x1 + 1 : x2 - 1] = value
    return classes, objects


def _save_palette(path: Path, numbers: npt.NDArray[np.uint8]) -> None:
    """VOC's PNGs hold numbers, and a palette that gives each its colour."""
    picture = Image.fromarray(numbers, mode="L").convert("P")
    picture.putdata(numbers.flatten().tolist())
    picture.putpalette([channel for number in range(256) for channel in _voc_colour(number)])
    picture.save(path)


def _voc_colour(number: int) -> tuple[int, int, int]:
    """The devkit's colour map: bits of the number, three at a time, from the highest bit of each channel down."""
    channels = [0, 0, 0]
    for place in range(8):
        for channel in range(3):
            channels[channel] |= ((number >> (3 * place + channel)) & 1) << (7 - place)
    return channels[0], channels[1], channels[2]


# ----------------------------------------------------------------------------------------------------- COCO

COCO_SCENES = (
    Scene("COCO_val2014_000000000042", [Thing("dog", (10, 8, 22, 20)), Thing("person", (30, 4, 54, 36))]),
    Scene(
        "COCO_val2014_000000000073",
        [
            Thing("cat", (4, 4, 16, 16)),
            Thing("cat", (30, 20, 42, 32)),
            Thing("person", (0, 0, 30, 10), crowd=True),
        ],
    ),
    Scene(
        "COCO_val2014_000000000074",
        [Thing("person", (6, 10, 26, 30)), Thing("person", (20, 10, 60, 30), crowd=True)],
    ),
    Scene("COCO_val2014_000000000133"),
)
"""Two classes; two instances, and a crowd alone of another class; an instance that overlaps a crowd; nothing."""

COCO_CATEGORIES = {1: "person", 17: "cat", 18: "dog"}
"""Three of the owner's eighty, with the owner's ids, which have gaps."""


def write_coco(
    root: Path, scenes: Sequence[Scene] = COCO_SCENES, categories: Mapping[int, str] = COCO_CATEGORIES
) -> Path:
    """val2014 and annotations/instances_val2014.json: polygons for instances, run lengths for crowds."""
    (root / "val2014").mkdir(parents=True, exist_ok=True)
    (root / "annotations").mkdir(exist_ok=True)
    images, annotations = [], []
    for number, scene in enumerate(scenes):
        photograph(number).save(root / "val2014" / f"{scene.name}.jpg", quality=95)
        identity = int(scene.name.rsplit("_", 1)[1])
        images.append({"id": identity, "file_name": f"{scene.name}.jpg", "height": HEIGHT, "width": WIDTH})
        for thing in scene.things:
            about = {"id": len(annotations) + 1, "image_id": identity}
            annotations.append({**about, **_coco_annotation(thing, categories)})
    instances = {
        "info": {"description": "A small tree in the format of COCO 2014"},
        "images": images[::-1],  # the owner's are in no order
        "annotations": annotations,
        "categories": [{"id": number, "name": name} for number, name in categories.items()],
    }
    (root / "annotations" / "instances_val2014.json").write_text(json.dumps(instances))
    return root


def _coco_annotation(thing: Thing, categories: Mapping[int, str]) -> dict[str, Any]:
    x1, y1, x2, y2 = thing.box
    segmentation: Any = [[x1, y1, x2, y1, x2, y2, x1, y2]]
    if thing.crowd:
        segmentation = {"counts": _run_lengths(thing.box), "size": [HEIGHT, WIDTH]}
    return {
        "category_id": next(number for number, name in categories.items() if name == thing.name),
        "segmentation": segmentation,
        "area": float((x2 - x1) * (y2 - y1)),
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "iscrowd": int(thing.crowd),
    }


def _run_lengths(box: Rectangle) -> list[int]:
    """How many pixels are out, in, out, ..., column by column: COCO's uncompressed run lengths."""
    x1, y1, x2, y2 = box
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    mask[y1:y2, x1:x2] = 1
    flat = mask.flatten(order="F")
    ends = np.flatnonzero(np.diff(flat)) + 1
    lengths = np.diff([0, *ends, flat.size]).tolist()
    return [0, *lengths] if flat[0] else lengths


# ------------------------------------------------------------------------------------------------- ImageNet

IMAGENET_SCENES = (
    Scene("ILSVRC2012_val_00000001", [Thing("n01751748", (10, 8, 22, 20))]),
    Scene("ILSVRC2012_val_00000002", [Thing("n01440764", (0, 0, 60, 40))]),
    Scene(
        "ILSVRC2012_val_00000003", [Thing("n09193705", (4, 4, 16, 16)), Thing("n09193705", (30, 20, 54, 36))]
    ),
    Scene("ILSVRC2012_val_00000004", [Thing("n01751748", (40, 0, 60, 10))]),
)
"""One class an image: one object, one of full size, two, and one in a corner."""

IMAGENET_CLASSES = {
    "n01440764": "tench, Tinca tinca",
    "n01751748": "sea snake",
    "n02012849": "crane",
    "n03126707": "crane",
    "n09193705": "alp",
}
"""Five of the owner's thousand, two of which are called the same."""

ILSVRC_IDS = {"n01440764": 4, "n01751748": 2, "n02012849": 5, "n03126707": 1, "n09193705": 3}
"""The devkit's numbers, which are in another order than the wnids."""


def write_imagenet(
    root: Path,
    scenes: Sequence[Scene] = IMAGENET_SCENES,
    layout: str = "flat",
    classes: Mapping[str, str] = IMAGENET_CLASSES,
) -> Path:
    """The validation images in one of three layouts.

    Args:
        root: the folder.
        scenes: the images.
        layout: "folders", one for each class, with the classes' boxes in a folder of their own; "flat" with the devkit;
            "kaggle".
        classes: the words of each wnid.
    """
    images = root / ("ILSVRC/Data/CLS-LOC/val" if layout == "kaggle" else "val")
    boxes = (
        root
        / {
            "folders": "ILSVRC2012_bbox_val_v3/val",
            "flat": "val",
            "kaggle": "ILSVRC/Annotations/CLS-LOC/val",
        }[layout]
    )
    for folder in (images, boxes):
        folder.mkdir(parents=True, exist_ok=True)
    for number, scene in enumerate(scenes):
        folder = images / scene.things[0].name if layout == "folders" else images
        folder.mkdir(exist_ok=True)
        photograph(number).save(folder / f"{scene.name}.JPEG", format="JPEG", quality=95)
        (boxes / f"{scene.name}.xml").write_text(_imagenet_xml(scene))
    if layout == "flat":
        _write_devkit(root / "ILSVRC2012_devkit_t12" / "data", scenes, classes)
    if layout == "kaggle":
        _write_kaggle(root, scenes, classes)
    return root


def _imagenet_xml(scene: Scene) -> str:
    """As VOC's, but that pixels are counted from 0, and classes go by their wnid."""
    objects = "".join(
        f"""
\t<object>
\t\t<name>{thing.name}</name>
\t\t<pose>Unspecified</pose>
\t\t<truncated>0</truncated>
\t\t<difficult>0</difficult>
\t\t<bndbox>
\t\t\t<xmin>{thing.box[0]}</xmin>
\t\t\t<ymin>{thing.box[1]}</ymin>
\t\t\t<xmax>{thing.box[2] - 1}</xmax>
\t\t\t<ymax>{thing.box[3] - 1}</ymax>
\t\t</bndbox>
\t</object>"""
        for thing in scene.things
    )
    return f"""<annotation>
\t<folder>val</folder>
\t<filename>{scene.name}</filename>
\t<source>
\t\t<database>ILSVRC_2012</database>
\t</source>
\t<size>
\t\t<width>{WIDTH}</width>
\t\t<height>{HEIGHT}</height>
\t\t<depth>3</depth>
\t</size>
\t<segmented>0</segmented>{objects}
</annotation>
"""


def _write_devkit(folder: Path, scenes: Sequence[Scene], classes: Mapping[str, str]) -> None:
    """meta.mat, a struct array whose last entries are no classes but have children, and the ground truth."""
    folder.mkdir(parents=True, exist_ok=True)
    ids = {wnid: ILSVRC_IDS.get(wnid, place) for place, wnid in enumerate(classes, start=1)}
    kinds = [("ILSVRC2012_ID", object), ("WNID", object), ("words", object), ("gloss", object)]
    kinds += [("num_children", object), ("children", object), ("wordnet_height", object)]
    rows: list[Any] = [
        (ids[wnid], wnid, classes[wnid], "", 0, [], 0) for wnid in sorted(ids, key=lambda each: ids[each])
    ]
    rows.append((len(ids) + 1, "n00015388", "animal, animate being", "", 2, [1, 2], 9))
    savemat(folder / "meta.mat", {"synsets": np.array(rows, dtype=kinds)})
    truth = "".join(f"{ids[scene.things[0].name]}\n" for scene in scenes)
    (folder / "ILSVRC2012_validation_ground_truth.txt").write_text(truth)


def _write_kaggle(root: Path, scenes: Sequence[Scene], classes: Mapping[str, str]) -> None:
    mapping = "".join(f"{wnid} {words}\n" for wnid, words in classes.items())
    (root / "LOC_synset_mapping.txt").write_text(mapping)
    with (root / "LOC_val_solution.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["ImageId", "PredictionString"])
        for scene in reversed(scenes):  # the owner's are in no order
            corners = (
                f"{each.name} {each.box[0]} {each.box[1]} {each.box[2] - 1} {each.box[3] - 1} "
                for each in scene.things
            )
            writer.writerow([scene.name, "".join(corners)])
