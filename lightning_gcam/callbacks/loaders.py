"""Which of several validation dataloaders the samples come from, and what of a batch is its part.

`CombinedLoader` in the mode "sequential", which is what Lightning makes of several validation dataloaders, delivers one
after the other and says which; in its other modes it delivers a batch of each at once, and says nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lightning_gcam._errors import InputError
from lightning_gcam._lightning import Trainer


def loaders_of(trainer: Trainer) -> Any:
    """The dataloaders of the loop that runs: one, or a list, tuple or dict of them, as the user gave them."""
    return trainer.test_dataloaders if trainer.testing else trainer.val_dataloaders


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
    loader, part = list(_pairs(loaders, batch))[index]
    has_ended = hasattr(loader, "__len__") and batch_idx >= _length(loader)
    return None if has_ended else part


def _pairs(loaders: Any, batch: Any) -> Iterator[tuple[Any, Any]]:
    """Each dataloader with its part of the batch."""
    if isinstance(loaders, Mapping):
        for key, loader in loaders.items():
            yield from _pairs(loader, batch[key])
    elif isinstance(loaders, (list, tuple)):
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
