"""Published datasets with masks and boxes, as LightningDataModules over the files that their owners give out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning_gcam.datasets.base import DatasetModule
from lightning_gcam.datasets.detection import Coco2014, Voc2012
from lightning_gcam.datasets.imagenet import ImageNet
from lightning_gcam.utils.errors import InputError, did_you_mean

__all__ = ["Coco2014", "DatasetModule", "ImageNet", "Voc2012", "available_datasets", "dataset_module"]

_DATASETS: dict[str, type[DatasetModule]] = {
    "voc2012": Voc2012,
    "coco2014": Coco2014,
    "imagenet": ImageNet,
}


def available_datasets() -> tuple[str, ...]:
    """The names that `dataset_module` knows.

    Example:
        >>> available_datasets()
        ('voc2012', 'coco2014', 'imagenet')
    """
    return tuple(_DATASETS)


def dataset_module(
    name: str,
    root: str | Path,
    *,
    batch_size: int = 16,
    num_workers: int = 0,
    image_size: int = 224,
    limit: int | None = None,
    **options: Any,
) -> DatasetModule:
    """The LightningDataModule of a dataset, over the files as their owner publishes them.

    Args:
        name: one of `available_datasets()`.
        root: the folder that holds the files, unpacked; `docs/datasets.md` shows each layout.
        batch_size: rows in a batch.
        num_workers: processes that read.
        image_size: of a side of the square that is delivered, in pixels.
        limit: the first so many images of the owner's list; all, where it is left out.
        options: `subset`, `class_map`, and what the dataset's own class takes.

    Raises:
        InputError: an unknown name, a folder or file that is missing.
        TypeError: an option that the dataset's class does not take.

    Example:
        >>> dataset_module("voc", "data")
        Traceback (most recent call last):
            ...
        lightning_gcam.utils.errors.InputError: `name` "voc" is no dataset that is known. Did you mean "voc2012"?
    """
    if name not in _DATASETS:
        raise InputError(f'`name` "{name}" is no dataset that is known. {did_you_mean(name, _DATASETS)}')
    return _DATASETS[name](
        root, batch_size=batch_size, num_workers=num_workers, image_size=image_size, limit=limit, **options
    )
