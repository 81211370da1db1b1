"""What labels mean: classes, marks of several classes, shares of each, names of classes, or measurements."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_gcam._errors import InputError, did_you_mean
from lightning_gcam.batch.checks import check_labels, shape_of
from lightning_gcam.batch.forms import are_words, is_binary
from lightning_gcam.batch.plain import as_tensor, plain, rows_of
from lightning_gcam.batch.refusal import Unclear, array_code, asked

_TOLERANCE = 1e-2
"""By how much shares may miss a sum of one: half precision rounds each of them."""


def read_labels(labels: Any, images: Tensor, class_names: Sequence[str] | None = None) -> Tensor:
    """Labels in any form as `(N,)` classes or measurements, or `(N, K)` multi-hot, on the images' device.

    Shares of each class (soft labels, of mixed images or smoothed) become a mark at the largest: it is the class that
    the map explains, and the caption and the balance of the samples speak of. One-hot labels stay as they are, for
    in another batch there may be several marks in a row.

    Args:
        labels: an array or lists of numbers or words.
        images: `(N, C, H, W)`.
        class_names: where labels are words, all of them in the order of the logits.

    Raises:
        InputError: words that are no class names.
        Unclear: another form.

    Example:
        >>> images = torch.zeros(2, 3, 8, 8)
        >>> read_labels(["dog", "cat"], images, ["cat", "dog"])
        tensor([1, 0])
        >>> read_labels([[0.2, 0.8], [0.9, 0.1]], images)
        tensor([[0., 1.],
                [1., 0.]])
    """
    n = len(images)
    if are_words(labels):
        labels = classes_of(plain(labels), class_names)
    found = as_tensor(_rows(labels, n))
    if found is None:
        asked(check_labels, labels, (n, 0, 0))
        raise Unclear("`labels` hold different numbers of classes.")
    found = found.to(images.device)
    found = found.reshape(n) if found.shape in ((), (n, 1)) and found.numel() == n else found
    if found.ndim > 2:
        raise Unclear(
            f"`labels` {shape_of(found)} are neither classes, marks nor measurements.", recipe="#keypoints"
        )
    asked(check_labels, found, (n, 0, 0))
    found = found.long() if found.dtype == torch.bool and found.ndim == 1 else found
    return found if found.ndim == 1 else _read_rows(found, array_code("labels", labels))


def _rows(labels: Any, n: int) -> Any:
    try:
        return rows_of(labels, n)
    except ValueError:
        raise Unclear(
            f"`labels` are {n} tensors of {n} numbers: a row for each sample, or, from torch's `default_collate`, a "
            "column for each class.",
            labels="torch.stack(list({labels}), dim=1)",
        ) from None


def _read_rows(labels: Tensor, code: str) -> Tensor:
    """`(N, K)`: marks, or shares."""
    if is_binary(labels) and labels.shape[1]:
        return labels
    if not labels.is_floating_point():
        raise Unclear(
            f"`labels` {shape_of(labels)} hold other numbers than 0 and 1: several classes a sample in a list, or "
            "measurements. They are left out here; where one column is the class, give that one.",
            recipe="#measurements",
        )
    if bool((labels >= 0).all()) and bool(((labels.sum(dim=1) - 1).abs() < _TOLERANCE).all()):
        return torch.zeros_like(labels).scatter_(1, labels.argmax(dim=1, keepdim=True), 1.0)
    reason = f"`labels` {shape_of(labels)} are neither marks (0 and 1) nor shares (a sum of 1 in each row)"
    if _are_smoothed_marks(labels):
        raise Unclear(f"{reason}.", labels=f"({code} > 0.5)")
    raise Unclear(f"{reason}: measurements are no classes, and are left out here.", recipe="#measurements")


def _are_smoothed_marks(labels: Tensor) -> bool:
    """Two numbers, one on each side of a half: marks of several classes, smoothed."""
    found = labels.unique()
    return len(found) == 2 and 0 <= float(found[0]) < 0.5 < float(found[1]) <= 1


def classes_of(words: str | Sequence[str], class_names: Sequence[str] | None) -> list[int]:
    """The place of each word in `class_names`.

    Raises:
        InputError: without `class_names`, or for a word that is not among them.

    Example:
        >>> classes_of(["dog", "cat"], ["cat", "dog"])
        [1, 0]
    """
    words = [words] if isinstance(words, str) else words
    if class_names is None:
        raise InputError(
            f'`labels` are names ("{words[0]}", ...), and which logit belongs to which is not known. Pass all names '
            f"in the order of the logits, for example:\n    class_names={sorted(set(words))!r}"
        )
    places = {name: place for place, name in reversed(list(enumerate(class_names)))}
    unknown = next((word for word in words if word not in places), None)
    if unknown is not None:
        raise InputError(
            f'`labels` hold "{unknown}", which is not in `class_names`. {did_you_mean(unknown, places)}'
        )
    return [places[word] for word in words]
