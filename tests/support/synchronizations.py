"""Where a program would wait for a CUDA device, counted without one.

Tensors of the class `OnDevice` claim to lie on another device ("meta", the only one that every torch has beside the
CPU) and hold their values on the host. Everything computed from them is one of them again, until it is copied to the
CPU. So it is known of every operation whether a device would have been involved, and those that make the host wait for
it are written down with the line of the package that called them: values that are read (`item`, `tolist`, `if tensor`),
results whose size depends on values (`nonzero`, an index by a bool mask, `unique`), and copies between host and device.
An operation on both, which CUDA refuses, is refused here, too.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

import lightning_gcam
from lightning_gcam.utils import transfer

DEVICE = torch.device("meta")
PACKAGE = Path(lightning_gcam.__file__).parent
aten = torch.ops.aten

WAITING = {
    "_local_scalar_dense": "a value is read",
    "is_nonzero": "a value is read",
    "equal": "a value is read",
    "nonzero": "a size depends on values",
    "masked_select": "a size depends on values",
    "_unique": "a size depends on values",
    "_unique2": "a size depends on values",
    "unique_dim": "a size depends on values",
    "unique_consecutive": "a size depends on values",
    "unique_dim_consecutive": "a size depends on values",
    "bincount": "a size depends on values",
}
TO_HOST, TO_DEVICE = "a copy to the host", "a copy to the device"


class OnDevice(Tensor):
    """A tensor that claims to lie on the device; `values` is what it holds, on the host."""

    values: Tensor

    @staticmethod
    def __new__(cls, values: Tensor) -> OnDevice:
        made: OnDevice = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            values.shape,
            strides=values.stride(),
            storage_offset=values.storage_offset(),
            dtype=values.dtype,
            device=DEVICE,
            requires_grad=values.requires_grad,
        )
        made.values = values.detach()
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {}, lambda _: None)


def _run(func: Any, args: Any, kwargs: dict[str, Any], wait: Callable[[str], None]) -> Any:
    """An operation on the values; its result lies where torch would put it."""
    given = [each for each in tree_flatten((args, kwargs))[0] if isinstance(each, Tensor)]
    wrapped = {id(each.values): each for each in given if isinstance(each, OnDevice)}
    on_host = [each for each in given if not isinstance(each, OnDevice)]
    target = kwargs.get("device")
    stays = bool(wrapped) if target is None else torch.device(target) == DEVICE
    name = func.overloadpacket.__name__
    if why := _why_it_waits(name, args, kwargs, stays, bool(wrapped)):
        wait(f"{why}: {name}")
    if wrapped and any(each.ndim > 0 for each in on_host) and name not in _TAKE_BOTH:
        raise RuntimeError(f"aten::{name}: tensors on the host and on the device, which CUDA refuses.")
    if name == "copy_":
        stays = isinstance(args[0], OnDevice)
    if target is not None and stays:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    result = func(*tree_map(_values, args), **tree_map(_values, kwargs))

    def back(value: Any) -> Any:
        if not isinstance(value, Tensor) or not stays:
            return value
        return wrapped.get(id(value)) if id(value) in wrapped else OnDevice(value)

    return tree_map(back, result)


_TAKE_BOTH = {"copy_", "_to_copy", "index", "index_put", "index_put_", "_index_put_impl_"}


def _why_it_waits(
    name: str, args: Any, kwargs: dict[str, Any], stays: bool, is_on_device: bool
) -> str | None:
    """Why the host waits at an operation, in words; None where it goes on."""
    if name == "_to_copy":
        crosses = is_on_device != stays and not kwargs.get("non_blocking", False)
        return (TO_DEVICE if stays else TO_HOST) if crosses else None
    if not is_on_device:
        return None
    if name == "copy_":
        both, non_blocking = [isinstance(each, OnDevice) for each in args[:2]], (*args[2:], False)[0]
        crosses = both[0] != both[1] and not (non_blocking or kwargs.get("non_blocking", False))
        return (TO_DEVICE if both[0] else TO_HOST) if crosses else None
    if name == "repeat_interleave":
        return None if kwargs.get("output_size") is not None else "a size depends on values"
    if name in ("index", "index_put", "index_put_", "_index_put_impl_"):
        return _why_an_index_waits(args)
    return WAITING.get(name)


def _why_an_index_waits(args: Any) -> str | None:
    """As above, for an index by tensors: a bool mask is searched, unless one number is written at all its places."""
    indices = [each for each in args[1] if each is not None]
    if any(each.dtype in (torch.bool, torch.uint8) for each in indices):
        fills = len(args) > 2 and len(indices) == 1 and args[2].numel() == 1
        return None if fills and not isinstance(args[2], OnDevice) else "a size depends on values"
    return None if all(isinstance(each, OnDevice) for each in indices) else TO_DEVICE


def _values(value: Any) -> Any:
    return value.values if isinstance(value, OnDevice) else value


class _Functions(TorchFunctionMode):
    """Values that come from Python: torch would leave them out of a tensor on "meta"."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in (torch.tensor, torch.as_tensor, torch.asarray) and kwargs.get("device") is not None:
            device = kwargs.pop("device")
            return func(*args, **kwargs).to(device)
        if func is Tensor.new_tensor and isinstance(args[0], OnDevice):
            return torch.tensor(*args[1:], **{"dtype": args[0].dtype, **kwargs}).to(DEVICE)
        if func is Tensor.tolist and isinstance(args[0], OnDevice):
            return args[0].to("cpu").tolist()
        if func in (Tensor.__getitem__, Tensor.__setitem__) and isinstance(args[0], OnDevice):
            value = (_as_number(args[2], args[0]),) if len(args) > 2 else ()
            args = (args[0], tree_map(_as_index, args[1], is_leaf=_is_list), *value)
        return func(*args, **kwargs)


