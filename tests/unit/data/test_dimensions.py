"""Signals, volumes and videos are read by their form and by their names."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_gcam.data import as_saliency_batch
from lightning_gcam.data.structure import SIGNALS
from lightning_gcam.utils.errors import InputError
from tests.support.pasting import pasted
from tests.support.toys import listening

N = 4
LABELS = torch.tensor([1, 0, 2, 1])
ECG, VOLUME, VIDEO = torch.rand(N, 12, 187), torch.rand(N, 1, 6, 8, 9), torch.rand(N, 3, 6, 8, 9)
FRAMES = VIDEO.transpose(1, 2)
IMAGES = torch.rand(N, 3, 8, 9)

READ: dict[str, tuple[Any, Tensor, str]] = {
    "signals": ((ECG, LABELS), ECG, "signal"),
    "signals alone": (ECG, ECG, "signal"),
    "of one channel": ((ECG[:, :1], LABELS), ECG[:, :1], "signal"),
    "as numpy": ((ECG.numpy(), LABELS.numpy()), ECG, "signal"),
    "x": ({"x": ECG, "y": LABELS}, ECG, "signal"),
    "ecg as short as it has channels": ({"ecg": ECG[..., :12], "label": LABELS}, ECG[..., :12], "signal"),
    "signal samples": ([(each, int(label)) for each, label in zip(ECG, LABELS, strict=True)], ECG, "signal"),
    "signals behind labels": ((LABELS, ECG), ECG, "signal"),
    "volumes": ((VOLUME, LABELS), VOLUME, "volume"),
    "volumes alone": (VOLUME, VOLUME, "volume"),
    "of two channels": (
        (VOLUME.expand(-1, 2, -1, -1, -1), LABELS),
        VOLUME.expand(-1, 2, -1, -1, -1),
        "volume",
    ),
    "named": ({"volume": VIDEO, "label": LABELS}, VIDEO, "volume"),
    "as MONAI": ({"image": VIDEO, "label": LABELS[:, None]}, VIDEO, "volume"),
    "one channel named as an image": ({"image": ECG[:, :1], "label": LABELS}, ECG[:, :1], "signal"),
    "of four channels and as thin as colours": (
        {"image": FRAMES[:, :4], "label": LABELS},
        FRAMES[:, :4],
        "volume",
    ),
    "of one slice": ({"volume": FRAMES[:, :, :1], "label": LABELS}, FRAMES[:, :, :1], "volume"),
    "volume samples": (
        [{"image": each, "label": int(label)} for each, label in zip(VOLUME, LABELS, strict=True)],
        VOLUME,
        "volume",
    ),
    "videos": ((VIDEO, LABELS), VIDEO, "video"),
    "grey videos": ({"video": VOLUME, "label": LABELS}, VOLUME, "video"),
    "frames first": ((FRAMES, LABELS), VIDEO, "video"),
    "as Hugging Face": ({"pixel_values": FRAMES, "labels": LABELS}, VIDEO, "video"),
    "three frames as Hugging Face": (
        {"pixel_values": VIDEO[:, :, :3].transpose(1, 2), "labels": LABELS},
        VIDEO[:, :, :3],
        "video",
    ),
    "grey frames": ({"frames": VOLUME.transpose(1, 2), "label": LABELS}, VOLUME, "video"),
    "images beside signals": ({"signal": ECG, "image": IMAGES, "label": LABELS}, IMAGES, "image"),
    "images behind signals": ((ECG, IMAGES, LABELS), IMAGES, "image"),
    "a spectrogram": ({"spectrogram": IMAGES[:, :1], "label": LABELS}, IMAGES[:, :1], "image"),
}


@pytest.mark.parametrize("name", READ)
def test_read(name: str) -> None:
    batch, images, kind = READ[name]
    said: list[str] = []

    found = as_saliency_batch(batch, on_unclear=said.append)

    assert torch.equal(found.images, images)
    assert found.kind == kind
    assert found.frames_first == ("rames" in name or name == "as Hugging Face")
    assert found.labels is None if "alone" in name else torch.equal(found.labels, LABELS)
    assert not any("labels" in each for each in said)


@pytest.mark.parametrize("name", SIGNALS)
def test_the_names_of_signals(name: str) -> None:
    assert as_saliency_batch({name: ECG[..., :20], "label": LABELS}).kind == "signal"


SIZES = {"signal": ECG[:, :2, :20], "image": IMAGES, "volume": VOLUME}


@pytest.mark.parametrize("kind", SIZES)
@pytest.mark.parametrize("channel", [False, True])
@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.float32, torch.int64])
def test_masks(kind: str, channel: bool, named: bool, dtype: torch.dtype) -> None:
    images = SIZES[kind]
    truth = torch.rand(N, *images.shape[2:], generator=torch.Generator().manual_seed(0)) > 0.5
    masks = (truth[:, None] if channel else truth).to(dtype)
    name = {"signal": "ecg", "image": "image", "volume": "volume"}[kind]
    batch = {name: images, "label": LABELS, "mask": masks} if named else (images, LABELS, masks)
    if kind == "signal" and not named:
        batch = (ECG, LABELS, (masks := torch.cat([masks] * 10, dim=-1)[..., :187]))
        truth = (masks[:, 0] if channel else masks) != 0

    found = as_saliency_batch(batch)

    assert torch.equal(found.masks, truth)
    assert torch.equal(found.labels, LABELS)


@pytest.mark.parametrize("key", ["label", "seg", "mask"])
def test_a_segmentation_of_a_volume_is_the_object_of_its_largest_class(key: str) -> None:
    numbers = torch.zeros(N, 1, 6, 8, 9)
    numbers[:, :, 1:3, 1:3, 1:3], numbers[:, :, 3:6, 3:6, 3:6] = 1, 2

    found = as_saliency_batch({"image": VOLUME, key: numbers})

    assert found.labels.tolist() == [2] * N
    assert torch.equal(found.masks, numbers[:, 0] == 2)


def test_a_segmentation_of_half_the_size_is_resized() -> None:
    numbers = torch.zeros(2, 6, 6, 6, dtype=torch.long)
    numbers[:, 1:4, 2:5, 2:5] = 1

    found = as_saliency_batch((torch.rand(2, 1, 12, 12, 12), LABELS[:2], numbers))

    assert torch.equal(found.masks[:, ::2, ::2, ::2], numbers == 1)


def test_masks_of_videos_with_their_frames_first() -> None:
    masks = torch.rand(N, 6, 1, 8, 9) > 0.5

    found = as_saliency_batch({"video": FRAMES, "mask": masks})

    assert torch.equal(found.masks, masks[:, :, 0])


def test_a_volume_behind_its_segmentation() -> None:
    masks = (torch.rand(N, 6, 8, 9) > 0.5).float()

    found = as_saliency_batch((masks, VOLUME, LABELS))

    assert torch.equal(found.images, VOLUME)
    assert torch.equal(found.masks, masks > 0)


def test_boxes_of_volumes_and_signals() -> None:
    in_volume = torch.tensor([[1.0, 2, 3, 5, 6, 5]] * N)
    in_signal = [torch.tensor([[3.0, 9.0]])] * N

    for batch in (
        (VOLUME, LABELS, in_volume),
        {"volume": VOLUME, "boxes": in_volume[:, None], "label": LABELS},
    ):
        found = as_saliency_batch(batch)
        assert torch.equal(found.boxes[1], in_volume[:1])
        assert found.object_masks[0].nonzero().amin(dim=0).tolist() == [3, 2, 1]
    assert as_saliency_batch({"ecg": ECG, "boxes": in_signal}).object_masks.sum() == 6 * N


def test_targets_of_volumes() -> None:
    boxes = torch.tensor([[0.0, 0, 0, 2, 2, 2], [1, 1, 1, 9, 8, 6]])
    masks = torch.zeros(2, 6, 8, 9, dtype=torch.uint8)
    masks[1, 1:, 1:, 1:] = 1
    target = {"labels": torch.tensor([4, 7]), "boxes": boxes, "masks": masks}

    found = as_saliency_batch((VOLUME, [target] * N))

    assert found.labels.tolist() == [7] * N
    assert torch.equal(found.boxes[0], boxes[1:])
    assert torch.equal(found.masks[0], masks[1] > 0)


def test_a_region_of_a_volume() -> None:
    region = torch.zeros(6, 8, 9, dtype=torch.uint8)
    region[:2] = 255

    found = as_saliency_batch({"volume": VOLUME, "suspect": region})

    assert torch.equal(found.suspect, region > 0)


REFUSED: dict[str, tuple[Any, str, tuple[int, ...]]] = {
    "no channel": ((ECG[:, 0], LABELS), "signals without a channel, or a table", (N, 1, 187)),
    "no channel, named": ({"waveform": ECG[:, 0]}, "signals without a channel", (N, 1, 187)),
    "channels last": ((ECG.transpose(1, 2), LABELS), "signals with their channels last", ECG.shape),
    "one channel last": ((ECG[:, :1].transpose(1, 2), LABELS), "channels last", (N, 1, 187)),
    "volume with channels last": (
        (torch.rand(N, 5, 20, 20, 1), LABELS),
        "seem to have their channels last",
        (N, 1, 5, 20, 20),
    ),
    "grey images": ((torch.rand(N, 28, 28), LABELS), "which is no signal by its form", (N, 1, 28, 28)),
    "wide grey images": ({"image": torch.rand(N, 28, 128), "label": LABELS}, "no signal", (N, 1, 28, 128)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_an_adapter_that_works(name: str) -> None:
    batch, message, shape = REFUSED[name]
    said: list[str] = []
    with pytest.raises(InputError, match=message) as caught:
        as_saliency_batch(batch, on_unclear=said.append)

    found = as_saliency_batch(batch, pasted(str(caught.value)))

    assert tuple(found.images.shape) == shape
    assert said == []


@pytest.mark.parametrize(("channels", "name", "logged"), [(32, "x", 1), (15, "x", 0), (32, "eeg", 0)])
def test_grey_images_that_are_read_as_signals_are_logged_once(
    monkeypatch: pytest.MonkeyPatch, channels: int, name: str, logged: int
) -> None:
    monkeypatch.setattr("lightning_gcam.utils.lightning_compat._LOGGED", set())
    batch = {name: torch.rand(N, channels, 128), "label": LABELS}
    with listening() as said:
        for _ in range(2):
            assert as_saliency_batch(batch).kind == "signal"

    assert sum("(N, 32, 128) are read as signals of 32 channels" in each for each in said) == logged
    if logged:
        images = as_saliency_batch(list(batch.values()), pasted(said[-1])).images
        assert torch.equal(images, batch[name][:, None])


def test_the_code_for_frames_first_keeps_their_order() -> None:
    batch = {"video": FRAMES, "label": torch.rand(N, 5, 2)}
    said: list[str] = []
    as_saliency_batch(batch, on_unclear=said.append)

    found = as_saliency_batch(batch, pasted(said[0]))

    assert torch.equal(found.images, VIDEO)
    assert found.frames_first


def test_real_batches_of_monai() -> None:
    data = pytest.importorskip("monai.data")
    transforms = pytest.importorskip("monai.transforms")
    samples = [{"image": each[0].numpy(), "label": label} for each, label in zip(VOLUME, LABELS, strict=True)]
    prepare = transforms.Compose(
        [
            transforms.EnsureChannelFirstd(keys="image", channel_dim="no_channel"),
            transforms.ScaleIntensityd(keys="image"),
        ]
    )
    (batch,) = data.DataLoader(data.Dataset(samples, prepare), batch_size=N)
    assert isinstance(batch["image"], data.MetaTensor)

    found = as_saliency_batch(batch)

    assert type(found.images) is Tensor
    assert found.images.data_ptr() == batch["image"].data_ptr()
    assert (found.kind, found.image_size, found.labels.tolist()) == ("volume", (6, 8, 9), LABELS.tolist())


def test_real_segmentations_of_monai() -> None:
    data = pytest.importorskip("monai.data")
    images, masks = data.create_test_image_3d(
        24, 24, 24, num_objs=3, rad_max=6, num_seg_classes=2, channel_dim=0
    )
    batch = data.utils.list_data_collate(
        [{"image": data.MetaTensor(images), "label": data.MetaTensor(masks)} for _ in range(2)]
    )

    found = as_saliency_batch(batch)

    largest = torch.as_tensor(masks)[0].long().flatten().bincount()[1:].argmax() + 1
    assert found.labels.tolist() == [int(largest)] * 2
    assert torch.equal(found.masks[0], torch.as_tensor(masks)[0] == largest)
