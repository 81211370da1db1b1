"""Which of several heads is the main one, where a network gives logits at every position from several depths."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor
from torch.autograd.graph import Node, get_gradient_edge

from lightning_gcam._errors import InputError
from lightning_gcam._lightning import rank_zero_info


def main_head(maps: Mapping[str, Tensor]) -> Tensor | None:
    """The largest of several maps of one width (deep supervision), and of equally large ones that of the deepest head.

    The deepest head has the most operations behind it: it is computed from more than the others, or from the others.

    Args:
        maps: what the model returned, by the code that reads it off.

    Returns:
        One of them; None where they are not all maps of one width.

    Raises:
        InputError: where several are equally large and no graph shows which is the deepest.

    Example:
        >>> import torch
        >>> features = torch.ones(1, 1, 4, 4, requires_grad=True)
        >>> shallow = features * 2
        >>> deep = shallow.relu() * 3
        >>> main_head({"[0]": shallow, "[1]": deep}) is deep
        True
    """
    if len(maps) < 2 or any(each.ndim != 4 or each.shape[2:].numel() < 2 for each in maps.values()):
        return None
    if len({each.shape[1] for each in maps.values()}) > 1:
        return None
    live = {place: each for place, each in maps.items() if each.requires_grad} or dict(maps)
    cells = max(each.shape[2:].numel() for each in live.values())
    largest = {place: each for place, each in live.items() if each.shape[2:].numel() == cells}
    if len(largest) > 1 and not any(each.requires_grad for each in largest.values()):
        raise InputError(
            f"The model returns {len(largest)} maps of {next(iter(largest.values())).shape[1]} channels and one size. Say "
            f"which are the logits with `forward=`, for example:\n    forward=lambda model, images: model(images)"
            f"{next(reversed(largest))}"
        )
    place = max(largest, key=lambda each: _operations_behind(largest[each]) if len(largest) > 1 else 0)
    if len(live) == len(maps):  # else the graph starts behind some of them
        _say(place, len(maps))
    return maps[place]


def _operations_behind(tensor: Tensor) -> int:
    seen, stack = set[Node](), [get_gradient_edge(tensor).node]
    while stack:
        behind = {each for each, _ in stack.pop().next_functions if each is not None} - seen
        seen |= behind
        stack += behind
    return len(seen)


_SAID: set[str] = set()


def _say(place: str, count: int) -> None:
    said = (
        f"The model returns {count} maps of logits (deep supervision). Explained is output{place}, the largest and "
        "deepest one. For another one, pass `forward=`."
    )
    if said not in _SAID:
        _SAID.add(said)
        rank_zero_info(said)
