"""From a picture and its annotation to what a model takes: a square, and masks and boxes that go along."""

from __future__ import annotations

from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor

from lightning_gcam.datasets.rows import Annotation

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Of the channels of ImageNet's training images in [0, 1]: what torchvision's and timm's weights are used to."""


class Preparation:
    """Resize to a square without cropping, scale to [0, 1], normalize.

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
        """`image` `(3, size, size)` float32, and of `boxes`, `mask` and `void` those that the annotation has."""
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
