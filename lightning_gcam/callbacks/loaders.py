"""Which of several validation dataloaders the samples come from, and what of a batch is its part.

`CombinedLoader` in the mode "sequential", which is what Lightning makes of whatever a `val_dataloader` returns,
delivers one dataloader after the other, each batch as it came, and says which where there are several; in its other
modes it delivers a batch of each at once, in the structure in which the dataloaders were given, and says nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

from lightning_gcam._errors import InputError
from lightning_gcam._lightning import Trainer


def loaders_of(trainer: Trainer) -> Any:
    """The dataloaders of the loop that runs: one, or a list, tuple or dict of them, as the user gave them.

    `trainer.val_dataloaders` would still be those of the fit in a `trainer.validate` behind it.
    """
    combined = trainer._evaluation_loop._combined_loader
    return combined.iterables if combined is not None else None


def delivered_by(
    trainer: Trainer, batch: Any, batch_idx: int, dataloader_idx: int | None, index: int
) -> Any | None:
    """What the dataloader `index` delivered, of the arguments of a batch's hook; None where it delivered nothing.

    Args:
        trainer: knows the dataloaders.
        batch: of one dataloader, or of all at once.
        batch_idx: as Lightning gives it.
        dataloader_idx: as Lightning gives it; None where there is one, or all deliver at once.
        index: of the dataloader, counted from 0 in the order in which they are named.
    """
    if dataloader_idx is None and not trainer._evaluation_loop._is_sequential:
        return part_of(batch, batch_idx, index, loaders_of(trainer))
    return batch if (dataloader_idx or 0) == index else None


def steps_fetch_batches(trainer: Trainer) -> bool:
    """Whether the module's own step takes the batches out of a `dataloader_iter`.

    Then a hook before the step is called with the batch of the step before, and only the one behind it with its own.
    """
    return type(trainer._evaluation_loop._data_fetcher).__name__ == "_DataLoaderIterDataFetcher"


def number_of(loaders: Any) -> int:
    """How many dataloaders there are.

    Example:
        >>> number_of({"clean": range(3), "noisy": [range(3), range(4)]})
        3
    """
    return len(list(_pairs(loaders, loaders)))


def check_index(index: int, loaders: Any, kind: str = "validation") -> None:
    """Refuse the index of a dataloader that there is not.

    Raises:
        InputError: saying how many there are.
    """
    count = number_of(loaders)
    if index >= count:
        raise InputError(
            f"`dataloader_idx` is {index}, but there {'is' if count == 1 else 'are'} {count} {kind} "
            f"dataloader{'' if count == 1 else 's'}. Give a number from 0 to {count - 1}."
        )


def part_of(batch: Any, batch_idx: int, index: int, loaders: Any) -> Any | None:
    """What the dataloader `index` delivered, of a batch that holds a part of each; None where it has no more.

    Args:
        batch: as the combined dataloaders deliver it: in the structure of `loaders`.
        batch_idx: how many came before it; a shorter dataloader may begin again (the mode "max_size_cycle").
        index: of the dataloader, in the order in which they are named.
        loaders: the dataloaders.

    Example:
        >>> part_of({"clean": "a", "noisy": "b"}, 0, 1, {"clean": range(3), "noisy": range(3)})
        'b'
    """
    pairs = list(_pairs(loaders, batch))
    if index >= len(pairs):
        return None
    loader, part = pairs[index]
    has_ended = hasattr(loader, "__len__") and batch_idx >= _length(loader)
    return None if has_ended else part


def _pairs(loaders: Any, batch: Any) -> Iterator[tuple[Any, Any]]:
    """Each dataloader with its part of the batch."""
    if isinstance(loaders, Mapping):
        for key, loader in loaders.items():
            yield from _pairs(loader, batch[key])
    elif isinstance(loaders, (list, tuple, deque)):
        for loader, part in zip(loaders, batch, strict=True):
            yield from _pairs(loader, part)
    else:
        yield loaders, batch


def _length(loader: Any) -> float:
    """How many batches a dataloader has; one over an iterable dataset does not know."""
    try:
        return len(loader)
    except TypeError:
        return float("inf")
