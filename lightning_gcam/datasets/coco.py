"""COCO 2014, its validation images and their instances, as its owner lays them out."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from lightning_gcam.datasets.base import DatasetModule
from lightning_gcam.datasets.rows import Annotation, Layout, Source, check_size, read_rgb
from lightning_gcam.utils.errors import InputError

_INSTANCES = "annotations/instances_val2014.json"
_IMAGES = "val2014"
COCO_LAYOUT = Layout(
    "coco2014",
    (f"{_IMAGES}/COCO_val2014_<number>.jpg", _INSTANCES),
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
        options: those of :class:`DatasetModule`.

    Raises:
        InputError: a folder or file that is missing, or pycocotools; an argument that cannot be used.

    Source:
        Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014, arXiv 1405.0312.
    """

    def __init__(self, root: str | Path, **options: Any) -> None:
        super().__init__(root, **options)
        for each in (_IMAGES, _INSTANCES):
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
        self._folder, self._path = root / _IMAGES, root / _INSTANCES
        try:
            self._coco, self._ids = _read(self._folder, self._path)
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
        """The name of the file, such as "COCO_val2014_000000000042"."""
        return Path(self._about(image)["file_name"]).stem

    def shares(self, image: int) -> Mapping[int, float]:
        """By the areas of the instances, as the file states them; crowds do not count."""
        about = self._about(image)
        found: dict[int, float] = {}
        for each in self._instances(image):
            if not each["iscrowd"] and each["area"] > 0:
                label = self._labels[each["category_id"]]
                found[label] = found.get(label, 0.0) + each["area"] / (about["height"] * about["width"])
        return found

    def picture(self, image: int) -> Image.Image:
        """The image, RGB."""
        return read_rgb(self._folder / self._about(image)["file_name"], COCO_LAYOUT, _INSTANCES)

    def annotation(self, image: int, label: int) -> Annotation:
        """The class's instances; void is its crowds."""
        of_class = [each for each in self._instances(image) if self._labels[each["category_id"]] == label]
        objects = [each for each in of_class if not each["iscrowd"]]
        mask = self._union(image, objects)
        void = self._union(image, [each for each in of_class if each["iscrowd"]])
        corners = torch.tensor([each["bbox"] for each in objects], dtype=torch.float32).reshape(-1, 4)
        boxes = torch.cat([corners[:, :2], corners[:, :2] + corners[:, 2:]], dim=1)
        return Annotation(boxes, mask, void & ~mask)

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


def _read(folder: Path, path: Path) -> tuple[Any, list[int]]:
    """Pycocotools' index, and the images' ids in their order; without what it prints."""
    from torchvision.datasets import CocoDetection  # type: ignore[import-untyped]  # it carries no types

    with contextlib.redirect_stdout(io.StringIO()):
        reader = CocoDetection(str(folder), annFile=str(path))
    return reader.coco, list(reader.ids)


def _check_categories(annotations: Iterable[Mapping[str, Any]], labels: Mapping[int, int]) -> None:
    unknown = next((each["category_id"] for each in annotations if each["category_id"] not in labels), None)
    if unknown is not None:
        raise ValueError(f"category {unknown} is not among its categories")


def _require_pycocotools() -> None:
    try:
        import pycocotools.coco  # type: ignore[import-untyped]  # noqa: F401 - it carries no types
    except ImportError as error:
        raise InputError(
            '"coco2014" is read with pycocotools, which is not installed. Install `lightning-gcam[datasets]`.'
        ) from error
