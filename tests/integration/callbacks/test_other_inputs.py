"""Modules whose forward takes more than the images, in real trainings: columns, a second picture, text, `forward=`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lightning_gcam import SaliencyBatch, SaliencyEvaluation, SaliencyMonitor, attribute
from lightning_gcam.pipeline.run import record_saliency
from tests.support.toys import CLASSES, LIGHTNING_SAYS, toy_samples, toy_trainer

# A network after a few steps has no evidence for some classes yet, and the monitor says so.
pytestmark = [*LIGHTNING_SAYS, pytest.mark.filterwarnings("ignore:.*maps are blank:UserWarning")]
IMAGES, LABELS, MASKS = toy_samples(32)
COLUMNS = torch.stack([torch.arange(32.0), torch.ones(32)], dim=1)


class Trained(pytorch_lightning.LightningModule):
    """What the modules here share."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU())
        self.head = nn.Linear(10, CLASSES)

    def logits(self, batch: Any) -> Tensor:
        raise AssertionError

    def labels(self, batch: Any) -> Tensor:
        return batch["label"]

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return nn.functional.cross_entropy(self.logits(batch), self.labels(batch))

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", nn.functional.cross_entropy(self.logits(batch), self.labels(batch)))

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.05)


def samples(**columns: Any) -> list[dict[str, Any]]:
    """Samples as a dataset of dictionaries gives them."""
    names = {"image": IMAGES, "label": LABELS, "mask": MASKS, **columns}
    return [{name: each[row] for name, each in names.items()} for row in range(32)]


def watched(root: Path, make: Any, data: list[Any], **options: Any) -> SaliencyMonitor:
    """Train with the monitor and without it: looks with all checks, no warning, and the same bits."""
    monitor = SaliencyMonitor(num_samples=8, on_error="raise", max_overhead=None, **options)
    weights = []
    for callbacks in ([monitor], []):
        pytorch_lightning.seed_everything(0, verbose=False)
        module = make()
        toy_trainer(root, *callbacks).fit(module, DataLoader(data, 8), DataLoader(data, 8))
        weights.append(module.state_dict())
    assert all(torch.equal(weights[0][name], value) for name, value in weights[1].items())
    assert len(monitor.history) == 2
    return monitor


class WithColumns(Trained):
    def forward(self, images: Tensor, columns: Tensor) -> Tensor:
        return self.head(torch.cat([self.features(images).mean(dim=(2, 3)), columns / 32], dim=1))

    def logits(self, batch: Any) -> Tensor:
        return self(batch["image"], batch["columns"])


def test_tabular_columns_go_along_with_their_samples(tmp_path: Path) -> None:
    monitor = watched(
        tmp_path, WithColumns, samples(columns=COLUMNS), checks=["background_only_accuracy", "border"]
    )
    record = monitor.last_record
    assert list(record.batch.inputs) == ["columns"]
    assert record.batch.labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    # each sample has its own columns, which hold its number, in the maps' pass and in that of the checks
    rows = record.batch.inputs["columns"][:, 0].long().tolist()
    assert torch.equal(record.batch.images.cpu(), IMAGES[rows])
    assert {"energy", "background_only_accuracy", "border_swap_accuracy"} <= record.scores.keys()


def test_every_forward_of_a_look_has_the_columns_of_its_samples() -> None:
    """The middle of each image holds its number, and the module compares it with the column."""

    class Compares(WithColumns):
        seen = 0

        def forward(self, images: Tensor, columns: Tensor) -> Tensor:
            assert torch.equal(images[:, 0, 8, 8].round(), columns[:, 0])
            Compares.seen += len(images)
            return super().forward(images, columns)

    images = IMAGES[:6].clone()
    images[:, :, 8, 8] = torch.arange(6.0)[:, None]
    batch = SaliencyBatch(images, LABELS[:6], inputs={"columns": COLUMNS[:6]})
    record_saliency(Compares(), batch, checks=["border"], chunk_size=4)
    assert Compares.seen > 6 * 3  # the maps, and each sample with the borders of others


@pytest.mark.parametrize("method", ["score_cam", "smooth_grad_cam_plus_plus", "ablation_cam"])
def test_methods_that_run_the_model_again(method: str) -> None:
    """The map of each sample is what it is alone."""
    torch.manual_seed(0)
    model = WithColumns()
    batch = SaliencyBatch(IMAGES[:3], LABELS[:3], inputs={"columns": COLUMNS[:3]})
    together = attribute(model, batch, methods=method, target_layer="features").maps[method]
    alone = [
        attribute(model, batch.select([row]), methods=method, target_layer="features") for row in range(3)
    ]
    torch.testing.assert_close(together, torch.cat([each.maps[method] for each in alone]))


class Siamese(Trained):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(8, CLASSES)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return self.head((self.features(left) - self.features(right)).mean(dim=(2, 3)))

    def logits(self, batch: Any) -> Tensor:
        return self(batch[0], batch[1])

    def labels(self, batch: Any) -> Tensor:
        return batch[2]


def test_a_siamese_pair(tmp_path: Path) -> None:
    data = [(IMAGES[row], IMAGES[(row + 5) % 32], LABELS[row]) for row in range(32)]
    monitor = watched(tmp_path, Siamese, data)
    batch = monitor.last_record.batch
    assert list(batch.inputs) == ["1"] and batch.labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    for image, other in zip(batch.images.cpu(), batch.inputs["1"].cpu(), strict=True):
        row = next(row for row in range(32) if torch.equal(IMAGES[row], image))
        assert torch.equal(other, IMAGES[(row + 5) % 32])


