"""Several target layers at once: what their maps are called, and one map made of all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from lightning_gcam._errors import InputError, did_you_mean
from lightning_gcam.cam.layers import resolve_target_layer

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
    for each in one_or_several(target_layer):
        name, layer = resolve_target_layer(model, each)
        if any(layer is other for other in layers.values()):
            raise InputError(f'`target_layer` holds "{name}" twice. Name each layer once.')
        layers[name] = layer
    return layers


def one_or_several(target_layer: TargetLayers) -> list[str | nn.Module]:
    """The layers that were given, as a list.

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
    """Refuse an unknown word, and a fusion of less than two layers.

    Raises:
        InputError: naming what came.
    """
    if fuse is None:
        return
    if fuse not in _SIGNS:
        raise InputError(f'`fuse` "{fuse}" is not known. {did_you_mean(str(fuse), _SIGNS)}')
    if target_layer is None or len(one_or_several(target_layer)) < 2:
        raise InputError(
            f'`fuse="{fuse}"` makes one map of several layers, but `target_layer` is {target_layer!r}. Name at least '
            "two layers, or leave `fuse` out."
        )


def map_name(method: str, layer: str, layers: Sequence[str]) -> str:
    """What a map is called: after its method, and of several layers after its own, too.

    Example:
        >>> map_name("grad_cam", "layer4", ["layer4"]), map_name("grad_cam", "layer4", ["layer3", "layer4"])
        ('grad_cam', 'grad_cam@layer4')
    """
    return method if len(layers) == 1 else f"{method}@{layer}"


def layers_in_words(layers: Sequence[str], fuse: Fuse | None = None) -> str:
    """The layers' names in one line.

    Example:
        >>> layers_in_words(["layer3", "layer4"], "product")
        'layer3 × layer4'
    """
    return (_SIGNS[fuse] if fuse is not None else ", ").join(layers)


def fuse_maps(maps: Sequence[Tensor], fuse: Fuse) -> Tensor:
    r"""One map of several layers' maps: what all of them show (product), or what they show together (mean).

    $$ S = \prod_l S_l \qquad \text{or} \qquad S = \frac{1}{L} \sum_l S_l $$

    Args:
        maps: for each layer `(N, H, W)`, each map scaled to its own maximum, so that no layer outweighs another.
        fuse: "product" or "mean".

    Returns:
        `(N, H, W)`, not scaled again: its maximum is 1 only where the layers' peaks meet.

    Example:
        >>> maps = [torch.tensor([[[1.0, 0.5]]]), torch.tensor([[[0.5, 1.0]]])]
        >>> fuse_maps(maps, "product"), fuse_maps(maps, "mean")
        (tensor([[[0.5000, 0.5000]]]), tensor([[[0.7500, 0.7500]]]))
    """
    stacked = torch.stack(list(maps))
    return stacked.prod(dim=0) if fuse == "product" else stacked.mean(dim=0)
