"""Finding the logits in a model's output."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

from torch import Size, Tensor
from torch.autograd.graph import get_gradient_edge

from lightning_gcam.cam.squashing import Squash, leads_to_all, nodes_behind, squash_of, unsquashed
from lightning_gcam.cam.whole import LOGIT_NAMES, parts_at_top, whole_output
from lightning_gcam.utils.dimensions import positions_of, size_of
from lightning_gcam.utils.errors import InputError
from lightning_gcam.utils.lightning_compat import log_once

RECIPES = "docs/guides/model.md"
"""The page with worked examples for outputs that are not supported by themselves."""


def forward_advice(output: Any, fits: Callable[[Any], bool]) -> str:
    """The advice for an output without logits at its top level: a `forward=` that was tried on it, or a recipe.

    Args:
        output: what the model returned.
        fits: whether a part of it can be the logits.

    Example:
        >>> import torch
        >>> print(forward_advice({"heads": {"main": torch.zeros(2, 5)}}, lambda part: isinstance(part, Tensor)))
        Pass `forward=`, a function from the model and the images to the logits, for example:
            forward=lambda model, images: model(images)["heads"]["main"]
    """
    remedy = "Pass `forward=`, a function from the model and the images to the logits"
    code = next((path for path, part in _parts_of(output, "") if fits(part)), None)
    if code is not None:
        return f"{remedy}, for example:\n    forward=lambda model, images: model(images){code}"
    sentence, section = _recipe_for(output)
    return f"{sentence}{remedy}; no part of this output would do, see {RECIPES}{section}."


def _recipe_for(output: Any) -> tuple[str, str]:
    """A sentence about the kind of an output, and the section of the recipes for it."""
    if isinstance(output, (list, tuple)) and output and all(isinstance(each, Mapping) for each in output):
        return "A list of detections, one dict an image, has no score of each class. ", "#detection-models"
    if isinstance(output, Tensor) and not output.is_floating_point():
        return "Whole numbers are decisions, and have no gradient. ", "#quantized-and-detached-models"
    return "", ""


def _parts_of(output: Any, path: str, depth: int = 4) -> Iterator[tuple[str, Any]]:
    """The nested parts of mappings and tuples, each with the code that gives it; lists hold one part a sample."""
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


def main_head(maps: Mapping[str, Tensor]) -> Tensor | None:
    """The logits among several maps of one width (deep supervision): the largest, by the deepest head.

    Of equally large maps that of the deepest head is taken. It has the most convolutions and linear layers behind it:
    it is computed from more than the others, or from the others by more than arithmetic. Of several such it is the
    first.

    Args:
        maps: what the model returned, by the code that gives it.

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
    if len(maps) < 2 or any(each.ndim < 3 or each.shape[2:].numel() < 2 for each in maps.values()):
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
        _log_choice(place, len(maps))
    return maps[place]


_LAYERS = ("Convolution", "Mkldnn", "Cudnn", "Miopen", "Addmm", "Mm", "Bmm")


def _layers_behind(tensor: Tensor) -> int:
    """The number of convolutions and linear layers in the graph behind a tensor."""
    return sum(each.name().startswith(_LAYERS) for each in nodes_behind(get_gradient_edge(tensor).node))


def _log_choice(place: str, count: int) -> None:
    """Log once which of several maps of logits is explained."""
    log_once(
        f"The model returns {count} maps of logits (deep supervision). Explained is output{place}, the largest and "
        "deepest one. For another one, pass `forward=`."
    )


@dataclasses.dataclass(frozen=True)
class Head:
    """The outputs of a model for N samples, and the logits in front of them.

    Args:
        outputs: as the model returned them, `(N, K)`, or `(N, K, *grid)` from a dense head.
        logits: the same before any sigmoid or softmax, see `lightning_gcam.cam.squashing`.
        squash: what lies between the two; None where they are the same.
        whole: what they are where their form shows that they hold no classes, see `whole_output`.
    """

    outputs: Tensor
    logits: Tensor
    squash: Squash | None = None
    whole: Literal["norm", "similarity"] | None = None

    def __len__(self) -> int:
        return len(self.outputs)


