"""Random generators that a module holds, read and put back: those of torch, numpy and python."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch

Restore = Callable[[], None]


def generators_in(values: Iterable[Any]) -> list[Restore]:
    """What gives each generator among the values its state of now back.

    Args:
        values: generators are looked for among them, in lists, tuples, sets and dicts, and in the attributes of other
            objects (a pipeline of augmentations, say), one level deep.

    Example:
        >>> generator = random.Random(0)
        >>> (restore,) = generators_in([[generator]])
        >>> first = generator.random()
        >>> restore()
        >>> generator.random() == first
        True
    """
    seen: dict[int, Any] = {}
    for value in values:
        for each in (value, *_inside(value)):
            if type(each) not in _PLAIN and isinstance(each, _KINDS):
                seen[id(each)] = each
    return [restore for each in seen.values() if (restore := _restoring(each)) is not None]


_KINDS = (torch.Generator, np.random.Generator, np.random.RandomState, np.random.BitGenerator, random.Random)
_PLAIN = frozenset({type(None), bool, int, float, complex, str, bytes, torch.Tensor, torch.nn.Parameter})
"""Types that are passed over at once: an instance check against a class of torch is slow, and modules hold many."""


def _inside(value: Any) -> Iterable[Any]:
    if type(value) in _PLAIN:
        return ()
    if isinstance(value, dict):
        return list(value.values())
    if isinstance(value, (list, tuple, set, frozenset)):
        return list(value)
    if isinstance(value, (torch.Tensor, torch.nn.Module, type)):
        return ()  # its modules are looked at themselves
    return list(getattr(value, "__dict__", {}).values())


def _restoring(generator: Any) -> Restore | None:
    """None for one that has no state, as that of the operating system."""
    if isinstance(generator, torch.Generator):
        return _later(generator.set_state, generator.get_state())
    if isinstance(generator, np.random.Generator):
        generator = generator.bit_generator
    if isinstance(generator, np.random.BitGenerator):
        return _later(lambda state: setattr(generator, "state", state), generator.state)
    if isinstance(generator, np.random.RandomState):
        return _later(generator.set_state, generator.get_state())
    try:
        return _later(generator.setstate, generator.getstate())
    except NotImplementedError:
        return None


def _later(function: Callable[[Any], Any], state: Any) -> Restore:
    return lambda: function(state)
