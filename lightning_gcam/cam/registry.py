"""The table of CAM methods by name: functions of activations and gradients, or functions that run the model again."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor

from lightning_gcam.utils.errors import InputError, did_you_mean

Method = Callable[[Tensor, Tensor], Tensor]
"""`(activations, gradients) -> (N, *grid)`."""


@dataclass(frozen=True)
class ModelMethod:
    """A method that runs the model again: a function from a `lightning_gcam.cam.MethodContext` to the maps.

    Args:
        function: `context -> (N, *grid)`, on a grid of any size.
        name: of its maps; the function's own name where it is left out.
        requires: a package that it needs, which the extra of the same name installs.
        uses_layer: False where the target layer plays no part: it is run once, also with several layers.

    Example:
        >>> from functools import partial
        >>> from lightning_gcam.cam.methods import ss_cam
        >>> ModelMethod(partial(ss_cam, draws=4), "ss_cam_4").name  # another setting, for `methods=[...]`
        'ss_cam_4'
    """

    function: Callable[[Any], Tensor]
    name: str = ""
    requires: str | None = None
    uses_layer: bool = True

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", _name_of(self.function))

    def __call__(self, context: Any) -> Tensor:
        """Compute the maps."""
        return self.function(context)


AnyMethod = Method | ModelMethod
"""A method of either kind."""

Methods = AnyMethod | str | Sequence[AnyMethod | str] | Mapping[str, AnyMethod]
"""A name, a callable, several of them, or callables by the names their maps are to have. (`LightningCLI` tries them in
this order: a path to a function is not taken for a name.)"""

_METHODS: dict[str, AnyMethod] = {}

Function = TypeVar("Function", bound=Callable[..., Tensor])


def register_method(name: str) -> Callable[[Method], Method]:
    """Register a function of activations and gradients under `name`, for `methods="name"`.

    Args:
        name: the name; it must be free.

    Raises:
        InputError: where the name is taken.

    Example:
        >>> from lightning_gcam.cam import available_methods, register_method
        >>> @register_method("mean_activation")
        ... def mean_activation(activations, gradients):
        ...     return activations.mean(dim=1)
        >>> "mean_activation" in available_methods()
        True
    """

    def register(function: Method) -> Method:
        _register(name, function)
        return function

    return register


def register_model_method(
    name: str, *, requires: str | None = None, uses_layer: bool = True
) -> Callable[[Function], Function]:
    """Register a function that runs the model again under `name`, for `methods="name"`.

    Args:
        name: the name; it must be free.
        requires: a package that it needs, which the extra of the same name installs.
        uses_layer: False where the target layer plays no part. Where several layers are named, such a method is run
            once, and its one map, which is never fused, goes by the method's name alone.

    Raises:
        InputError: where the name is taken.

    Example:
        >>> from lightning_gcam.cam import available_methods, register_model_method
        >>> @register_model_method("darkened")
        ... def darkened(context):
        ...     halves = context.scores(lambda rows, numbers: context.images[rows] / 2, count=1)
        ...     return (context.explained[:, None] - halves)[:, :, None] * context.activations.mean(dim=1)
        >>> "darkened" in available_methods()
        True
    """

    def register(function: Function) -> Function:
        _register(name, ModelMethod(function, name, requires, uses_layer))
        return function

    return register


def _register(name: str, method: AnyMethod) -> None:
    """Put a method into the table, unless another has its name."""
    before = _METHODS.get(name, method)
    if _function_of(before) is not _function_of(method) and not _same_source(before, method):
        raise InputError(f'`name` "{name}" is taken by another method. Choose another name.')
    _METHODS[name] = method


def _function_of(method: AnyMethod) -> Callable[..., Tensor]:
    """The function of a method of either kind."""
    return method.function if isinstance(method, ModelMethod) else method


def _same_source(left: AnyMethod, right: AnyMethod) -> bool:
    """Whether two functions are one, defined twice: a notebook's cell run again, a module reloaded."""
    one, other = _function_of(left), _function_of(right)
    return _name_of(one) == _name_of(other) and one.__module__ == other.__module__


def available_methods() -> tuple[str, ...]:
    """The names of all registered methods, in the order they were registered.

    Example:
        >>> from lightning_gcam.cam import available_methods
        >>> available_methods()[:3]
        ('guidance_cam', 'grad_cam', 'grad_cam_plus_plus')
    """
    return tuple(_METHODS)


def resolve_methods(methods: Methods) -> dict[str, AnyMethod]:
    """Resolve names and callables to an ordered table from name to method.

    Args:
        methods: one name, one callable `(activations, gradients) -> (N, *grid)`, a `ModelMethod`, or several of them.
            A callable goes by its `__name__`, or by its key in a mapping.

    Raises:
        InputError: an unknown name (the nearest are given), an empty sequence, two methods of one name, or a method
            whose package is not installed.

    Example:
        >>> from lightning_gcam.cam import resolve_methods
        >>> list(resolve_methods(["grad_cam", "layer_cam"]))
        ['grad_cam', 'layer_cam']
    """
    if isinstance(methods, Mapping):
        pairs = [(str(name), _resolve(each)[1]) for name, each in methods.items()]
    else:
        if isinstance(methods, str) or callable(methods) or not isinstance(methods, Iterable):
            methods = [methods]
        pairs = [_resolve(each) for each in methods]
    if not pairs:
        raise InputError(f"`methods` is empty. Name at least one of {', '.join(available_methods())}.")
    table: dict[str, AnyMethod] = {}
    for name, method in pairs:
        if name in table:
            raise InputError(
                f'`methods` has two entries named "{name}", and maps are known by their method\'s name. Name it '
                'once, or rename one: a callable goes by its `__name__`, as in `function.__name__ = "other"`.'
            )
        _check_installed(name, method)
        table[name] = method
    return table


def _resolve(method: str | AnyMethod) -> tuple[str, AnyMethod]:
    """The name of a method and the method itself, from either."""
    if isinstance(method, ModelMethod):
        return method.name, method
    if callable(method):
        with_model = {id(each.function): each for each in _METHODS.values() if isinstance(each, ModelMethod)}
        known = with_model.get(id(method))
        return (known.name, known) if known is not None else (_name_of(method), method)
    if not isinstance(method, str):
        raise InputError(
            f"`methods` takes names or callables (activations, gradients) -> map; got {method!r}. "
            f"Name one of {', '.join(available_methods())}."
        )
    if method not in _METHODS:
        raise InputError(f'`methods` "{method}" is not a method. {did_you_mean(method, _METHODS)}')
    return method, _METHODS[method]


def uses_layer(method: AnyMethod) -> bool:
    """Whether a method's map depends on the target layer.

    Example:
        >>> from lightning_gcam.cam import resolve_methods
        >>> {name: uses_layer(each) for name, each in resolve_methods(["grad_cam", "full_grad"]).items()}
        {'grad_cam': True, 'full_grad': False}
    """
    return not isinstance(method, ModelMethod) or method.uses_layer


def _check_installed(name: str, method: AnyMethod) -> None:
    """Refuse a method whose package is not installed."""
    package = method.requires if isinstance(method, ModelMethod) else None
    if package is not None and importlib.util.find_spec(package) is None:
        raise InputError(
            f'`methods` "{name}" needs the package {package}, which is not installed. Install it:\n'
            f'    pip install "lightning-gcam[{package}]"'
        )


def _name_of(method: Callable[..., Any]) -> str:
    """The `__name__` of a callable, or that of its class."""
    return str(getattr(method, "__name__", type(method).__name__)).strip("<>")
