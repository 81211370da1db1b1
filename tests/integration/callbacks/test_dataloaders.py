"""Several validation dataloaders, one after the other or all at once: the samples come from one of them."""

from __future__ import annotations

from collections import OrderedDict, deque, namedtuple
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch
import pytest
import pytorch_lightning
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from lightning_gcam import SaliencyEvaluation, SaliencyMonitor
from lightning_gcam.callbacks.sample_collector import check_index, number_of, part_of
from lightning_gcam.utils.errors import InputError
from tests.support.toys import (
    LIGHTNING_SAYS,
    Recast,
    Toy,
    listening,
    toy_loader,
    toy_of,
    toy_samples,
    toy_trainer,
)

pytestmark = [
    *LIGHTNING_SAYS,
    pytest.mark.filterwarnings("ignore:You are using an experimental feature"),
    pytest.mark.filterwarnings("ignore:You are using the `dataloader_iter` step flavor"),
    pytest.mark.filterwarnings("ignore:Found `dataloader_iter` argument"),
]

MODES = ["sequential", "min_size", "max_size", "max_size_cycle"]
FIRST, SECOND = 24, 40  # samples in each; the second is the longer one
ALL = 64


def loaders() -> list[Any]:
    return [toy_loader(FIRST), toy_loader(SECOND, seed=1)]


class Several(Toy):
    """It takes a batch, or a list or dict of batches, of which some may be None."""

    def loss(self, batch: Any) -> Tensor:
        parts = list(batch.values()) if isinstance(batch, dict) else list(batch)
        if isinstance(parts[0], Tensor):
            return super().loss(batch)
        return torch.stack([super(Several, self).loss(each) for each in parts if each is not None]).mean()


def kept(root: Path, monitor: SaliencyMonitor, validation: Any, module: Any = None, **options: Any) -> Tensor:
    """The images that the monitor looks at, in the order of delivery."""
    toy_trainer(root, monitor, **options).fit(module or Several(), toy_loader(32), validation)
    order = sorted(range(len(monitor.last_record.batch)), key=monitor._collection.fixed.positions.__getitem__)
    return monitor.last_record.batch.images[order]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "kind", [list, lambda parts: dict(zip("ab", parts, strict=True))], ids=["list", "dict"]
)
@pytest.mark.parametrize("index", [0, 1])
def test_combined_loaders_in_every_mode(tmp_path: Path, mode: str, kind: Any, index: int) -> None:
    combined = pytorch_lightning.utilities.CombinedLoader(kind(loaders()), mode)
    monitor = SaliencyMonitor(num_samples=ALL, dataloader_idx=index)

    with pytest.warns(UserWarning, match="The fixed batch has"):
        images = kept(tmp_path, monitor, combined)

    whole = [toy_samples(FIRST)[0], toy_samples(SECOND, seed=1)[0]][index]
    delivered = min(FIRST, SECOND) if mode == "min_size" else len(whole)
    assert torch.equal(images, whole[:delivered])


def test_a_single_combined_loader(tmp_path: Path) -> None:
    combined = pytorch_lightning.utilities.CombinedLoader(toy_loader(), "min_size")

    assert len(kept(tmp_path, SaliencyMonitor(num_samples=4), combined)) == 4


def test_combined_loaders_of_the_other_package(tmp_path: Path) -> None:
    class Sequence(type(toy_of(lightning.pytorch))):  # type: ignore[misc]
        def loss(self, batch: Any) -> Tensor:
            return super().loss(batch if isinstance(batch[0], Tensor) else batch[0])

    combined = lightning.pytorch.utilities.CombinedLoader(loaders(), "max_size_cycle")
    monitor = SaliencyMonitor(num_samples=4, dataloader_idx=1)

    toy_trainer(tmp_path, monitor, package=lightning.pytorch).fit(Sequence(), toy_loader(32), combined)

    assert torch.equal(monitor.last_record.batch.images, toy_samples(SECOND, seed=1)[0][:4])


@pytest.mark.parametrize("index", [0, 1])
def test_which_of_several_is_said_once(tmp_path: Path, index: int) -> None:
    monitor = SaliencyMonitor(num_samples=4, dataloader_idx=index)

    with listening() as said:
        images = kept(tmp_path, monitor, loaders(), Toy())

    assert torch.equal(images, [toy_samples(FIRST), toy_samples(SECOND, seed=1)][index][0][:4])
    told = [each for each in said if "dataloaders" in each]
    assert told == [
        f"SaliencyMonitor: of 2 validation dataloaders, the samples come from number {index} (counted from 0). "
        "`dataloader_idx=` chooses another."
    ]


