"""Which samples `SaliencyMonitor` looks at: chosen once from what Lightning delivers, and the same at every look."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning
import torch
from torch.utils.data import DataLoader

from lightning_gcam import SaliencyBatch, SaliencyMonitor, SaliencyRecord
from tests.support.toys import LIGHTNING_SAYS, Recast, Toy, toy_loader, toy_samples, toy_trainer

pytestmark = LIGHTNING_SAYS


class Keeper(pytorch_lightning.Callback):
    """Keep every record of a monitor."""

    def __init__(self, monitor: SaliencyMonitor) -> None:
        self.monitor = monitor
        self.records: list[SaliencyRecord] = []

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        if not trainer.sanity_checking:
            assert self.monitor.last_record is not None
            self.records.append(self.monitor.last_record)


def looks(root: Path, monitor: SaliencyMonitor, loader: Any, **options: Any) -> list[SaliencyRecord]:
    """The records of three epochs."""
    keeper = Keeper(monitor)
    toy_trainer(root, monitor, keeper, max_epochs=3, **options).fit(Toy(), toy_loader(32), loader)
    return keeper.records


@pytest.mark.parametrize("sorted_by_class", [False, True])
def test_sixteen_samples_with_every_class_alike(tmp_path: Path, sorted_by_class: bool) -> None:
    records = looks(tmp_path, SaliencyMonitor(), toy_loader(40, sorted_by_class=sorted_by_class))

    assert records[0].batch.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4 + [3] * 4


@pytest.mark.parametrize(
    "loader",
    [{}, {"shuffle": True}, {"batch_size": 5, "drop_last": True}],
    ids=["plain", "shuffled", "odd batches"],
)
def test_every_look_sees_bit_identical_samples(tmp_path: Path, loader: dict[str, Any]) -> None:
    first, second, third = looks(tmp_path, SaliencyMonitor(), toy_loader(24, **loader))

    for later in (second, third):
        assert torch.equal(first.batch.images, later.batch.images)
        assert torch.equal(first.batch.labels, later.batch.labels)
        assert torch.equal(first.batch.masks, later.batch.masks)
    assert not torch.equal(first.attribution.logits, third.attribution.logits)


def test_the_loader_may_reuse_its_memory(tmp_path: Path) -> None:
    class Overwriting(Toy):
        def on_validation_batch_end(self, outputs: Any, batch: Any, batch_idx: int, *_: Any) -> None:
            batch[0].fill_(-1.0)

    monitor = SaliencyMonitor(num_samples=4)
    toy_trainer(tmp_path, monitor).fit(Overwriting(), toy_loader(32), toy_loader())

    assert torch.equal(monitor.last_record.batch.images, toy_samples(24)[0][:4])


def test_first_and_positions(tmp_path: Path) -> None:
    images, labels, _ = toy_samples(24)
    (first, *_) = looks(tmp_path, SaliencyMonitor(num_samples=3, selection="first"), toy_loader())
    (given, *_) = looks(tmp_path, SaliencyMonitor(selection=[20, 3, 9]), toy_loader())

    assert torch.equal(first.batch.images, images[:3])
    assert torch.equal(given.batch.images, images[[20, 3, 9]])
    assert torch.equal(given.batch.labels, labels[[20, 3, 9]])


def test_positions_that_never_come_are_told(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="has 1 samples"):
        (first, *_) = looks(tmp_path, SaliencyMonitor(selection=[3, 1000]), toy_loader())

    assert len(first.batch) == 1


def as_dict(image: Any, label: Any, mask: Any) -> dict[str, Any]:
    return {"image": image, "label": label, "mask": mask.to(torch.uint8) * 255}


def with_box(image: Any, label: Any, mask: Any) -> tuple[Any, Any, Any]:
    rows, columns = mask.nonzero(as_tuple=True)
    box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    return image, label, torch.tensor(box, dtype=torch.float32)


@pytest.mark.parametrize("cast", [as_dict, with_box])
def test_dicts_and_boxes_score_as_masks_do(tmp_path: Path, cast: Any) -> None:
    expected, found = SaliencyMonitor(), SaliencyMonitor()
    for monitor, loader in [(expected, toy_loader()), (found, DataLoader(Recast(cast), batch_size=8))]:
        torch.manual_seed(3)
        toy_trainer(tmp_path, monitor).fit(Toy(), toy_loader(32), loader)

    assert found.history == expected.history
    assert (found.last_record.batch.boxes is not None) == (cast is with_box)


def collate(samples: Any) -> SaliencyBatch:
    images, labels, masks = (torch.stack(column) for column in zip(*samples, strict=True))
    return SaliencyBatch(images, labels, masks, names=[f"sample {index}" for index in range(len(samples))])


class ReadsSaliencyBatches(Toy):
    def loss(self, batch: Any) -> Any:
        return super().loss((batch.images, batch.labels) if isinstance(batch, SaliencyBatch) else batch)


def test_a_loader_may_deliver_saliency_batches(tmp_path: Path) -> None:
    monitor = SaliencyMonitor(num_samples=4)
    loader = DataLoader(Recast(lambda *sample: sample), batch_size=8, collate_fn=collate)

    toy_trainer(tmp_path, monitor).fit(ReadsSaliencyBatches(), toy_loader(32), loader)

    assert monitor.last_record.captions[0].startswith("sample 0 · true 0 · predicted ")


def test_an_adapter_reads_what_is_not_recognised(tmp_path: Path) -> None:
    class Nested(Toy):
        def loss(self, batch: Any) -> Any:
            return super().loss(batch["inside"] if isinstance(batch, dict) else batch)

    loader = DataLoader(Recast(lambda *sample: {"inside": sample}), batch_size=8)
    monitor = SaliencyMonitor(adapter=lambda batch: batch["inside"], num_samples=4)

    toy_trainer(tmp_path, monitor).fit(Nested(), toy_loader(32), loader)

    assert "energy" in monitor.history[-1]


@pytest.mark.parametrize("with_masks", [True, False])
def test_unlabelled_samples_are_passed_over(tmp_path: Path, with_masks: bool) -> None:
    class Masked(Toy):
        def loss(self, batch: Any) -> Any:
            return super().loss((batch[0], batch[1].clamp(min=0)))

    images, labels, masks = toy_samples(24)
    labels[:5] = -1
    loader = DataLoader(torch.utils.data.TensorDataset(images, labels, *[masks] * with_masks), batch_size=8)
    monitor = SaliencyMonitor(num_samples=4)

    or_empty = ", or their segmentation is empty, or they have no box" * with_masks
    expected = re.escape(f"they have no label (it is negative or NaN{or_empty}). Check them")
    with pytest.warns(UserWarning, match=f"5 validation samples were not considered.*: {expected}"):
        toy_trainer(tmp_path, monitor).fit(Masked(), toy_loader(32), loader)

    assert torch.equal(monitor.last_record.batch.images, images[[8, 5, 6, 7]])


def test_samples_without_labels_are_explained_by_their_predictions(tmp_path: Path) -> None:
    class Unlabelled(Toy):
        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self(batch)

    images = toy_samples(24)[0]
    monitor = SaliencyMonitor(num_samples=4)

    toy_trainer(tmp_path, monitor).fit(Unlabelled(), toy_loader(32), DataLoader(images, batch_size=8))

    record = monitor.last_record
    assert torch.equal(record.attribution.targets, record.predictions)
    assert record.scores == {"blank_rate": 0.0}
