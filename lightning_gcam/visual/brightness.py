"""How bright a map is drawn: each to its own maximum, or one scale for many; and what changed from one to the next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor

from lightning_gcam._errors import InputError, did_you_mean

Scale: TypeAlias = Literal["own", "shared", "run"]
"""Which value is drawn the brightest: each map's own maximum, that of all samples, or that of all looks so far."""


def check_scale(scale: Any, allowed: Sequence[Scale] = get_args(Scale)) -> Scale:
    """Return `scale` if it is one of the allowed words, so that a typing error is found early.

    Raises:
        InputError: If it is not, with the words that are.

    Example:
        >>> check_scale("shared")
        'shared'
    """
    if scale not in allowed:
        raise InputError(f"`scale` {scale!r} is not known here. {did_you_mean(str(scale), allowed)}")
    return scale  # type: ignore[no-any-return]


def to_unit(maps: Tensor, scale: Scale = "own", earlier_top: float = 0.0) -> tuple[Tensor, Tensor]:
    """Bring maps into [0, 1], and say which are blank.

    Args:
        maps: `(N, H, W)`, float; what is not finite, or below 0, counts as 0.
        scale: "own" divides each map by its own maximum, "shared" all of them by the greatest, "run" by the greater of
            that and `earlier_top`.
        earlier_top: the greatest value at the looks before.

    Returns:
        Maps `(N, H, W)` float32, 0 everywhere where they are blank, and `(N,)` bool: which have no value above 0.

    Example:
        >>> maps = torch.tensor([[[1.0, 2.0]], [[0.0, 4.0]], [[0.0, 0.0]]])
        >>> to_unit(maps, "shared")[0].flatten().tolist()
        [0.25, 0.5, 0.0, 1.0, 0.0, 0.0]
        >>> to_unit(maps)[1].tolist()
        [False, False, True]
    """
    finite = maps.detach().float().nan_to_num(0, 0, 0).clamp(min=0)
    own = finite.amax((1, 2), keepdim=True)
    blank = own < torch.finfo(torch.float32).tiny
    top = own if scale == "own" else own.amax().clamp(min=earlier_top if scale == "run" else 0.0)
    return (finite / top).where(~blank, 0), blank.flatten()


def change_of(maps: Tensor, before: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """How maps moved from one look to the next, each scaled to its own maximum: where, and not how strongly.

    Args:
        maps: `(N, H, W)`, float, now.
        before: the same samples' at the look before.

    Returns:
        The change `(N, H, W)` in [-1, 1], 0 where one of the two is blank and no change can be told; which are blank
        now, and which were blank before, `(N,)` bool.

    Example:
        >>> change_of(torch.tensor([[[4.0, 1.0]]]), torch.tensor([[[0.0, 0.5]]]))[0].tolist()
        [[[1.0, -0.75]]]
    """
    now, blank = to_unit(maps)
    then, was_blank = to_unit(before.to(maps.device))
    return (now - then).where(~(blank | was_blank)[:, None, None], 0), blank, was_blank