def _is_list(value: Any) -> bool:
    return isinstance(value, list)


def _as_index(value: Any) -> Any:
    return torch.tensor(value) if isinstance(value, list) else value


def _as_number(value: Any, like: Tensor) -> Any:
    """A number that is written into a part of a CUDA tensor is handed over as a tensor on the host."""
    return torch.tensor(value, dtype=like.dtype) if isinstance(value, (bool, int, float)) else value


class Synchronizations(TorchDispatchMode):
    """Counts, by the line of the package and by the reason, how often the host would wait for the device."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[tuple[str, str]] = Counter()

    @property
    def total(self) -> int:
        """How often the host would wait in all."""
        return sum(self.found.values())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {}, lambda why: self.found.update([(_line(), why)]))

    def table(self) -> str:
        """One line for each place and reason, the most frequent first."""
        rows = sorted(self.found.items(), key=lambda item: (-item[1], item[0]))
        return "\n".join(f"{count:5d}  {line}  ({why})" for (line, why), count in rows)


def _line() -> str:
    """The line of the package that called, the innermost one beside copies: `room/file.py:12 function`."""
    frame: Any = sys._getframe(2)
    while frame is not None and not _is_of_package(frame.f_code):
        frame = frame.f_back
    if frame is None:
        return "outside of the package"
    path = Path(frame.f_code.co_filename).relative_to(PACKAGE)
    return f"{path}:{frame.f_lineno} {frame.f_code.co_name}"


def _is_of_package(code: Any) -> bool:
    """Whether code is the package's, and no mode of it that every operation passes through."""
    is_own = code.co_filename.startswith(str(PACKAGE)) and code.co_filename != transfer.__file__
    return is_own and code.co_name != "__torch_dispatch__"


def to_device(value: Any) -> Any:
    """The same on the device: a tensor, a module (in place), or whatever has a `map_tensors`."""
    if isinstance(value, nn.Module):
        for module in value.modules():
            for name, parameter in module._parameters.items():
                if parameter is not None:
                    module._parameters[name] = nn.Parameter(OnDevice(parameter), parameter.requires_grad)
            for name, buffer in module._buffers.items():
                if buffer is not None:
                    module._buffers[name] = OnDevice(buffer)
        return value
    return OnDevice(value) if isinstance(value, Tensor) else value.map_tensors(OnDevice)


def to_host(tensor: Tensor) -> Tensor:
    """The values of a tensor on the device, without counting."""
    return _values(tensor)


@contextmanager
def synchronizations() -> Iterator[Synchronizations]:
    """Count inside; everything that shall lie on the device has to be put there by `to_device`."""

    def on_host(function: Any) -> Any:
        return lambda kind, *args, **kwargs: function("cpu" if kind == DEVICE.type else kind, *args, **kwargs)

    with ExitStack() as stack:
        for name in ("autocast", "get_autocast_dtype", "is_autocast_enabled"):
            stack.enter_context(mock.patch.object(torch, name, on_host(getattr(torch, name))))
        stack.enter_context(_Functions())
        counted = stack.enter_context(Synchronizations())
        for name, stand_in in _copies(counted).items():
            stack.enter_context(mock.patch.object(transfer, name, stand_in))
        yield counted


def _copies(counted: Synchronizations) -> dict[str, Any]:
    """The parts of `transfer` that only CUDA has: queued copies, and one wait for all of them."""
    return {
        "ASYNCHRONOUS": frozenset({DEVICE.type}),
        "_queued_copy": lambda tensor: tensor.detach().to("cpu", non_blocking=True),
        "_wait_for": lambda _: counted.found.update([(_line(), "copies to the host, all at once")]),
        "_pinned": lambda tensor: tensor,
    }
