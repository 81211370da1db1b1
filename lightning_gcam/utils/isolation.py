"""Context managers around a look: model and random streams stay exactly as they were, and torch runs eagerly."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
import torch.utils.checkpoint
from torch import Tensor, nn

from lightning_gcam.utils.snapshots import generator_restorers, parameters_restored, restore_values


@contextmanager
def untouched(module: nn.Module) -> Iterator[None]:
    """Run `module` in eval mode and put back all that a forward can change, also after an exception.

    Put back: the random streams of python, numpy, torch and every initialised device; each submodule's `training`
    flag; each buffer's values; plain attributes (a counter, a cache that the forward builds), the generators among
    them, and hooks; parameters that the forward itself writes on, and their gradients (nothing in this package does);
    the module's `log`, which is silent inside.

    Args:
        module: the model, its submodules included. It is in eval mode inside, whatever mode it was in before.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout(0.5)).train()
        >>> with untouched(model):
        ...     model.training, torch.rand(1).numel()
        (False, 1)
        >>> model.training
        True
    """
    with ExitStack() as stack:
        stack.enter_context(same_random_streams())
        stack.enter_context(_generators(module))
        stack.enter_context(_attributes(module))
        stack.enter_context(_training_flags(module))
        stack.enter_context(_buffers(module))
        stack.enter_context(_silenced_log(module))
        stack.enter_context(_parameters(module))  # last: it intercepts every operation inside of it
        yield


@contextmanager
def same_random_streams() -> Iterator[None]:
    """Leave the random streams of python, numpy, torch and the accelerators as they were, whatever the body draws.

    Example:
        >>> with same_random_streams():
        ...     drawn = torch.rand(1)
        >>> bool(torch.rand(1) == drawn)
        True
    """
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    devices = [(restore, read()) for read, restore in _device_streams()]
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(cpu)
        for restore, state in devices:
            restore(state)


def _device_streams() -> list[tuple[Callable[[], Any], Callable[[Any], None]]]:
    """The functions that read and restore the random streams of the accelerators in use; none is initialised here."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return [(torch.cuda.get_rng_state_all, torch.cuda.set_rng_state_all)]
    if torch.backends.mps.is_available():
        return [(torch.mps.get_rng_state, torch.mps.set_rng_state)]
    return []


@contextmanager
def _training_flags(module: nn.Module) -> Iterator[None]:
    """Put every submodule in eval mode, and restore its flag.

    Flag by flag, as attributes: `.train()` would un-freeze a frozen BatchNorm and may run a user's override.
    """
    flags = [(each, each.training) for each in module.modules()]
    try:
        for each, _ in flags:
            each.training = False
        yield
    finally:
        for each, flag in flags:
            each.training = flag


@contextmanager
def _buffers(module: nn.Module) -> Iterator[None]:
    """Restore buffers that a forward in eval mode wrote, replaced or added; untouched ones are not written."""
    registered = [(owner, dict(owner._buffers.items())) for owner in module.modules()]
    saved = [
        (owner, name, buffer, buffer.detach().clone())
        for owner in module.modules()
        for name, buffer in owner._buffers.items()
        if buffer is not None
    ]
    try:
        yield
    finally:
        with torch.no_grad():
            restore_values([(buffer, values) for _, _, buffer, values in saved])
            for owner, name, buffer, _ in saved:
                if getattr(owner, name, None) is not buffer:
                    owner._buffers[name] = buffer
        for owner, before in registered:
            _remove_new_buffers(owner, before)


def _remove_new_buffers(owner: nn.Module, before: dict[str, Tensor | None]) -> None:
    """Remove the buffers that our forward was the first to build; see `_attributes`."""
    for name, buffer in list(owner._buffers.items()):
        if name not in before:
            del owner._buffers[name]
        elif before[name] is None and buffer is not None:
            owner._buffers[name] = None


