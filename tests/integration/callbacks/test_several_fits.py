"""One list of callbacks over several `fit` calls, as in cross-validation: each run has its own samples and history."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset, TensorDataset

from lightning_gcam import SaliencyMonitor, ShortcutAlarm
from tests.support.toys import LIGHTNING_SAYS, Toy, steps_of, toy_samples, toy_trainer

pytestmark = LIGHTNING_SAYS

FOLDS = [range(fold, 24, 3) for fold in range(3)]


def data() -> TensorDataset:
    return TensorDataset(*toy_samples(24))


def part(rows: Any, **options: Any) -> DataLoader[Any]:
    return DataLoader(Subset(data(), list(rows)), batch_size=4, **options)


def others(fold: int) -> list[int]:
    return [row for rows in FOLDS if rows != FOLDS[fold] for row in rows]


def kept(monitor: SaliencyMonitor) -> set[int]:
    """The rows of the dataset that the monitor looks at."""
    images = toy_samples(24)[0]
    return {
        int((images == each).flatten(1).all(dim=1).nonzero()[0]) for each in monitor.last_record.batch.images
    }


def test_each_fold_looks_at_its_own_validation(tmp_path: Path) -> None:
    """And nothing is warned of: a warning would be an error here."""
    monitor = SaliencyMonitor(num_samples=8, scores=["energy", "drift"], checks=[])
    found, files = [], []
    for fold in range(3):
        toy_trainer(tmp_path, monitor).fit(Toy(), part(others(fold)), part(FOLDS[fold]))
        found.append(kept(monitor))
        files.append(monitor.directory)
        assert steps_of(monitor.history) == [3, 7]
        assert "drift" not in monitor.history[0], "there is no look before the first one of a run"
        assert "drift" in monitor.history[1]

    assert found == [set(rows) for rows in FOLDS]
    assert len(set(files)) == 3


def test_looks_at_steps_wait_for_the_new_validation(tmp_path: Path) -> None:
    monitor = SaliencyMonitor(num_samples=8, every_n_train_steps=1, every_n_epochs=None, checks=[])
    for fold in (0, 1):
        toy_trainer(tmp_path, monitor).fit(Toy(), part(others(fold)), part(FOLDS[fold]))
        assert steps_of(monitor.history) == [4, 5, 6, 7], "the first epoch's validation gives the samples"
        assert kept(monitor) == set(FOLDS[fold])


def test_samples_that_come_again_stay_wherever_they_stand(tmp_path: Path) -> None:
    monitor = SaliencyMonitor(num_samples=4, checks=[])
    toy_trainer(tmp_path, monitor).fit(Toy(), part(range(12)), part(range(12, 24)))
    before = kept(monitor)

    toy_trainer(tmp_path, monitor).fit(Toy(), part(range(12)), part([*range(23, 11, -1)]))

    assert kept(monitor) == before
    assert len(monitor.history) == 2


def test_samples_of_which_some_are_gone_are_all_chosen_anew(tmp_path: Path) -> None:
    monitor = SaliencyMonitor(num_samples=4, checks=[])
    toy_trainer(tmp_path, monitor).fit(Toy(), part(range(12)), part(range(12, 24)))
    assert kept(monitor) == {12, 13, 14, 15}

    toy_trainer(tmp_path, monitor).fit(Toy(), part(range(12)), part(range(13, 24)))

    assert kept(monitor) == {13, 14, 15, 16}


def test_a_fit_that_goes_on_keeps_its_history(tmp_path: Path) -> None:
    monitor = SaliencyMonitor(num_samples=4, checks=[])
    trainer, module = toy_trainer(tmp_path, monitor), Toy()
    trainer.fit(module, part(range(12)), part(range(12, 24)))
    trainer.fit_loop.max_epochs = 3

    trainer.fit(module, part(range(12)), part(range(12, 24)))

    assert steps_of(monitor.history) == [2, 5, 8]
    assert kept(monitor) == {12, 13, 14, 15}


def test_a_trainer_that_goes_on_with_another_validation_begins_its_history_afresh(tmp_path: Path) -> None:
    """Else `drift` compares the maps of one image with those of another."""
    monitor = SaliencyMonitor(num_samples=4, scores=["energy", "drift"], checks=[])
    trainer, module = toy_trainer(tmp_path, monitor, max_epochs=1), Toy()
    trainer.fit(module, part(others(0)), part(FOLDS[0]))
    trainer.fit_loop.max_epochs = 2

    with pytest.warns(UserWarning, match="lacks samples of the one before.*the history begins afresh"):
        trainer.fit(module, part(others(1)), part(FOLDS[1]))

    assert kept(monitor) <= set(FOLDS[1])
    assert steps_of(monitor.history) == [7]
    assert "drift" not in monitor.history[0]


class WithTest(Toy):
    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.validation_step(batch, batch_idx)


@pytest.mark.parametrize("stage", ["validate", "test"])
def test_a_fit_behind_a_validation_or_test_of_other_samples_has_its_own(tmp_path: Path, stage: str) -> None:
    """Those of the test, say, may be in its training set."""
    monitor = SaliencyMonitor(num_samples=4, scores=["energy", "drift"], checks=[])
    trainer, module = toy_trainer(tmp_path, monitor, max_epochs=1), WithTest()
    getattr(trainer, stage)(module, part(FOLDS[0]), verbose=False)

    with pytest.warns(UserWarning, match="the history begins afresh") as said:
        trainer.fit(module, part(others(1)), part(FOLDS[1]))

    assert not [each for each in said if "shuffled" in str(each.message)]
    assert kept(monitor) <= set(FOLDS[1])
    assert steps_of(monitor.history) == [3]
    assert "drift" not in monitor.history[0]


def test_a_fit_behind_a_validation_of_the_same_samples_goes_on(tmp_path: Path) -> None:
    monitor = SaliencyMonitor(num_samples=4, scores=["energy", "drift"], checks=[])
    trainer, module = toy_trainer(tmp_path, monitor, max_epochs=1), Toy()
    trainer.validate(module, part(FOLDS[0]), verbose=False)
    before = kept(monitor)

    trainer.fit(module, part(others(0)), part(FOLDS[0]))

    assert kept(monitor) == before
    assert steps_of(monitor.history) == [0, 3]
    assert "drift" in monitor.history[1]


def test_the_alerts_are_each_runs_own(tmp_path: Path) -> None:
    monitor, alarm = SaliencyMonitor(num_samples=4), ShortcutAlarm()
    alarm.alerts.append({"step": 1})

    toy_trainer(tmp_path, monitor, alarm, max_epochs=1).fit(Toy(), part(range(12)), part(range(12, 24)))

    assert alarm.alerts == []


# ------------------------------------------------------------------------------------ images of several sizes


def of_sizes(sizes: list[int], labels: list[int]) -> DataLoader[Any]:
    """Images one by one, each of its own size."""
    rows = []
    for index, (size, label) in enumerate(zip(sizes, labels, strict=True)):
        mask = torch.zeros(size, size, dtype=torch.bool)
        mask[: size // 2] = True
        rows.append((torch.full((1, size, size), 0.01 * index), label, mask))
    return DataLoader(rows, batch_size=1)  # type: ignore[arg-type]


SIZES = [12] * 4 + [16] * 12 + [20] * 8
LABELS = [0] * 4 + [0, 1, 2, 3] * 3 + [1, 2] * 4


def test_the_commonest_size_is_taken_and_balanced(tmp_path: Path) -> None:
    monitor = SaliencyMonitor(num_samples=8, checks=[])

    with pytest.warns(UserWarning, match="12 validation samples were not considered") as said:
        toy_trainer(tmp_path, monitor, max_epochs=1).fit(Toy(), part(range(24)), of_sizes(SIZES, LABELS))

    assert monitor.last_record.batch.image_size == (16, 16)
    assert monitor.last_record.batch.labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    (told,) = [str(each.message) for each in said if "not considered" in str(each.message)]
    assert "theirs is another one than 16 x 16, the commonest" in told
    assert not [each for each in said if "delivered no more" in str(each.message)]


def test_the_adapter_that_is_offered_makes_one_size_of_all(tmp_path: Path) -> None:
    monitor = SaliencyMonitor(num_samples=24, checks=[])
    with pytest.warns(UserWarning, match="fixed batch") as said:
        toy_trainer(tmp_path, monitor, max_epochs=1).fit(Toy(), part(range(24)), of_sizes(SIZES, LABELS))
    (told,) = [str(each.message) for each in said if "not considered" in str(each.message)]
    (few,) = [str(each.message) for each in said if "has 12 samples" in str(each.message)]
    assert "the validation delivered no more of one size" in few

    code: dict[str, Any] = {}
    first, second = (line.strip() for line in told.splitlines() if line.startswith("    "))
    exec(first, code)
    exec(second, code)
    again = SaliencyMonitor(num_samples=24, adapter=code["adapter"], checks=[])
    toy_trainer(tmp_path, again, max_epochs=1).fit(Toy(), part(range(24)), of_sizes(SIZES, LABELS))

    batch = again.last_record.batch
    assert sorted(batch.labels.tolist()) == sorted(LABELS)
    assert batch.image_size == (16, 16)
    assert batch.masks[:, :8].all()
    assert not batch.masks[:, 8:].any()


def test_word_labels_are_in_the_adapter_that_is_offered(tmp_path: Path) -> None:
    from lightning_gcam.callbacks.reading_notes import reading_notes

    monitor = SaliencyMonitor(num_samples=4, class_names=list("abcd"), checks=[])
    with pytest.warns(UserWarning, match="not considered"):
        toy_trainer(tmp_path, monitor, max_epochs=1).fit(Toy(), part(range(24)), of_sizes(SIZES, LABELS))

    words = dict(reading_notes(monitor.last_record, monitor._collection.fixed))
    assert "class_names=['a', 'b', 'c', 'd']).resized((16, 16))" in words["other sizes"]


def test_resized_samples_keep_their_annotation() -> None:
    from lightning_gcam import SaliencyBatch

    images = torch.zeros(2, 1, 8, 8, dtype=torch.uint8)
    images[:, :, :4] = 200
    region: Tensor = images[:, 0] > 0
    boxes = [torch.tensor([[0.0, 0.0, 8.0, 4.0]])] * 2
    batch = SaliencyBatch(
        images, torch.tensor([1, 0]), region, boxes, region[0], torch.tensor([0, 1]), ["a", "b"]
    )

    larger = batch.resized((16, 24))

    assert larger.images.dtype == torch.uint8
    assert (larger.images[:, :, :6] == 200).all()
    assert (larger.images[:, :, 10:] == 0).all()
    assert larger.masks[:, :8].all()
    assert not larger.masks[:, 8:].any()
    assert torch.equal(larger.suspect, larger.masks[0])
    assert larger.boxes[1].tolist() == [[0.0, 0.0, 24.0, 8.0]]
    assert (larger.labels.tolist(), larger.groups.tolist(), larger.names) == ([1, 0], [0, 1], ["a", "b"])
