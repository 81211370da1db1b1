"""How a module is called with images, and a `forward=` that was tried where it cannot be."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn

from lightning_gcam.cam.layouts import find_layout, leaves_of, main_tensor
from lightning_gcam.cam.outputs import RECIPES, find_raw_logits
from lightning_gcam.utils.errors import OF_THE_MACHINE, InputError
from lightning_gcam.utils.isolation import is_sharded, recurrent_layers_without_cudnn, untouched
from lightning_gcam.utils.lightning_compat import in_both, rank_zero_info

_SAMPLES = 2
"""How many images a code is tried with: of one alone, a list of anything has as many parts as samples."""


def first_that_works(
    model: nn.Module, images: Tensor, codes: Iterable[str], of_a_part: Collection[str] = ()
) -> str | None:
    """The first code of a `forward=` with which a look can be taken; None where none is one, or it cannot be tried.

    Sharded modules are not tried: of theirs only the whole forward may be called.

    Args:
        model: it is left as it was.
        images: `(N, C, H, W)`, on the model's device.
        codes: what stands behind `lambda module, images:`.
        of_a_part: those of them that call one part alone; numbers at every position are its features, and no logits.

    Example:
        >>> model = nn.ModuleDict({"head": nn.Linear(4, 2), "conv": nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten())})
        >>> codes = ['module["head"](images)', 'module["conv"](images)']
        >>> first_that_works(model, torch.rand(2, 3, 8, 8), codes)
        'module["conv"](images)'
    """
    if is_sharded(model):
        return None
    few = images[:_SAMPLES]
    return next((code for code in codes if _works(model, few, code, dense=code not in of_a_part)), None)


def _works(model: nn.Module, images: Tensor, code: str, *, dense: bool) -> bool:
    with suppress(Exception), untouched(model), torch.inference_mode(False), torch.enable_grad():
        return _gives_a_look(model, images, eval(f"lambda module, images: {code}"), dense=dense)
    return False


def _gives_a_look(model: nn.Module, images: Tensor, forward: Any, *, dense: bool) -> bool:
    """Whether some module's output is a grid over the image, and the logits are computed from it."""
    size, grids = (images.shape[-2], images.shape[-1]), []

    def note(_: nn.Module, __: Any, output: Any) -> None:
        tensor = main_tensor(output)
        if tensor is not None and tensor.requires_grad and find_layout(tensor, size, len(images)) is not None:
            grids.append(tensor)

    with ExitStack() as stack:
        for module in list(model.modules())[1:]:
            stack.callback(module.register_forward_hook(note).remove)
        leaf = images.detach().clone().requires_grad_(images.is_floating_point())
        logits = find_raw_logits(forward(model, leaf.clone()), len(images))
    if not grids or not logits.requires_grad or (logits.ndim == 4 and not dense):
        return False
    gradients = torch.autograd.grad(logits.float().square().sum(), grids, allow_unused=True)
    return any(each is not None for each in gradients)


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
        InputError: where it cannot be called so; the message shows what was tried, and a `forward=` to copy that works.

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
        raise InputError(_without_forward(model, images, way)) from error
    except (RuntimeError, TypeError, LookupError, AttributeError, ValueError) as error:
        if _is_for_whole_numbers(images, error):
            kind = NotTaken if _takes_shares(model, images, forward) else InputError
            raise kind(_not_taken(model, images, error, shares=kind is NotTaken)) from error
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


_OF_SHAPE = re.compile(
    r"shape|size|channels|[Dd]imension|[Ee]xpected \dD|must match|[Ee]xpected input|at dim|same dtype|number of dims"
)
"""What torch says of a tensor of another shape or type than an operation takes."""


def _is_of_the_call(error: Exception, way: _Way | None) -> bool:
    """Whether a model seems to have been given something else than it takes.

    A `forward(batch)` that takes the first image for the images, or a generator that takes a latent, fails at some
    layer, in that layer's words.
    """
    words = str(error)
    if OF_THE_MACHINE.search(words):
        return False
    if way is not None and way.takes_a_batch:
        return True
    if isinstance(error, ValueError):
        return "unpack" in words or re.search(r"expected \dD", words) is not None
    return not isinstance(error, RuntimeError) or is_misfit(error)


def is_misfit(error: Exception) -> bool:
    """Whether a RuntimeError says the same as a TypeError: that what was given is of another form than what is taken.

    Example:
        >>> is_misfit(RuntimeError("mat1 and mat2 shapes cannot be multiplied (1x2 and 3x4)"))
        True
        >>> is_misfit(RuntimeError("CUDA error: device-side assert triggered"))
        False
    """
    return OF_THE_MACHINE.search(str(error)) is None and _OF_SHAPE.search(str(error)) is not None


def _takes_shares(model: nn.Module, images: Tensor, forward: Forward | None) -> bool:
    """Whether whole numbers are taken once they are floating point, between 0 and 1."""
    shares = images.float() / 255
    with suppress(Exception), untouched(model):
        (_Way.of(model)(shares) if forward is None else forward(model, shares))
        return True
    return False


