"""Calling a model with images; where that fails, the error shows a `forward=` that was tried and works."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn

from lightning_gcam.cam.layouts import find_layout, leaves_of, main_tensor
from lightning_gcam.cam.outputs import RECIPES, find_raw_logits
from lightning_gcam.utils.chunking import one_forward
from lightning_gcam.utils.errors import MACHINE_FAILURE, InputError
from lightning_gcam.utils.isolation import is_sharded, untouched
from lightning_gcam.utils.lightning_compat import in_both, rank_zero_info

_SAMPLES = 2
"""How many images a `forward=` is tried with: for a single one, a list of anything has as many parts as samples."""


def first_working_code(
    model: nn.Module, images: Tensor, codes: Iterable[str], of_a_part: Collection[str] = ()
) -> str | None:
    """The first of several codes for `forward=` with which a model can be explained; None where none works.

    Sharded models are not tried: only their whole forward may be called.

    Args:
        model: it is left as it was.
        images: `(N, C, H, W)`, on the model's device.
        codes: what stands behind `lambda module, images:`.
        of_a_part: those codes that call one part alone; numbers at every position are its features, and no logits.

    Example:
        >>> model = nn.ModuleDict({"head": nn.Linear(4, 2), "conv": nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten())})
        >>> codes = ['module["head"](images)', 'module["conv"](images)']
        >>> first_working_code(model, torch.rand(2, 3, 8, 8), codes)
        'module["conv"](images)'
    """
    if is_sharded(model):
        return None
    few = images[:_SAMPLES]
    return next((code for code in codes if _works(model, few, code, dense=code not in of_a_part)), None)


def _works(model: nn.Module, images: Tensor, code: str, *, dense: bool) -> bool:
    """Whether a model can be explained with this code as its `forward=`."""
    with suppress(Exception), untouched(model), torch.inference_mode(False), torch.enable_grad():
        return _can_be_explained(model, images, eval(f"lambda module, images: {code}"), dense=dense)
    return False


def _can_be_explained(model: nn.Module, images: Tensor, forward: Any, *, dense: bool) -> bool:
    """Whether some submodule's output is a grid over the image, and the logits are computed from it."""
    size, grids = (images.shape[-2], images.shape[-1]), []

    def collect(_: nn.Module, __: Any, output: Any) -> None:
        tensor = main_tensor(output)
        if tensor is not None and tensor.requires_grad and find_layout(tensor, size, len(images)) is not None:
            grids.append(tensor)

    with ExitStack() as stack:
        for module in list(model.modules())[1:]:
            stack.callback(module.register_forward_hook(collect).remove)
        leaf = images.detach().clone().requires_grad_(images.is_floating_point())
        logits = find_raw_logits(forward(model, leaf.clone()), len(images))
    if not grids or not logits.requires_grad or (logits.ndim == 4 and not dense):
        return False
    gradients = torch.autograd.grad(logits.float().square().sum(), grids, allow_unused=True)
    return any(each is not None for each in gradients)


Forward = Callable[[nn.Module, Tensor], Any]
"""`(model, images) -> output`: a user's own way to call a model."""


def forward_at(forward: Any, rows: Any) -> Any:
    """The same way to call a model, for some of the samples that it belongs to.

    Args:
        forward: as in `call_model`.
        rows: of which sample each image will be.
    """
    return forward.at(rows) if hasattr(forward, "at") else forward


class IntegerImagesError(InputError):
    """Raised where a forward takes images as floating point, and not the whole numbers (such as uint8) that came."""


