"""How a model is called with images and nothing else, and what is said where that cannot be.

Not every module takes images: one without a forward is called through its only part that has parameters, and one that
takes keywords by the name of its main input. What takes a whole batch needs a `forward=`, which the error shows.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from weakref import WeakSet

from torch import Tensor, nn

from lightning_gcam._errors import InputError
from lightning_gcam._lightning import in_both, rank_zero_info
from lightning_gcam.cam.differentiable import recurrent_layers_without_cudnn

Forward = Callable[[nn.Module, Tensor], Any]
"""`(model, images) -> output`, for a model that is not simply called with the images."""


class NotTaken(InputError):
    """The forward does not take images of whole numbers (uint8, say) as they are."""


def run(model: nn.Module, images: Tensor, forward: Forward | None) -> Any:
    """The model's output for the images, through `forward` where there is one.

    Args:
        model: one whose own forward takes the images, first or by a keyword; or one that has no forward, and a single
            part with parameters, which is called then.
        images: `(N, C, H, W)`, on the model's device.
        forward: the user's own way to call it.

    Raises:
        InputError: where it cannot be called so; the message shows what was tried, and the `forward=` to copy.

    Example:
        >>> import torch
        >>> class TakesKeywords(nn.Module):
        ...     def forward(self, **inputs):
        ...         return inputs["pixel_values"].mean(dim=(2, 3))
        >>> run(TakesKeywords(), torch.ones(1, 2, 4, 4), None)
        tensor([[1., 1.]])
    """
    way = _Way.of(model)
    try:
        with recurrent_layers_without_cudnn(model):
            output = way(images) if forward is None else forward(model, images)
    except InputError:
        raise
    except NotImplementedError as error:
        if str(error) and "forward" not in str(error):  # an operation that this device does not know
            raise
        raise InputError(_without_forward(model, way)) from error
    except (RuntimeError, TypeError, LookupError, AttributeError, ValueError) as error:
        if _is_for_whole_numbers(images, error):
            raise NotTaken(_not_taken(model, images, error)) from error
        if model in _RAN or not _is_of_the_call(error, way if forward is None else None):
            raise
        raise InputError(_failed(model, images, way if forward is None else None, error)) from error
    if model not in _RAN:
        _RAN.add(model)
        if forward is None and way.path != "module":
            rank_zero_info(
                f"{type(model).__name__} has no `forward` of its own: its only part with parameters is called with the "
                f"images, as `{way}`. If the logits come about otherwise, pass `forward=`."
            )
    return output


_RAN: WeakSet[nn.Module] = WeakSet()
"""The models that did run: it was said how they are called, and what fails later has another cause."""


@dataclass(frozen=True)
class _Way:
    """How a model is called.

    Args:
        module: the model, or its only part.
        path: the code that gives `module` from the model.
        keyword: under which name the images go; None for the first place.
    """

    module: nn.Module
    path: str = "module"
    keyword: str | None = None

    @staticmethod
    def of(model: nn.Module, path: str = "module") -> _Way:
        """The way for any model; one that cannot be called is called all the same, and says so itself."""
        inner = getattr(model, "_orig_mod", model)  # of `torch.compile`, whose own forward takes anything
        if _has_forward(inner):
            return _Way(model, path, _keyword(inner))
        parts = _parts(inner)
        return _Way.of(getattr(inner, parts[0]), f"{path}.{parts[0]}") if len(parts) == 1 else _Way(model)

    def __call__(self, images: Tensor) -> Any:
        return self.module(images) if self.keyword is None else self.module(**{self.keyword: images})

    def __str__(self) -> str:
        return f"{self.path}({f'{self.keyword}=' if self.keyword is not None else ''}images)"

    @property
    def takes_a_batch(self) -> bool:
        """Whether the name of what the forward takes says that it is a whole batch."""
        return [each.name for each in _parameters(self.module)][:1] == ["batch"]


_WITHOUT = (nn.Module.forward, *(each.forward for each in in_both("core.LightningModule")))
"""What stands in the place of a forward in a class that has none."""


def _has_forward(model: nn.Module) -> bool:
    function = inspect.unwrap(model.forward)  # a compiler may have wrapped it
    return getattr(function, "__func__", function) not in _WITHOUT


def _parts(model: nn.Module) -> list[str]:
    """The names of the direct children that hold parameters."""
    return [name for name, child in model.named_children() if next(child.parameters(), None) is not None]


def _parameters(model: nn.Module) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(model.forward).parameters.values())
    except (TypeError, ValueError):  # a compiled script has none to read
        return []


def _keyword(model: nn.Module) -> str | None:
    """The name of the images in a forward that takes keywords only; None where it takes them in the first place."""
    parameters = _parameters(model)
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
    """What Hugging Face says of a model, or of the only part of it of which it says anything."""
    names = [getattr(each, "main_input_name", None) for each in (model, *model.children())]
    known = dict.fromkeys(name for name in names if isinstance(name, str))
    return next(iter(known)) if names[0] in known or len(known) == 1 else "pixel_values"


# --------------------------------------------------------------------------------------------- what is said


def _is_for_whole_numbers(images: Tensor, error: Exception) -> bool:
    is_of_type = any(words in str(error) for words in ("type", "not implemented for"))
    return isinstance(error, (RuntimeError, TypeError)) and is_of_type and not images.is_floating_point()


def _is_of_the_call(error: Exception, way: _Way | None) -> bool:
    """Whether a model seems to have been given something else than it takes.

    A `forward(batch)` that takes the first image for the images fails at some layer, in that layer's words.
    """
    if way is not None and way.takes_a_batch:
        return "memory" not in str(error)
    if isinstance(error, ValueError):
        return "unpack" in str(error)
    return not isinstance(error, RuntimeError)


def _not_taken(model: nn.Module, images: Tensor, error: Exception) -> str:
    return (
        f"`images` must be of a kind that the forward of {type(model).__name__} takes; got {images.dtype} "
        f"(N, {', '.join(map(str, images.shape[1:]))}) ({error}). Convert them as your training does, as with "
        "`images.float() / 255`."
    )


def _without_forward(model: nn.Module, way: _Way) -> str:
    parts = _parts(model)
    several = f", and {len(parts)} parts with parameters ({', '.join(parts)})" if len(parts) > 1 else ""
    return f"{type(model).__name__} has no `forward` of its own{several}: {_remedy(model, way)}"


def _failed(model: nn.Module, images: Tensor, way: _Way | None, error: Exception) -> str:
    kind = f"images {tuple(images.shape)} {str(images.dtype).removeprefix('torch.')}"
    raised = f"{type(error).__name__}: {error}"
    if way is None:
        return (
            f"`forward` failed on {type(model).__name__} and {kind}: {raised}. It is called as "
            "`forward(module, images)`, and gives the logits."
        )
    return (
        f"{type(model).__name__} was called with {kind}, as `{way}`, which raised {raised}. If it takes anything but "
        f"the images alone, {_remedy(model, way)}"
    )


def _remedy(model: nn.Module, way: _Way) -> str:
    return (
        "pass `forward=`, a function from the module and the images to the logits, for example:\n"
        f"    forward=lambda module, images: {_example(model, way)}"
    )


_HEADS = ("head", "classifier", "fc", "linear")


def _example(model: nn.Module, way: _Way) -> str:
    """The parts in a row where the last is a head, the first of them else; never what was tried."""
    parts = _parts(model)
    in_a_row = len(parts) > 1 and any(word in parts[-1].lower() for word in _HEADS)
    code = "images"
    if len(parts) > 1 and not in_a_row and way.takes_a_batch:
        parts = []  # its own forward knows how they belong together
    for part in parts if in_a_row else parts[:1]:
        code = f"module.{part}({code})"
    return code if code not in ("images", str(way)) else f'{way.path}({{"image": images}})'
