"""Convert images and labels in any form to what `SaliencyBatch` takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_gcam.data.checks import FORMS, check_images, check_labels, shape_of
from lightning_gcam.data.structure import (
    SIGNALS,
    are_shares,
    are_signals,
    are_strings,
    as_tensor,
    is_binary,
    is_list,
    is_signal,
    is_whole,
    rows_of,
    unwrap,
)
from lightning_gcam.data.unreadable import UnreadableBatch, array_code, check_part
from lightning_gcam.utils.errors import InputError, did_you_mean
from lightning_gcam.utils.lightning_compat import log_once

_MOST_CHANNELS_LAST = 4
_LEAST_PIXELS = 16


def read_images(images: Any, labels: Any = None, name: str = "") -> Tensor:
    """Convert images in any form to `(N, C, *S)`, in the dtype they came in; videos may have their frames first.

    Args:
        images: an array `(N, C, H, W)`, or a list of `(C, H, W)` of one size; signals `(N, C, L)`, volumes and videos
            `(N, C, D, H, W)`.
        labels: what came with them; by their number, grey images and a single one are told apart in errors.
        name: the key that they came by, in lower case.

    Raises:
        InputError: none, or no real numbers.
        UnreadableBatch: another form.

    Example:
        >>> import torch
        >>> read_images([torch.zeros(3, 8, 8), torch.zeros(3, 8, 8)]).shape
        torch.Size([2, 3, 8, 8])
    """
    found = as_tensor(images)
    if found is None and is_list(unwrap(images)):
        _refuse_several_sizes(unwrap(images))
    if found is None or found.ndim < 2 or found.shape[-1] < 2 == found.ndim:
        check_images(unwrap(images))
        raise InputError(
            f"`images` must be a tensor {FORMS}; got {type(images).__name__}. Make it one, with `adapter=`."
        )
    code = array_code("images", images)
    if found.ndim == 2:
        raise UnreadableBatch(
            f"`images` {shape_of(found)} are signals without a channel, or a table. A signal is (N, C, L); where the "
            "module takes (N, L), `forward=lambda module, images: module(images[:, 0])` beside it.",
            image_size=tuple(found.shape),
            images=f"{code}[:, None]",
        )
    if found.ndim == 3:
        _refuse_other_signals(found, code, as_tensor(labels), name)
    check_images(found)
    if found.ndim > 3:
        _refuse_channels_last(found, code)
    return found


def _refuse_channels_last(images: Tensor, code: str) -> None:
    """Raise where images or volumes have their channels behind their pixels."""
    *before, rows, columns = images.shape[1:]
    if columns in (1, 3, _MOST_CHANNELS_LAST) and min(before[-1], rows) > _LEAST_PIXELS:
        raise UnreadableBatch(
            f"`images` {shape_of(images)} seem to have their channels last.",
            image_size=(len(images), *before, rows),
            images=f"{code}.movedim(-1, 1)" if images.ndim == 5 else f"{code}.permute(0, 3, 1, 2)",
        )


def _refuse_other_signals(images: Tensor, code: str, labels: Tensor | None, name: str) -> None:
    """Raise where `(N, a, b)` is no signal of a channels: images without a channel, a single one, channels last."""
    n, rows, columns = images.shape
    if not images.numel():
        return
    if are_signals(images.shape, name):
        if is_signal((columns, rows)) and not is_signal((rows, columns)):
            raise UnreadableBatch(
                f"`images` {shape_of(images)} seem to be signals with their channels last. Where your module "
                "takes them so, pass `forward=lambda module, images: module(images.transpose(1, 2))`, too.",
                image_size=(n, columns, rows),
                images=f"{code}.transpose(1, 2)",
            )
        if name not in SIGNALS and rows >= _LEAST_PIXELS:
            _log_signals(rows, columns)
        return
    reason = (
        f"`images` must be {FORMS}; got {shape_of(images)}, which is no signal by its form "
        "(where they are signals all the same, name them so, or give them as they are: `SaliencyBatch(images=...)`)."
    )
    is_batch = labels is not None and labels.ndim > 0 and len(labels) == n
    if n in (1, 3, _MOST_CHANNELS_LAST) and not is_batch:
        raise UnreadableBatch(reason, image_size=(1, rows, columns), images=f"{code}[None]")
    raise UnreadableBatch(reason, image_size=(n, rows, columns), images=f"{code}[:, None]")


def _log_signals(channels: int, length: int) -> None:
    """Log once that what could be grey images without a channel is read as signals."""
    log_once(
        f"The images (N, {channels}, {length}) are read as signals of {channels} channels. Where they are grey images "
        "without a channel, add it, for example:\n"
        "    adapter=lambda batch: SaliencyBatch(images=batch[0][:, None], labels=batch[1])"
    )


def _refuse_several_sizes(images: Any) -> None:
    """Raise where a list holds images of several sizes, which cannot be one tensor."""
    tensors = [as_tensor(each) for each in images]
    shapes = [tuple(each.shape) for each in tensors if each is not None and each.ndim == 3]
    if len(shapes) < len(tensors) or not shapes:
        return
    size, channels = (shapes[0][1], shapes[0][2]), min(shape[0] for shape in shapes)
    resized = f"torch.as_tensor(each)[None, :{channels}].float(), size={size}"
    raise UnreadableBatch(
        f"`images` have several sizes: {', '.join(map(str, list(dict.fromkeys(shapes))[:4]))}.",
        image_size=(len(shapes), *size),
        images=f"torch.cat([torch.nn.functional.interpolate({resized}) for each in {{images}}])",
        recipe="#images-of-several-sizes",
    )


def read_labels(
    labels: Any,
    images: Tensor,
    class_names: Sequence[str] | None = None,
    faults: list[str] | None = None,
) -> Tensor:
    """Convert labels in any form to `(N,)` classes or measurements, or `(N, K)` multi-hot, on the images' device.

    Shares of each class (soft labels, of mixed images or smoothed) become a mark at the largest: it is the class that
    the map explains, that the caption names and that the samples are balanced over. One-hot labels stay as they are:
    in another batch there may be several marks in a row. A class that is missing (None, NaN) is -1, a measurement that
    is remains NaN, and a mark that is (NaN, negative) is 0.

    Args:
        labels: an array or lists of numbers or words.
        images: `(N, C, *S)`.
        class_names: where labels are words, all of them in the order of the logits.
        faults: N strings, to which what was left out is written.

    Raises:
        InputError: words that are no class names.
        UnreadableBatch: another form.

    Example:
        >>> images = torch.zeros(2, 3, 8, 8)
        >>> read_labels(["dog", "cat"], images, ["cat", "dog"])
        tensor([1, 0])
        >>> read_labels([[0.2, 0.8], [0.9, 0.1]], images)
        tensor([[0., 1.],
                [1., 0.]])
        >>> read_labels([None, 4], images)
        tensor([-1,  4])
    """
    n = len(images)
    if is_list(labels) and len(labels) == n and any(each is None for each in labels):
        return _read_given(labels, images, class_names, faults)
    if are_strings(labels):
        labels = classes_of(unwrap(labels), class_names)
    found = as_tensor(_label_rows(labels, n))
    if found is None:
        check_part(check_labels, labels, (n, 0, 0))
        raise UnreadableBatch("`labels` hold different numbers of classes.")
    found = found.to(images.device)
    found = found.reshape(n) if found.shape in ((), (n, 1)) and found.numel() == n else found
    if found.ndim > 2:
        raise UnreadableBatch(
            f"`labels` {shape_of(found)} are neither classes, marks nor measurements.", recipe="#keypoints"
        )
    found = _without_missing(found, faults) if len(found.shape) and len(found) == n else found
    if found.shape == (n,) and bool(found.isnan().all()):
        raise UnreadableBatch("`labels` are NaN for every sample.")
    check_part(check_labels, found, (n, 0, 0))
    found = found.long() if found.dtype == torch.bool and found.ndim == 1 else found
    return found if found.ndim == 1 else _read_rows(found, array_code("labels", labels))


def _read_given(
    labels: Sequence[Any], images: Tensor, class_names: Sequence[str] | None, faults: list[str] | None
) -> Tensor:
    """Read the labels of those samples that have one; the others are of no class."""
    rows = [row for row, each in enumerate(labels) if each is not None]
    if not rows:
        raise UnreadableBatch("`labels` are None for every sample.")
    noted = [""] * len(rows)
    given = read_labels([labels[row] for row in rows], images[: len(rows)], class_names, noted)
    for row, fault in zip(rows, noted, strict=True):
        if faults is not None:
            faults[row] = faults[row] or fault
    none = 0 if given.ndim > 1 else -1 if is_whole(given) else torch.nan
    return given.new_full((len(labels), *given.shape[1:]), none).index_copy(
        0, torch.tensor(rows, device=given.device), given
    )


def _without_missing(labels: Tensor, faults: list[str] | None) -> Tensor:
    """Make a missing class `(N,)` -1 and a missing mark `(N, K)` 0; a missing measurement `(N,)` remains NaN."""
    if labels.is_complex() or labels.dtype == torch.bool:
        return labels
    if labels.ndim == 1:
        bad = ~labels.isfinite()
        is_clear = not bool(labels.isinf().any())
        none = -1.0 if is_whole(labels[~bad]) else torch.nan
    else:
        bad, none = ~labels.isfinite() | ((labels < 0) & (labels == labels.round())), 0
        is_clear = is_binary(labels[~bad])
    if not is_clear or bool(bad.all()):
        return labels
    if faults is not None:
        is_odd = bad | (labels < -1) & (not labels.is_floating_point()) if labels.ndim == 1 else bad
        for row in is_odd.reshape(len(labels), -1).any(dim=1).nonzero()[:, 0].tolist():
            numbers = labels[row].reshape(-1)[is_odd[row].reshape(-1)].tolist()
            faults[row] = faults[row] or f"a label of {numbers[0]:g}".replace("nan", "NaN")
    return torch.where(bad, none, labels) if bool(bad.any()) else labels


def _label_rows(labels: Any, n: int) -> Any:
    """Turn the columns that `default_collate` makes of lists of labels into rows."""
    try:
        return rows_of(labels, n)
    except ValueError:
        raise UnreadableBatch(
            f"`labels` are {n} tensors of {n} numbers: a row for each sample, or, from torch's `default_collate`, a "
            "column for each class.",
            labels="torch.stack(list({labels}), dim=1)",
        ) from None


def _read_rows(labels: Tensor, code: str) -> Tensor:
    """Convert rows of labels `(N, K)`: marks stay, shares become a mark at the largest."""
    if is_binary(labels) and labels.shape[1]:
        return labels
    if not labels.is_floating_point():
        raise UnreadableBatch(
            f"`labels` {shape_of(labels)} hold other numbers than 0 and 1: several classes a sample in a list, or "
            "measurements. They are left out here; where one column is the class, give that one.",
            recipe="#measurements",
        )
    if are_shares(labels):
        return torch.zeros_like(labels).scatter_(1, labels.argmax(dim=1, keepdim=True), 1.0)
    reason = f"`labels` {shape_of(labels)} are neither marks (0 and 1) nor shares (a sum of 1 in each row)"
    if _are_smoothed_marks(labels):
        raise UnreadableBatch(f"{reason}.", labels=f"({code} > 0.5)")
    raise UnreadableBatch(
        f"{reason}: measurements are no classes, and are left out here.", recipe="#measurements"
    )


def _are_smoothed_marks(labels: Tensor) -> bool:
    """Whether labels hold just two numbers, one on each side of a half: marks of several classes, smoothed."""
    found = labels.unique()
    return len(found) == 2 and 0 <= float(found[0]) < 0.5 < float(found[1]) <= 1


def classes_of(names: str | Sequence[str], class_names: Sequence[str] | None) -> list[int]:
    """Return the place of each word in `class_names`.

    Raises:
        InputError: without `class_names`, or for a word that is not among them.

    Example:
        >>> classes_of(["dog", "cat"], ["cat", "dog"])
        [1, 0]
    """
    names = [names] if isinstance(names, str) else names
    if class_names is None:
        raise InputError(
            f'`labels` are names ("{names[0]}", ...), and which logit belongs to which is not known. Pass all names '
            f"in the order of the logits, for example:\n    class_names={sorted(set(names))!r}"
        )
    places = {name: place for place, name in reversed(list(enumerate(class_names)))}
    unknown = next((name for name in names if name not in places), None)
    if unknown is not None:
        raise InputError(
            f'`labels` hold "{unknown}", which is not in `class_names`. {did_you_mean(unknown, places)}'
        )
    return [places[name] for name in names]
