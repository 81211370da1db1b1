"""Which of several heads is the main one, where a network gives logits at every position from several depths."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor
from torch.autograd.graph import get_gradient_edge

from lightning_gcam._errors import InputError
from lightning_gcam._lightning import rank_zero_info


def main_head(maps: Mapping[str, Tensor]) -> Tensor | None:
    """The largest of several maps of one width (deep supervision), and of equally large ones that of the deepest head.

    The deepest head has the most convolutions and linear layers behind it: it is computed from more than the others, or
    from the others by more than arithmetic. The first of several such is taken.

    Args:
        maps: what the model returned, by the code that reads it off.

    Returns:
        One of them; None where they are not all maps of one width.

    Raises:
        InputError: where several are equally large and no graph shows which is the deepest.

    Example:
        >>> import torch
        >>> features = torch.ones(1, 1, 4, 4, requires_grad=True)
        >>> shallow = torch.nn.Conv2d(1, 1, 1)(features)
        >>> deep = torch.nn.Conv2d(1, 1, 1)(shallow.relu())
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
            f"The model returns {len(largest)} maps of one width and one size. Say which are the logits with "
            f"`forward=`, for example:\n    forward=lambda model, images: model(images){next(reversed(largest))}"
        )
    place = max(largest, key=lambda each: _layers_behind(largest[each]) if largest[each].requires_grad else 0)
    if len(live) == len(maps):  # else the graph starts behind some of them
        _say(place, len(maps))
    return maps[place]


_LAYERS = ("Convolution", "Mkldnn", "Cudnn", "Miopen", "Addmm", "Mm", "Bmm")


def _layers_behind(tensor: Tensor) -> int:
    node = get_gradient_edge(tensor).node
    seen, stack = {node}, [node]
    while stack:
        behind = {each for each, _ in stack.pop().next_functions if each is not None} - seen
        seen |= behind
        stack += behind
    return sum(each.name().startswith(_LAYERS) for each in seen)


_SAID: set[str] = set()


def _say(place: str, count: int) -> None:
    said = (
        f"The model returns {count} maps of logits (deep supervision). Explained is output{place}, the largest and "
        "deepest one. For another one, pass `forward=`."
    )
    if said not in _SAID:
        _SAID.add(said)
        rank_zero_info(said)
