"""Calling a model with images, and with what else its forward takes of the samples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar
from weakref import WeakSet

import torch
from torch import Tensor, nn

from lightning_gcam.cam.call_advice import (
    candidates,
    first_working_code,
    is_about_integers,
    is_wrong_input,
    message_failed,
    message_not_taken,
    message_without_forward,
    takes_floats,
)
from lightning_gcam.cam.invocation import Forward, Invocation, takes_inputs
from lightning_gcam.cam.layouts import leaves_of
from lightning_gcam.cam.outputs import RECIPES
from lightning_gcam.cam.whole import without_pairs
from lightning_gcam.utils.chunking import one_forward
from lightning_gcam.utils.dimensions import Size
from lightning_gcam.utils.errors import InputError
from lightning_gcam.utils.isolation import is_sharded
from lightning_gcam.utils.lightning_compat import rank_zero_info


class IntegerImagesError(InputError):
    """Raised where a forward takes images as floating point, and not the whole numbers (such as uint8) that came."""


def call_model(
    model: nn.Module, images: Tensor, forward: Forward | None, inputs: Mapping[str, Any] | None = None
) -> Any:
    """The model's output for the images, through `forward` where there is one.

    Of two towers, texts that are none of the inputs are classes, see `without_pairs`.

    Args:
        model: one whose own forward takes the images, first or by a keyword; or one that has no forward, and a single
            part with parameters, which is called then.
        images: `(N, C, *S)`, on the model's device.
        forward: the user's own way to call it; None to call it with the images.
        inputs: the samples' other inputs, one row each, of which the forward is given those that it takes.

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
    if isinstance(forward, WrappedForward):
        return forward(model, images)  # which calls this again
    invocation = Invocation.of(model)

    def call(images: Tensor) -> Any:
        if forward is None:
            return invocation(images, inputs)
        return forward(model, images, *([inputs or {}] if takes_inputs(forward) else []))

    try:
        with _recurrent_layers_without_cudnn(model), one_forward(images):
            output = call(images)
    except InputError:
        raise
    except NotImplementedError as error:
        if str(error) and "forward" not in str(error):  # an operation that this device does not have
            raise
        raise InputError(message_without_forward(model, images, invocation)) from error
    except (RuntimeError, TypeError, LookupError, AttributeError, ValueError) as error:
        if is_about_integers(images, error):
            kind = IntegerImagesError if takes_floats(call, model, images) else InputError
            raise kind(message_not_taken(model, images, error, floats=kind is IntegerImagesError)) from error
        if model in _RAN or not is_wrong_input(error, invocation if forward is None else None):
            raise
        raise InputError(
            message_failed(model, images, invocation if forward is None else None, error, inputs)
        ) from error
    if model not in _RAN:
        _RAN.add(model)
        if forward is None and invocation.path != "module":
            rank_zero_info(
                f"{type(model).__name__} has no `forward` of its own: its only part with parameters is called with the "
                f"images, as `{invocation}`. If the logits come about otherwise, pass `forward=`."
            )
    are_given = inputs and (invocation.others(inputs) if forward is None else takes_inputs(forward))
    return output if are_given else without_pairs(output)


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


@contextmanager
def single_image_refused(model: nn.Module, images: Tensor) -> Iterator[None]:
    """Refuse images that the model's convolutions take for a single one, inside: `(C, H, W)` looks like `C` signals.

    Args:
        model: any, also one that adds a dimension to what it is given.
        images: `(N, C, *S)`.

    Raises:
        InputError: where a convolution is given images as they are, with a dimension less than a batch of it has.
    """

    def refuse(_: Any, inputs: tuple[Any, ...]) -> None:
        if inputs and isinstance(inputs[0], Tensor) and inputs[0].shape[1:] == images.shape[1:]:
            raise InputError(
                f"`images` {tuple(images.shape)} look like one, and {type(model).__name__} takes a batch (N, C, *S). "
                "A single image is `image[None]`."
            )

    with ExitStack() as stack:
        for each in model.modules():
            is_wider = isinstance(each, (nn.Conv2d, nn.Conv3d)) and len(each.kernel_size) == images.ndim - 1
            if is_wider and each.in_channels == len(images):
                stack.callback(each.register_forward_pre_hook(refuse).remove)
        yield


_RAN: WeakSet[nn.Module] = WeakSet()
"""The models that ran once: how they are called was logged, and a later failure has another cause."""


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
        first_working_code(model, images, *candidates(model, Invocation.of(model)))
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


# ------------------------------------------------------------------------------- forwards around a forward


@dataclass(frozen=True)
class WrappedForward:
    """A `forward` around another one, which may belong to certain samples.

    Args:
        forward: the inner one; None to call the model with the images.
    """

    forward: Forward | None

    def __call__(self, model: nn.Module, images: Tensor) -> Any:
        """The output of the inner one.

        Args:
            model: the model.
            images: `(B, C, *S)`.
        """
        return call_model(model, images, self.forward)

    def at(self, rows: Rows) -> WrappedForward:
        """The same for some of the samples.

        Args:
            rows: of which sample each image will be, `(B,)` int64, a list or a slice.
        """
        return replace(self, forward=forward_at(self.forward, rows))

    def covered_size(self, model: nn.Module, images: Tensor) -> Size | None:
        """The size of what the layers' grids lie over, where the model pads the images at their end; None elsewhere.

        Args:
            model: in eval mode.
            images: `(N, C, *S)`.
        """
        return covered_size(model, images, self.forward)


