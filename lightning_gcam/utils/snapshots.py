"""Restoring what a forward itself changes: parameters that it writes on, generators that it draws from."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import TorchDispatchMode

Restore = Callable[[], None]


def generator_restorers(values: Iterable[Any]) -> list[Restore]:
    """Functions that restore the present state of each random generator among some values.

    Args:
        values: generators are looked for among them, in lists, tuples, sets and dicts, and in the attributes of other
            objects (a pipeline of augmentations, say), one level deep.

    Example:
        >>> generator = random.Random(0)
        >>> (restore,) = generator_restorers([[generator]])
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
    """The items of a container, or the attributes of another object; nothing of tensors, modules and plain values."""
    if type(value) in _PLAIN:
        return ()
    if isinstance(value, dict):
        return list(value.values())
    if isinstance(value, (list, tuple, set, frozenset)):
        return list(value)
    if isinstance(value, (torch.Tensor, torch.nn.Module, type)):
        return ()  # its modules are among the values themselves
    return list(getattr(value, "__dict__", {}).values())


def _restoring(generator: Any) -> Restore | None:
    """A function that restores the state of a generator; None for one without a state, such as the system's."""
    if isinstance(generator, torch.Generator):
        return _bound(generator.set_state, generator.get_state())
    if isinstance(generator, np.random.Generator):
        generator = generator.bit_generator
    if isinstance(generator, np.random.BitGenerator):
        return _bound(lambda state: setattr(generator, "state", state), generator.state)
    if isinstance(generator, np.random.RandomState):
        return _bound(generator.set_state, generator.get_state())
    try:
        return _bound(generator.setstate, generator.getstate())
    except NotImplementedError:
        return None


def _bound(function: Callable[[Any], Any], state: Any) -> Restore:
    """A function without arguments that calls `function(state)`."""
    return lambda: function(state)


@contextmanager
def parameters_restored(parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """Restore the values, the memory, `requires_grad` and `.grad` of parameters when the block ends.

    A copy of all parameters at each look would take as much memory as the network. Only what is written on is copied,
    just before it is: a dispatch mode intercepts every operation that writes, through `.data` and views of it, too.

    Args:
        parameters: those of a module; shapes that are still to be found and sharded ones are left alone.

    Example:
        >>> layer = nn.Linear(1, 1)
        >>> before = layer.weight.item()
        >>> with parameters_restored(layer.parameters()):
        ...     _ = layer.weight.data.add_(1)
        >>> layer.weight.item() == before
        True
    """
    states = [_ParameterState(each) for each in parameters if _has_memory(each)]
    copies = _CopyOnWrite(
        tensor for state in states for tensor in (state.data, state.grad_data) if tensor is not None
    )
    try:
        with copies if states else nullcontext():
            yield
    finally:
        with torch.no_grad():
            copies.write_back()
        for state in states:
            state.restore()


def same_bits(left: Tensor, right: Tensor) -> bool:
    """Whether two tensors hold the same bits: a NaN equals itself, and 0 is not -0.

    Example:
        >>> same_bits(torch.tensor([0.0]), torch.tensor([-0.0]))
        False
    """
    return left.shape == right.shape and torch.equal(_bytes(left), _bytes(right))


def restore_values(pairs: Sequence[tuple[Tensor, Tensor]]) -> None:
    """Write values back into those tensors whose bits differ; a CUDA device is waited for once, and not for each.

    Args:
        pairs: tensors, and the values that they had. A tensor of another shape takes that of its values.

    Example:
        >>> tensor = torch.ones(2)
        >>> restore_values([(tensor, torch.zeros(2))])
        >>> tensor
        tensor([0., 0.])
    """
    for tensor, values in pairs:
        if tensor.shape != values.shape:
            tensor.resize_(
                values.shape
            )  # observers of quantization-aware training take theirs when they first run
    changed = [pair for pair in pairs if pair[0].device.type == "cpu" and not same_bits(*pair)]
    for device in {tensor.device for tensor, _ in pairs if tensor.device.type != "cpu"}:
        there = [pair for pair in pairs if pair[0].device == device]
        flags = torch.stack([(_bytes(tensor) != _bytes(values)).any() for tensor, values in there])
        changed += [pair for pair, is_other in zip(there, flags.tolist(), strict=True) if is_other]
    for tensor, values in changed:
        tensor.copy_(values)


def _bytes(tensor: Tensor) -> Tensor:
    """The memory of a tensor as a row of uint8."""
    return tensor.detach().reshape(-1).view(torch.uint8)


def _has_memory(parameter: Tensor) -> bool:
    """Whether a tensor has memory of its own; a lazy one has none yet, and some of torch's subclasses hold others."""
    if is_lazy(parameter) or parameter.layout is not torch.strided:
        return False
    try:
        parameter.untyped_storage()
    except (NotImplementedError, RuntimeError):
        return False
    return True


class _ParameterState:
    """The memory, the flag and the gradient that a parameter has now.

    `.data` shares the memory and not the count of versions: restoring it breaks no graph of the training.
    """

    def __init__(self, parameter: nn.Parameter) -> None:
        self.parameter = parameter
        self.data = parameter.data
        self.requires_grad = parameter.requires_grad
        self.grad = parameter.grad
        self.grad_data = self.grad.data if self.grad is not None and _has_memory(self.grad) else None

    def restore(self) -> None:
        """Give the parameter its memory, its flag and its gradient back, where they are other ones."""
        if not _is_same_memory(self.parameter, self.data):
            self.parameter.data = self.data
        if self.parameter.requires_grad != self.requires_grad:
            self.parameter.requires_grad_(self.requires_grad)
        if self.parameter.grad is not self.grad:
            self.parameter.grad = self.grad


def _is_same_memory(left: Tensor, right: Tensor) -> bool:
    """Whether two tensors are the same view of the same memory."""
    return (left.data_ptr(), left.shape, left.stride(), left.dtype, left.device) == (
        *(right.data_ptr(), right.shape, right.stride()),
        *(right.dtype, right.device),
    )


class _CopyOnWrite(TorchDispatchMode):
    """Copies the values of some tensors just before an operation writes on their memory."""

    supports_higher_order_operators = True

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it without types
        self._uncopied: dict[int, list[Tensor]] = {}
        self._copies: list[tuple[Tensor, Tensor]] = []
        for each in tensors:
            self._uncopied.setdefault(_storage_id(each), []).append(each)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        for index, name in _written_arguments(func):
            value = args[index] if index < len(args) else kwargs.get(name)
            for each in value if isinstance(value, (list, tuple)) else (value,):
                if isinstance(each, Tensor):
                    self._copy(each)
        return func(*args, **kwargs)

    def _copy(self, written: Tensor) -> None:
        """Copy those tensors that share the memory of one that is about to be written on."""
        for each in self._uncopied.pop(_storage_id(written), []):
            self._copies.append((each, each.clone()))

    def write_back(self) -> None:
        """Write the copies back where the values differ from them."""
        restore_values(self._copies)


def _storage_id(tensor: Tensor) -> int:
    """A number for the memory that a tensor and its views share; 0 for what has none."""
    try:
        return int(tensor.untyped_storage()._cdata)
    except (NotImplementedError, RuntimeError):
        return 0


@cache
def _written_arguments(func: Callable[..., Any]) -> tuple[tuple[int, str], ...]:
    """The position and the name of each argument that an operation of torch writes on."""
    schema = getattr(func, "_schema", None)
    if schema is None or not schema.is_mutable:
        return ()
    return tuple(
        (index, argument.name)
        for index, argument in enumerate(schema.arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
    )