def call_model(model: nn.Module, images: Tensor, forward: Forward | None) -> Any:
    """The model's output for the images, through `forward` where there is one.

    Args:
        model: one whose own forward takes the images, first or by a keyword; or one that has no forward, and a single
            part with parameters, which is called then.
        images: `(N, C, H, W)`, on the model's device.
        forward: the user's own way to call it; None to call it with the images.

    Raises:
        InputError: where it cannot be called so; the message shows what was tried, and a `forward=` to copy that works.

    Example:
        >>> import torch
        >>> class TakesKeywords(nn.Module):
        ...     def forward(self, **inputs):
        ...         return inputs["pixel_values"].mean(dim=(2, 3))
        >>> call_model(TakesKeywords(), torch.ones(1, 2, 4, 4), None)
        tensor([[1., 1.]])
    """
    invocation = _Invocation.of(model)
    try:
        with _recurrent_layers_without_cudnn(model), one_forward(images):
            output = invocation(images) if forward is None else forward(model, images)
    except InputError:
        raise
    except NotImplementedError as error:
        if str(error) and "forward" not in str(error):  # an operation that this device does not have
            raise
        raise InputError(_message_without_forward(model, images, invocation)) from error
    except (RuntimeError, TypeError, LookupError, AttributeError, ValueError) as error:
        if _is_about_integers(images, error):
            kind = IntegerImagesError if _takes_floats(model, images, forward) else InputError
            raise kind(_message_not_taken(model, images, error, floats=kind is IntegerImagesError)) from error
        if model in _RAN or not _is_wrong_input(error, invocation if forward is None else None):
            raise
        raise InputError(
            _message_failed(model, images, invocation if forward is None else None, error)
        ) from error
    if model not in _RAN:
        _RAN.add(model)
        if forward is None and invocation.path != "module":
            rank_zero_info(
                f"{type(model).__name__} has no `forward` of its own: its only part with parameters is called with the "
                f"images, as `{invocation}`. If the logits come about otherwise, pass `forward=`."
            )
    return output


@contextmanager
def _recurrent_layers_without_cudnn(model: nn.Module) -> Iterator[None]:
    """Run the model's `nn.RNN`, `nn.LSTM` and `nn.GRU` without cuDNN, whose backward needs training mode.

    Everything else runs as it did: a whole forward without cuDNN would be slow, and of other bits.
    """
    before: list[bool] = []

    def off(*_: Any) -> None:
        before.append(torch.backends.cudnn.enabled)
        torch.backends.cudnn.enabled = False

    def back(*_: Any) -> None:
        if before:
            torch.backends.cudnn.enabled = before.pop()

    with ExitStack() as stack:
        for each in model.modules():
            if isinstance(each, nn.RNNBase):
                stack.callback(each.register_forward_pre_hook(off).remove)
                stack.callback(each.register_forward_hook(back, always_call=True).remove)
        try:
            yield
        finally:
            while before:
                back()


_RAN: WeakSet[nn.Module] = WeakSet()
"""The models that ran once: how they are called was logged, and a later failure has another cause."""


@dataclass(frozen=True)
class _Invocation:
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
    def of(model: nn.Module, path: str = "module") -> _Invocation:
        """How to call any model; one that cannot be called is called all the same, and raises its own error."""
        inner = getattr(model, "_orig_mod", model)  # of `torch.compile`, whose own forward takes anything
        if _has_forward(inner):
            return _Invocation(model, path, _keyword(inner))
        parts = _parts(inner)
        return (
            _Invocation.of(getattr(inner, parts[0]), f"{path}.{parts[0]}")
            if len(parts) == 1
            else _Invocation(model)
        )

    def __call__(self, images: Tensor) -> Any:
        return self.module(images) if self.keyword is None else self.module(**{self.keyword: images})

    def __str__(self) -> str:
        return f"{self.path}({f'{self.keyword}=' if self.keyword is not None else ''}images)"

    @property
    def takes_a_batch(self) -> bool:
        """Whether the first parameter of the forward is named `batch`, so that it takes a whole batch."""
        return [each.name for each in _parameters(self.module)][:1] == ["batch"]


def _has_forward(model: nn.Module) -> bool:
    """Whether a model's class defines a forward."""
    function = inspect.unwrap(model.forward)  # a compiler may have wrapped it
    inherited = [nn.Module.forward, *(each.forward for each in in_both("core.LightningModule"))]
    return getattr(function, "__func__", function) not in inherited


