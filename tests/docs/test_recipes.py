"""The recipes among the guides: each is run on a network and a batch of its kind, and what is refused leads there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import lightning_gcam
from lightning_gcam import SaliencyBatch, SaliencyMonitor, attribute
from lightning_gcam.cam import find_target_layer
from lightning_gcam.data import as_saliency_batch
from lightning_gcam.utils.errors import InputError
from tests.support.toys import LIGHTNING_SAYS, toy_trainer

pytestmark = LIGHTNING_SAYS

GUIDES = Path(__file__).parents[2] / "docs" / "guides"
OF_GUIDES = {
    name: {
        part.splitlines()[0]: part for part in (GUIDES / name).read_text(encoding="utf-8").split("\n## ")[1:]
    }
    for name in ("batch.md", "model.md", "volumes_and_signals.md")
}
SECTIONS = {title: part for sections in OF_GUIDES.values() for title, part in sections.items()}
IMAGES = torch.rand(16, 3, 16, 16, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(16) % 2


def code_of(section: str) -> str:
    (code,) = re.findall(r"```python\n(.*?)```", SECTIONS[section], flags=re.S)
    return code


def run(section: str, **names: Any) -> dict[str, Any]:
    """What the code of a section defines."""
    known: dict[str, Any] = {
        "SaliencyMonitor": SaliencyMonitor,
        "SaliencyBatch": SaliencyBatch,
        "torch": torch,
    }
    known |= {"attribute": attribute, **names}
    exec(code_of(section), known)
    return known


class Fitted(pytorch_lightning.LightningModule):
    """A training that needs nothing of the batch but that some parameter has a gradient."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return next(self.parameters()).square().sum()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        pass

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.001)


def look(root: Path, section: str, module: Any, samples: list[Any], **names: Any) -> Any:
    """The last look of a training with the section's monitor."""
    monitor = run(section, **names)["monitor"]
    loader = DataLoader(samples, batch_size=8)
    toy_trainer(root, monitor, max_epochs=1).fit(module, loader, loader)
    assert len(monitor.history) == 1
    record = monitor.last_record
    (peaks,) = record.attribution.peaks.values()
    assert peaks.max() > 0
    return record


# ------------------------------------------------------------------------------------------------------ clips


class Clips(Fitted):
    """Folds the frames of `(N, T, C, H, W)` into the batch, as many networks of frames do."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 2)

    def forward(self, clips: Tensor) -> Tensor:
        each = self.conv(clips.flatten(0, 1)).relu().mean(dim=(2, 3))
        return self.head(each.unflatten(0, clips.shape[:2]).mean(dim=1))


def test_clips_whose_frames_come_first(tmp_path: Path) -> None:
    clips = torch.rand(16, 3, 3, 16, 16)
    samples = [{"clip": each, "label": int(label)} for each, label in zip(clips, LABELS, strict=True)]
    module = Clips()

    record = look(tmp_path, "Clips whose frames come first", module, samples)

    assert record.attribution.maps["guidance_cam"].shape == (16, 3, 16, 16)
    with torch.no_grad():
        expected = module(record.batch.images.transpose(1, 2).to(module.device))
    torch.testing.assert_close(record.attribution.logits, expected)


# ---------------------------------------------------------------------------------------------- more than images


class Fuses(Fitted):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(5, 2)

    def fuse(self, images: Tensor, age: Tensor) -> Tensor:
        return self.head(torch.cat([self.conv(images).relu().mean(dim=(2, 3)), age[:, None]], dim=1))


def test_more_than_images(tmp_path: Path) -> None:
    samples = [
        {"image": image, "label": int(label), "age": torch.tensor(float(row))}
        for row, (image, label) in enumerate(zip(IMAGES, LABELS, strict=True))
    ]
    module = Fuses()
    record = look(tmp_path, "More than images", module, samples)
    age = record.batch.inputs["age"]
    assert torch.equal(IMAGES[age.long()], record.batch.images.cpu())
    with torch.no_grad():
        expected = module.fuse(record.batch.images.to(module.device), age.to(module.device))
    torch.testing.assert_close(record.attribution.logits, expected)


# ------------------------------------------------------------------------------------------------- several heads


class Faces(Fitted):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.age, self.sex = nn.Conv2d(3, 4, 3), nn.Linear(4, 1), nn.Linear(4, 2)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        features = self.conv(images).relu().mean(dim=(2, 3))
        return {"age": self.age(features), "sex": self.sex(features)}


def test_one_of_several_heads(tmp_path: Path) -> None:
    samples = [
        {"image": image, "age": torch.tensor(30.5 + row), "sex": int(label)}
        for row, (image, label) in enumerate(zip(IMAGES, LABELS, strict=True))
    ]
    module = Faces()
    record = look(tmp_path, "Several heads", module, samples)
    assert list(record.heads) == ["sex"]
    assert record.attribution.targets.tolist() == sorted(LABELS.tolist())  # balanced, by class
    assert attribute(module, IMAGES, head="sex").logits.shape == (16, 2)


# --------------------------------------------------------------------------------------------------- detections


class Yolo(Fitted):
    """A head of 5 + 2 numbers for each of 16 cells."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.features = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.ReLU())
        self.head = nn.Conv2d(8, 7, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images)).flatten(2).transpose(1, 2)


