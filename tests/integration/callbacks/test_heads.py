"""The monitor beside modules that are no plain classifiers: a regression, a segmentation, an embedding, two outputs."""

from __future__ import annotations

import re
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_gcam import SaliencyBatch, SaliencyMonitor
from lightning_gcam.pipeline.labels import labels_of
from lightning_gcam.utils.errors import InputError
from tests.support.toys import LIGHTNING_SAYS, listening, toy_samples, toy_trainer

pytestmark = [*LIGHTNING_SAYS, pytest.mark.filterwarnings("ignore:.* maps are blank")]


class Fits(pytorch_lightning.LightningModule):
    """A network and what is to be made small."""

    def __init__(self, network: nn.Module, loss: Callable[[Any, Any], Tensor]) -> None:
        super().__init__()
        self.network = network
        self.loss = loss

    def forward(self, images: Tensor) -> Any:
        return self.network(images)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.loss(self(batch[0]), batch)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", self.loss(self(batch[0]), batch))

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.02)


def backbone(*head: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(6, 8, 3, padding=1),
        nn.Softplus(),
        *head,
    )


def pooled(outputs: int) -> nn.Sequential:
    return backbone(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, outputs))


def fit(root: Path, module: Any, monitor: SaliencyMonitor, *tensors: Tensor, **options: Any) -> list[str]:
    """Train two epochs; what was said."""
    loader = DataLoader(TensorDataset(*tensors), batch_size=6)
    with listening() as said:
        toy_trainer(root, monitor, **options).fit(module, loader, loader)
    return said


def squared(outputs: Tensor, batch: Any) -> Tensor:
    return nn.functional.mse_loss(outputs[:, 0], batch[1].reshape(-1))


@pytest.mark.parametrize("labels", ["measured", "whole", "column"])
def test_a_regression(tmp_path: Path, labels: str) -> None:
    images, classes, masks = toy_samples(12)
    sizes = (1.0 + classes + (0 if labels == "whole" else 0.25)).float()
    sizes = sizes[:, None] if labels == "column" else sizes
    monitor = SaliencyMonitor(num_samples=6, on_error="raise")
    module = Fits(pooled(1), squared)
    said = fit(tmp_path, module, monitor, images, sizes, masks)

    record = monitor.last_record
    assert record is not None
    assert record.attribution.explains == "output"
    outputs = record.attribution.logits[:, 0].tolist()
    for caption, true, found in zip(record.captions, record.batch.labels.tolist(), outputs, strict=True):
        assert caption == f"true {true:.2f} · predicted {found:.2f}"
    assert record.correct == [None] * 6
    assert "energy" in monitor.history[-1]
    (words,) = [each for each in said if each.startswith("SaliencyMonitor (")]
    assert "6 fixed samples, with masks" in words and "guidance_cam for the output itself" in words


def test_the_output_of_whole_labels_is_asked_for_by_a_word(tmp_path: Path) -> None:
    images, classes, masks = toy_samples(12)
    ages = 20 + classes
    loss: Any = lambda outputs, batch: nn.functional.mse_loss(outputs[:, 0], batch[1].float())  # noqa: E731
    with pytest.raises(
        InputError, match=r'`labels` holds class 20.*or `targets="output"` if the model predicts'
    ):
        fit(tmp_path, Fits(pooled(1), loss), SaliencyMonitor(), images, ages, masks)
    monitor = SaliencyMonitor(num_samples=4, targets="output", on_error="raise")
    fit(tmp_path, Fits(pooled(1), loss), monitor, images, ages, masks)
    assert monitor.last_record is not None
    assert monitor.last_record.captions[0].startswith("true 20.00 · predicted")


@pytest.mark.parametrize("targets", ["label", "output"])
def test_measurements_beside_several_outputs_are_refused_before_training(
    tmp_path: Path, targets: str
) -> None:
    images, classes, masks = toy_samples(12)
    loss: Any = lambda outputs, batch: outputs.square().mean()  # noqa: E731
    message = {
        "label": "`labels` holds 0.5, which is no class",
        "output": '`targets="output"` explains the output of a',
    }
    with pytest.raises(InputError, match=message[targets]):
        fit(tmp_path, Fits(pooled(3), loss), SaliencyMonitor(targets=targets), images, classes + 0.5, masks)


def test_a_share_of_a_regression_is_one_whatever_its_labels() -> None:
    """Each process, and the look before the first one, sees a part of the samples."""
    batch = SaliencyBatch(torch.rand(3, 1, 8, 8), labels=torch.tensor([1.0, 0.0, 2.5]))
    share = labels_of(batch.select([0, 1]), batch)
    assert share is not None and share.measure
    assert share.values.tolist() == [1.0, 0.0]


# ------------------------------------------------------------------------------------- classes, marked or numbered

ANIMALS = ["cat", "dog", "owl", "fox"]


def entropy(outputs: Tensor, batch: Any) -> Tensor:
    numbers = batch[1] if batch[1].ndim == 1 else batch[1].argmax(dim=1)
    return nn.functional.cross_entropy(outputs, numbers)