def test_nothing_is_said_of_a_single_one(tmp_path: Path) -> None:
    with listening() as said:
        kept(tmp_path, SaliencyMonitor(num_samples=4), toy_loader())

    assert not [each for each in said if "dataloaders" in each]


@pytest.mark.parametrize(
    ("index", "count", "message"),
    [
        (2, 2, "`dataloader_idx` is 2, but there are 2 validation dataloaders. Give a number from 0 to 1"),
        (1, 1, "`dataloader_idx` is 1, but there is 1 validation dataloader. Give a number from 0 to 0"),
    ],
)
@pytest.mark.parametrize("sanity", [2, 0], ids=["sanity check", "no sanity check"])
def test_one_that_is_not_there_is_refused(
    tmp_path: Path, index: int, count: int, message: str, sanity: int
) -> None:
    trainer = toy_trainer(tmp_path, SaliencyMonitor(dataloader_idx=index), num_sanity_val_steps=sanity)

    with pytest.raises(InputError, match=message):
        trainer.fit(Toy(), toy_loader(32), loaders()[:count])
    assert trainer.global_step == 0


@pytest.mark.parametrize("index", [-1, 1.0, True, None])
def test_refused_at_the_door(index: Any) -> None:
    with pytest.raises(InputError, match="`dataloader_idx` must be a whole number from 0; got"):
        SaliencyMonitor(dataloader_idx=index)


def test_a_resumed_run_compares_with_the_same_one(tmp_path: Path) -> None:
    """Other samples in the first dataloader are none of its business; in its own they are told."""
    first, second = loaders()
    trainer = toy_trainer(tmp_path, SaliencyMonitor(num_samples=4, dataloader_idx=1))
    trainer.fit(Toy(), toy_loader(32), [first, second])
    path = tmp_path / "two_epochs.ckpt"
    trainer.save_checkpoint(path)

    def resumed(validation: list[DataLoader[Any]]) -> SaliencyMonitor:
        monitor = SaliencyMonitor(num_samples=4, dataloader_idx=1)
        again = toy_trainer(tmp_path, monitor, max_epochs=4)
        again.fit(Toy(), toy_loader(32), validation, ckpt_path=path)
        return monitor

    others = resumed([toy_loader(FIRST, seed=7), second])
    assert len(others.history) == 4
    with pytest.warns(UserWarning, match="The validation data changed since the samples were taken"):
        changed = resumed([first, toy_loader(SECOND, seed=7)])
    assert len(changed.history) == 4
    for monitor in (others, changed):
        assert torch.equal(monitor.last_record.batch.images, toy_samples(SECOND, seed=1)[0][:4])


def test_each_fit_has_a_history_and_samples_of_its_own(tmp_path: Path) -> None:
    """Of the chosen dataloader: it is looked at whether that one still has the samples, and no other."""
    monitor = SaliencyMonitor(num_samples=4, dataloader_idx=1)
    first, second = loaders()
    shown = []
    for validation in (
        [first, second],
        [toy_loader(FIRST, seed=7), second],
        [second, toy_loader(SECOND, seed=7)],
    ):
        toy_trainer(tmp_path, monitor).fit(Toy(), toy_loader(32), validation)
        assert len(monitor.history) == 2
        shown.append(monitor.last_record.batch.images)

    assert torch.equal(shown[0], shown[1])
    assert torch.equal(shown[2], toy_samples(SECOND, seed=7)[0][:4])


class WithTestStep(Toy):
    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int) -> None:  # type: ignore[override]
        self.log("test_loss", self.loss(batch))


def test_test_dataloaders(tmp_path: Path) -> None:
    monitor = SaliencyMonitor(num_samples=4, dataloader_idx=1)

    with listening() as said:
        toy_trainer(tmp_path, monitor).test(WithTestStep(), loaders(), verbose=False)

    assert torch.equal(monitor.last_record.batch.images, toy_samples(SECOND, seed=1)[0][:4])
    assert any("of 2 test dataloaders" in each for each in said)