def _parts(model: nn.Module) -> list[str]:
    """The names of the direct children that hold parameters."""
    return [name for name, child in model.named_children() if next(child.parameters(), None) is not None]


def _parameters(model: nn.Module) -> list[inspect.Parameter]:
    """The parameters in the signature of a model's forward."""
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
    """Hugging Face's `main_input_name` of a model, or of the only part of it that has one; "pixel_values" elsewhere."""
    names = [getattr(each, "main_input_name", None) for each in (model, *model.children())]
    known = dict.fromkeys(name for name in names if isinstance(name, str))
    return next(iter(known)) if names[0] in known or len(known) == 1 else "pixel_values"


# --------------------------------------------------------------------------------------------- the messages


def _is_about_integers(images: Tensor, error: Exception) -> bool:
    """Whether a forward failed because the images are whole numbers."""
    is_of_type = any(part in str(error) for part in ("type", "not implemented for"))
    return isinstance(error, (RuntimeError, TypeError)) and is_of_type and not images.is_floating_point()


_OF_SHAPE = re.compile(
    r"shape|size|channels|[Dd]imension|[Ee]xpected \dD|must match|[Ee]xpected input|at dim|same dtype|number of dims"
)
"""Words of torch's errors for a tensor of another shape or type than an operation takes."""


def _is_wrong_input(error: Exception, invocation: _Invocation | None) -> bool:
    """Whether an error seems to come from an input that the model does not take.

    A `forward(batch)` that takes the first image for the images, or a generator that takes a latent, fails at some
    layer, with that layer's message.
    """
    message = str(error)
    if MACHINE_FAILURE.search(message):
        return False
    if invocation is not None and invocation.takes_a_batch:
        return True
    if isinstance(error, ValueError):
        return "unpack" in message or re.search(r"expected \dD", message) is not None
    return not isinstance(error, RuntimeError) or is_misfit(error)


def is_misfit(error: Exception) -> bool:
    """Whether a RuntimeError means the same as a TypeError: an input of another shape or type than is taken.

    Example:
        >>> is_misfit(RuntimeError("mat1 and mat2 shapes cannot be multiplied (1x2 and 3x4)"))
        True
        >>> is_misfit(RuntimeError("CUDA error: device-side assert triggered"))
        False
    """
    return MACHINE_FAILURE.search(str(error)) is None and _OF_SHAPE.search(str(error)) is not None


def _takes_floats(model: nn.Module, images: Tensor, forward: Forward | None) -> bool:
    """Whether a model takes the images once they are floating point, between 0 and 1."""
    floats = images.float() / 255
    with suppress(Exception), untouched(model):
        (_Invocation.of(model)(floats) if forward is None else forward(model, floats))
        return True
    return False


def _message_not_taken(model: nn.Module, images: Tensor, error: Exception, *, floats: bool) -> str:
    """The message for images of whole numbers that a forward does not take."""
    return (
        f"`images` must be of a kind that the forward of {type(model).__name__} takes; got {images.dtype} "
        f"(N, {', '.join(map(str, images.shape[1:]))}) ({error}). Convert them as your training does"
        + (", as with `images.float() / 255`." if floats else ", in an `adapter=`.")
    )


def _message_without_forward(model: nn.Module, images: Tensor, invocation: _Invocation) -> str:
    """The message for a model that has no forward, and several parts or none that could be called."""
    parts = _parts(model)
    note = f", and {len(parts)} parts with parameters ({', '.join(parts)})" if len(parts) > 1 else ""
    return f"{type(model).__name__} has no `forward` of its own{note}: {_remedy(model, images, invocation)}"


def _message_failed(
    model: nn.Module, images: Tensor, invocation: _Invocation | None, error: Exception
) -> str:
    """The message for a call that raised an error."""
    kind = f"images {tuple(images.shape)} {str(images.dtype).removeprefix('torch.')}"
    raised = f"{type(error).__name__}: {error}"
    if invocation is None:
        return (
            f"`forward` failed on {type(model).__name__} and {kind}: {raised}. It is called as "
            "`forward(module, images)`, and gives the logits."
        )
    return (
        f"{type(model).__name__} was called with {kind}, as `{invocation}`, which raised {raised}. If it takes "
        f"anything but the images alone, {_remedy(model, images, invocation)}"
    )


