"""Published datasets with masks and boxes, as LightningDataModules over the files that their owners give out."""

from lightning_gcam.datasets.base import DatasetModule
from lightning_gcam.datasets.coco import Coco2014
from lightning_gcam.datasets.imagenet import ImageNet
from lightning_gcam.datasets.registry import available_datasets, dataset_module
from lightning_gcam.datasets.voc import Voc2012

__all__ = ["Coco2014", "DatasetModule", "ImageNet", "Voc2012", "available_datasets", "dataset_module"]