def read_head(
    output: Any, batch_size: int, squash: Squash | Literal["unknown"] | None = "unknown", dims: int = 2
) -> Head:
    """The outputs and the logits of a model, also where its forward ends with a sigmoid or a softmax.

    Args:
        output: as in `find_raw_logits`.
        batch_size: N.
        squash: what the model is known to apply to its logits: without a graph a sigmoid is not recognised.

    Raises:
        InputError: as `find_raw_logits`.

    Example:
        >>> import torch
        >>> head = read_head(torch.tensor([[0.5, 0.5], [0.1, 0.9]], requires_grad=True).softmax(dim=1), batch_size=2)
        >>> head.squash, head.logits.softmax(dim=1).equal(head.outputs)
        ('softmax', True)
    """
    if (found := whole_output(output, batch_size, dims)) is not None:
        return Head(found[1], found[1], whole=found[0])
    outputs = find_raw_logits(output, batch_size, dims)
    if squash is None:
        return Head(outputs, outputs)
    known, nodes = squash_of(outputs)
    known = known if squash == "unknown" else squash
    return Head(outputs, unsquashed(outputs, known, nodes), known)


def find_logits(output: Any, batch_size: int, dims: int = 2) -> Tensor:
    """The logits `(N, K)` in a model's output, before any sigmoid or softmax; of a dense head the mean of a corner.

    That is for finding the layer: only a part of the logits shows which positions influence others.

    Args:
        output: as in `find_raw_logits`.
        batch_size: N.

    Raises:
        InputError: as `find_raw_logits`.

    Example:
        >>> import torch
        >>> find_logits((torch.zeros(2, 10), "aux"), batch_size=2).shape
        torch.Size([2, 10])
        >>> find_logits({"out": torch.ones(2, 21, 8, 8)}, batch_size=2).shape
        torch.Size([2, 21])
    """
    logits = read_head(output, batch_size, dims=dims).logits
    return corner(logits) if logits.ndim > 2 else logits


