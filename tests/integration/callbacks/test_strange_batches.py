"""Batches as other people's dataloaders deliver them, through the real Trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision import tv_tensors

from lightning_gcam import SaliencyBatch, SaliencyMonitor
from lightning_gcam.utils.errors import InputError
from tests.support.pasting import pasted
from tests.support.toys import (
    CLASSES,
    LIGHTNING_SAYS,
    SIZE,
    Recast,
    Toy,
    toy_loader,
    toy_network,
    toy_samples,
    toy_trainer,
)

pytestmark = LIGHTNING_SAYS

NAMES = ["top left", "top right", "bottom left", "bottom right"]
IMAGES, LABELS, MASKS = toy_samples(24)


def look(root: Path, monitor: SaliencyMonitor, module: Any, loader: Any, **options: Any) -> Any:
    """Train for an epoch on that data alone, and give the last look."""
    options = {"max_epochs": 1, "limit_train_batches": 2, **options}
    toy_trainer(root, monitor, **options).fit(module, loader, loader)
    return monitor.last_record


def expected(root: Path) -> Any:
    """The look at the same samples, delivered plainly."""
    torch.manual_seed(0)
    return look(root, SaliencyMonitor(num_samples=8), Toy(), toy_loader())


def same_look(left: Any, right: Any) -> bool:
    return (
        left.scores == right.scores
        and torch.equal(left.batch.labels, right.batch.labels)
        and torch.equal(left.attribution.maps["guidance_cam"], right.attribution.maps["guidance_cam"])
    )


class Reads(Toy):
    """It takes any layout: `read` gives its images and labels."""

    def __init__(self, read: Any) -> None:
        super().__init__()
        self.read = read

    def loss(self, batch: Any) -> Tensor:
        return super().loss(self.read(batch))


# ---------------------------------------------------------------------------------------------- annotation


def with_target(image: Tensor, label: Tensor, mask: Tensor) -> tuple[Tensor, dict[str, Any]]:
    """The object, and a smaller one of another class in its corner."""
    small = torch.zeros_like(mask)
    small[:2, :2] = True
    box = [*mask.nonzero().amin(dim=0).flip(0).tolist(), *(mask.nonzero().amax(dim=0).flip(0) + 1).tolist()]
    boxes = tv_tensors.BoundingBoxes([[0, 0, 2, 2], box], format="XYXY", canvas_size=(SIZE, SIZE))  # type: ignore[call-overload]
    labels = torch.stack([(label + 1) % CLASSES, label])
    return image, {"boxes": boxes, "labels": labels, "masks": tv_tensors.Mask(torch.stack([small, mask]))}


@pytest.mark.parametrize("stacked", [False, True])
def test_detection_targets(tmp_path: Path, stacked: bool) -> None:
    def collate(samples: Any) -> Any:
        images, targets = zip(*samples, strict=True)
        return (torch.stack(images) if stacked else list(images)), list(targets)

    def read(batch: Any) -> Any:
        return torch.stack(list(batch[0])), torch.stack([each["labels"][1] for each in batch[1]])

    torch.manual_seed(0)
    loader = DataLoader(Recast(with_target), batch_size=8, collate_fn=collate)
    found = look(tmp_path, SaliencyMonitor(num_samples=8), Reads(read), loader)

    assert same_look(found, expected(tmp_path))
    assert [len(each) for each in found.batch.boxes] == [1] * 8
    assert {type(each) for each in found.batch.boxes} == {Tensor}


def test_a_segmentation_with_and_without_labels(tmp_path: Path) -> None:
    """Class 5 is the label 0: the background is 0, so the numbers in the masks begin later."""

    def read(batch: Any) -> Any:
        return batch["image"], (
            batch["label"] if "label" in batch else batch["mask"].flatten(1).amax(dim=1)
        ) - 1

    class More(Reads):
        def forward(self, images: Tensor) -> Tensor:
            return nn.functional.pad(self.network(images), (1, 0))

    looks = []
    for keys in (("image", "label", "mask"), ("image", "mask")):
        cast = lambda *sample: {  # noqa: E731
            key: value
            for key, value in zip(
                ("image", "label", "mask"),
                (sample[0], sample[1] + 1, sample[2] * (sample[1] + 1)),
                strict=True,
            )
            if key in keys  # noqa: B023
        }
        torch.manual_seed(0)
        loader = DataLoader(Recast(cast), batch_size=8)
        looks.append(look(tmp_path, SaliencyMonitor(num_samples=8), More(read), loader))

    assert same_look(*looks)
    assert looks[0].batch.labels.tolist() == [1, 1, 2, 2, 3, 3, 4, 4]
    assert torch.equal(looks[0].batch.masks, MASKS[[0, 4, 1, 5, 2, 6, 3, 7]])


def test_words_as_labels(tmp_path: Path) -> None:
    def cast(image: Tensor, label: Tensor, mask: Tensor) -> Any:
        return image, NAMES[label], mask

    def read(batch: Any) -> Any:
        return batch[0], torch.tensor([NAMES.index(each) for each in batch[1]])

    torch.manual_seed(0)
    loader = DataLoader(Recast(cast), batch_size=8)
    found = look(tmp_path, SaliencyMonitor(num_samples=8, class_names=NAMES), Reads(read), loader)

    assert same_look(found, expected(tmp_path))
    assert found.captions[0].startswith("true top left · predicted ")

    with pytest.warns(UserWarning, match=r'`labels` are names \("top left", \.\.\.\)') as caught:
        found = look(tmp_path, SaliencyMonitor(), Reads(read), loader)
    (message,) = [str(each.message) for each in caught if "are names" in str(each.message)]
    assert pasted(message, "class_names") == sorted(NAMES)
    assert found.batch.labels is None and "go on without" in message


@pytest.mark.parametrize("smoothing", [0.0, 0.2], ids=["one-hot", "soft"])
def test_a_row_of_numbers_as_labels(tmp_path: Path, smoothing: float) -> None:
    def cast(image: Tensor, label: Tensor, mask: Tensor) -> Any:
        marks = torch.eye(CLASSES)[label]
        return image, marks * (1 - smoothing) + smoothing / CLASSES, mask

    torch.manual_seed(0)
    loader = DataLoader(Recast(cast), batch_size=8)
    module = Reads(lambda batch: (batch[0], batch[1].argmax(dim=1)))
    found = look(tmp_path, SaliencyMonitor(num_samples=8), module, loader)

    plain = expected(tmp_path)
    assert found.scores == plain.scores
    assert found.correct == plain.correct
    assert [each.split(" · ")[0] for each in found.captions] == [
        each.split(" · ")[0] for each in plain.captions
    ]
    assert torch.equal(found.batch.labels, torch.eye(CLASSES)[plain.batch.labels])


# -------------------------------------------------------------------------------------------------- images


@pytest.mark.parametrize(
    ("channels", "told"),
    [(1, None), (2, "channel 1 of 2"), (3, None), (4, "channels 1-3 of 4"), (13, "channels 1-3 of 13")],
)
def test_any_number_of_channels(tmp_path: Path, channels: int, told: str | None) -> None:
    network = toy_network()
    network[0] = nn.Conv2d(channels, 6, 3, stride=2, padding=1)
    samples = torch.utils.data.TensorDataset(IMAGES.repeat(1, channels, 1, 1), LABELS, MASKS)

    found = look(tmp_path, SaliencyMonitor(num_samples=4), Toy(network), DataLoader(samples, batch_size=8))

    assert found.batch.images.shape == (4, channels, SIZE, SIZE)
    words = found.title.split(" · ")
    assert (told in words) if told else not any(word.startswith("channel") for word in words)
    assert found.overlay.shape[2] == 3


class Scales(Toy):
    """uint8 in, as it comes; the forward makes floats of it."""

    def __init__(self, frozen: bool = False) -> None:
        super().__init__()
        if frozen:
            self.network[:-1].requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        assert images.dtype == torch.uint8
        return self.network(images / 255)

    def loss(self, batch: Any) -> Tensor:
        return nn.functional.cross_entropy(self(batch[0]), batch[1])


def in_uint8(image: Tensor, label: Tensor, mask: Tensor) -> Any:
    return (image * 255).to(torch.uint8), label, mask


@pytest.mark.parametrize("frozen", [False, True], ids=["trained", "frozen but for the head"])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_uint8_images(tmp_path: Path, frozen: bool, precision: str) -> None:
    monitor = SaliencyMonitor(num_samples=4)
    found = look(
        tmp_path, monitor, Scales(frozen), DataLoader(Recast(in_uint8), batch_size=8), precision=precision
    )

    assert found.attribution.target_layer == "network.5"
    assert found.batch.images.dtype == torch.uint8
    assert torch.equal(found.batch.images, (IMAGES[:4] * 255).to(torch.uint8))
    assert found.scores["blank_rate"] < 1


def test_uint8_images_that_the_forward_does_not_take(tmp_path: Path) -> None:
    """Its `validation_step` scales them; what the error says to paste makes it work."""

    def read(batch: Any) -> Any:
        return batch[0] / 255, batch[1]

    loader = DataLoader(Recast(in_uint8), batch_size=8)
    with pytest.raises(
        InputError, match=r"forward of Reads takes; got torch.uint8 \(N, 1, 16, 16\) \(Input type"
    ) as caught:
        look(tmp_path, SaliencyMonitor(), Reads(read), loader)

    monitor = SaliencyMonitor(num_samples=4, adapter=pasted(str(caught.value)))
    found = look(tmp_path, monitor, Reads(read), loader)

    assert found.batch.images.is_floating_point()
    assert torch.allclose(found.batch.images, IMAGES[:4], atol=1 / 255)


def test_uint8_images_by_hand(tmp_path: Path) -> None:
    images = (IMAGES * 255).to(torch.uint8)
    monitor = SaliencyMonitor(batch=SaliencyBatch(images, LABELS, MASKS))

    with pytest.raises(InputError, match=r"do the same in:\n    batch=SaliencyBatch\(images.float\(\) / 255"):
        look(tmp_path, monitor, Toy(), toy_loader())