def binary_entropy(outputs: Tensor, batch: Any) -> Tensor:
    return nn.functional.binary_cross_entropy_with_logits(outputs, batch[1].reshape(outputs.shape))


def animals(kind: str) -> tuple[Tensor, Tensor, Tensor]:
    """Images, their classes as numbers, as one-hot rows, or with a second mark in every other row; and masks."""
    images, classes, masks = toy_samples(12)
    rows = nn.functional.one_hot(classes, 4).float()
    if kind == "several":
        rows[::2, 3] = 1
        rows[5] = 0
    return images, classes if kind == "numbers" else rows, masks


def test_one_hot_labels_are_looked_at_as_the_numbers_are(tmp_path: Path) -> None:
    """Whatever the class: the same maps, scores, words and picture."""
    monitors, network = {}, pooled(4)
    for kind in ("numbers", "one_hot"):
        monitors[kind] = SaliencyMonitor(num_samples=6, class_names=ANIMALS, on_error="raise")
        (tmp_path / kind).mkdir()
        said = fit(tmp_path / kind, Fits(deepcopy(network), entropy), monitors[kind], *animals(kind))
        assert any("6 fixed samples of 4 classes" in each for each in said)
    numbers, one_hot = (monitors[kind].last_record for kind in ("numbers", "one_hot"))
    assert numbers is not None and one_hot is not None
    assert one_hot.batch.labels.argmax(dim=1).tolist() == numbers.batch.labels.tolist()
    assert one_hot.captions == numbers.captions
    assert all(re.fullmatch(r"true \w{3} · predicted \w{3} \(0\.\d\d\)", each) for each in numbers.captions)
    assert one_hot.correct == numbers.correct
    assert one_hot.scores == numbers.scores
    assert bool((one_hot.overlay == numbers.overlay).all())


def test_several_classes_a_sample(tmp_path: Path) -> None:
    monitor = SaliencyMonitor(num_samples=8, selection="first", class_names=ANIMALS, on_error="raise")
    module = Fits(pooled(4), binary_entropy)
    said = fit(tmp_path, module, monitor, *animals("several"), max_epochs=12)

    assert any("8 fixed samples of 4 classes" in each for each in said)
    record = monitor.last_record
    assert record is not None
    marks, logits = record.batch.labels > 0, record.attribution.logits
    assert set(marks.sum(dim=1).tolist()) == {0, 1, 2}
    assert record.correct == [torch.equal(row > 0, mark) for row, mark in zip(logits, marks, strict=True)]
    for caption, row, mark in zip(record.captions, logits, marks, strict=True):
        true, predicted = caption.split(" · ")
        assert true == "true " + (", ".join(n for n, m in zip(ANIMALS, mark, strict=True) if m) or "none")
        shown = {n: f"{row[i].sigmoid():.2f}" for i, n in enumerate(ANIMALS) if row[i] > 0}
        assert dict(re.findall(r"(\w+) \((\S+)\)", predicted)) == shown
        assert shown or predicted == "predicted none"
    assert "maps of the true classes" in record.title
    sums = (logits * marks).sum(dim=1)
    expected = torch.where(marks.any(dim=1), sums, logits.amax(dim=1))  # without a mark, the predicted class
    torch.testing.assert_close(record.attribution.values, expected)


@pytest.mark.parametrize("column", [False, True])
def test_a_single_logit(tmp_path: Path, column: bool) -> None:
    """Class 0 is explained by what speaks against class 1."""
    images, classes, masks = toy_samples(12)
    labels = (classes % 2).float()[:, None] if column else classes % 2
    monitor = SaliencyMonitor(num_samples=6, class_names=["healthy", "ill"], on_error="raise")
    floats: Any = lambda outputs, batch: binary_entropy(outputs, (batch[0], batch[1].float()))  # noqa: E731
    said = fit(tmp_path, Fits(pooled(1), floats), monitor, images, labels, masks)

    assert any("6 fixed samples of 2 classes" in each for each in said)
    record = monitor.last_record
    assert record is not None
    logits = record.attribution.logits[:, 0]
    ill = record.batch.labels.reshape(-1) > 0
    torch.testing.assert_close(record.attribution.values, torch.where(ill, logits, -logits))
    names = [["healthy", "ill"][int(each)] for each in ill]
    guesses = ["ill" if each > 0 else "healthy" for each in logits]
    shares = torch.where(logits > 0, logits, -logits).sigmoid().tolist()
    assert record.captions == [
        f"true {name} · predicted {guess} ({share:.2f})"
        for name, guess, share in zip(names, guesses, shares, strict=True)
    ]
    assert record.correct == [name == guess for name, guess in zip(names, guesses, strict=True)]
    assert "maps of the true class" in record.title


# --------------------------------------------------------------------------------------------- a segmentation


def segmenter(classes: int) -> nn.Sequential:
    return backbone(
        nn.Conv2d(8, 8, 3, padding=1), nn.Softplus(), nn.Conv2d(8, classes, 1), nn.Upsample(scale_factor=2)
    )