class Stream(IterableDataset[Any]):
    """Samples one after the other, and nobody knows how many."""

    def __iter__(self) -> Iterator[Any]:
        yield from zip(*toy_samples(FIRST), strict=True)


def test_an_iterable_dataset(tmp_path: Path) -> None:
    images = kept(tmp_path, SaliencyMonitor(num_samples=8), DataLoader(Stream(), batch_size=5))

    assert torch.equal(images, toy_samples(FIRST)[0][:8])


@pytest.mark.parametrize("mode", ["sequential", "min_size"])
def test_an_iterable_dataset_among_several(tmp_path: Path, mode: str) -> None:
    combined = pytorch_lightning.utilities.CombinedLoader(
        [toy_loader(40), DataLoader(Stream(), batch_size=8)], mode
    )

    images = kept(tmp_path, SaliencyMonitor(num_samples=8, dataloader_idx=1), combined)

    assert torch.equal(images, toy_samples(FIRST)[0][:8])


# ------------------------------------------------------------------------------------ one loader in a container

Named = namedtuple("Named", ["image"])  # Lightning flattens it, and rebuilds it by its own means
CONTAINERS: dict[str, Callable[[Any], Any]] = {
    "alone": lambda one: one,
    "list": lambda one: [one],
    "tuple": lambda one: (one,),
    "dict": lambda one: {"image": one},
    "ordered dict": lambda one: OrderedDict(image=one),
    "named tuple": Named,
    "deque": lambda one: deque([one]),
    "nested": lambda one: {"image": [one]},
    "combined, sequential": lambda one: pytorch_lightning.utilities.CombinedLoader([one], "sequential"),
    "combined dict, sequential": lambda one: pytorch_lightning.utilities.CombinedLoader(
        {"image": one}, "sequential"
    ),
    "combined, at once": lambda one: pytorch_lightning.utilities.CombinedLoader([one], "min_size"),
    "combined dict, at once": lambda one: pytorch_lightning.utilities.CombinedLoader(
        {"image": one}, "max_size"
    ),
}


class EitherBatch(Several):
    """A batch as the dataloader delivers it (a dict of images and labels), or the same in a list or dict."""

    def loss(self, batch: Any) -> Tensor:
        is_one = "label" in batch if isinstance(batch, dict) else isinstance(batch[0], Tensor)
        return Toy.loss(self, batch if is_one else next(iter(_values(batch))))


def _values(batch: Any) -> Any:
    return batch.values() if isinstance(batch, dict) else batch


def dicts() -> DataLoader[Any]:
    """Batches that are mappings, of which one key is also that of the container."""
    return DataLoader(
        Recast(lambda image, label, mask: {"image": image, "label": label, "mask": mask}), batch_size=8
    )


@pytest.mark.parametrize("container", CONTAINERS)
def test_one_loader_in_a_container_is_that_loader(tmp_path: Path, container: str) -> None:
    monitor = SaliencyMonitor(num_samples=4)

    images = kept(tmp_path, monitor, CONTAINERS[container](dicts()), EitherBatch(), max_epochs=1)

    assert len(monitor.history) == 1
    assert torch.equal(images, toy_samples(24)[0][:4])
    assert monitor.last_record.batch.labels.tolist() == [0, 1, 2, 3]
    assert "energy" in monitor.history[0]


@pytest.mark.parametrize("container", ["list", "dict", "combined, sequential", "combined dict, at once"])
def test_an_evaluation_takes_one_loader_in_a_container(tmp_path: Path, container: str) -> None:
    evaluation = SaliencyEvaluation(scores=["energy"], resamples=20, on_error="raise", directory=tmp_path)

    toy_trainer(tmp_path, evaluation).test(EitherBatch(), CONTAINERS[container](dicts()), verbose=False)

    assert evaluation.result.facts.samples == 24
    assert evaluation.result.rows[0].score == "energy"


class Fetches(Toy):
    """Its steps take the batches out of the iterator themselves."""

    def validation_step(self, dataloader_iter: Any) -> None:  # type: ignore[override]
        batch, _, _ = next(dataloader_iter)
        self.loss(batch)

    def test_step(self, dataloader_iter: Any) -> None:  # type: ignore[override]
        self.validation_step(dataloader_iter)


