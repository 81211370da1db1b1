"""Images and labels in any form as a `SaliencyBatch` takes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_gcam.data.refusal import Unclear, array_code, asked
from lightning_gcam.data.saliency_batch import check_images, check_labels, shape_of
from lightning_gcam.data.structure import are_words, as_tensor, is_binary, is_list, plain, rows_of
from lightning_gcam.utils.errors import InputError, did_you_mean

_MOST_CHANNELS_LAST = 4
_LEAST_PIXELS = 16


def read_images(images: Any, labels: Any = None) -> Tensor:
    """Images in any form as `(N, C, H, W)`, in the dtype they came in.

    Args:
        images: an array `(N, C, H, W)`, or a list of `(C, H, W)` of one size.
        labels: what came with them; how many they are tells grey images from a single one in what is said.

    Raises:
        InputError: none, or no real numbers.
        Unclear: another form.

    Example:
        >>> import torch
        >>> read_images([torch.zeros(3, 8, 8), torch.zeros(3, 8, 8)]).shape
        torch.Size([2, 3, 8, 8])
    """
    found = as_tensor(images)
    if found is None and is_list(plain(images)):
        _refuse_several_sizes(plain(images))
    if found is None or found.ndim < 3:
        check_images(plain(images))
        raise InputError(
            f"`images` must be a tensor (N, C, H, W); got {type(images).__name__}. Make it one, with `adapter=`."
        )
    if found.ndim != 4:
        raise _of_other_dimensions(found, array_code("images", images), as_tensor(labels))
    check_images(found)
    channels, rows, columns = found.shape[1:]
    if columns in (1, 3, _MOST_CHANNELS_LAST) and min(channels, rows) > _LEAST_PIXELS:
        raise Unclear(
            f"`images` {shape_of(found)} seem to have their channels last.",
            image_size=(len(found), channels, rows),
            images=f"{array_code('images', images)}.permute(0, 3, 1, 2)",
        )
    return found


def _refuse_several_sizes(images: Any) -> None:
    """A list of images that cannot be one tensor."""
    tensors = [as_tensor(each) for each in images]
    shapes = [tuple(each.shape) for each in tensors if each is not None and each.ndim == 3]
    if len(shapes) < len(tensors) or not shapes:
        return
    size, channels = (shapes[0][1], shapes[0][2]), min(shape[0] for shape in shapes)
    resized = f"torch.as_tensor(each)[None, :{channels}].float(), size={size}"
    raise Unclear(
        f"`images` have several sizes: {', '.join(map(str, list(dict.fromkeys(shapes))[:4]))}.",
        image_size=(len(shapes), *size),
        images=f"torch.cat([torch.nn.functional.interpolate({resized}) for each in {{images}}])",
    )


def _of_other_dimensions(images: Tensor, code: str, labels: Tensor | None) -> Unclear:
    """What `(N, H, W)`, `(C, H, W)` and frames would need."""
    reason = f"`images` must be 4-D, (N, C, H, W); got {shape_of(images)}."
    is_batch = labels is not None and labels.ndim > 0 and len(labels) == len(images)
    if images.ndim == 3 and len(images) in (1, 3, _MOST_CHANNELS_LAST) and not is_batch:
        return Unclear(reason, image_size=(1, images.shape[1], images.shape[2]), images=f"{code}[None]")
    if images.ndim == 3:
        size = (len(images), images.shape[1], images.shape[2])
        return Unclear(reason, image_size=size, images=f"{code}[:, None]")
    if images.ndim == 5:
        return _of_five_dimensions(images, code, reason)
    return Unclear(reason)


def _of_five_dimensions(images: Tensor, code: str, reason: str) -> Unclear:
    """One frame each is an image; a volume or a clip needs a `forward=` too, and the model to try it."""
    size = (len(images), images.shape[3], images.shape[4])
    if images.shape[2] == 1:
        return Unclear(reason, image_size=size, images=f"{code}[:, :, 0]")
    if images.shape[1] == 1 and images.shape[2] <= _MOST_CHANNELS_LAST:
        return Unclear(reason, image_size=size, images=f"{code}[:, 0]")
    reason += " Volumes and clips are looked at through an `adapter=` that folds them into channels and a `forward=`."
    return Unclear(reason, recipe="#volumes-and-clips")


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
    found = as_tensor(_label_rows(labels, n))
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


def _label_rows(labels: Any, n: int) -> Any:
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
