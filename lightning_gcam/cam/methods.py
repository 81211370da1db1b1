"""Class activation maps as pure functions of the activations and the gradients of one layer.

Every function takes `activations` A and `gradients` g = d(score)/dA, both `(N, C, h, w)` float32, and gives a map
`(N, h, w)`, not yet scaled. A new method is one function under `@register_method("name")`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from lightning_gcam._errors import InputError, did_you_mean

Method = Callable[[Tensor, Tensor], Tensor]
"""`(activations, gradients) -> (N, h, w)`."""

_METHODS: dict[str, Method] = {}


def register_method(name: str) -> Callable[[Method], Method]:
    """Make a function known under `name`, so that it can be asked for as `methods="name"`.

    Args:
        name: the name; it must be free.

    Raises:
        InputError: where the name is taken.

    Example:
        >>> @register_method("mean_activation")
        ... def mean_activation(activations, gradients):
        ...     return activations.mean(dim=1)
        >>> "mean_activation" in available_methods()
        True
    """

    def register(function: Method) -> Method:
        if _METHODS.get(name, function) is not function and not _same_source(_METHODS[name], function):
            raise InputError(f'`name` "{name}" is taken by another method. Choose another name.')
        _METHODS[name] = function
        return function

    return register


def _same_source(left: Method, right: Method) -> bool:
    """Whether two functions are one, defined twice: a notebook's cell run again, a module reloaded."""
    return _name_of(left) == _name_of(right) and left.__module__ == right.__module__


def available_methods() -> tuple[str, ...]:
    """The names that `methods=` knows, in the order they were registered.

    Example:
        >>> available_methods()[:3]
        ('guidance_cam', 'grad_cam', 'grad_cam_plus_plus')
    """
    return tuple(_METHODS)


def resolve_methods(methods: str | Method | Sequence[str | Method]) -> dict[str, Method]:
    """Names and callables as an ordered table from name to function.

    Args:
        methods: one name, one callable `(activations, gradients) -> (N, h, w)`, or several of them. A callable goes
            by its `__name__`.

    Raises:
        InputError: an unknown name (the nearest are given), an empty sequence, or two methods of one name.

    Example:
        >>> list(resolve_methods(["grad_cam", "layer_cam"]))
        ['grad_cam', 'layer_cam']
    """
    if isinstance(methods, str) or callable(methods) or not isinstance(methods, Iterable):
        methods = [methods]
    several = list(methods)
    if not several:
        raise InputError(f"`methods` is empty. Name at least one of {', '.join(available_methods())}.")
    table: dict[str, Method] = {}
    for each in several:
        name, function = _resolve(each)
        if name in table:
            raise InputError(
                f'`methods` has two entries named "{name}", and maps are known by their method\'s name. Name it '
                'once, or rename one: a callable goes by its `__name__`, as in `function.__name__ = "other"`.'
            )
        table[name] = function
    return table


def _resolve(method: str | Method) -> tuple[str, Method]:
    if callable(method):
        return _name_of(method), method
    if not isinstance(method, str):
        raise InputError(
            f"`methods` takes names or callables (activations, gradients) -> map; got {method!r}. "
            f"Name one of {', '.join(available_methods())}."
        )
    if method not in _METHODS:
        raise InputError(f'`methods` "{method}" is not a method. {did_you_mean(method, _METHODS)}')
    return method, _METHODS[method]


def _name_of(method: Method) -> str:
    return str(getattr(method, "__name__", type(method).__name__)).strip("<>")


@register_method("guidance_cam")
def guidance_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    r"""Guidance-rectified saliency: Grad-CAM, weighted at each position by the global guidance map.

    $$ w_k = \frac{1}{hw} \sum_{ij} g_k, \quad G = \mathrm{ReLU}(\sum_k A_k g_k), \quad
       S = \mathrm{ReLU}(\sum_k w_k A_k) \, G $$

    Both factors are rectified: without it two negative ones would make a positive.

    Args:
        activations: `(N, C, h, w)`.
        gradients: `(N, C, h, w)`.

    Returns:
        `(N, h, w)`, >= 0.

    Example:
        >>> A, g = torch.tensor([[[[1.0, 2.0]]]]), torch.tensor([[[[3.0, 1.0]]]])
        >>> guidance_cam(A, g)  # w = 2; [1*2, 2*2] * [1*3, 2*1]
        tensor([[[6., 8.]]])

    Source: a reading of the abstract of Fahim, Saqib, Siam, Jung, "Rethinking gradient weights' influence over
    saliency map estimation", arXiv 2207.05374 (its text could not be had). Not to be confused with Guided Grad-CAM.
    """
    return grad_cam(activations, gradients) * hires_cam(activations, gradients)


