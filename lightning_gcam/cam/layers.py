"""Finding the target layer, or resolving its name, and fusing the maps of several layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lightning_gcam.cam.calling import forward_at, no_gradient_message
from lightning_gcam.cam.detection import backbone_of, is_of_detections, with_detection
from lightning_gcam.cam.forward import forward_with_weights, random_weights_for_zeros
from lightning_gcam.cam.invocation import Forward
from lightning_gcam.cam.layer_search import ProbeResult, SpatialLayer, probe_layers
from lightning_gcam.cam.layout_evidence import CONFIRMED, unconfirmed_reason
from lightning_gcam.cam.layouts import Reshape, Run
from lightning_gcam.cam.outputs import DetectionsError, are_detections
from lightning_gcam.utils.dimensions import Size, describe_grid
from lightning_gcam.utils.errors import InputError, check_known, did_you_mean
from lightning_gcam.utils.isolation import eager_without_graph, untouched


class NotFinite(ArithmeticError):
    """Raised where NaN or infinity in the model's output hides which layers influence it."""


@dataclass(frozen=True)
class TargetLayer:
    """The chosen layer: its name in `model.named_modules()`, its grid, and the reasons for it.

    Args:
        name: such as "layer4" or "encoder.layers.encoder_layer_11.ln_1".
        module: the submodule.
        grid: the cells of its output along each dimension of the images (rows and columns); None where it was named
            and not probed.
        kind: how its output is laid out, in words.
        why: the reasons for it, in words; empty where it was named.
        others: earlier layers that would do, the nearest first.
    """

    name: str
    module: nn.Module
    grid: Size | None = None
    kind: str = ""
    why: str = ""
    others: tuple[TargetLayer, ...] = ()

    @property
    def earlier(self) -> tuple[str, ...]:
        """The names of `others`."""
        return tuple(each.name for each in self.others)

    def describe(self) -> str:
        """The choice, the reasons, and other layers that would do, in three lines.

        Example:
            >>> import torch
            >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), nn.Conv2d(4, 4, 1), nn.Flatten())
            >>> print(find_target_layer(model, torch.rand(1, 3, 8, 8)).describe())
            "2" (3 x 3 grid, channels first)
            Why: of 2 layers that are spatial and whose positions influence the output, it is the last to run.
            Others that would do: "0" (6 x 6 grid, channels first).
        """
        if not self.why:
            return f"{self}\nWhy: it was named, by `target_layer` or by the checkpoint of a resumed run."
        others = ", ".join(str(each) for each in self.others)
        would_do = (
            f"Others that would do: {others}." if others else "No earlier layer was found that would do."
        )
        return f"{self}\nWhy: {self.why}.\n{would_do}"

    def __str__(self) -> str:
        grid = f" ({describe_grid(self.grid)}, {self.kind})" if self.grid is not None else ""
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
        images: `(N, C, *S)` as the model takes them; only the first is used.
        forward: `(model, images) -> output`, for a model that is not simply called with the images.
        reshape_transform: from a layer's output to `(N, C, *grid)`, for a layout that is not recognised.

    Raises:
        InputError: where there is none (a network of fully connected layers, say); where a network makes planes of
            signals, with the `reshape_transform=` to copy.
        NotFinite: where the output holds NaN or infinity, and hides the layer.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
        >>> find_target_layer(model, torch.rand(1, 3, 8, 8)).name
        '1'
    """
    forward = with_detection(model, images, forward)
    try:
        return _find_target_layer(model, images, forward, reshape_transform)
    except DetectionsError:
        forward = with_detection(model, images, forward, at_once=True)
    return _find_target_layer(model, images, forward, reshape_transform)


def _find_target_layer(
    model: nn.Module, images: Tensor, forward: Forward | None, reshape_transform: Reshape | None
) -> TargetLayer:
    """As `find_target_layer`, of a model that gives logits, or of a detector by a `DetectionForward`."""
    backbone = backbone_of(model) if is_of_detections(forward) else None
    with untouched(model), eager_without_graph():
        weights = random_weights_for_zeros(model)

        def run(images: Tensor) -> Any:
            """Call the model with images that are all made of the first sample."""
            of_first = forward_at(forward, [0] * len(images))
            output = forward_with_weights(weights, of_first)(model, images)
            if are_detections(output):
                raise DetectionsError("The model returns detections.")
            return output

        found = probe_layers(model, images[:1].detach().clone(), run, reshape_transform, backbone)
        live = [each for each in found.layers if each.is_live or found.before_all]
        if not found.is_finite and live[-1:] != found.layers[-1:]:
            raise NotFinite(
                f"The output of {type(model).__name__} is not finite: it holds NaN or infinity, and so do the "
                "gradients that show the layer to look at. It is found once the output is finite. Is the loss finite, "
                "and are the images? Else name `target_layer`."
            )
        if live:
            chosen = _preferred(live)
            others = tuple(_target_layer(each) for each in _others(live, chosen))
            return _target_layer(chosen, _reasons(found, live, chosen, tuple(weights)), others)
        if message := no_gradient_message(model, images[:1], forward_at(forward, [0])):
            raise InputError(message)
        if (
            images.ndim == 3
            and reshape_transform is None
            and (message := _planes_message(model, images, run))
        ):
            raise InputError(message)
    raise InputError(
        f"{type(model).__name__} has no spatial layer that influences its output, so there is nothing to draw. "
        "Saliency maps need a convolutional network or a vision transformer; name `target_layer` (and "
        "`reshape_transform`) if it is one. Where frames or pairs are folded into the batch, name the layer that they "
        "leave: what is said then holds the `reshape_transform` to copy."
    )


def _planes_message(model: nn.Module, images: Tensor, run: Run) -> str:
    """The message for a network that makes planes of signals, as an STFT does, with a view of them; empty elsewhere."""
    for dim in (2, 3):
        mean = partial(torch.mean, dim=dim)
        found = probe_layers(model, images[:1].detach().clone(), run, mean)
        live = [each for each in found.layers if each.is_live and each.layout.grid[0] > 1]
        if live:
            return (
                f'{type(model).__name__} makes planes (N, C, a, b) of signals, the last in "{live[-1].name}", and '
                "which of a and b runs along the signal is not known. Pass the mean over the other one:\n"
                f"    reshape_transform=lambda output: output.mean(dim={dim})\n"
                f"where it is {'b, the last,' if dim == 2 else 'a'} and dim={5 - dim} where it is not."
            )
    return ""


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


def _preferred(live: list[SpatialLayer]) -> SpatialLayer:
    """The last live layer; where that is inside a block of tokens, the last norm before it: the residual stream."""
    last = live[-1]
    if not last.layout.kind.startswith("tokens") or any(_is_norm(each) for each in last.module.modules()):
        return last
    norms = [each for each in live if _is_norm(each.module) and _have_same_layout(each, last)]
    return norms[-1] if norms else last


def _is_norm(module: nn.Module) -> bool:
    """Whether a module is a normalisation, by the name of its class."""
    return "norm" in type(module).__name__.lower()


def _have_same_layout(left: SpatialLayer, right: SpatialLayer) -> bool:
    """Whether two layers' outputs have one kind of layout and one grid."""
    return left.layout.kind == right.layout.kind and left.layout.grid == right.layout.grid