@contextmanager
def _parameters(module: nn.Module) -> Iterator[None]:
    """Restore parameters that a forward writes on, in eval mode too: a norm that is kept, weights tied by a copy.

    Sharded ones are gathered and freed again by every forward, and are left alone.
    """
    with parameters_restored([] if is_sharded(module) else module.parameters()):
        yield


@contextmanager
def _generators(module: nn.Module) -> Iterator[None]:
    """Restore the random generators that the module itself holds in its attributes."""
    restores = generator_restorers(
        [value for each in module.modules() for value in _own_attributes(vars(each))]
    )
    try:
        yield
    finally:
        for restore in restores:
            restore()


@contextmanager
def _attributes(module: nn.Module) -> Iterator[None]:
    """Restore attributes that a forward writes: a count of its calls, folded weights, a table that it builds once.

    A cache that our forward was the first to build would hold what the training would have built later, or from other
    images. All are restored together, one level deep, so that no flag marks as built what was removed. Sharded modules
    keep their own state in attributes and are left alone.
    """
    modules = [] if is_sharded(module) else list(module.modules())
    owners = [(each, type(each), _plain_attributes(vars(each))) for each in modules]
    values = [value for _, _, notes in owners for value in notes.values()]
    values += [hooks for each in modules for hooks in _hook_tables(each)]
    containers = [(each, _contents(each)) for each in values if isinstance(each, (dict, list, set, deque))]
    arrays = [(each, each.copy()) for each in values if type(each) is np.ndarray and each.flags.writeable]
    tensors = [
        (each, each.detach().clone())
        for each in values
        if type(each) is Tensor and each.layout is torch.strided
    ]
    try:
        yield
    finally:
        for owner, kind, notes in owners:
            if type(owner) is kind:  # else a lazy module that has just taken its shape
                _restore_attributes(vars(owner), notes)
        for container, contents in containers:
            _restore_contents(container, contents)
        for array, numbers in arrays:
            if array.tobytes() != numbers.tobytes():
                array[...] = numbers
        with torch.no_grad():
            restore_values(tensors)


_OF_TORCH = frozenset(vars(nn.Module()))
_RESTORED_ELSEWHERE = _OF_TORCH - {"_parameters", "_modules"}


def _plain_attributes(attributes: dict[str, Any]) -> dict[str, Any]:
    """All attributes but hooks, parameters, submodules and the silenced `log`, which are restored by themselves."""
    beside = _RESTORED_ELSEWHERE | {"log", "log_dict"}
    return {name: value for name, value in attributes.items() if name not in beside}


def _own_attributes(attributes: dict[str, Any]) -> Iterator[Any]:
    """The values of attributes beyond those that every `nn.Module` has, which are too many to search each time."""
    return (value for name, value in attributes.items() if name not in _OF_TORCH)


def _hook_tables(module: nn.Module) -> list[Any]:
    """The tables of a module's hooks: a forward may add some the first time it runs (as in transformers)."""
    return [table for name, table in vars(module).items() if "hooks" in name and isinstance(table, dict)]


def is_sharded(module: nn.Module) -> bool:
    """Whether this process holds only its share of the parameters (FSDP, `fully_shard`, tensor parallelism).

    Args:
        module: the model; where FSDP wraps it from outside, its parameters show it.

    Example:
        >>> is_sharded(nn.Linear(2, 2))
        False
    """
    of_torch = any(type(each).__module__.startswith("torch.distributed") for each in module.modules())
    return of_torch or any(hasattr(each, "_fsdp_flattened") for each in module.parameters())


def _restore_attributes(attributes: dict[str, Any], notes: dict[str, Any]) -> None:
    """Give a module its attributes back, and remove those that are new."""
    for name in _plain_attributes(attributes).keys() - notes.keys():
        del attributes[name]
    attributes.update(notes)


def _contents(container: Any) -> list[Any]:
    """The items of a container as a list; of a dict, pairs."""
    return list(container.items()) if isinstance(container, dict) else list(container)