class WithLabels(Trained):
    """As Hugging Face's: the loss and the logits of one call, and the labels are needed."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(8, CLASSES)

    def forward(self, pixel_values: Tensor, labels: Tensor) -> dict[str, Tensor]:
        logits = self.head(self.features(pixel_values).mean(dim=(2, 3)))
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}

    def logits(self, batch: Any) -> Tensor:
        return self(batch["pixel_values"], batch["labels"])["logits"]

    def labels(self, batch: Any) -> Tensor:
        return batch["labels"]


def test_a_forward_that_takes_the_labels(tmp_path: Path) -> None:
    data = [{"pixel_values": IMAGES[row], "labels": LABELS[row]} for row in range(32)]
    monitor = watched(tmp_path, WithLabels, data)
    assert monitor.last_record.attribution.logits.shape == (8, CLASSES)


def test_a_forward_of_three_arguments_is_given_what_came_with_the_samples(tmp_path: Path) -> None:
    def forward(module: Any, images: Tensor, inputs: dict[str, Any]) -> Tensor:
        assert len(inputs["place"]) == len(images)
        return module(images, inputs["columns"])

    data = samples(columns=COLUMNS, place=[f"site {row}" for row in range(32)])
    monitor = watched(tmp_path, WithColumns, data, forward=forward)
    batch = monitor.last_record.batch
    assert {"columns", "place"} <= batch.inputs.keys()
    assert batch.inputs["place"] == [f"site {row}" for row in batch.inputs["columns"][:, 0].long().tolist()]


def test_columns_beside_labels_without_names(tmp_path: Path) -> None:
    """Ten columns could be marks of ten classes, but the forward takes them: the labels are the other part."""

    class ByOrder(WithColumns):
        def logits(self, batch: Any) -> Tensor:
            return self(batch[0], batch[1])

        def labels(self, batch: Any) -> Tensor:
            return batch[2]

    data = [(IMAGES[row], COLUMNS[row], LABELS[row]) for row in range(32)]
    batch = watched(tmp_path, ByOrder, data).last_record.batch
    assert list(batch.inputs) == ["1"] and batch.labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


@pytest.mark.parametrize("order", ["image, age, label", "image, label, age"])
@pytest.mark.parametrize("floating", [True, False], ids=["years and months", "whole years"])
def test_a_column_of_whole_numbers_is_the_input_and_the_classes_are_the_labels(
    tmp_path: Path, order: str, floating: bool
) -> None:
    ages = torch.arange(30, 62)

    class WithAge(Trained):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(9, CLASSES)

        def forward(self, images: Tensor, age: Tensor) -> Tensor:
            assert (age >= 30).all()
            return self.head(torch.cat([self.features(images).mean(dim=(2, 3)), age[:, None] / 60], dim=1))

        def logits(self, batch: Any) -> Tensor:
            return self(batch[0], batch[order.split(", ").index("age")])

        def labels(self, batch: Any) -> Tensor:
            return batch[order.split(", ").index("label")]

    columns = {"image": IMAGES, "label": LABELS, "age": ages + 0.5 if floating else ages}
    data = [tuple(columns[name][row] for name in order.split(", ")) for row in range(32)]
    batch = watched(tmp_path, WithAge, data).last_record.batch
    assert batch.labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    (age,) = batch.inputs.values()
    rows = (age.cpu().long() - 30).tolist()
    assert torch.equal(batch.images.cpu(), IMAGES[rows])


@pytest.mark.parametrize("resumed", [False, True])
def test_the_inputs_are_kept_in_a_checkpoint(tmp_path: Path, resumed: bool) -> None:
    data = samples(columns=COLUMNS)
    first = SaliencyMonitor(num_samples=4, on_error="raise", checks=[])
    trainer = toy_trainer(tmp_path, first)
    trainer.fit(WithColumns(), DataLoader(data, 8), DataLoader(data, 8))
    path = tmp_path / "kept.ckpt"
    trainer.save_checkpoint(path)
    second = SaliencyMonitor(num_samples=4, on_error="raise", checks=[])
    again = toy_trainer(tmp_path, second, max_epochs=3)
    again.fit(WithColumns(), DataLoader(data, 8), DataLoader(data, 8), ckpt_path=path if resumed else None)
    batch = second.last_record.batch
    assert torch.equal(batch.inputs["columns"].cpu(), first.last_record.batch.inputs["columns"].cpu())
    assert len(second.history) == 3


def test_an_evaluation_of_a_dataset_hands_them_over_too(tmp_path: Path) -> None:
    class Tested(WithColumns):
        def test_step(self, batch: Any, batch_idx: int) -> None:
            """Nothing."""

    evaluation = SaliencyEvaluation(
        scores=["energy"], checks=["border"], on_error="raise", directory=tmp_path
    )
    loader = DataLoader(samples(columns=COLUMNS), 8)
    toy_trainer(tmp_path, evaluation).test(Tested(), loader, verbose=False)
    assert evaluation.result is not None
    rows = {row.score: row.n + row.left_out for row in evaluation.result.rows if row.method == "guidance_cam"}
    assert rows["energy"] == 32
