"""What of a batch belongs to the model's call, and its labels as targets: of all samples, a chunk, or one head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from lightning_gcam.cam.calling import bound_to, forward_at, inputs_taken
from lightning_gcam.cam.detection import with_detection
from lightning_gcam.cam.heads import HeadPlan, assign_labels, find_heads, names_of_heads, say_first
from lightning_gcam.cam.invocation import Forward
from lightning_gcam.cam.targets import Labels, Targets, are_measurements
from lightning_gcam.data import SaliencyBatch
from lightning_gcam.utils.errors import InputError


def forward_for(model: nn.Module, batch: SaliencyBatch, forward: Forward | None) -> Forward | None:
    """The way to call a model for a batch: with its other inputs, and of a detector with its target boxes.

    Args:
        model: it is left as it was.
        batch: the samples.
        forward: as in `attribute`; what is bound already stays.
    """
    bound = bound_to(forward, batch.inputs, batch.frames_first)
    return with_detection(model, batch.images, bound, batch.boxes, batch.labels)


def with_inputs_taken(
    samples: SaliencyBatch, model: nn.Module, forward: Forward | None = None
) -> SaliencyBatch:
    """The samples with those other inputs that the model takes, and without the rest of what came with them.

    What has no parameter of its name goes in order, what could be the labels last. What the model takes is no label:
    where several parts could each be the labels, and one is left, that is it.

    Args:
        samples: as they were read.
        model: whose forward is called.
        forward: the user's way to call it.

    Example:
        >>> import torch
        >>> class WithAge(nn.Module):
        ...     def forward(self, images, age): ...
        >>> classes, ages = torch.tensor([0, 1]), torch.tensor([31, 45])
        >>> columns, inputs = {"0": classes, "1": ages}, {"1": classes, "2": ages}
        >>> samples = SaliencyBatch(torch.rand(2, 1, 4, 4), inputs=inputs, head_labels=columns)
        >>> found = with_inputs_taken(samples, WithAge())
        >>> list(found.inputs), found.labels.tolist()
        (['2'], [0, 1])
    """
    if not samples.inputs:
        return samples
    inputs, columns = samples.inputs, samples.head_labels or {}
    labels = [*columns.values(), *([samples.labels] if samples.labels is not None else [])]
    keys = sorted(inputs, key=lambda key: _likely_label(inputs[key], labels))
    taken = set(inputs_taken(model, forward, keys))
    found = replace(samples, inputs={key: each for key, each in inputs.items() if key in taken} or None)
    left = {
        name: each for name, each in columns.items() if not any(_is_same(inputs[key], each) for key in taken)
    }
    if found.labels is not None or not left or len(left) == len(columns):
        return found
    if len(left) > 1:
        return replace(found, head_labels=left)
    return replace(found, head_labels=None, labels=next(iter(left.values())))


def _likely_label(values: Any, labels: Sequence[Tensor]) -> tuple[int, float]:
    """How likely an input is the labels, for sorting: no label has its values, measurements, many classes, few."""
    if not any(_is_same(values, each) for each in labels):
        return 0, 0.0
    return (1, 0.0) if values.is_floating_point() else (2, -float(values.max()))


def _is_same(values: Any, labels: Tensor) -> bool:
    """Whether an input holds the numbers of some labels, be it as a column."""
    is_alike = isinstance(values, Tensor) and values.numel() == labels.numel() > 0
    return is_alike and torch.equal(values.reshape(-1), labels.reshape(-1).to(values.device, values.dtype))


def labels_for(batch: Tensor | SaliencyBatch) -> Labels | str | None:
    """The labels of a batch as targets.

    Raises:
        InputError: where these are images alone.
    """
    if not isinstance(batch, SaliencyBatch):
        raise InputError(
            '`targets` "label" explains the labels of a `SaliencyBatch`, and `images` holds none: give '
            "`SaliencyBatch(images, labels)`, or the labels themselves as `targets`."
        )
    return labels_of(batch)


def labels_of(batch: SaliencyBatch, whole: SaliencyBatch | None = None) -> Labels | str | None:
    """A batch's labels as targets; None where there are none, "whole" where they are no classes.

    Args:
        batch: the samples.
        whole: the batch that they are a part of: whether labels name classes or measure something is seen in all.
    """
    if batch.labels is None:
        return "whole" if batch.no_classes else None
    all_labels = whole.labels if whole is not None and whole.labels is not None else batch.labels
    return Labels(batch.labels, are_measurements(all_labels), of_batch=True)


def targets_of_chunk(targets: Targets, chunk: slice, n: int) -> Targets:
    """The targets of a chunk of n samples.

    Raises:
        InputError: where the number of targets is not the number of samples.
    """
    if targets is None or isinstance(targets, (str, int)) or callable(targets):
        return targets
    given = targets if isinstance(targets, Labels) else Labels.of(torch.as_tensor(targets))
    if len(given) != n:
        raise InputError(f"`targets` must hold {n} classes, one per sample; got {len(given)}.")
    return given[chunk]


# ------------------------------------------------------------------------------------ models with several heads


def plan_heads(
    model: nn.Module,
    batch: SaliencyBatch,
    head: str | Sequence[str] | None,
    forward: Forward | None,
    *,
    whole: SaliencyBatch | None = None,
) -> list[HeadPlan]:
    """Plan which heads of a model are looked at, and with which labels.

    Those that are given; else all that have names, or of those in a tuple the ones that have labels. Where nothing
    tells them apart it is the first, which is logged once.

    Args:
        model: it is left as it was.
        batch: the samples, on the model's device; the model is run on the first.
        head: the names that are given.
        forward: as in `attribute`.
        whole: the batch that these are a part of, for its labels.

    Returns:
        A plan for each head; none where the model has one.

    Raises:
        InputError: where there is no head of a given name; with the names there are.
    """
    given, labels = names_of_heads(head), labels_by_name(whole if whole is not None else batch)
    first, named = forward_at(forward, [0]), [name for name in labels if name]
    shapes = find_heads(model, batch.images[:1], first, given=given, labelled=named)
    if not shapes:
        return []
    if not given and [*shapes.values()] == [
        batch.images.shape[1:]
    ]:  # a reconstruction, which no labels are of
        return [HeadPlan((), name, shape.numel()) for name, shape in shapes.items()]
    assigned, undecided = assign_labels(shapes, labels)
    are_named = not all(name.isdigit() for name in shapes)
    chosen = given or (shapes if are_named else assigned) or [next(iter(shapes))]
    if not given and (undecided or not (are_named or assigned)):
        say_first(shapes, next(iter(assigned or shapes)))
    return [HeadPlan((), name, shapes[name][0], assigned.get(name)) for name in chosen]


def labels_by_name(batch: SaliencyBatch) -> dict[str, Tensor]:
    """All labels of a batch, columns as rows; those that are not of a head under ""."""
    found = {
        name: each.flatten() if each.shape[1:] == (1,) else each
        for name, each in (batch.head_labels or {}).items()
    }
    is_new = batch.labels is not None and not any(
        each.shape == batch.labels.shape and torch.equal(each, batch.labels) for each in found.values()
    )
    return {**found, "": batch.labels} if batch.labels is not None and is_new else found


def for_planning(batch: SaliencyBatch) -> SaliencyBatch:
    """The samples as the model takes them, without annotation, which in training may be of another kind.

    The labels only show whose they are where the model has several heads.

    Args:
        batch: of the training.
    """
    labels, taken = labels_by_name(batch) or None, batch.inputs
    return SaliencyBatch(
        batch.images, kind=batch.kind, frames_first=batch.frames_first, head_labels=labels, inputs=taken
    )


def samples_of_head(batch: SaliencyBatch, plan: HeadPlan) -> SaliencyBatch:
    """The samples with the labels of one head: whole numbers beyond 1 are measurements for a head of one number.

    Args:
        batch: the samples.
        plan: of the head; that of the only one changes nothing.
    """
    if plan.name is None:
        return batch
    labels = labels_by_name(batch).get(plan.labels) if plan.labels is not None else None
    if labels is not None and plan.width == 1 and labels.ndim == 1 and bool((labels > 1).any()):
        labels = labels.float()
    return replace(batch, labels=labels, head_labels=None)
