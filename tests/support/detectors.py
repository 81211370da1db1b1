"""Small detectors of torchvision, with few channels and small images, and pictures of bright squares to find."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.models import detection
from torchvision.models.detection import faster_rcnn, mask_rcnn, ssd
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.ops import MultiScaleRoIAlign

SIDE = 64
"""The length of the images' shorter side inside of the detectors."""


def _block(taken: int, given: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(taken, given, 3, stride=2, padding=1), nn.ReLU())


class SmallBackbone(nn.Module):
    """Two feature maps, a cell every 8 and every 16 pixels; the coarser one is computed from the finer."""

    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        self.out_channels = channels
        self.stem = nn.Sequential(_block(3, channels), _block(channels, channels))
        self.fine, self.coarse = _block(channels, channels), _block(channels, channels)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        fine = self.fine(self.stem(images))
        return {"0": fine, "1": self.coarse(fine)}


def _anchors() -> AnchorGenerator:
    return AnchorGenerator(((16,), (32,)), ((1.0,),) * 2)


def _rcnn(kind: Callable[..., nn.Module], num_classes: int, **options: Any) -> nn.Module:
    pool = MultiScaleRoIAlign(["0", "1"], output_size=3, sampling_ratio=2)
    return kind(
        SmallBackbone(),
        min_size=SIDE,
        max_size=2 * SIDE,
        rpn_anchor_generator=_anchors(),
        rpn_post_nms_top_n_test=50,
        box_roi_pool=pool,
        box_head=faster_rcnn.TwoMLPHead(16 * 9, 32),
        box_predictor=faster_rcnn.FastRCNNPredictor(32, num_classes),
        **options,
    )


def small_faster_rcnn(num_classes: int = 3) -> nn.Module:
    return _rcnn(detection.FasterRCNN, num_classes)


def small_mask_rcnn(num_classes: int = 3) -> nn.Module:
    return _rcnn(
        detection.MaskRCNN,
        num_classes,
        mask_roi_pool=MultiScaleRoIAlign(["0", "1"], output_size=4, sampling_ratio=2),
        mask_head=mask_rcnn.MaskRCNNHeads(16, (8,), 1),
        mask_predictor=mask_rcnn.MaskRCNNPredictor(8, 8, num_classes),
    )


def small_retinanet(num_classes: int = 3) -> nn.Module:
    return detection.RetinaNet(
        SmallBackbone(), num_classes, min_size=SIDE, max_size=2 * SIDE, anchor_generator=_anchors()
    )


def small_fcos(num_classes: int = 3) -> nn.Module:
    anchors = AnchorGenerator(((8,), (16,)), ((1.0,),) * 2)
    return detection.FCOS(
        SmallBackbone(32), num_classes, min_size=SIDE, max_size=2 * SIDE, anchor_generator=anchors
    )


def small_ssd(num_classes: int = 3) -> nn.Module:
    boxes = DefaultBoxGenerator([[2], [2]], scales=[0.25, 0.5, 0.8])
    head = ssd.SSDHead([16, 16], boxes.num_anchors_per_location(), num_classes)
    return ssd.SSD(SmallBackbone(), boxes, (SIDE, SIDE), num_classes, head=head)


DETECTORS: dict[str, Callable[..., nn.Module]] = {
    "Faster R-CNN": small_faster_rcnn,
    "Mask R-CNN": small_mask_rcnn,
    "RetinaNet": small_retinanet,
    "FCOS": small_fcos,
    "SSD": small_ssd,
}


class Squares(Dataset[tuple[Tensor, dict[str, Tensor]]]):
    """Grey noise with a bright square each, of class 1 where it is red and of class 2 where it is green."""

    def __init__(self, length: int, size: tuple[int, int] = (48, 64), seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.images = torch.rand(length, 3, *size, generator=generator) * 0.2
        self.boxes = torch.zeros(length, 4)
        self.labels = torch.arange(length) % 2 + 1
        for row, image in enumerate(self.images):
            side = int(torch.randint(12, 20, (1,), generator=generator))
            top = int(torch.randint(0, size[0] - side, (1,), generator=generator))
            left = int(torch.randint(0, size[1] - side, (1,), generator=generator))
            image[self.labels[row] - 1, top : top + side, left : left + side] += 0.8
            self.boxes[row] = torch.tensor([left, top, left + side, top + side])

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> tuple[Tensor, dict[str, Tensor]]:
        return self.images[row], {"boxes": self.boxes[row][None], "labels": self.labels[row][None]}


def collate(batch: list[Any]) -> tuple[list[Any], ...]:
    """A list of images and a list of targets, as torchvision's reference scripts have them."""
    return tuple(map(list, zip(*batch, strict=True)))


def squares_loader(length: int, *, seed: int = 0, batch_size: int = 8, **options: Any) -> DataLoader[Any]:
    """Batches of bright squares."""
    return DataLoader(Squares(length, seed=seed), batch_size, collate_fn=collate, **options)


class DetectorModule(LightningModule):
    """A detector of torchvision in a LightningModule, as its users write it."""

    loader = partial(squares_loader, batch_size=4)

    def __init__(self, make: Callable[..., nn.Module] = small_retinanet, lr: float = 3e-3) -> None:
        super().__init__()
        self.detector, self.lr = make(), lr

    def forward(self, images: Any, targets: Any = None) -> Any:
        return self.detector(images, targets)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss: Tensor = sum(self(*batch).values())
        self.log("train_loss", loss, batch_size=len(batch[0]))
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        images, _ = batch
        self.log(
            "found", sum(len(each["boxes"]) for each in self(images)) / len(images), batch_size=len(images)
        )

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), self.lr)
