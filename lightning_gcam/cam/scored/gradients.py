"""Gradients with respect to the images, and to what the network computes from them on the way."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lightning_gcam._errors import InputError
from lightning_gcam.cam.scorer import Scorer


def gradients_from(
    scorer: Scorer,
    name: str,
    images: Tensor,
    rows: Tensor,
    others: Callable[[], Sequence[Tensor]] = tuple,
) -> list[Tensor | None]:
    """The gradients of the score with respect to the images and to other tensors of the same forward.

    Args:
        scorer: of the samples.
        name: of the method, for the error.
        images: `(B, C, H, W)`.
        rows: `(B,)`, of which sample each is a change.
        others: called behind the forward: the other tensors.

    Returns:
        One a tensor, the images' first; None where the score does not depend on it.

    Raises:
        InputError: where no gradient reaches the images.
    """
    check_takes_gradients(scorer, name)
    leaf = images.detach().clone().requires_grad_()
    with torch.enable_grad():
        values = scorer.values(leaf, rows)
        check_graph(scorer, name, values)
        inputs = [leaf, *others()]
        found = torch.autograd.grad(values, inputs, torch.ones_like(values), allow_unused=True)
    if found[0] is None:
        raise InputError(without_gradient(scorer, name))
    return list(found)


def check_takes_gradients(scorer: Scorer, name: str) -> None:
    """Refuse images of whole numbers: they have no gradient.

    Raises:
        InputError: naming the method.
    """
    if not scorer.images.is_floating_point():
        raise InputError(
            f'`methods` "{name}" takes the gradient at the images, and images of {scorer.images.dtype} have none. '
            "Leave it out, or convert the images before the model, as with `images.float() / 255`."
        )


def check_graph(scorer: Scorer, name: str, values: Tensor) -> None:
    """Refuse a model that cuts the graph between its images and the score.

    Raises:
        InputError: naming the method.
    """
    if not values.requires_grad:
        raise InputError(without_gradient(scorer, name))


def without_gradient(scorer: Scorer, name: str) -> str:
    """What is said where no gradient reaches the images."""
    return (
        f'`methods` "{name}" takes the gradient at the images, and none reaches them: does the forward of '
        f"{type(scorer.model).__name__} run a part under `no_grad`, or detach its features? Leave the method out."
    )