def scenes() -> tuple[Tensor, Tensor, Tensor]:
    """Images, the class of their object from 1, and its mask; class 0 is the background."""
    images, classes, masks = toy_samples(12)
    return images, classes % 2 + 1, masks


def per_pixel(outputs: Tensor, batch: Any) -> Tensor:
    return nn.functional.cross_entropy(outputs, batch[1][:, None, None] * batch[2].long())


def test_a_segmentation_with_labels_and_masks(tmp_path: Path) -> None:
    monitor = SaliencyMonitor(methods=["grad_cam", "guidance_cam"], num_samples=6, on_error="raise")
    said = fit(tmp_path, Fits(segmenter(3), per_pixel), monitor, *scenes(), max_epochs=8)

    record = monitor.last_record
    assert record is not None
    assert record.attribution.in_mask.all()
    layer = int(record.attribution.target_layer.removeprefix("network."))
    assert layer < 4  # the last layer that mixes positions
    assert record.attribution.logits.shape == (6, 3)
    assert all(each is not None for each in record.correct)
    assert sum("logits at every position" in each for each in said) == 1
    assert "maps of the true class over the object" in record.title
    assert len(list(tmp_path.rglob("*.png"))) == 8


def test_a_segmentation_of_one_class_with_masks_alone(tmp_path: Path) -> None:
    images, _, masks = scenes()
    loss: Any = lambda outputs, batch: nn.functional.binary_cross_entropy_with_logits(outputs[:, 0], batch[1])  # noqa: E731

    def adapter(batch: Any) -> SaliencyBatch:
        return SaliencyBatch(batch[0], masks=batch[1] > 0)

    monitor = SaliencyMonitor(num_samples=4, adapter=adapter, on_error="raise")
    said = fit(tmp_path, Fits(segmenter(1), loss), monitor, images, masks.float())
    assert monitor.last_record is not None
    assert monitor.last_record.attribution.targets.tolist() == [1, 1, 1, 1]
    assert any("logits at every position" in each for each in said)


def test_a_classifier_says_nothing_of_positions(tmp_path: Path) -> None:
    images, classes, masks = toy_samples(12)
    loss: Any = lambda outputs, batch: nn.functional.cross_entropy(outputs, batch[1])  # noqa: E731
    said = fit(tmp_path, Fits(pooled(4), loss), SaliencyMonitor(num_samples=4), images, classes, masks)
    assert not any("logits at every position" in each for each in said)


# ------------------------------------------------------------------------------------- an embedding, two outputs


def to_the_first(embedding: Tensor) -> Tensor:
    return nn.functional.cosine_similarity(embedding, torch.ones_like(embedding))


@pytest.mark.parametrize("labelled", [False, True])
def test_an_embedding(tmp_path: Path, labelled: bool) -> None:
    """Its labels, 0 to 3 and more, name no numbers of the embedding, which are two."""
    images, classes, masks = toy_samples(12)
    loss: Any = lambda outputs, batch: outputs.square().mean()  # noqa: E731
    tensors = (images, classes + 5, masks) if labelled else (images,)
    monitor = SaliencyMonitor(num_samples=4, targets=to_the_first, on_error="raise")
    said = fit(tmp_path, Fits(pooled(2), loss), monitor, *tensors)
    record = monitor.last_record
    assert record is not None
    values = record.attribution.values.tolist()
    truth = [f"true {label} · " for label in (5, 6, 7, 8)] if labelled else [""] * 4
    assert record.captions == [f"{true}score {value:.2f}" for true, value in zip(truth, values, strict=True)]
    assert record.correct == [None] * 4
    assert any("for a score of your own" in each for each in said)


class TwoOutputs(nn.Module):
    """An embedding and the logits of it, without names."""

    def __init__(self, project: bool) -> None:
        super().__init__()
        self.body, self.head = pooled(16), nn.Linear(16, 4)
        self.project = nn.Linear(16, 7) if project else nn.Identity()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        embedding = self.body(images)
        return self.project(embedding), self.head(embedding)


def second(outputs: Any, batch: Any) -> Tensor:
    return nn.functional.cross_entropy(outputs[1], batch[1])


def test_two_outputs_of_which_one_holds_the_logits(tmp_path: Path) -> None:
    monitor = SaliencyMonitor(num_samples=4, on_error="raise")
    fit(tmp_path, Fits(TwoOutputs(project=False), second), monitor, *toy_samples(12))
    assert monitor.last_record is not None
    assert monitor.last_record.attribution.logits.shape == (4, 4)


@pytest.mark.parametrize("sanity", [0, 2])
def test_two_outputs_are_told_apart_by_the_labels(tmp_path: Path, sanity: int) -> None:
    """Four classes are those of the head of four, not of the projection to seven."""
    module, monitor = Fits(TwoOutputs(project=True), second), SaliencyMonitor(num_samples=4, on_error="raise")
    fit(tmp_path, module, monitor, *toy_samples(12), num_sanity_val_steps=sanity)
    assert monitor.last_record is not None
    assert list(monitor.last_record.heads) == ["1"]
    assert "1/accuracy" in monitor.history[-1]
    assert monitor.last_record.attribution.logits.shape == (4, 4)
