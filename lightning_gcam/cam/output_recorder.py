"""The outputs of all submodules in one forward that may be grids over the image, each with its layout if known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from lightning_gcam.cam.layouts import (
    Layout,
    Reshape,
    declares_channels_first,
    find_layout,
    main_tensor,
    only_channels_first,
    with_main_tensor,
)
from lightning_gcam.cam.readings import readings
from lightning_gcam.cam.suitability import only_passes_on
from lightning_gcam.utils.dimensions import size_of


@dataclass(frozen=True)
class LayerOutput:
    """What one call of a submodule returned, and its layout as far as its shape and kind determine it."""

    name: str
    module: nn.Module
    tensor: Tensor
    layout: Layout | None
    call: int
    is_declared: bool
    """Whether a convolution, a pool or a norm gave something of this shape."""


@dataclass
class OutputRecorder:
    """Collects the outputs that may be grids, in the order in which the submodules finish.

    Args:
        images: that the model runs on.
        reshape: as in `probe_layers`.
        start: the number of the first output that is collected; None for none.
    """

    images: Tensor
    reshape: Reshape | None
    start: int | None
    sizes: list[int] = field(default_factory=list)
    outputs: list[LayerOutput] = field(default_factory=list)
    lengths: set[int] = field(default_factory=set)
    declared: set[torch.Size] = field(default_factory=set)
    calls: Counter[nn.Module] = field(default_factory=Counter)

    @property
    def has_started(self) -> bool:
        """Whether the last output that finished is one to collect."""
        return self.start is not None and len(self.sizes) > self.start

    def declare(self, module: nn.Module, output: Any) -> None:
        """Remember the shape of what a convolution, a pool or a norm returned: other outputs of it have its layout."""
        tensor = main_tensor(output)
        if tensor is not None and self.reshape is None and declares_channels_first(module):
            self.declared.add(tensor.shape)

    def keep(self, name: str, module: nn.Module, output: Any) -> Any:
        """Collect the output, and return a copy of it to the network, as `capture` does.

        Only later modules use the copy. A network that returns its features, and also what it pooled from them, would
        otherwise give a score that does not depend on the features.
        """
        self.declare(module, output)
        tensor = main_tensor(output)
        if tensor is None or not tensor.is_floating_point():
            return output
        call = self.calls[module]
        self.calls[module] += 1
        self.sizes.append(tensor.numel())
        if not self.has_started:
            return output
        layout = self._layout(tensor, module)
        if (layout is None and not self._may_be_grid(tensor)) or self._is_attention(tensor):
            return output
        if layout is not None and layout.kind.startswith("tokens"):
            self.lengths.add(tensor.shape[1 - layout.batch])
        torch.set_grad_enabled(True)
        if self.start and not self.outputs and not tensor.requires_grad:
            tensor = tensor.detach().requires_grad_()
        collected = tensor.view_as(tensor)
        self.outputs.append(LayerOutput(name, module, collected, layout, call, tensor.shape in self.declared))
        return with_main_tensor(output, collected.clone())  # what comes behind it may write on it

    def _layout(self, tensor: Tensor, module: nn.Module) -> Layout | None:
        """The layout by shape and kind, or by the user's `reshape_transform`."""
        if self.reshape is None:
            found = find_layout(tensor, size_of(self.images), len(self.images), module)
            if found is None or found.frames > 1 or declares_channels_first(module):
                return found
            is_alike = tensor.shape in self.declared and only_channels_first(tensor, size_of(self.images))
            return replace(found, is_sure=is_alike)
        try:
            grid = self.reshape(tensor)
        except (RuntimeError, IndexError, ValueError, TypeError):
            return None  # written for another layer's output
        if grid.ndim != self.images.ndim:
            return None
        return Layout("by `reshape_transform`", size_of(grid), self.reshape, is_sure=True)

    def _may_be_grid(self, tensor: Tensor) -> bool:
        """Whether an output without a likely layout could be measured to be a grid."""
        if self.reshape is not None or sum(side > 1 for side in tensor.shape) < 2 or 1 not in tensor.shape:
            return False
        batch = tensor.shape.index(1)
        return next(readings(tensor, batch, size_of(self.images)), None) is not None

    def _is_attention(self, tensor: Tensor) -> bool:
        """Whether an output holds a weight for each pair of tokens: as wide and as high as a sequence is long."""
        return tensor.ndim == 4 and any(
            tuple(shape) == (length, length)
            for length in self.lengths
            for shape in (tensor.shape[1:3], tensor.shape[2:4])
        )


@contextmanager
def recorded(
    model: nn.Module, images: Tensor, reshape: Reshape | None, start: int | None
) -> Iterator[OutputRecorder]:
    """Collect every submodule's spatial output, in the order in which the submodules finish.

    The graph is turned on before each submodule: the user's own `no_grad` around a frozen backbone would hide it. Where
    images are whole numbers it starts at the first floating point that a submodule takes, for theirs have no gradient.
    """
    recorder = OutputRecorder(images, reshape, start)
    is_whole = not images.is_floating_point()

    def turn_graph_on(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if start == 0 or recorder.has_started:
            torch.set_grad_enabled(True)
        return tuple(map(_with_graph, inputs)) if is_whole and start == 0 else None

    with ExitStack() as stack:
        for name, module in model.named_modules():
            if name and only_passes_on(module):
                stack.callback(
                    module.register_forward_hook(lambda m, _, out: recorder.declare(m, out)).remove
                )
            elif name:
                stack.callback(module.register_forward_pre_hook(turn_graph_on).remove)
                stack.callback(
                    module.register_forward_hook(
                        lambda m, _, out, name=name: recorder.keep(name, m, out)
                    ).remove
                )
        yield recorder


def _with_graph(value: Any) -> Any:
    """Start a graph at a value that is a tensor of floating point without one; return others as they are."""
    starts = isinstance(value, Tensor) and value.is_floating_point() and not value.requires_grad
    return value.detach().clone().requires_grad_().clone() if starts else value
