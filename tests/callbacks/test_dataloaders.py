"""Several validation dataloaders, one after the other or all at once: the samples come from one of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch
import pytest
import pytorch_lightning
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from lightning_gcam import SaliencyMonitor
from lightning_gcam._errors import InputError
from lightning_gcam.callbacks.loaders import check_index, number_of, part_of
from tests.toys import LIGHTNING_SAYS, Toy, listening, toy_loader, toy_of, toy_samples, toy_trainer

pytestmark = [*LIGHTNING_SAYS, pytest.mark.filterwarnings("ignore:You are using an experimental feature")]

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
    monitor = SaliencyMonitor(num_samples=4, dataloader_idx=1)
    first, second = loaders()

    toy_trainer(tmp_path, monitor).fit(Toy(), toy_loader(32), [first, second])
    toy_trainer(tmp_path, monitor).fit(Toy(), toy_loader(32), [toy_loader(FIRST, seed=7), second])

    assert len(monitor.history) == 4
    with pytest.warns(UserWarning, match="The validation data changed since the samples were taken"):
        toy_trainer(tmp_path, monitor).fit(Toy(), toy_loader(32), [first, toy_loader(SECOND, seed=7)])


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


def test_parts_are_found_in_any_structure() -> None:
    structure = {"a": [range(2), range(3)], "b": (range(4),)}
    batch = {"a": ["first", "second"], "b": ("third",)}

    assert number_of(structure) == 3
    assert [part_of(batch, 0, index, structure) for index in range(3)] == ["first", "second", "third"]
    assert [part_of(batch, 2, index, structure) for index in range(3)] == [None, "second", "third"]
    assert part_of("batch", 9, 0, Stream()) == "batch"
    with pytest.raises(InputError, match="`dataloader_idx` is 3, but there are 3 test dataloaders"):
        check_index(3, structure, "test")