@pytest.mark.parametrize("batch_size", [8, 24])
def test_a_step_that_fetches_its_batches(tmp_path: Path, batch_size: int) -> None:
    """Its hooks before the step are called with the batch before: the last one, or the only one, would be missed."""
    monitor = SaliencyMonitor(num_samples=24)
    images = kept(tmp_path, monitor, toy_loader(batch_size=batch_size), Fetches())
    evaluation = SaliencyEvaluation(scores=["energy"], resamples=20, on_error="raise", directory=tmp_path)
    toy_trainer(tmp_path, evaluation).test(Fetches(), [toy_loader(batch_size=batch_size)], verbose=False)

    assert torch.equal(images, toy_samples(24)[0])
    assert len(monitor.history) == 2
    assert evaluation.result.facts.samples == 24


class Reloads(Toy):
    """Its validation dataloaders are other ones in each epoch."""

    def __init__(self, *epochs: Any) -> None:
        super().__init__()
        self.epochs = epochs

    def val_dataloader(self) -> Any:
        return self.epochs[min(self.trainer.current_epoch, len(self.epochs) - 1)]


def reloaded(root: Path, monitor: SaliencyMonitor, module: Reloads, **options: Any) -> None:
    trainer = toy_trainer(root, monitor, reload_dataloaders_every_n_epochs=1, max_epochs=3, **options)
    trainer.fit(module, toy_loader(32))


@pytest.mark.parametrize("sanity", [2, 0], ids=["sanity check", "no sanity check"])
def test_loaders_that_become_more_between_epochs(tmp_path: Path, sanity: int) -> None:
    first, second = loaders()
    monitor = SaliencyMonitor(num_samples=4)

    reloaded(tmp_path, monitor, Reloads(first, [first], [first, second]), num_sanity_val_steps=sanity)

    assert len(monitor.history) == 3
    assert torch.equal(monitor.last_record.batch.images, toy_samples(FIRST)[0][:4])


@pytest.mark.parametrize("sanity", [2, 0], ids=["sanity check", "no sanity check"])
def test_a_loader_that_comes_in_a_later_epoch_is_waited_for(tmp_path: Path, sanity: int) -> None:
    first, second = loaders()
    monitor = SaliencyMonitor(num_samples=4, dataloader_idx=1)

    with listening() as said:
        reloaded(tmp_path, monitor, Reloads(first, [first, second]), num_sanity_val_steps=sanity)

    assert [row["epoch"] for row in monitor.history] == [1, 2]
    assert torch.equal(monitor.last_record.batch.images, toy_samples(SECOND, seed=1)[0][:4])
    (told,) = [each for each in said if "`dataloader_idx` is 1" in each]
    assert "there are 1 validation dataloaders so far" in told
    assert "the looks begin when it is there" in told


def test_a_loader_that_grows_keeps_its_samples(tmp_path: Path) -> None:
    monitor = SaliencyMonitor(num_samples=4)

    reloaded(tmp_path, monitor, Reloads(toy_loader(8), toy_loader(24), toy_loader(40)))

    assert len(monitor.history) == 3
    assert torch.equal(monitor.last_record.batch.images, toy_samples(8)[0][:4])


def test_a_validation_behind_a_fit_has_loaders_of_its_own(tmp_path: Path) -> None:
    """`trainer.val_dataloaders` are still those of the fit."""
    monitor = SaliencyMonitor(num_samples=4, dataloader_idx=1)
    trainer = toy_trainer(tmp_path, max_epochs=1)
    trainer.fit(Toy(), toy_loader(32), toy_loader())
    trainer.callbacks.append(monitor)

    combined = pytorch_lightning.utilities.CombinedLoader(loaders(), "min_size")
    trainer.validate(Several(), combined, verbose=False)

    assert torch.equal(monitor.last_record.batch.images, toy_samples(SECOND, seed=1)[0][:4])


def test_parts_are_found_in_any_structure() -> None:
    structure = {"a": [range(2), range(3)], "b": (range(4),)}
    batch = {"a": ["first", "second"], "b": ("third",)}

    assert number_of(structure) == 3
    assert [part_of(batch, 0, index, structure) for index in range(3)] == ["first", "second", "third"]
    assert [part_of(batch, 2, index, structure) for index in range(3)] == [None, "second", "third"]
    assert part_of(batch, 0, 3, structure) is None
    assert part_of("batch", 9, 0, Stream()) == "batch"
    with pytest.raises(InputError, match="`dataloader_idx` is 3, but there are 3 test dataloaders"):
        check_index(3, structure, "test")