def _restore_contents(container: Any, contents: list[Any]) -> None:
    """Give a dict, list, set or deque its contents back, in place, where they differ."""
    now = _contents(container)
    pairs = isinstance(container, dict)
    if len(now) == len(contents) and all(
        _is_same_item(*both, pairs) for both in zip(now, contents, strict=True)
    ):
        return
    container.clear()
    if isinstance(container, (list, deque)):
        container.extend(contents)
    else:
        container.update(contents)


def _is_same_item(left: Any, right: Any, pairs: bool) -> bool:
    return left[0] is right[0] and left[1] is right[1] if pairs else left is right


@contextmanager
def _silenced_log(module: nn.Module) -> Iterator[None]:
    """Replace `log` and `log_dict` of every LightningModule by a function that does nothing: its forward may log."""
    loggers = [each for each in module.modules() if _is_lightning_module(each)]
    names = ("log", "log_dict")
    before: list[dict[str, Any]] = [
        {name: vars(each)[name] for name in names if name in vars(each)} for each in loggers
    ]
    try:
        for each in loggers:
            each.__dict__["log"] = each.__dict__["log_dict"] = _log_nothing
        yield
    finally:
        for each, own in zip(loggers, before, strict=True):
            for name in names:
                each.__dict__.pop(name, None)
            each.__dict__.update(own)


def _is_lightning_module(module: nn.Module) -> bool:
    """Whether a module can log, as a LightningModule does."""
    methods: list[Callable[..., Any] | None] = [
        getattr(type(module), name, None) for name in ("log", "log_dict")
    ]
    return all(callable(method) for method in methods)


def _log_nothing(*_: Any, **__: Any) -> None:
    """Do nothing, in the place of `LightningModule.log` during a look."""


# ---------------------------------------------------------------------- how torch runs inside


@contextmanager
def eager_without_graph() -> Iterator[None]:
    """Run a look eagerly and without a graph: outside of inference mode, of compiled code and of checkpoints.

    Hooks added to a compiled module would not be called, and tensors made in inference mode have no gradient.
    """
    stance = torch.compiler.set_stance("force_eager")
    with (
        stance,
        torch.inference_mode(False),
        torch.no_grad(),
        _without_autocast_cache(),
        without_checkpoints(),
    ):
        yield


@contextmanager
def _without_autocast_cache() -> Iterator[None]:
    """Turn autocast's cache off: weights that it casts without a graph must not reach the training."""
    before = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(before)


@contextmanager
def without_checkpoints() -> Iterator[None]:
    """Make `torch.utils.checkpoint` call its function and do nothing else inside.

    A reentrant checkpoint is none for `torch.autograd.grad`. One that is not would run its part of the network a second
    time in the backward pass, where weights that were replaced for this forward only are gone again.
    """
    module = torch.utils.checkpoint
    with ExitStack() as stack:
        stack.enter_context(
            replaced_attribute(module.CheckpointFunction, "apply", staticmethod(_call_function))
        )
        for name in _GENERATORS:
            if hasattr(module, name):
                stack.enter_context(replaced_attribute(module, name, _yield_once))
        yield


@contextmanager
def replaced_attribute(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Give an attribute another value inside; an inherited one is inherited again behind it."""
    is_own, own = name in vars(owner), vars(owner).get(name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if is_own:
            setattr(owner, name, own)
        else:
            delattr(owner, name)


_GENERATORS = ("_checkpoint_without_reentrant_generator", "_checkpoint_without_reentrant_generator_impl")
"""The generators that torch runs around a checkpoint that is not reentrant, in older and in newer releases."""


def _call_function(function: Callable[..., Any], preserve_rng_state: bool, *inputs: Any) -> Any:
    return function(*inputs)


def _yield_once(*_: Any, **__: Any) -> Iterator[None]:
    yield