def _reasons(
    found: ProbeResult, live: list[SpatialLayer], chosen: SpatialLayer, zeros: tuple[str, ...]
) -> str:
    """The reasons for the chosen layer, in one line."""
    last = live[-1]
    which = f"of {len(live)} layers that are spatial and whose positions influence the output, it is the last to run"
    if found.before_all:
        which = f"of {len(live)} layers that all feature maps of the detector are computed from, it is the last to run"
    reasons = [f"{which} before the network goes up to the image's size again" if found.is_dense else which]
    if chosen is not last:
        reasons = [
            f'"{last.name}", the last to run that is spatial and whose positions influence the output, is a part of '
            f"{_block_name(last)}; this is the norm before it, which holds the residual stream"
        ]
    behind = found.layers[found.layers.index(last) + 1 :]
    if behind:
        reasons.append(f'behind it, "{behind[-1].name}" is spatial too, but its positions no longer matter')
    if found.passed_over and not found.is_dense:
        reasons.append(
            f'behind it, "{found.passed_over[-1]}" is passed over: it is recurrent, or comes from what is'
        )
    if chosen.is_even:
        reasons.append("its gradients are constant over space")
    if not chosen.layout.is_sure and (chosen.layout.locality or 0.0) < CONFIRMED:
        reasons.append(f"its layout is read off its shape: {unconfirmed_reason(chosen.layout)}")
    if zeros:
        more = f" and {len(zeros) - 1} more" if len(zeros) > 1 else ""
        reasons.append(f'"{zeros[-1]}"{more}, all zero so far, stood in with random numbers to find it')
    return "; ".join(reasons)


def _block_name(part: SpatialLayer) -> str:
    """The kind of block that a layer is a part of, in words."""
    description = f"{part.name} {type(part.module).__name__}".lower()
    return "an attention" if "attention" in description or "attn" in description else "a block"


def _others(live: list[SpatialLayer], chosen: SpatialLayer) -> list[SpatialLayer]:
    """Earlier layers that would do, the nearest first.

    The last one of each finer grid, as long as the grids get coarser; with tokens, the same norm or block of earlier
    blocks. Where the gradients at the chosen one are constant over space, only such that have others.
    """
    before = live[: live.index(chosen)]
    if chosen.is_even:
        before = [each for each in before if not each.is_even]
    finer = _last_of_each_finer_grid(before, chosen)
    as_fine = [each for each in before if each.layout.grid == chosen.layout.grid]
    if chosen.layout.kind.startswith("tokens"):
        twins = [each for each in as_fine if type(each.module) is type(chosen.module)]
        return [*reversed(twins[-2:] or as_fine[-1:]), *finer]
    return finer or as_fine[-1:]