@register_method("grad_cam")
def grad_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Grad-CAM: activations weighted by each channel's mean gradient, rectified.

    Args:
        activations: `(N, C, h, w)`.
        gradients: `(N, C, h, w)`.

    Returns:
        `(N, h, w)`, >= 0.

    Example:
        >>> grad_cam(torch.tensor([[[[1.0, 2.0]]]]), torch.tensor([[[[3.0, 1.0]]]]))
        tensor([[[2., 4.]]])

    Source: Selvaraju et al., arXiv 1610.02391, equations 1 and 2.
    """
    return _weighted_sum(gradients.mean(dim=(2, 3)), activations).relu()


@register_method("grad_cam_plus_plus")
def grad_cam_plus_plus(activations: Tensor, gradients: Tensor) -> Tensor:
    r"""Grad-CAM++: each position's positive gradient counts with its own weight.

    $$ \alpha = \frac{g^2}{2 g^2 + (\sum_{ij} A) \, g^3} \text{ (0 where g is 0)}, \quad
       w_k = \sum_{ij} \alpha_k \, \mathrm{ReLU}(g_k), \quad S = \mathrm{ReLU}(\sum_k w_k A_k) $$

    Args:
        activations: `(N, C, h, w)`.
        gradients: `(N, C, h, w)`.

    Returns:
        `(N, h, w)`, >= 0.

    Example:
        >>> grad_cam_plus_plus(torch.tensor([[[[1.0, 1.0]]]]), torch.tensor([[[[1.0, 0.0]]]]))  # alpha = 1 / (2 + 2)
        tensor([[[0.2500, 0.2500]]])

    Source: Chattopadhay et al., arXiv 1710.11063, equations 5, 10 and 19 (the class score through an exponential,
    whose common factor is left out, as it changes no map).
    """
    square = gradients.square()
    denominator = 2 * square + activations.sum(dim=(2, 3), keepdim=True) * square * gradients
    alpha = torch.where((gradients != 0) & (denominator != 0), square / denominator, 0.0)
    return _weighted_sum((alpha * gradients.relu()).sum(dim=(2, 3)), activations).relu()


@register_method("xgrad_cam")
def xgrad_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    r"""XGrad-CAM: gradients are pooled with the activations as weights.

    $$ w_k = \sum_{ij} \frac{A_k}{\sum_{ij} A_k} \, g_k, \quad S = \mathrm{ReLU}(\sum_k w_k A_k) $$

    A channel whose activations sum to zero gets no weight.

    Args:
        activations: `(N, C, h, w)`.
        gradients: `(N, C, h, w)`.

    Returns:
        `(N, h, w)`, >= 0.

    Example:
        >>> xgrad_cam(torch.tensor([[[[1.0, 3.0]]]]), torch.tensor([[[[4.0, 0.0]]]]))  # w = 1/4 * 4
        tensor([[[1., 3.]]])

    Source: Fu et al., "Axiom-based Grad-CAM", arXiv 2008.02312, equation 8.
    """
    total = activations.sum(dim=(2, 3))
    weights = (activations * gradients).sum(dim=(2, 3)) / torch.where(total != 0, total, 1.0)
    return _weighted_sum(torch.where(total != 0, weights, 0.0), activations).relu()


@register_method("layer_cam")
def layer_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    """LayerCAM: every position weighted by its own positive gradient.

    Args:
        activations: `(N, C, h, w)`.
        gradients: `(N, C, h, w)`.

    Returns:
        `(N, h, w)`, >= 0.

    Example:
        >>> layer_cam(torch.tensor([[[[1.0, 2.0]]]]), torch.tensor([[[[3.0, -1.0]]]]))
        tensor([[[3., 0.]]])

    Source: Jiang et al., "LayerCAM", IEEE TIP 2021, equations 4 to 6.
    """
    return (gradients.relu() * activations).sum(dim=1).relu()


@register_method("hires_cam")
def hires_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    """HiResCAM: activations times gradients, position by position, rectified. It is the guidance map by itself.

    Args:
        activations: `(N, C, h, w)`.
        gradients: `(N, C, h, w)`.

    Returns:
        `(N, h, w)`, >= 0.

    Example:
        >>> hires_cam(torch.tensor([[[[1.0, 2.0]]]]), torch.tensor([[[[3.0, -1.0]]]]))
        tensor([[[3., 0.]]])

    Source: Draelos and Carin, arXiv 2011.08891.
    """
    return (activations * gradients).sum(dim=1).relu()


def _weighted_sum(weights: Tensor, activations: Tensor) -> Tensor:
    """The channels `(N, C, h, w)` summed with one weight `(N, C)` each."""
    return torch.einsum("nc,nchw->nhw", weights, activations)
