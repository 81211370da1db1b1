"""What is shown of an output that holds no logits: the code that takes them out of it, where there is any."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor

RECIPES = "docs/recipes.md"
"""Where what is not supported by itself has a worked example."""


def taken_out_of(output: Any, fits: Callable[[Any], bool]) -> str:
    """What to do about an output without logits at its top: a `forward=` that was tried on it, or a recipe.

    Args:
        output: what the model gave.
        fits: whether a part of it can be the logits.

    Example:
        >>> import torch
        >>> print(taken_out_of({"heads": {"main": torch.zeros(2, 5)}}, lambda part: isinstance(part, Tensor)))
        Pass `forward=`, a function from the model and the images to the logits, for example:
            forward=lambda model, images: model(images)["heads"]["main"]
    """
    remedy = "Pass `forward=`, a function from the model and the images to the logits"
    code = next((path for path, part in _parts_of(output, "") if fits(part)), None)
    if code is not None:
        return f"{remedy}, for example:\n    forward=lambda model, images: model(images){code}"
    words, section = _of_kind(output)
    return f"{words}{remedy}; no part of this output would do, see {RECIPES}{section}."


def _of_kind(output: Any) -> tuple[str, str]:
    """What an output is by its form, in a sentence, and the recipe for it."""
    if isinstance(output, (list, tuple)) and output and all(isinstance(each, Mapping) for each in output):
        return "A list of detections, one dict an image, has no score of each class. ", "#detection-models"
    if isinstance(output, Tensor) and not output.is_floating_point():
        return "Whole numbers are decisions, and have no gradient. ", "#quantized-and-detached-models"
    if isinstance(output, Tensor) and output.ndim == 3:
        return "", "#keypoints"
    return "", ""


def _parts_of(output: Any, path: str, depth: int = 4) -> Iterator[tuple[str, Any]]:
    """The parts of mappings and tuples with the code that gives them; a list has one a sample, in no sure order."""
    yield path, output
    if not depth:
        return
    if isinstance(output, Mapping):
        for key, part in output.items():
            if type(key) in (str, int):  # another one's `repr` need not be code that gives it
                yield from _parts_of(part, f"{path}[{key!r}]".replace("'", '"'), depth - 1)
    elif isinstance(output, tuple) and not all(isinstance(each, Mapping) for each in output):
        for index, part in enumerate(output):
            yield from _parts_of(part, f"{path}[{index}]", depth - 1)