def _last_of_each_finer_grid(before: list[SpatialLayer], chosen: SpatialLayer) -> list[SpatialLayer]:
    """The last layer of each grid that is finer than the chosen one's and no finer than those before it.

    A grid that is finer than one before it has been scaled up again, or is no map of the image at all.
    """
    found: dict[int, SpatialLayer] = {}
    coarsest = math.inf
    for each in before:
        cells = math.prod(each.layout.grid)
        coarsest = min(coarsest, cells)
        if cells == coarsest and cells > math.prod(chosen.layout.grid):
            found[cells] = each
    return [found[cells] for cells in sorted(found)]


def _target_layer(spatial: SpatialLayer, why: str = "", others: tuple[TargetLayer, ...] = ()) -> TargetLayer:
    """A spatial layer as a `TargetLayer`."""
    return TargetLayer(spatial.name, spatial.module, spatial.layout.grid, spatial.layout.kind, why, others)


Fuse = Literal["product", "mean"]
"""How the maps of several layers become one."""

TargetLayers = str | nn.Module | Sequence[str | nn.Module]
"""A layer or several, by their names in `model.named_modules()` or as the modules themselves."""

_SIGNS = {"product": " × ", "mean": " + "}


def resolve_target_layers(model: nn.Module, target_layer: TargetLayers) -> dict[str, nn.Module]:
    """One layer or several, each by its name, in the order given.

    Raises:
        InputError: where the model has no such layer, one is named twice, or there is none.

    Example:
        >>> resolve_target_layers(nn.Sequential(nn.ReLU(), nn.Tanh()), ["1", "0"])
        {'1': Tanh(), '0': ReLU()}
    """
    layers: dict[str, nn.Module] = {}
    for each in as_list_of_layers(target_layer):
        name, layer = resolve_target_layer(model, each)
        if any(layer is other for other in layers.values()):
            raise InputError(f'`target_layer` holds "{name}" twice. Name each layer once.')
        layers[name] = layer
    return layers


def as_list_of_layers(target_layer: TargetLayers) -> list[str | nn.Module]:
    """One target layer or several as a list.

    Raises:
        InputError: where it is empty.
    """
    if isinstance(target_layer, (str, nn.Module)) or not isinstance(target_layer, Sequence):
        return [target_layer]  # what is no layer is refused where it is resolved
    if not target_layer:
        raise InputError(
            "`target_layer` is empty. Name at least one layer, or leave it out to have one found."
        )
    return list(target_layer)


def check_fuse(fuse: Fuse | None, target_layer: TargetLayers | None) -> None:
    """Refuse an unknown way to fuse maps, and a fusion of less than two layers.

    Raises:
        InputError: naming what came.
    """
    if fuse is None:
        return
    check_known("fuse", fuse, _SIGNS)
    if target_layer is None or len(as_list_of_layers(target_layer)) < 2:
        raise InputError(
            f'`fuse="{fuse}"` makes one map of several layers, but `target_layer` is {target_layer!r}. Name at least '
            "two layers, or leave `fuse` out."
        )


def map_name(method: str, layer: str, layers: Sequence[str]) -> str:
    """The name of a map: its method's, with the layer's behind it where there are several layers.

    Example:
        >>> map_name("grad_cam", "layer4", ["layer4"]), map_name("grad_cam", "layer4", ["layer3", "layer4"])
        ('grad_cam', 'grad_cam@layer4')
    """
    return method if len(layers) == 1 else f"{method}@{layer}"


def format_layer_names(layers: Sequence[str], fuse: Fuse | None = None) -> str:
    """The names of the layers in one line.

    Example:
        >>> format_layer_names(["layer3", "layer4"], "product")
        'layer3 × layer4'
    """
    return (_SIGNS[fuse] if fuse is not None else ", ").join(layers)


def fuse_maps(maps: Sequence[Tensor], fuse: Fuse) -> Tensor:
    r"""Fuse the maps of several layers into one, by their product or their mean.

    $$ S = \prod_l S_l \qquad \text{or} \qquad S = \frac{1}{L} \sum_l S_l $$

    Args:
        maps: for each layer `(N, *S)`, each map scaled to its own maximum, so that no layer outweighs another.
        fuse: "product" or "mean".

    Returns:
        `(N, *S)`, not scaled again: its maximum is 1 only where the layers' peaks meet.

    Example:
        >>> maps = [torch.tensor([[[1.0, 0.5]]]), torch.tensor([[[0.5, 1.0]]])]
        >>> fuse_maps(maps, "product"), fuse_maps(maps, "mean")
        (tensor([[[0.5000, 0.5000]]]), tensor([[[0.7500, 0.7500]]]))
    """
    stacked = torch.stack(list(maps))
    return stacked.prod(dim=0) if fuse == "product" else stacked.mean(dim=0)