def _remedy(model: nn.Module, images: Tensor, invocation: _Invocation) -> str:
    """The advice to pass a `forward=`, with the code of one that works where there is one."""
    remedy = "pass `forward=`, a function from the module and the images to the logits"
    code = first_working_code(model, images, *_candidates(model, invocation))
    if code is None:
        return f"{remedy}; none that was tried gives a look, {RECIPES} has some."
    return f"{remedy}, for example:\n    forward=lambda module, images: {code}"


_HEADS = ("head", "classifier", "fc", "linear")

_NAMES = ("image", "images", "pixel_values", "x", "inputs", "input", "img", "data")
"""Likely names of the images in a batch that is a dictionary."""


def _candidates(model: nn.Module, invocation: _Invocation) -> tuple[list[str], set[str]]:
    """Codes that may call a model, the likeliest first, and those of them that call one part alone.

    Its parts in a row where the last is a head, one part, a batch, images with other dimensions.
    """
    parts, path = _parts(model), invocation.path
    in_a_row = len(parts) > 1 and any(word in parts[-1].lower() for word in _HEADS)
    code = "images"
    for part in parts:
        code = f"module.{part}({code})"
    alone = [f"module.{part}(images)" for part in parts]
    inner = [f"{path}.{part}(images)" for part in _parts(invocation.module)] if path != "module" else []
    batches = [f'{path}({{"{name}": images}})' for name in _NAMES]
    batches += [f"{path}((images, None))", f"{path}([images])"]
    permuted = [f"{path}(images{code})" for code in ("[:, 0]", ".permute(0, 2, 3, 1)")]
    either = [*alone, *batches]
    if len(parts) > 1 and not in_a_row and invocation.takes_a_batch:
        either = [*batches, *alone]  # its own forward combines its parts
    codes = [*([code] if in_a_row else []), *either, *inner, *permuted]
    return [each for each in dict.fromkeys(codes) if each not in ("images", str(invocation))], {
        *alone,
        *inner,
    }


# ------------------------------------------------------------------------------------- models without gradients


def quantized_message(model: nn.Module) -> str:
    """The message for a model with quantized layers, through which torch takes no gradient; empty for another."""
    name = next((name for name, each in model.named_modules() if "quantized" in type(each).__module__), None)
    if name is None:
        return ""
    return (
        f'{type(model).__name__} is quantized ("{name}"), and torch takes no gradient through such a layer: no '
        "`target_layer` can be explained. Look at the model before it was converted, see "
        f"{RECIPES}#quantized-and-detached-models."
    )


def no_gradient_message(model: nn.Module, images: Tensor, forward: Forward | None) -> str:
    """The message for a model whose output has no gradient with respect to the images; empty for another.

    Args:
        model: in eval mode.
        images: `(N, C, H, W)`.
        forward: as in `call_model`.
    """
    if (message := quantized_message(model)) or is_sharded(model):
        return message
    with torch.enable_grad():
        leaf = images.detach().clone().requires_grad_(images.is_floating_point())
        output = call_model(model, leaf.clone(), forward)
        live = [each for each in leaves_of(output) if isinstance(each, Tensor) and each.requires_grad]
        if live and (not leaf.requires_grad or _depends_on(live, leaf)):
            return ""
    where = (
        "its output carries no graph" if not live else "its output is not computed from the images by a graph"
    )
    code = (
        first_working_code(model, images, *_candidates(model, _Invocation.of(model)))
        if forward is None
        else None
    )
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
    """Whether any of the tensors is computed from the leaf."""
    total = torch.stack([each.float().sum() for each in tensors]).sum()
    return torch.autograd.grad(total, leaf, allow_unused=True)[0] is not None