def _not_taken(model: nn.Module, images: Tensor, error: Exception, *, shares: bool) -> str:
    return (
        f"`images` must be of a kind that the forward of {type(model).__name__} takes; got {images.dtype} "
        f"(N, {', '.join(map(str, images.shape[1:]))}) ({error}). Convert them as your training does"
        + (", as with `images.float() / 255`." if shares else ", in an `adapter=`.")
    )


def _without_forward(model: nn.Module, images: Tensor, way: _Way) -> str:
    parts = _parts(model)
    several = f", and {len(parts)} parts with parameters ({', '.join(parts)})" if len(parts) > 1 else ""
    return f"{type(model).__name__} has no `forward` of its own{several}: {_remedy(model, images, way)}"


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
        f"the images alone, {_remedy(model, images, way)}"
    )


def _remedy(model: nn.Module, images: Tensor, way: _Way) -> str:
    remedy = "pass `forward=`, a function from the module and the images to the logits"
    code = first_that_works(model, images, *_examples(model, way))
    if code is None:
        return f"{remedy}; none that was tried gives a look, {RECIPES} has some."
    return f"{remedy}, for example:\n    forward=lambda module, images: {code}"


_HEADS = ("head", "classifier", "fc", "linear")

_NAMES = ("image", "images", "pixel_values", "x", "inputs", "input", "img", "data")
"""What the images are called in a batch with names."""


def _examples(model: nn.Module, way: _Way) -> tuple[list[str], set[str]]:
    """Ways to call a model, the likeliest first, and which of them call one part alone.

    Its parts in a row where the last is a head, one part, a batch, images that are laid out otherwise.
    """
    parts, path = _parts(model), way.path
    in_a_row = len(parts) > 1 and any(word in parts[-1].lower() for word in _HEADS)
    code = "images"
    for part in parts:
        code = f"module.{part}({code})"
    alone = [f"module.{part}(images)" for part in parts]
    inner = [f"{path}.{part}(images)" for part in _parts(way.module)] if path != "module" else []
    batches = [f'{path}({{"{name}": images}})' for name in _NAMES]
    batches += [f"{path}((images, None))", f"{path}([images])"]
    turned = [f"{path}(images{code})" for code in ("[:, 0]", ".permute(0, 2, 3, 1)")]
    either = [*alone, *batches]
    if len(parts) > 1 and not in_a_row and way.takes_a_batch:
        either = [*batches, *alone]  # its own forward knows how they belong together
    codes = [*([code] if in_a_row else []), *either, *inner, *turned]
    return [each for each in dict.fromkeys(codes) if each not in ("images", str(way))], {*alone, *inner}


# ------------------------------------------------------------------------------------- what has no gradient


def quantized_explained(model: nn.Module) -> str:
    """What is said of a model with quantized layers, through which torch takes no gradient; nothing of another."""
    name = next((name for name, each in model.named_modules() if "quantized" in type(each).__module__), None)
    if name is None:
        return ""
    return (
        f'{type(model).__name__} is quantized ("{name}"), and torch takes no gradient through such a layer: no '
        "`target_layer` can be explained. Look at the model before it was converted, see "
        f"{RECIPES}#quantized-and-detached-models."
    )


def no_gradient_explained(model: nn.Module, images: Tensor, forward: Forward | None) -> str:
    """What is said of a model whose output has no gradient at the images, whatever the layer; nothing of another.

    Args:
        model: in the mode it is to be looked at in.
        images: `(N, C, H, W)`.
        forward: as in `run`.
    """
    if (said := quantized_explained(model)) or is_sharded(model):
        return said
    with torch.enable_grad():
        leaf = images.detach().clone().requires_grad_(images.is_floating_point())
        output = run(model, leaf.clone(), forward)
        live = [each for each in leaves_of(output) if isinstance(each, Tensor) and each.requires_grad]
        if live and (not leaf.requires_grad or _depends_on(live, leaf)):
            return ""
    where = (
        "its output carries no graph" if not live else "its output is not computed from the images by a graph"
    )
    code = first_that_works(model, images, *_examples(model, _Way.of(model))) if forward is None else None
    remedy = (
        f"Pass a `forward=` that goes around it, for example:\n    forward=lambda module, images: {code}"
        if code is not None
        else f"Return what is in front of it, or see {RECIPES}#quantized-and-detached-models."
    )
    return (
        f"No `target_layer` of {type(model).__name__} can be explained: gradients were on, and {where}. Does its "
        "forward detach (`.detach()`, `.data`, `.numpy()`, `.item()`), decide (`argmax`, a threshold), or run under "
        f"`inference_mode`? {remedy}"
    )


def _depends_on(tensors: list[Tensor], leaf: Tensor) -> bool:
    total = torch.stack([each.float().sum() for each in tensors]).sum()
    return torch.autograd.grad(total, leaf, allow_unused=True)[0] is not None
