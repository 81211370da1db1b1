"""A forward without maps: the logits alone, for the scores that ask the model about changed images."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from lightning_gcam._errors import InputError
from lightning_gcam.cam.calling import Forward, run
from lightning_gcam.cam.capture import plain_eager
from lightning_gcam.cam.outputs import Head, read_head
from lightning_gcam.cam.regions import score_of_regions
from lightning_gcam.cam.squashing import Squash
from lightning_gcam.cam.targets import Targets


def logits_of(
    model: nn.Module,
    images: Tensor,
    targets: Targets = None,
    *,
    forward: Forward | None = None,
    masks: Tensor | None = None,
    squash: Squash | Literal["unknown"] | None = "unknown",
) -> Tensor:
    """The logits of one forward, read as `attribute` reads them.

    Args:
        model: the model, in the mode it is to be looked at in (see `lightning_gcam.isolation.untouched`).
        images: `(N, C, H, W)`, on the model's device.
        targets: as in `attribute`; they say over which region a dense head's logits are averaged.
        forward: `(model, images) -> output`; the model is called with the images where it is left out.
        masks: `(N, H, W)` bool, the regions of a dense head.
        squash: what the model does to its logits, as in `Attribution`; a softmax is seen without that.

    Returns:
        `(N, K)` float32, without a graph.

    Raises:
        InputError: as `read_head`.

    Example:
        >>> logits_of(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), torch.zeros(2, 1, 2, 2)).shape
        torch.Size([2, 3])
    """
    with plain_eager():
        raw = head_of(model, images, forward, squash).logits
        logits = raw if raw.ndim == 2 else score_of_regions(raw, targets, masks).logits
        return logits.detach().float()


def head_of(
    model: nn.Module,
    images: Tensor,
    forward: Forward | None,
    squash: Squash | Literal["unknown"] | None = "unknown",
) -> Head:
    """What the model gives in one forward, `(N, K)` or `(N, K, h, w)`, with a graph where it is on.

    Of several outputs without a name, only a graph shows which are the logits.
    """
    output = run(model, images.clone(), forward)
    try:
        return read_head(output, len(images), squash)
    except InputError:
        with torch.enable_grad():
            # of a frozen model the graph begins at the images
            images = images.clone().requires_grad_(images.is_floating_point())
            return read_head(run(model, images, forward), len(images), squash)