@pytest.mark.filterwarnings("ignore:.* maps are blank")
def test_detection_models(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no part of this output would do"):
        attribute(Yolo(), IMAGES[:2])
    record = look(tmp_path, "Detection models", Yolo(), TensorDataset(IMAGES, LABELS))
    assert record.attribution.target_layer == "features"
    assert record.attribution.logits.shape == (16, 2) and (record.attribution.logits < 0).all()


def test_images_of_several_sizes() -> None:
    images = [torch.rand(3, 24, 32), torch.rand(3, 48, 32)]
    targets = [
        {"boxes": torch.tensor([[0.0, 0, 8, 12]]), "labels": torch.tensor([1])},
        {"boxes": torch.tensor([[16.0, 24, 32, 48], [0, 0, 1, 1]]), "labels": torch.tensor([2, 1])},
    ]
    with pytest.raises(InputError, match=r"several sizes.*docs/guides/batch.md#images-of-several-sizes"):
        as_saliency_batch((images, targets))
    found = run("Images of several sizes")["one_size"]((images, targets))
    assert found.images.shape == (2, 3, 480, 640) and found.labels.tolist() == [1, 2]
    assert [each.tolist() for each in found.boxes] == [[[0, 0, 160, 240]], [[320, 240, 640, 480]]]


# ------------------------------------------------------------------------------- quantized and detached models


class Detached(Fitted):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)

    def logits(self, images: Tensor) -> Tensor:
        return self.head(self.conv(images).relu().mean(dim=(2, 3)))

    def forward(self, images: Tensor) -> Tensor:
        return self.logits(images).detach().softmax(dim=1)


class OfFeatures(Detached):
    """It detaches on the way: the head learns, and the output does not depend on the images."""

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.conv(images).relu().mean(dim=(2, 3)).detach())


class Decides(Detached):
    def forward(self, images: Tensor) -> Tensor:
        return self.logits(images).argmax(dim=1).float()


@pytest.mark.parametrize("kind", [Detached, OfFeatures, Decides])
@pytest.mark.parametrize("explain", [attribute, find_target_layer])
def test_a_detached_model_is_not_told_to_name_a_layer(kind: Any, explain: Any) -> None:
    with pytest.raises(
        InputError, match="^No `target_layer` of .* can be explained: gradients were on"
    ) as caught:
        explain(kind(), IMAGES[:2])
    assert str(caught.value).endswith("see docs/guides/model.md#quantized-and-detached-models.")
    assert "lambda" not in str(caught.value)


def quantized() -> nn.Module:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )
    return torch.ao.quantization.quantize_dynamic(model.eval(), {nn.Linear})


@pytest.mark.filterwarnings("ignore:.*torch.ao.quantization.*:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*quantize:UserWarning", "ignore:.*autograd kernel:UserWarning")
@pytest.mark.parametrize("layer", [None, "0"])
def test_a_quantized_model_is_not_told_to_name_a_layer(layer: str | None) -> None:
    with pytest.raises(
        InputError, match=r'is quantized \("4"\).* see docs/guides/model.md#quantized-and-detached-models'
    ):
        attribute(quantized(), IMAGES[:2], target_layer=layer)


def test_one_that_detaches_last(tmp_path: Path) -> None:
    module = Detached()
    record = look(
        tmp_path,
        "Quantized and detached models",
        module,
        list(zip(IMAGES, LABELS, strict=True)),
    )
    with torch.no_grad():
        torch.testing.assert_close(record.attribution.logits, module.logits(record.batch.images))


