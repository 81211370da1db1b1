"""One forward and one gradient with every submodule watched: which outputs are grids, and which still matter."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node, get_gradient_edge

from lightning_gcam.cam.bottleneck import up_to_the_bottleneck
from lightning_gcam.cam.calling import Forward
from lightning_gcam.cam.outputs import find_logits, find_raw_logits, maps_of_all_heads
from lightning_gcam.cam.random_weights import called_with, in_place_of_zeros
from lightning_gcam.cam.reshape import Layout, Reshape, find_layout, main_tensor, with_main_tensor
from lightning_gcam.cam.unsuitable import unsuitable


@dataclass(frozen=True)
class Spatial:
    """A submodule whose output is a grid over the image.

    Args:
        name: in `model.named_modules()`.
        module: the submodule.
        layout: how its output is read.
        is_live: whether its positions influence the output of the model.
        is_even: whether the gradient is the same at all positions of a channel (and not zero).
    """

    name: str
    module: nn.Module
    layout: Layout
    is_live: bool
    is_even: bool


@dataclass(frozen=True)
class Probe:
    """The spatial layers in the order in which they finish, and the parameters that were zero in the model.

    Args:
        layers: none where the output depends on none.
        zeros: by their names.
        is_finite: whether the logits were; where they were not, gradients may be missing that are there else.
        passed_over: the names of those that are live and left out, see `lightning_gcam.cam.unsuitable`.
        is_dense: whether the logits are of every position, and the layers only those before the network goes up again.
    """

    layers: list[Spatial]
    zeros: tuple[str, ...]
    is_finite: bool = True
    passed_over: tuple[str, ...] = ()
    is_dense: bool = False


def probe(
    model: nn.Module, images: Tensor, forward: Forward | None = None, reshape: Reshape | None = None
) -> Probe:
    """Run the model once, with random numbers in the place of parameters that are all zero.

    A head that starts at zero would else hide every layer before the first training step. The random ones are handed
    over by `torch.func.functional_call`: the model is not touched.

    Args:
        model: in the mode it is to be looked at in (see `lightning_gcam.isolation.untouched`).
        images: `(N, C, H, W)`; a copy that may be written on. One is enough.
        forward: `(model, images) -> output`; the model is called with the images where it is left out.
        reshape: from a layer's output to `(N, C, h, w)`; read off the shapes where it is left out.
    """
    replaced = in_place_of_zeros(model)
    zeros = tuple(replaced)
    with torch.enable_grad(), _recorded(model, images, reshape) as outputs:
        leaf = images.requires_grad_() if images.is_floating_point() else images
        output = called_with(replaced, forward)(model, leaf.clone())
        logits = find_logits(output, len(images))
        candidates = [each for each in outputs if each.tensor.requires_grad]
        is_finite = bool(torch.isfinite(logits).all())
        if not candidates or not logits.requires_grad:
            return Probe([], zeros, is_finite)
        score = (logits.float() * _uneven(logits)).sum()
        gradients = torch.autograd.grad(score, [each.tensor for each in candidates], allow_unused=True)
    outputs_and_gradients = list(zip(_of_the_image(candidates, leaf), gradients, strict=True))
    pairs, passed_over = _suitable(
        outputs_and_gradients, maps_of_all_heads(output, find_raw_logits(output, len(images)))
    )
    calls = _last_calls(pairs)
    layers = [_judged(each, gradient) for each, gradient in calls]
    raw = find_raw_logits(output, len(images))
    if raw.ndim == 4:
        layers = _before_the_decoder(layers, calls, images, raw)
    return Probe(layers, zeros, is_finite, passed_over, raw.ndim == 4)


def _before_the_decoder(
    layers: list[Spatial], calls: list[tuple[_Output, Tensor | None]], images: Tensor, logits: Tensor
) -> list[Spatial]:
    """Of a network that gives logits at every position, the live layers up to its bottleneck."""
    live = [
        (layer, output.layout.reshape(gradient))
        for layer, (output, gradient) in zip(layers, calls, strict=True)
        if layer.is_live and gradient is not None
    ]
    if not live:
        return layers
    size, grid = (images.shape[-2], images.shape[-1]), (logits.shape[2], logits.shape[3])
    return up_to_the_bottleneck([layer for layer, _ in live], [each for _, each in live], size, grid)


@dataclass(frozen=True)
class _Output:
    """What one call of a module returned."""

    name: str
    module: nn.Module
    tensor: Tensor
    layout: Layout


def _uneven(logits: Tensor) -> Tensor:
    """Weights that differ from class to class: a softmax or a normalisation cancels an even sum."""
    return torch.linspace(1.0, 2.0, logits.shape[1], device=logits.device)


# ------------------------------------------------------------------------------------------- what was recorded


@dataclass
class _Recorder:
    """Keeps the outputs that are grids, in the order in which the modules finish."""

    images: Tensor
    reshape: Reshape | None
    outputs: list[_Output] = field(default_factory=list)
    lengths: set[int] = field(default_factory=set)

    def keep(self, name: str, module: nn.Module, output: Any) -> Any:
        """Note the output, and hand it on as `capture` would: as one that only what comes behind it can have used.

        A network that returns its features, and also what it pooled from them, hands on a score that has passed the
        features by.
        """
        tensor = main_tensor(output)
        layout = self._layout(tensor) if tensor is not None else None
        if tensor is None or layout is None or self._is_attention(tensor):
            return output
        if layout.kind.startswith("tokens"):
            self.lengths.add(tensor.shape[1])
        torch.set_grad_enabled(True)
        noted = tensor.view_as(tensor)
        self.outputs.append(_Output(name, module, noted, layout))
        return with_main_tensor(output, noted.clone())  # what comes behind it may write on it

    def _layout(self, tensor: Tensor) -> Layout | None:
        size, n = (self.images.shape[-2], self.images.shape[-1]), len(self.images)
        if self.reshape is None:
            return find_layout(tensor, size, n)
        try:
            grid = self.reshape(tensor)
        except (RuntimeError, IndexError, ValueError, TypeError):
            return None  # written for another layer's output
        if grid.ndim != 4:
            return None
        return Layout("by `reshape_transform`", (grid.shape[2], grid.shape[3]), self.reshape)

    def _is_attention(self, tensor: Tensor) -> bool:
        """A weight for each pair of tokens has the shape of a grid, too: as wide and as high as a sequence is long."""
        return tensor.ndim == 4 and any(
            tuple(shape) == (length, length)
            for length in self.lengths
            for shape in (tensor.shape[1:3], tensor.shape[2:4])
        )


@contextmanager
def _recorded(model: nn.Module, images: Tensor, reshape: Reshape | None) -> Iterator[list[_Output]]:
    """Keep every submodule's spatial output, in the order in which the submodules finish.

    The graph is turned on before each submodule: the user's own `no_grad` around a frozen backbone would hide it. Where
    images are whole numbers it starts at the first floating point that a submodule takes, for theirs have no gradient.
    """
    recorder = _Recorder(images, reshape)
    is_whole = not images.is_floating_point()

    def turn_graph_on(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        torch.set_grad_enabled(True)
        return tuple(map(_with_graph, inputs)) if is_whole else None

    with ExitStack() as stack:
        for name, module in model.named_modules():
            if name and not _only_passes_on(module):
                stack.callback(module.register_forward_pre_hook(turn_graph_on).remove)
                stack.callback(
                    module.register_forward_hook(
                        lambda m, _, out, name=name: recorder.keep(name, m, out)
                    ).remove
                )
        yield recorder.outputs


def _with_graph(value: Any) -> Any:
    """`value`, as the start of a graph where it is a tensor that can have a gradient and has none yet."""
    starts = isinstance(value, Tensor) and value.is_floating_point() and not value.requires_grad
    return value.detach().clone().requires_grad_().clone() if starts else value


PASSES_ON = (
    *("Dropout", "DropPath", "Identity", "Pool", "Flatten", "Softmax"),
    *("FakeQuant", "Observer", "QuantStub"),  # of quantization-aware training
)
"""Words in the names of layers that add nothing to look at."""


def _only_passes_on(module: nn.Module) -> bool:
    has_parts = any(not _only_passes_on(child) for child in module.children())
    return not has_parts and any(word in type(module).__name__ for word in PASSES_ON)


def _of_the_image(outputs: list[_Output], leaf: Tensor) -> list[_Output | None]:
    """The outputs that were computed from the image; a table of relative positions may have a grid's shape, too.

    Where none was (the features are detached on the way), all of them may have been.
    """
    if not leaf.requires_grad:
        return list(outputs)
    seen: dict[Node, bool] = {}
    goal = get_gradient_edge(leaf).node
    from_image = [
        each if _leads_to(get_gradient_edge(each.tensor).node, goal, seen) else None for each in outputs
    ]
    return from_image if any(from_image) else list(outputs)


def _leads_to(start: Node, goal: Node, seen: dict[Node, bool]) -> bool:
    """Whether the graph behind `start` holds `goal`; `seen` keeps the answers, and the nodes alive."""
    seen[goal] = True
    stack = [start]
    while stack:
        node = stack[-1]
        behind = [each for each, _ in node.next_functions if each is not None]
        unknown = [each for each in behind if each not in seen]
        if node in seen or not unknown:
            seen.setdefault(node, any(seen[each] for each in behind))
            stack.pop()
        else:
            stack += unknown
    return seen[start]


def _suitable(
    pairs: Sequence[tuple[_Output | None, Tensor | None]], maps: Sequence[Tensor]
) -> tuple[Sequence[tuple[_Output | None, Tensor | None]], tuple[str, ...]]:
    """Those that are good to look at, and the names of the others; all, where the output depends on none of these."""
    there = [(output, gradient) for output, gradient in pairs if output is not None]
    bad = unsuitable([each.module for each, _ in there], [each.tensor for each, _ in there], maps)
    good = [pair for pair, is_bad in zip(there, bad, strict=True) if not is_bad]
    if all(gradient is None for _, gradient in good):
        return pairs, ()
    others = [
        each.name
        for (each, gradient), is_bad in zip(there, bad, strict=True)
        if is_bad and gradient is not None
    ]
    return good, tuple(dict.fromkeys(others))


# -------------------------------------------------------------------------------------------------- judgement


def _last_calls(pairs: Sequence[tuple[_Output | None, Tensor | None]]) -> list[tuple[_Output, Tensor | None]]:
    """One call a module, in order: the last that the score depends on, which is the one that `capture` takes."""
    last: dict[str, int] = {}
    for position, (output, gradient) in enumerate(pairs):
        if output is not None and (gradient is not None or output.name not in last):
            last[output.name] = position
    kept = [pairs[position] for position in sorted(last.values())]
    return [(output, gradient) for output, gradient in kept if output is not None]


def _judged(output: _Output, gradient: Tensor | None) -> Spatial:
    grid = output.layout.reshape(gradient) if gradient is not None else None
    is_live = grid is not None and bool(torch.isfinite(grid).all() and grid.abs().amax() > 0)
    return Spatial(
        output.name, output.module, output.layout, is_live, grid is not None and is_live and is_even(grid)
    )


def is_even(gradients: Tensor) -> bool:
    """Whether every channel's gradient `(N, C, h, w)` is the same at all positions, and not simply zero.

    Example:
        >>> is_even(torch.ones(1, 2, 3, 3)), is_even(torch.zeros(1, 2, 3, 3)), is_even(torch.eye(3)[None, None])
        (True, False, False)
    """
    largest = gradients.abs().amax()
    spread = (gradients - gradients.mean(dim=(2, 3), keepdim=True)).abs().amax()
    return bool((largest > 0) & (spread <= 1e-5 * largest))
