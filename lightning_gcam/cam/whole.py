"""The parts of a model's output, and those that hold no classes: what their form shows, and how it is called."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor
from torch.nn.functional import cosine_similarity

LOGIT_NAMES = (
    *("logits", "class_logits", "cls_logits", "logit", "out", "scores", "score"),
    *("preds", "pred", "predictions", "prediction", "y_hat", "y_pred", "output", "outputs"),
)
"""Likely names of the logits in a model's output, the surest first."""


def parts_at_top(output: Any) -> dict[str, Any]:
    """The parts of a model's output, each by the code that gives it: `""`, `[0]`, `["logits"]` or `.logits`."""
    if isinstance(output, Tensor):
        return {"": output}
    if isinstance(output, Mapping):
        return {f'["{key}"]' if isinstance(key, str) else f"[{key!r}]": each for key, each in output.items()}
    if isinstance(output, tuple) and hasattr(output, "_fields"):
        return {f".{name}": getattr(output, name) for name in output._fields}
    if isinstance(output, (tuple, list)):
        return {f"[{index}]": each for index, each in enumerate(output)}
    names = [*LOGIT_NAMES, *getattr(output, "__dict__", ())]
    if dataclasses.is_dataclass(output):
        names += [field.name for field in dataclasses.fields(output)]
    return {f".{name}": getattr(output, name) for name in names if hasattr(output, name)}


Whole = Literal["norm", "error", "peaks", "similarity"]
"""What a whole output is explained by."""

WHOLE: dict[str, str] = {
    "norm": "the output's norm",
    "error": "the reconstruction's error",
    "peaks": "the sum of the heat maps' peaks",
    "similarity": "the similarity to the text",
}
"""The same in words, for titles."""

_TOWERS = (("image_embeds", "text_embeds"), ("image_features", "text_features"))
"""What the embeddings of images and of texts are called, by Hugging Face and by open_clip."""


def whole_output(
    output: Any, batch_size: int, dims: int = 2
) -> tuple[Literal["norm", "similarity"], Tensor] | None:
    """What an output is explained by whose form shows that it holds no classes, and its rows; None for any other.

    - "similarity" `(N, 1)`, of each image to its own text (see `without_pairs`): the diagonal of `logits_per_image`
      `(N, N)`, or where there are but the embeddings of both (`image_embeds` and `text_embeds`, or `..._features`),
      their cosine.
    - "norm" `(N, P * 2)`, of coordinates: a single tensor `(N, P, 2)` or `(N, P, 3)`, but for signals.

    Args:
        output: as the model returned it.
        batch_size: N.
        dims: how many spatial dimensions the images have.

    Example:
        >>> import torch
        >>> whole_output({"logits_per_image": torch.tensor([[0.9, 0.1], [0.2, 0.7]])}, batch_size=2)
        ('similarity', tensor([[0.9000],
                [0.7000]]))
        >>> kind, rows = whole_output(torch.zeros(2, 17, 2), batch_size=2)
        >>> kind, rows.shape
        ('norm', torch.Size([2, 34]))
    """
    tensors = {name: each for name, each in _by_name(output).items() if isinstance(each, Tensor)}
    logits = tensors.get("logits_per_image")
    if logits is not None:
        is_paired = logits.shape == (batch_size, batch_size)
        return ("similarity", logits.diagonal()[:, None]) if is_paired else None
    for image, text in ((tensors.get(one), tensors.get(other)) for one, other in _TOWERS):
        if image is not None and text is not None and len(image) == batch_size and image.shape == text.shape:
            return "similarity", cosine_similarity(image, text, dim=-1)[:, None]
    if len(tensors) != 1 or dims == 1:
        return None
    (points,) = tensors.values()
    are_points = points.is_floating_point() and points.ndim == 3 and points.shape[2] in (2, 3)
    return ("norm", points.flatten(1)) if are_points and len(points) == batch_size else None


def _by_name(output: Any) -> dict[str, Any]:
    """The parts of an output by their keys, fields or places."""
    return {place.strip('."[]'): each for place, each in parts_at_top(output).items()}


def without_pairs(output: Any) -> Any:
    """The output for texts that are no sample's own, however many there are: the classes of a zero-shot classifier.

    Args:
        output: as the model returned it; that of anything but two towers stays as it is.

    Returns:
        What belongs to the images, and `logits_per_image` `(N, K)` as "logits".

    Example:
        >>> import torch
        >>> without_pairs({"logits_per_image": torch.eye(2), "text_embeds": torch.ones(2, 3)})
        {'logits': tensor([[1., 0.],
                [0., 1.]])}
    """
    parts = _by_name(output)
    logits = parts.pop("logits_per_image", None)
    if logits is None and not any(image in parts and text in parts for image, text in _TOWERS):
        return output
    texts = ("logits_per_text", *(text for _, text in _TOWERS))
    of_images = {name: each for name, each in parts.items() if name not in texts}
    return of_images if logits is None else {"logits": logits, **of_images}
