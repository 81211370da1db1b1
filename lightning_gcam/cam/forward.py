"""The logits of one forward without a graph, and a forward with random weights in the place of the model's own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lightning_gcam.cam.calling import WrappedForward, call_model
from lightning_gcam.cam.invocation import Forward
from lightning_gcam.cam.outputs import Head, read_head
from lightning_gcam.cam.regions import score_of_regions
from lightning_gcam.cam.squashing import Squash
from lightning_gcam.cam.targets import Targets
from lightning_gcam.utils.errors import InputError
from lightning_gcam.utils.isolation import eager_without_graph, is_sharded


def random_weights_for_zeros(model: nn.Module) -> dict[str, Tensor]:
    """Random values for those parameters, biases apart, that are all zero, by their names.

    They are drawn by a generator of their own. Of sharded parameters each process has a part, which may be empty: there
    are none for them.
    """
    if is_sharded(model):
        return {}
    generator = torch.Generator().manual_seed(0)
    weights = {
        name: parameter
        for name, parameter in model.named_parameters()
        if parameter.is_floating_point() and not name.endswith("bias")
    }
    zeros = zip(weights.items(), _are_zero([*weights.values()]), strict=True)
    return {name: _random_like(parameter, generator) for (name, parameter), is_zero in zeros if is_zero}


def _are_zero(tensors: Sequence[Tensor]) -> list[bool]:
    """Whether each tensor is all zero; each device is waited for once."""
    found = [False] * len(tensors)
    for device in {each.device for each in tensors}:
        there = [position for position, each in enumerate(tensors) if each.device == device]
        flags = torch.stack([~tensors[position].detach().any() for position in there]).tolist()
        for position, is_zero in zip(there, flags, strict=True):
            found[position] = is_zero
    return found


def random_weights(model: nn.Module, seed: int = 0) -> dict[str, Tensor]:
    """Random values for all parameters, and initial running statistics, as of a model that has learned nothing.

    Weights are normal with the variance that keeps a ReLU network's activations in range (He et al. 2015), scales of
    norms uniform in [0.5, 1.5], biases zero; running means are 0 and running variances 1.

    Args:
        model: any `nn.Module`; it is not touched.
        seed: of the generator, which is one of its own.

    Raises:
        InputError: where the parameters are sharded, so that no process has them whole.

    Example:
        >>> weights = random_weights(nn.BatchNorm2d(2))
        >>> sorted(weights), weights["running_var"]
        (['bias', 'running_mean', 'running_var', 'weight'], tensor([1., 1.]))
    """
    if is_sharded(model):
        raise InputError(
            '`scores` that need the maps of a model with random weights ("random_model_similarity") cannot be taken '
            "where parameters are sharded. Leave them out."
        )
    generator = torch.Generator().manual_seed(seed)
    values = {
        name: torch.zeros_like(each) if name.endswith("bias") else _random_like(each, generator)
        for name, each in model.named_parameters()
        if each.is_floating_point()
    }
    for name, buffer in model.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            values[name] = torch.full_like(buffer, float(name.endswith("running_var")))
    return values


def forward_with_weights(weights: dict[str, Tensor], forward: Forward | None) -> Forward:
    """A `forward` that runs a model with these weights in the place of its own, by `torch.func.functional_call`.

    Args:
        weights: by their names in the model.
        forward: `(model, images) -> output`; the model is called with the images where it is left out.
    """
    return _ForwardWithWeights(forward, {f"model.{name}": values for name, values in weights.items()})


@dataclass(frozen=True)
class _ForwardWithWeights(WrappedForward):
    """A `forward` that runs a model with other weights, by their names behind "model."."""

    weights: dict[str, Tensor]

    def __call__(self, model: nn.Module, images: Tensor) -> Any:
        return torch.func.functional_call(_WithForward(model, self.forward), self.weights, (images,))


class _WithForward(nn.Module):
    """A module whose forward calls a model by a `forward=`, so that `functional_call` can replace the weights."""

    def __init__(self, model: nn.Module, forward: Forward | None) -> None:
        super().__init__()
        self.model = model
        self.call = forward

    def forward(self, images: Tensor) -> Any:
        return call_model(self.model, images, self.call)


def _random_like(parameter: Tensor, generator: torch.Generator) -> Tensor:
    """Random values of a parameter's shape: normal for weights, uniform around 1 for scales."""
    shape = parameter.shape
    if len(shape) < 2:  # the scale of a norm or of a residual branch
        values = torch.empty(shape).uniform_(0.5, 1.5, generator=generator)
    else:
        values = torch.randn(shape, generator=generator) * math.sqrt(2 / max(math.prod(shape[1:]), 1))
    return values.to(parameter.device, parameter.dtype)


def logits_of(
    model: nn.Module,
    images: Tensor,
    targets: Targets = None,
    *,
    forward: Forward | None = None,
    masks: Tensor | None = None,
    squash: Squash | Literal["unknown"] | None = "unknown",
) -> Tensor:
    """The logits of one forward, found in the output as `attribute` finds them.

    Args:
        model: the model, in eval mode (see `lightning_gcam.utils.isolation.untouched`).
        images: `(N, C, *S)`, on the model's device.
        targets: as in `attribute`; they decide over which region a dense head's logits are averaged.
        forward: `(model, images) -> output`; the model is called with the images where it is left out.
        masks: `(N, *S)` bool, the regions of a dense head.
        squash: what the model applies to its logits, as in `Attribution`; a softmax is recognised without that.

    Returns:
        `(N, K)` float32, without a graph.

    Raises:
        InputError: as `read_head`.

    Example:
        >>> logits_of(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), torch.zeros(2, 1, 2, 2)).shape
        torch.Size([2, 3])
    """
    with eager_without_graph():
        return logits_in_eager_mode(model, images, targets, forward=forward, masks=masks, squash=squash)


def logits_in_eager_mode(
    model: nn.Module,
    images: Tensor,
    targets: Targets,
    *,
    forward: Forward | None,
    masks: Tensor | None,
    squash: Squash | Literal["unknown"] | None,
) -> Tensor:
    """As `logits_of`, for several forwards inside of one `lightning_gcam.utils.isolation.eager_without_graph`."""
    raw = head_of(model, images, forward, squash).logits
    logits = raw if raw.ndim == 2 else score_of_regions(raw, targets, masks).logits
    return logits.detach().float()


def head_of(
    model: nn.Module,
    images: Tensor,
    forward: Forward | None,
    squash: Squash | Literal["unknown"] | None = "unknown",
) -> Head:
    """The outputs and logits of one forward, `(N, K)` or `(N, K, *grid)`, with a graph where gradients are enabled.

    Where the model returns several tensors without names, only a graph shows which are the logits.
    """
    output = call_model(model, images.clone(), forward)
    try:
        return read_head(output, len(images), squash, images.ndim - 2)
    except InputError:
        with torch.enable_grad():
            # of a frozen model the graph begins at the images
            images = images.clone().requires_grad_(images.is_floating_point())
            return read_head(call_model(model, images, forward), len(images), squash, images.ndim - 2)