Rows = Tensor | Sequence[int] | slice
"""The numbers of some samples: a tensor `(B,)` int64, a list or a slice."""


@dataclass(frozen=True)
class BoundForward(WrappedForward):
    """A `forward` with the samples' other inputs, and with the frames of videos first where the model takes them so.

    Args:
        forward: the user's, which is given the inputs as a third argument where it takes one; None to call the model
            with the images, and with those inputs that its own forward takes.
        inputs: of N samples, by key: tensors, lists of N, or dicts of such.
        frames_first: whether the model takes `(N, T, C, H, W)`.

    Example:
        >>> class WithAge(nn.Module):
        ...     def forward(self, images, age):
        ...         return images.mean(dim=(2, 3)) + age[:, None]
        >>> bound = BoundForward(None, {"age": torch.tensor([1.0, 2.0])})
        >>> bound.at([1])(WithAge(), torch.zeros(1, 1, 4, 4))
        tensor([[2.]])
    """

    inputs: Mapping[str, Any]
    frames_first: bool = False

    def __call__(self, model: nn.Module, images: Tensor) -> Any:
        """The model's output for the images and the other inputs of their samples.

        Args:
            model: the model.
            images: `(B, C, *S)`; where B is not N, the samples are repeated in order.
        """
        n, inputs = len(images), self.inputs
        if inputs and (held := _rows_in(inputs)) != n:
            inputs = rows_of(inputs, [row % held for row in range(n)])
        return call_model(
            model, images.transpose(1, 2) if self.frames_first else images, self.forward, inputs
        )

    def at(self, rows: Rows) -> BoundForward:
        """The same for some of the samples: their rows of the inputs.

        Args:
            rows: as in `WrappedForward.at`.
        """
        return replace(self, inputs=rows_of(self.inputs, rows))


def rows_of(values: Any, rows: Rows) -> Any:
    """Some rows of a tensor, of a list, or of each part of a dict."""
    if isinstance(values, Mapping):
        return {key: rows_of(each, rows) for key, each in values.items()}
    if isinstance(values, Tensor):
        return values[rows if isinstance(rows, slice) else torch.as_tensor(rows, device=values.device)]
    if isinstance(rows, slice):
        return values[rows]
    return [values[row] for row in (rows.tolist() if isinstance(rows, Tensor) else rows)]


def _rows_in(values: Any) -> int:
    """The number of rows of a tensor, of a list, or of each part of a dict."""
    return _rows_in(next(iter(values.values()))) if isinstance(values, Mapping) else len(values)


def covered_size(model: nn.Module, images: Tensor, forward: Forward | None) -> Size | None:
    """The size of what the layers' grids lie over, as `WrappedForward.covered_size`."""
    return forward.covered_size(model, images) if isinstance(forward, WrappedForward) else None


AnyForward = TypeVar("AnyForward", bound=Forward | None)


def forward_at(forward: AnyForward, rows: Rows) -> AnyForward:
    """The same way to call a model, for some of the samples that it belongs to.

    Args:
        forward: as in `call_model`.
        rows: of which sample each image will be, `(B,)` int64, a list or a slice.

    Example:
        >>> forward_at(None, [0, 1]) is None
        True
    """
    return forward.at(rows) if isinstance(forward, WrappedForward) else forward  # type: ignore[return-value]


def bound_to(
    forward: Forward | None, inputs: Mapping[str, Any] | None, frames_first: bool = False
) -> Forward | None:
    """A way to call a model, bound to the other inputs of some samples; as it came where there are none.

    Args:
        forward: as in `call_model`; one that is bound already stays.
        inputs: as in `BoundForward`.
        frames_first: as in `BoundForward`.
    """
    if isinstance(forward, BoundForward) or not (inputs or frames_first):
        return forward
    if isinstance(forward, WrappedForward):
        return replace(forward, forward=bound_to(forward.forward, inputs, frames_first))
    return BoundForward(forward, inputs or {}, frames_first)


def inputs_taken(model: nn.Module, forward: Forward | None, keys: Sequence[str]) -> list[str]:
    """The keys of those inputs, beside the images, that a model or the user's `forward` takes.

    Args:
        model: the model.
        forward: as in `call_model`.
        keys: of all that came with the samples, those first that are no annotation.

    Example:
        >>> class Pair(nn.Module):
        ...     def forward(self, left, right):
        ...         return left - right
        >>> inputs_taken(Pair(), None, ["1", "2"])
        ['1']
    """
    if isinstance(forward, WrappedForward):
        return inputs_taken(model, forward.forward, keys)
    if forward is not None:
        return list(keys) if takes_inputs(forward) else []
    return list(Invocation.of(model).others(keys).values())