# --------------------------------------------------------------------------------------------------------- GANs


class Gan(Fitted):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.generator = nn.Sequential(nn.Linear(5, 3 * 256), nn.Unflatten(1, (3, 16, 16)))
        self.discriminator = nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 1)
        )

    def forward(self, latent: Tensor) -> Tensor:
        return self.generator(latent)


def test_gans(tmp_path: Path) -> None:
    module = Gan()
    with pytest.raises(InputError, match=r"raised RuntimeError: .*shapes cannot be multiplied") as caught:
        attribute(module, IMAGES)
    code = str(caught.value).splitlines()[-1].strip()
    assert code == "forward=lambda module, images: module.discriminator(images)"
    assert code in code_of("GANs")

    record = look(tmp_path, "GANs", module, list(IMAGES))

    with torch.no_grad():
        torch.testing.assert_close(record.attribution.logits, module.discriminator(record.batch.images))


# --------------------------------------------------------------------------------------- keypoints, measurements


class Points(Fitted):
    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.head, self.shape = nn.Conv2d(3, 4, 3), nn.Linear(4, 10), shape
        nn.init.uniform_(self.head.weight, 0.1, 1.0)  # each number speaks for what the convolution finds

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.conv(images).relu().mean(dim=(2, 3))).reshape(-1, *self.shape)


@pytest.mark.parametrize(
    ("section", "shape", "place"), [("Keypoints", (5, 2), 0), ("Measurements", (10,), 3)]
)
def test_numbers_that_are_no_classes(
    tmp_path: Path, section: str, shape: tuple[int, ...], place: int
) -> None:
    measured = torch.rand(16, *shape) * 16
    with pytest.raises(InputError, match=f"docs/guides/batch.md#{section.lower()}"):
        as_saliency_batch((IMAGES, measured))

    module = Points(shape)
    record = look(tmp_path, section, module, list(zip(IMAGES, measured, strict=True)))

    assert record.batch.labels is record.batch.masks is None
    with torch.no_grad():
        expected = module(record.batch.images).flatten(1)[:, place]
    torch.testing.assert_close(record.attribution.values, expected)


def test_keypoints_as_an_output_need_no_recipe() -> None:
    found = attribute(module := Points((5, 2)), IMAGES)
    assert found.explains == "norm"
    torch.testing.assert_close(found.values, module.eval()(IMAGES).flatten(1).norm(dim=1).detach())


# ------------------------------------------------------------------------------------------ dense targets, boxes


def adapters_of(section: str) -> list[Any]:
    given: list[Any] = []
    run(section, SaliencyMonitor=lambda adapter: given.append(adapter))
    return given


def test_dense_targets() -> None:
    depth = torch.rand(16, 1, 16, 16)
    without, nearest = (
        as_saliency_batch((IMAGES, depth, LABELS), each) for each in adapters_of("Dense targets")
    )

    assert without.masks is None
    assert torch.equal(nearest.masks, depth[:, 0] < 0.3)


def test_boxes() -> None:
    adapter, of_monai = adapters_of("Boxes")
    batch = {"image": IMAGES, "where": torch.tensor([[1.0, 2.0, 3.0, 4.0]] * 16), "label": LABELS}

    assert as_saliency_batch(batch, adapter).boxes[0].tolist() == [[1, 2, 4, 6]]

    box = torch.tensor([[1.0, 2, 3, 3, 6, 8]])  # corners in the order of the dimensions
    volumes = {"image": torch.zeros(2, 1, 6, 8, 10), "box": [box, box[:0]], "label": torch.tensor([1, 0])}
    found = as_saliency_batch(volumes, of_monai)
    expected = torch.zeros(2, 6, 8, 10, dtype=torch.bool)
    expected[0, 1:3, 2:6, 3:8] = True
    assert torch.equal(found.object_masks, expected)


# ------------------------------------------------------------------------------------------------------ the page


def test_every_link_in_a_message_leads_to_a_section() -> None:
    package = Path(lightning_gcam.__file__).parent
    for room, guide, least in (("data", "batch.md", 4), ("cam", "model.md", 2)):
        sources = "".join(each.read_text(encoding="utf-8") for each in (package / room).rglob("*.py"))
        named = set(re.findall(r'(?:"|RECIPES\})(#[a-z-]{4,})', sources))
        assert len(named) >= least
        assert named <= {"#" + each.lower().replace(" ", "-") for each in OF_GUIDES[guide]}
