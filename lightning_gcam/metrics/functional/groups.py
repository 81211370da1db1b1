"""Which groups a sample is in: one number per sample, or several marked ones."""

import torch
from torch import Tensor
from torch.nn.functional import pad

from lightning_gcam._errors import InputError


def check_groups(groups: Tensor, n: int) -> None:
    """Refuse groups that do not belong to the samples.

    Raises:
        InputError: If they are not ``(N,)`` integers or ``(N, K)`` multi-hot.
    """
    whole = isinstance(groups, Tensor) and not groups.is_floating_point() and not groups.is_complex()
    if not whole or groups.ndim not in (1, 2) or len(groups) != n:
        came = (
            f"{groups.dtype} {tuple(groups.shape)}" if isinstance(groups, Tensor) else type(groups).__name__
        )
        raise InputError(
            f"`groups` must be ({n},) integers, negative for none, or ({n}, K) multi-hot, one row per sample, "
            f"got {came}."
        )


def group_numbers(groups: Tensor) -> Tensor:
    """The numbers of each sample's groups, ``(N, K)``, from ``(N,)`` numbers or an ``(N, K)`` multi-hot."""
    if groups.ndim == 1:
        return groups.long()[:, None]
    return torch.where(groups > 0, torch.arange(groups.shape[1], device=groups.device), -1)


def no_groups(device: torch.device) -> Tensor:
    """No sample's groups, ``(0, 1)``."""
    return torch.zeros(0, 1, dtype=torch.int64, device=device)


def cat_groups(groups: Tensor | list[Tensor]) -> Tensor:
    """One ``(N, K)`` of several, the narrower ones filled up with no group."""
    parts = [groups] if isinstance(groups, Tensor) else groups
    widest = max(each.shape[1] for each in parts)
    return torch.cat([pad(each, (0, widest - each.shape[1]), value=-1) for each in parts])


def group_members(numbers: Tensor) -> dict[int, Tensor]:
    """Say who is in which group: ``(N,)`` bool by number, only groups with a member, in the numbers' order.

    Args:
        numbers: ``(N, K)`` integers, the numbers of each sample's groups; negative for none.

    Example:
        >>> import torch
        >>> from lightning_gcam.metrics.functional.groups import group_members
        >>> group_members(torch.tensor([[1], [-1], [1]]))
        {1: tensor([ True, False,  True])}
    """
    return {number: (numbers == number).any(dim=1) for number in numbers.unique().tolist() if number >= 0}
