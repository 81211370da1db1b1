"""Whether two evaluations are the same one: what each computes, of which weights, as settings and a short text."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

from torch import nn
from torchmetrics import Metric

from lightning_gcam.callbacks.places import checksum
from lightning_gcam.callbacks.recipe import Recipe
from lightning_gcam.metrics import resolve_scores


def settings_of(
    recipe: Recipe, module: nn.Module, target_layer: Any, adapter: Callable[..., Any] | None
) -> dict[str, Any]:
    """What an evaluation computes, and of which weights, in JSON's types.

    Args:
        recipe: what is computed.
        module: the model.
        target_layer: as it was given.
        adapter: as it was given.
    """
    targets = recipe.targets
    return {
        "methods": {name: _told(method) for name, method in recipe.methods.items()},
        "scores": {name: _traits(metric) for name, metric in resolve_scores(recipe.scores).items()},
        "target_layer": target_layer,
        "fuse": recipe.fuse,
        "targets": _told(targets) if callable(targets) else targets,
        "multi_label": recipe.multi_label,
        "forward": _told(recipe.forward),
        "reshape_transform": _told(recipe.reshape_transform),
        "adapter": _told(adapter),
        "weights": checksum(module.state_dict()),
    }


def fingerprint(settings: dict[str, Any]) -> str:
    """A short text, the same where the settings are.

    Example:
        >>> fingerprint({"fuse": None, "targets": 3}) == fingerprint({"targets": 3, "fuse": None})
        True
    """
    text = json.dumps(settings, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


def _traits(metric: Metric) -> list[Any]:
    """A metric's class, and the arguments that it keeps."""
    plain = (int, float, str, bool, tuple, type(None))
    kept = {name: each for name, each in vars(metric).items() if isinstance(each, plain) and name[0] != "_"}
    return [type(metric).__qualname__, {name: kept[name] for name in sorted(kept)}]


def _told(function: Any) -> Any:
    """A callable by its name and its code: another one under the same name is another one."""
    if function is None or not callable(function):
        return function
    told: list[Any] = []
    while (inner := getattr(function, "func", None) or getattr(function, "function", None)) is not None:
        told.append([str(getattr(function, "args", "")), str(getattr(function, "keywords", ""))])
        function = inner  # of a functools.partial, or of what wraps a method
    name = getattr(function, "__qualname__", type(function).__qualname__)
    told.append(f"{getattr(function, '__module__', '')}.{name}")
    code = getattr(function, "__code__", None)
    if code is not None:
        constants = [repr(each) for each in code.co_consts if not hasattr(each, "co_code")]
        text = repr([code.co_code, code.co_names, constants])
        told.append(hashlib.blake2b(text.encode(), digest_size=6).hexdigest())
    return told
