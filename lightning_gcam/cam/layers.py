"""Find the layer to look at: the last one whose output is spatial and still influences the score."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lightning_gcam._errors import InputError, did_you_mean
from lightning_gcam.cam.bottleneck import up_to_the_bottleneck
from lightning_gcam.cam.capture import Forward, plain_eager, run
from lightning_gcam.cam.outputs import find_logits, find_raw_logits
from lightning_gcam.cam.reshape import Layout, Reshape, find_layout, main_tensor
from lightning_gcam.isolation import is_sharded, untouched


@dataclass(frozen=True)
class TargetLayer:
    """A layer that was chosen, by its name in `model.named_modules()`.

    Args:
        name: such as "layer4" or "encoder.layers.encoder_layer_11.ln_1".
        module: the submodule.
        grid: rows and columns of its output; None where it was named and not probed.
        kind: how its output is laid out, in words.
        earlier: names of earlier layers that would do, the nearest first, one for each finer grid.
    """

    name: str
    module: nn.Module
    grid: tuple[int, int] | None = None
    kind: str = ""
    earlier: tuple[str, ...] = ()

    def __str__(self) -> str:
        grid = f" ({self.grid[0]} x {self.grid[1]} grid, {self.kind})" if self.grid is not None else ""
        return f'"{self.name}"{grid}'


def find_target_layer(
    model: nn.Module,
    images: Tensor,
    *,
    forward: Forward | None = None,
    reshape_transform: Reshape | None = None,
) -> TargetLayer:
    """Find the last layer, in the order of execution, that is spatial and whose positions influence the score.

    "The last layer" alone would be wrong: behind the last block of a vision transformer only the class token reaches
    the head, and every map would be blank. Parameters that are all zero (a zero-initialised head, say) would hide
    every layer before the first training step; they are replaced by random ones for this one forward, through
    `torch.func.functional_call`, so the model is not touched.

    Args:
        model: in any mode; it is left as it was.
        images: `(N, C, H, W)` as the model takes them; only the first is used.
        forward: `(model, images) -> output`, for a model that is not simply called with the images.
        reshape_transform: from a layer's output to `(N, C, h, w)`, for a layout that is not recognised.

    Raises:
        InputError: where there is none (a network of fully connected layers, say).

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
        >>> find_target_layer(model, torch.rand(1, 3, 8, 8)).name
        '1'
    """
    with untouched(model), plain_eager():
        live = _live_layers(model, images[:1].detach().clone(), forward, reshape_transform)
        if live:
            return _choose(live)
    raise InputError(
        f"{type(model).__name__} has no spatial layer that influences its output, so there is nothing to draw. "
        "Saliency maps need a convolutional network or a vision transformer; name `target_layer` (and "
        "`reshape_transform`) if it is one."
    )


def resolve_target_layer(model: nn.Module, target_layer: str | nn.Module) -> tuple[str, nn.Module]:
    """A layer given by name or as the module itself, as both.

    Raises:
        InputError: where the model has no such layer; the nearest names are given.

    Example:
        >>> resolve_target_layer(nn.Sequential(nn.ReLU()), "0")
        ('0', ReLU())
    """
    modules = dict(model.named_modules())
    if isinstance(target_layer, nn.Module):
        name = next((name for name, module in modules.items() if module is target_layer), None)
        if name is None:
            raise InputError(
                f"`target_layer` {type(target_layer).__name__} is not a module of {type(model).__name__}. "
                "Name it instead, as in `dict(model.named_modules())`."
            )
        return name, target_layer
    if not isinstance(target_layer, str):
        raise InputError(f"`target_layer` must be one layer, a name or a module; got {target_layer!r}.")
    if not target_layer or target_layer not in modules:
        raise InputError(
            f'`target_layer` "{target_layer}" is not a module of {type(model).__name__}. '
            f"{did_you_mean(target_layer, [name for name in modules if name])} Leave it out to have one found."
        )
    return target_layer, modules[target_layer]


@dataclass(frozen=True)
class _Output:
    """What one module returned in the probe."""

    name: str
    module: nn.Module
    tensor: Tensor
    layout: Layout


def _live_layers(
    model: nn.Module,
    images: Tensor,
    forward: Forward | None,
    reshape: Reshape | None,
) -> list[_Output]:
    """The spatial outputs whose positions influence the score, in the order of execution."""
    caller = _Caller(model, forward)
    with torch.enable_grad(), _recorded(model, images, reshape) as outputs:
        leaf = images.requires_grad_() if images.is_floating_point() else images
        output = torch.func.functional_call(caller, _without_zeros(model), (leaf.clone(),))
        logits = find_logits(output, len(images))
        candidates = [each for each in outputs if each.tensor.requires_grad]
        if not candidates or not logits.requires_grad:
            return []
        score = (logits.float() * _uneven(logits)).sum()
        gradients = torch.autograd.grad(score, [each.tensor for each in candidates], allow_unused=True)
    pairs = zip(candidates, gradients, strict=True)
    grids = [(each, each.layout.reshape(gradient)) for each, gradient in pairs if gradient is not None]
    live = [(each, grid) for each, grid in grids if _is_live(grid)]
    layers, size = [each for each, _ in live], (images.shape[-2], images.shape[-1])
    raw = find_raw_logits(output, len(images))
    if live and raw.ndim == 4:  # at every position
        return up_to_the_bottleneck(layers, [grid for _, grid in live], size, (raw.shape[2], raw.shape[3]))
    return layers


class _Caller(nn.Module):
    """The model behind its `forward`, as one module that `functional_call` can run with other weights."""

    def __init__(self, model: nn.Module, forward: Forward | None) -> None:
        super().__init__()
        self.model = model
        self.call = forward

    def forward(self, images: Tensor) -> Any:
        return run(self.model, images, self.call)


def _uneven(logits: Tensor) -> Tensor:
    """Weights that differ from class to class: a softmax or a normalisation cancels an even sum."""
    return torch.linspace(1.0, 2.0, logits.shape[1], device=logits.device)


def _is_live(gradient: Tensor) -> bool:
    return bool(torch.isfinite(gradient).all() and gradient.abs().amax() > 0)


@contextmanager
def _recorded(model: nn.Module, images: Tensor, reshape: Reshape | None) -> Iterator[list[_Output]]:
    """Keep every submodule's spatial output, in the order in which the submodules finish.

    The graph is turned on before each submodule: the user's own `no_grad` around a frozen backbone would hide it. Where
    images are whole numbers it starts at the first floating point that a submodule takes, for theirs have no gradient.
    """
    outputs: list[_Output] = []
    size = (images.shape[-2], images.shape[-1])
    is_whole = not images.is_floating_point()

    def turn_graph_on(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        torch.set_grad_enabled(True)
        return tuple(map(_with_graph, inputs)) if is_whole else None

    def keep(name: str, module: nn.Module, output: Any) -> None:
        tensor = main_tensor(output)
        layout = _layout(tensor, size, reshape) if tensor is not None else None
        if tensor is not None and layout is not None:
            outputs.append(_Output(name, module, tensor, layout))

    with ExitStack() as stack:
        for name, module in model.named_modules():
            if name and not _only_passes_on(module):
                stack.callback(module.register_forward_pre_hook(turn_graph_on).remove)
                stack.callback(
                    module.register_forward_hook(lambda m, _, output, name=name: keep(name, m, output)).remove
                )
        yield outputs


def _with_graph(value: Any) -> Any:
    """`value`, as the start of a graph where it is a tensor that can have a gradient and has none yet."""
    starts = isinstance(value, Tensor) and value.is_floating_point() and not value.requires_grad
    return value.detach().clone().requires_grad_().clone() if starts else value


def _layout(tensor: Tensor, image_size: tuple[int, int], reshape: Reshape | None) -> Layout | None:
    if reshape is None:
        return find_layout(tensor, image_size)
    try:
        grid = reshape(tensor)
    except (RuntimeError, IndexError, ValueError, TypeError):
        return None  # written for another layer's output
    return (
        Layout("by `reshape_transform`", (grid.shape[2], grid.shape[3]), reshape) if grid.ndim == 4 else None
    )


def _only_passes_on(module: nn.Module) -> bool:
    """Layers that add nothing to look at: dropout, pooling, identities, and the weights of an attention."""
    passes_on = ("Dropout", "DropPath", "Identity", "Pool", "Flatten", "Softmax")
    is_leaf = next(module.children(), None) is None
    return is_leaf and any(word in type(module).__name__ for word in passes_on)


def _without_zeros(model: nn.Module) -> dict[str, Tensor]:
    """Random values for the parameters that are all zero, from a generator of their own; biases may be zero.

    Of sharded parameters each process sees a piece, which may be empty: they are left as they are.
    """
    if is_sharded(model):
        return {}
    generator = torch.Generator().manual_seed(0)
    return {
        f"model.{name}": _random_like(parameter, generator)
        for name, parameter in model.named_parameters()
        if parameter.is_floating_point() and not name.endswith("bias") and not parameter.count_nonzero()
    }


def _random_like(parameter: Tensor, generator: torch.Generator) -> Tensor:
    shape = parameter.shape
    if len(shape) < 2:  # the scale of a norm or of a residual branch
        values = torch.empty(shape).uniform_(0.5, 1.5, generator=generator)
    else:
        values = torch.randn(shape, generator=generator) * math.sqrt(2 / max(math.prod(shape[1:]), 1))
    return values.to(parameter.device, parameter.dtype)


def _choose(live: list[_Output]) -> TargetLayer:
    """The last; where that is a part of an attention, the last norm before it: the residual stream."""
    last = live[-1]
    if last.layout.kind.startswith("tokens"):
        norms = [each for each in live if "norm" in type(each.module).__name__.lower() and _alike(each, last)]
        last = norms[-1] if norms else last
    return TargetLayer(last.name, last.module, last.layout.grid, last.layout.kind, _earlier(live, last))


def _alike(left: _Output, right: _Output) -> bool:
    return left.layout.kind == right.layout.kind and left.layout.grid == right.layout.grid


def _earlier(live: list[_Output], chosen: _Output) -> tuple[str, ...]:
    """The last layer of each finer grid, the nearest first."""
    names: dict[int, str] = {}
    for each in live[: live.index(chosen)]:
        cells = math.prod(each.layout.grid)
        if cells > math.prod(chosen.layout.grid):
            names[cells] = each.name
    return tuple(names[cells] for cells in sorted(names))
