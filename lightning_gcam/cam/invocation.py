"""How a model is called: which part of it, with the images under which name, and with which other inputs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from lightning_gcam.utils import annotation
from lightning_gcam.utils.lightning_compat import in_both

Forward = Callable[..., Any]
"""`(model, images) -> output`: a user's own way to call a model. Where it takes a third argument, that is the samples'
other inputs: a dictionary of tensors and lists, one row a sample, by their names or places in the batch."""


@dataclass(frozen=True)
class Invocation:
    """How a model is called with images.

    Args:
        module: the model, or its only part.
        path: the code that gives `module` from the model.
        keyword: under which name the images go; None for the first place.
    """

    module: nn.Module
    path: str = "module"
    keyword: str | None = None

    @staticmethod
    def of(model: nn.Module, path: str = "module") -> Invocation:
        """How to call any model; one that cannot be called is called all the same, and raises its own error."""
        inner = getattr(model, "_orig_mod", model)  # of `torch.compile`, whose own forward takes anything
        if _has_forward(inner):
            return Invocation(model, path, _keyword(inner))
        parts = parts_with_parameters(inner)
        return (
            Invocation.of(getattr(inner, parts[0]), f"{path}.{parts[0]}")
            if len(parts) == 1
            else Invocation(model)
        )

    def __call__(self, images: Tensor, inputs: Mapping[str, Any] | None = None) -> Any:
        """The output for the images and for those other inputs that the forward takes."""
        others = {name: inputs[key] for name, key in self.others(inputs).items()} if inputs else {}
        if self.keyword is None:
            return self.module(images, **others)
        return self.module(**{self.keyword: images}, **others)

    def others(self, keys: Collection[str]) -> dict[str, str]:
        """Which of the samples' other inputs the forward takes: their keys, by the names of its parameters.

        A parameter takes the input of its name; those without a default that have none take the others in order.

        Args:
            keys: of the inputs, those first that are no annotation.
        """
        inner = getattr(self.module, "_orig_mod", self.module)
        parameters = _parameters(inner)[self.keyword is None :]  # behind the images
        beside = [each for each in parameters if each.kind in _NAMED and each.name != self.keyword]
        found = {each.name: each.name for each in beside if each.name in keys and not _is_label(each)}
        left = (key for key in keys if key not in found)
        for each in beside:
            if each.name not in found and each.default is inspect.Parameter.empty:
                if (key := next(left, None)) is None:
                    break
                found[each.name] = key
        return found

    def __str__(self) -> str:
        return f"{self.path}({f'{self.keyword}=' if self.keyword is not None else ''}images)"

    @property
    def takes_a_batch(self) -> bool:
        """Whether the first parameter of the forward is named `batch`, so that it takes a whole batch."""
        return [each.name for each in _parameters(self.module)][:1] == ["batch"]


_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def _is_label(parameter: inspect.Parameter) -> bool:
    """Whether a parameter may be left out and is named as annotation is: with it, many a forward computes a loss."""
    return parameter.default is not inspect.Parameter.empty and parameter.name.lower() in _ANNOTATION


_ANNOTATION = {*annotation.LABELS, *annotation.MASKS, "gt_boxes", "gt_bboxes", "index", "idx"}
"""No boxes but the true ones: a model of documents takes the `bbox` of each word, another one boxes as prompts."""


def _has_forward(model: nn.Module) -> bool:
    """Whether a model's class defines a forward."""
    function = inspect.unwrap(model.forward)  # a compiler may have wrapped it
    inherited = [nn.Module.forward, *(each.forward for each in in_both("core.LightningModule"))]
    return getattr(function, "__func__", function) not in inherited


def parts_with_parameters(model: nn.Module) -> list[str]:
    """The names of the direct children that hold parameters."""
    return [name for name, child in model.named_children() if next(child.parameters(), None) is not None]


def _parameters(model: nn.Module) -> list[inspect.Parameter]:
    """The parameters in the signature of a model's forward."""
    try:
        return list(inspect.signature(model.forward).parameters.values())
    except (TypeError, ValueError):  # a compiled script has none to read
        return []


def _keyword(model: nn.Module) -> str | None:
    """The name of the images in a forward that takes keywords only; None where it takes them in the first place.

    By their name, too, where something else stands first, as the text does in CLIP's `(input_ids, pixel_values, ...)`.
    """
    parameters = _parameters(model)
    if "pixel_values" in [each.name for each in parameters[1:]]:
        return "pixel_values"
    of_keywords = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD)
    if not parameters or any(each.kind not in of_keywords for each in parameters):
        return None
    named = [each for each in parameters if each.kind is inspect.Parameter.KEYWORD_ONLY]
    needed = [each for each in named if each.default is inspect.Parameter.empty]
    main = _main_input_name(model)
    if main in [each.name for each in named] or (len(named) < len(parameters) and not needed):
        return main
    return (needed or named)[0].name


def _main_input_name(model: nn.Module) -> str:
    """Hugging Face's `main_input_name` of a model, or of the only part of it that has one; "pixel_values" elsewhere."""
    names = [getattr(each, "main_input_name", None) for each in (model, *model.children())]
    known = dict.fromkeys(name for name in names if isinstance(name, str))
    return next(iter(known)) if names[0] in known or len(known) == 1 else "pixel_values"


def takes_inputs(forward: Forward) -> bool:
    """Whether a user's `forward` takes the samples' other inputs as a third argument.

    Example:
        >>> takes_inputs(lambda model, images: model(images)), takes_inputs(lambda model, images, inputs: None)
        (False, True)
    """
    try:
        parameters = inspect.signature(forward).parameters.values()
    except (TypeError, ValueError):
        return False
    in_order = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    given = [each for each in parameters if each.kind in in_order and each.default is inspect.Parameter.empty]
    return len(given) > 2
