"""What every score made of forwards does first: check the probabilities, and find the samples that count."""

import torch
from torch import Tensor

from lightning_gcam._errors import InputError
from lightning_gcam.metrics.functional.mean import PerSample


def check_probabilities(name: str, values: Tensor, like: Tensor | None = None, ndim: int = 1) -> Tensor:
    """Refuse what is not a floating tensor of probabilities, and give it as float32, without its graph.

    Args:
        name: The argument, for the message.
        values: ``(N,)``, or ``(N, K)`` where ``ndim`` is 2; NaN where there is none.
        like: Another one that it must be as long as.
        ndim: How many axes it has.

    Raises:
        InputError: Naming the argument.
    """
    shape = ("(N,)", "(N, K)")[ndim - 1]
    if not isinstance(values, Tensor) or not values.is_floating_point() or values.ndim != ndim:
        came = (
            f"{values.dtype} {tuple(values.shape)}" if isinstance(values, Tensor) else type(values).__name__
        )
        raise InputError(
            f"`{name}` must be floating probabilities {shape}, one of the explained class a sample, got {came}. "
            "They come from forwards; this score cannot be taken from maps and masks."
        )
    if like is not None and len(values) != len(like):
        raise InputError(f"`{name}` must hold {len(like)} samples, as many as the others, got {len(values)}.")
    values = values.detach().to(torch.float32)
    if ((values < 0) | (values > 1)).any():
        low, high = values.nan_to_num(0).aminmax()
        raise InputError(
            f"`{name}` must be probabilities in [0, 1], got values from {low:.3g} to {high:.3g}. "
            "Give a softmax or a sigmoid of the logits."
        )
    return values


def scored(values: Tensor, defined: Tensor, blank: Tensor | None) -> PerSample:
    """Put numbers beside which samples count: those that are defined, and whose map is not blank.

    Args:
        values: ``(N, *shape)`` float32.
        defined: ``(N,)`` bool.
        blank: ``(N,)`` bool, or ``None`` where no map is.

    Raises:
        InputError: If ``blank`` is not ``(N,)`` bool.
    """
    if blank is None:
        blank = torch.zeros_like(defined)
    if not isinstance(blank, Tensor) or blank.dtype != torch.bool or blank.shape != defined.shape:
        came = f"{blank.dtype} {tuple(blank.shape)}" if isinstance(blank, Tensor) else type(blank).__name__
        raise InputError(
            f"`blank` must be bool {tuple(defined.shape)}, True where a map is blank, got {came}."
        )
    blank = blank.to(defined.device)
    return PerSample(values, defined & ~blank, blank)
