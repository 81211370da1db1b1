"""Images in any form as one plain tensor, with the values they came with."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lightning_gcam._errors import InputError
from lightning_gcam.batch.checks import check_images, shape_of
from lightning_gcam.batch.plain import as_tensor, is_list, plain
from lightning_gcam.batch.refusal import Unclear, array_code

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