def corner(logits: Tensor) -> Tensor:
    """The mean logits `(N, K)` of a corner of `(N, K, *grid)`: a quarter of each side, rounded down."""
    quarters = tuple(slice(max(side // 4, 1)) for side in size_of(logits))
    return logits[(slice(None), slice(None), *quarters)].mean(dim=positions_of(logits))


class DetectionsError(InputError):
    """Raised where a model returns detections, which `lightning_gcam.cam.detection` makes scores of."""


def are_detections(output: Any) -> bool:
    """Whether a model's output is a list of detections, one dict an image.

    Example:
        >>> import torch
        >>> are_detections([{"boxes": torch.zeros(0, 4), "labels": torch.zeros(0), "scores": torch.zeros(0)}])
        True
        >>> are_detections([]), are_detections({"scores": torch.zeros(2, 3)})
        (False, False)
    """
    if not isinstance(output, (list, tuple)) or not output:
        return False
    keys = ("boxes", "labels", "scores")
    return all(isinstance(each, Mapping) and all(key in each for key in keys) for each in output)


class SeveralHeadsError(InputError):
    """Raised where several heads could each be the logits: `shapes` has that of one sample by the name of each."""

    def __init__(self, message: str, shapes: Mapping[str, Size] | None = None) -> None:
        super().__init__(message)
        self.shapes = dict(shapes or {})


def heads_of(output: Any, batch_size: int, dims: int = 2) -> dict[str, Tensor]:
    """The parts of a model's output that can be a head, by name: the key, the field, or the position in a tuple.

    Args:
        output: as in `find_raw_logits`; a single tensor has no heads.
        batch_size: N.
        dims: how many spatial dimensions the images have.

    Example:
        >>> import torch
        >>> list(heads_of({"age": torch.zeros(2, 1), "sex": torch.zeros(2, 2), "loss": torch.tensor(0.5)}, 2))
        ['age', 'sex']
        >>> list(heads_of((torch.zeros(2, 14), torch.zeros(2, 3)), 2))
        ['0', '1']
    """
    if isinstance(output, Tensor):
        return {}
    return {
        _name_of(place): each
        for place, each in parts_at_top(output).items()
        if _is_logits(each, batch_size, dims) or (batch_size, getattr(each, "ndim", 1)) == (1, 0)  # squeezed
    }


def _name_of(place: str) -> str:
    """The name in the code that gives a part: `sex` of `["sex"]` and of `.sex`, `1` of `[1]`."""
    return place[1:] if place.startswith(".") else place[1:-1].removeprefix('"').removesuffix('"')


def find_raw_logits(output: Any, batch_size: int, dims: int = 2) -> Tensor:
    """The logits or probabilities in a model's output, as it returned them: `(N, K)`, or `(N, K, *grid)` if dense.

    Of several tensors, the one with the surest name (`LOGIT_NAMES`) is taken; without names one number a class goes
    before a map a class, and of several the one that is computed from the others (the logits are computed from the
    embedding, which only a graph shows), whatever their widths: a second head is as wide as the first, and so are the
    mean and the variance of a VAE. Of maps of one width it is the first (the others are auxiliary).

    Args:
        output: a tensor, a tuple or list, a mapping, a named tuple, a dataclass or another object with attributes.
        batch_size: N.
        dims: how many spatial dimensions the images have, and so a dense head: the tokens `(N, L, K)` of an image are
            no map of it, those of a signal may be.

    Raises:
        InputError: where no tensor of N rows is found; the message names what came and shows `forward=`. A
            DetectionsError where these are detections.
        SeveralHeadsError: where there are several without a sign which are the logits.

    Example:
        >>> import torch
        >>> embedding = torch.ones(2, 64, requires_grad=True).relu()
        >>> logits = torch.nn.Linear(64, 10)(embedding)
        >>> find_raw_logits((embedding, logits), batch_size=2) is logits
        True
    """
    if (whole := whole_output(output, batch_size, dims)) is not None:
        return whole[1]
    if batch_size == 1 and isinstance(output, Tensor) and output.ndim < 2:
        output = output.reshape(1, -1)  # `.squeeze()` took the only sample too
    places = {
        place: each for place, each in parts_at_top(output).items() if _is_logits(each, batch_size, dims)
    }
    if not places:
        kind = DetectionsError if are_detections(output) else InputError
        raise kind(
            f"The model's output holds no logits ({batch_size}, K): got {_describe(output)}. "
            + forward_advice(output, lambda part: _is_logits(part, batch_size, dims))
        )
    if len(places) == 1:
        return _in_rows(*places.values())
    found = _by_name(places)
    if found is None:
        found = main_head(places)
    return _in_rows(found if found is not None else _by_graph(places))


def maps_of_all_heads(output: Any, logits: Tensor) -> list[Tensor]:
    """The maps in a model's output that are as wide as its dense logits; none where these are not dense."""
    places = parts_at_top(output).values()
    return [
        each
        for each in places
        if logits.ndim > 2
        and _is_logits(each, len(logits), logits.ndim - 2)
        and each.shape[1:2] == logits.shape[1:2]
    ]


def has_graph(output: Any) -> bool:
    """Whether a gradient can be taken of anything in a model's output."""
    return any(isinstance(each, Tensor) and each.requires_grad for each in parts_at_top(output).values())


def _is_logits(value: Any, batch_size: int, dims: int) -> bool:
    """Whether a value has the shape and the dtype of logits for this many samples."""
    return (
        isinstance(value, Tensor)
        and value.is_floating_point()
        and value.ndim in (1, 2, 2 + dims)
        and len(value) == batch_size
    )


def _by_name(places: dict[str, Tensor]) -> Tensor | None:
    """The part with the surest name of `LOGIT_NAMES`; None where none has one."""
    named = (places.get(place) for name in LOGIT_NAMES for place in (f".{name}", f'["{name}"]'))
    return next((each for each in named if each is not None), None)


def _by_graph(places: dict[str, Tensor]) -> Tensor:
    """The first part that is computed from all others; of maps, from all others of another width."""
    rows = {place: _in_rows(each) for place, each in places.items()}
    flat = {place: each for place, each in rows.items() if each.ndim == 2} or rows
    live = {place: each for place, each in flat.items() if each.requires_grad} or flat
    live = {
        place: each
        for place, each in live.items()
        if not (_is_repeated(each, place, live) or _is_squashed(each, live))
    }
    for place, each in live.items():
        others = [
            other
            for name, other in live.items()
            if name != place and (other.shape[1] != each.shape[1] or each.ndim == 2)
        ]
        if all(_is_computed_from(each, other) for other in others):
            return places[place]
    shapes = {_name_of(place): each.shape[1:] for place, each in _ends(live).items()}
    raise SeveralHeadsError(_message_ambiguous(live), shapes)


def _ends(places: dict[str, Tensor]) -> dict[str, Tensor]:
    """The parts from which no other is computed; an embedding with a graph is none."""
    return {
        place: each
        for place, each in places.items()
        if not any(name != place and _is_computed_from(other, each) for name, other in places.items())
    }


def _is_repeated(each: Tensor, place: str, places: dict[str, Tensor]) -> bool:
    """Whether an earlier part is the same tensor."""
    before = list(places)[: list(places).index(place)]
    return any(
        places[other].data_ptr() == each.data_ptr() and places[other].shape == each.shape for other in before
    )


def _is_squashed(each: Tensor, places: dict[str, Tensor]) -> bool:
    """Whether a part holds the probabilities of logits that are another part."""
    _, nodes = squash_of(each)
    behind = {node for node, _ in nodes[-1].next_functions if node is not None} if nodes else set()
    return any(other.grad_fn in behind for other in places.values())


def _in_rows(logits: Tensor) -> Tensor:
    """Reshape one number per sample to `(N, 1)`, and a map of a single position to `(N, K)`."""
    if logits.ndim == 1:
        return logits.unsqueeze(1)
    is_one_position = logits.ndim > 2 and logits.shape[2:].numel() == 1
    return logits.flatten(1) if is_one_position else logits


def _is_computed_from(later: Tensor, earlier: Tensor) -> bool:
    """Whether the graph behind `later` holds the node that made `earlier`."""
    if not (later.requires_grad and earlier.requires_grad):
        return False
    return leads_to_all(get_gradient_edge(later).node, {get_gradient_edge(earlier).node})


def _message_ambiguous(places: dict[str, Tensor]) -> str:
    """The message for several parts of which none is recognised as the logits."""
    shapes = " and ".join(_shape(each) for each in places.values())
    narrowest = min(places, key=lambda place: (places[place].shape[1] == 1, places[place].shape[1]))
    return (
        f"The model returns {shapes}, of which none is known by its name to be the logits (such as "
        '"logits" or "out") or is computed from the others. Say which with `forward=`, for example:\n'
        f"    forward=lambda model, images: model(images){narrowest}"
    )


def _shape(tensor: Tensor) -> str:
    """The shape and the dtype of a tensor, for messages."""
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


def _describe(output: Any) -> str:
    """A model's output in words, for messages."""
    if isinstance(output, Tensor):
        return f"a tensor {_shape(output)}"
    if isinstance(output, Mapping):
        return f"{type(output).__name__} with keys {list(output)}"
    if isinstance(output, (tuple, list)):
        return f"{type(output).__name__} of {[_describe(each) for each in output[:4]]}"
    return type(output).__name__
