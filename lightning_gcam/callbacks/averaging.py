"""The weights that a validation ran on, where a callback exchanges them for its duration (weight averaging).

Lightning's `WeightAveraging` puts the averaged weights in as a validation begins and takes them out in its own
`on_validation_epoch_end`: before the look, where it stands before the monitor in the list of callbacks.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from lightning_gcam.callbacks.distributed import holds_whole_model
from lightning_gcam.callbacks.error_policy import FailurePolicy
from lightning_gcam.utils.lightning_compat import Callback, Trainer

_HOOK = "on_validation_epoch_end"


def weights_of(trainer: Trainer, module: nn.Module) -> Tensor | None:
    """A number for each parameter, the same while its values are; None where the parameters are sharded."""
    if not holds_whole_model(trainer):
        return None
    there = [each.detach() for each in module.parameters() if not (is_lazy(each) or each.is_meta)]
    real = [torch.view_as_real(each) if each.is_complex() else each for each in there if each.numel()]
    norms = [each.float().norm() for each in real]
    # one copy from each device: each of them waits for all that the device has still to do
    copies = [torch.stack([n for n in norms if n.device == on]).cpu() for on in {n.device: n for n in norms}]
    return torch.cat(copies).nan_to_num() if copies else None


def weights_may_change(trainer: Trainer, monitor: Callback) -> bool:
    """Whether a callback before the monitor acts at the end of a validation, and may change the weights."""
    return bool(_before(trainer, monitor))


@contextmanager
def as_validated(
    trainer: Trainer, module: nn.Module, monitor: Callback, validated: Tensor | None, failures: FailurePolicy
) -> Iterator[None]:
    """Run the body on the weights that the validation used; where that is not possible, warn once.

    Args:
        trainer: that runs.
        module: the model.
        monitor: that is to look.
        validated: `weights_of` the model in the validation; None where nothing could have changed them.
        failures: warns where they are others now.
    """
    exchanged: list[Any] = []
    if validated is not None and not _has_weights(validated, trainer, module):
        for callback in _averaging(trainer):
            callback._swap_models(module)
            if _has_weights(validated, trainer, module):
                exchanged.append(callback)
                break
            callback._swap_models(module)
        else:
            names = ", ".join(type(each).__name__ for each in _before(trainer, monitor))
            failures.warn_once(
                "other weights",
                "The weights changed between the validation and the look, so the look is not at those that were "
                f"validated: a callback that stands before SaliencyMonitor exchanges them ({names}). Put "
                "SaliencyMonitor before it in `callbacks=`.",
            )
    try:
        yield
    finally:
        for callback in exchanged:
            callback._swap_models(module)


@contextmanager
def averaged(trainer: Trainer, module: nn.Module) -> Iterator[None]:
    """Run the body on the averaged weights, with which the training ends, whether they are in the model yet or not."""
    callbacks = _averaging(trainer)[:1]
    for callback in callbacks:
        callback._swap_models(module)
    try:
        yield
    finally:
        for callback in callbacks:
            callback._swap_models(module)


def _averaging(trainer: Trainer) -> list[Any]:
    """Lightning's `WeightAveraging` (from 2.6 on) and what is derived from it, in a fit."""
    callbacks = getattr(trainer, "callbacks", [])
    able = [each for each in callbacks if callable(getattr(each, "_swap_models", None))]
    return [each for each in able if getattr(each, "_average_model", None) is not None]


def _before(trainer: Trainer, monitor: Callback) -> list[Any]:
    callbacks = list(getattr(trainer, "callbacks", []))
    before = callbacks[: callbacks.index(monitor)] if monitor in callbacks else []
    plain = {getattr(kind, _HOOK, None) for kind in (*Callback.__mro__, type(monitor))}
    return [each for each in before if getattr(getattr(each, _HOOK), "__func__", None) not in plain]


def same_weights(left: Tensor | None, right: Tensor | None) -> bool:
    """Whether two results of `weights_of` are equal."""
    return left is right if left is None or right is None else torch.equal(left, right)


def _has_weights(weights: Tensor, trainer: Trainer, module: nn.Module) -> bool:
    return same_weights(weights, weights_of(trainer, module))
