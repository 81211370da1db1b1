"""Models with several heads: the forward of each, which of them are looked at, and whose labels are whose."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Size, Tensor, nn

from lightning_gcam.cam.calling import WrappedForward, call_model
from lightning_gcam.cam.invocation import Forward
from lightning_gcam.cam.outputs import SeveralHeadsError, find_raw_logits, heads_of
from lightning_gcam.cam.targets import Labels, Targets, are_measurements, as_labels
from lightning_gcam.utils.errors import InputError, check_known
from lightning_gcam.utils.isolation import eager_without_graph, untouched
from lightning_gcam.utils.lightning_compat import log_once

Shapes = Mapping[str, Size]
"""The shape of one sample of each head's output, by the head's name."""


@dataclass(frozen=True)
class HeadForward(WrappedForward):
    """A `forward` that gives one head of a model's output.

    Args:
        forward: the inner one; None to call the model with the images.
        name: of the head, see `heads_of`.

    Raises:
        InputError: when it is called, where the output has no such head; with the names there are.

    Example:
        >>> class Face(nn.Module):
        ...     def forward(self, images):
        ...         return {"age": images.mean(dim=(1, 2, 3)), "sex": images.mean(dim=(2, 3))}
        >>> HeadForward(None, "sex")(Face(), torch.ones(1, 2, 4, 4))
        tensor([[1., 1.]])
    """

    name: str

    def __call__(self, model: nn.Module, images: Tensor) -> Tensor:
        """The head's output for the images, `(B, K)` or `(B,)`, or `(B, K, *grid)` from a dense head."""
        heads = heads_of(super().__call__(model, images), len(images), images.ndim - 2)
        _check_names([self.name], heads)
        return heads[self.name]


def _check_names(names: Collection[str], heads: Mapping[str, Tensor]) -> None:
    """Refuse the name of a head that an output does not have."""
    for name in names:
        if not heads:
            raise InputError(
                f'`head` "{name}" is none of this model, whose output has no parts to choose from. Leave it out.'
            )
        check_known("head", name, heads)


def names_of_heads(head: str | Sequence[str] | None) -> tuple[str, ...]:
    """The names of the heads that are given, each once.

    Raises:
        InputError: where these are no names.

    Example:
        >>> names_of_heads("sex"), names_of_heads(["age", "sex"]), names_of_heads(None)
        (('sex',), ('age', 'sex'), ())
    """
    if head is None:
        return ()
    names = (head,) if isinstance(head, str) else head
    if not isinstance(names, Sequence) or not names or not all(isinstance(each, str) for each in names):
        raise InputError(
            '`head` must be the name of a head, its place in the output such as "1", or several of them; got '
            f"{head!r}."
        )
    return tuple(dict.fromkeys(names))


def check_head(head: Any) -> str:
    """Return the name of one head.

    Raises:
        InputError: where it is none, or several.
    """
    if not isinstance(head, str):
        raise InputError(
            f'`head` must be the name of one head, or its place in the output such as "1"; got {head!r}. Give '
            "one at a time."
        )
    return head


def find_heads(
    model: nn.Module,
    images: Tensor,
    forward: Forward | None = None,
    *,
    given: Collection[str] = (),
    labelled: Collection[str] = (),
) -> dict[str, Size]:
    """Find the heads of a model that has several, by one forward.

    These are those that are given, those that could each be the logits (see `find_raw_logits`), and those that have the
    name of a label. Beside a reconstruction, of the images' own shape, parts of one width are a code, such as the mean
    and the variance of a VAE: then it is the reconstruction alone.

    Args:
        model: it is left as it was.
        images: `(N, C, *S)`; one is enough.
        forward: as in `call_model`.
        given: the names of those wanted.
        labelled: the names of the labels.

    Returns:
        The shape of one sample of each, by name, in the order of the output, those given first; empty where it has one
        head.

    Raises:
        InputError: where there is no head of a given name; with the names there are.

    Example:
        >>> class Face(nn.Module):
        ...     def forward(self, images):
        ...         return {"age": images.mean(dim=(1, 2, 3)), "sex": images.mean(dim=(2, 3))}
        >>> find_heads(Face(), torch.ones(1, 2, 4, 4))
        {'age': torch.Size([1]), 'sex': torch.Size([2])}
    """
    leaf = images.detach().clone().requires_grad_(images.is_floating_point())
    with untouched(model), eager_without_graph(), torch.enable_grad():
        output = call_model(model, leaf.clone(), forward)
        heads = heads_of(output, len(images), images.ndim - 2)
        _check_names(given, heads)
        named = [head for head in heads if any(_is_same(head, each) for each in labelled)]
        logits = _logits_among(heads, output, images)
        if not given and not named:
            if len(logits) < 2:
                return {}
            logits = _reconstruction_among(heads, logits, images.shape) or logits
        found = [*given, *(head for head in heads if head in named or head in logits)]
        return {head: heads[head].shape[1:] or Size([1]) for head in found}


def _logits_among(heads: Mapping[str, Tensor], output: Any, images: Tensor) -> list[str]:
    """The names of the heads that could each be the logits; one where it is known which is."""
    try:
        logits = find_raw_logits(output, len(images), images.ndim - 2)
    except SeveralHeadsError as error:
        return list(error.shapes)
    except InputError:  # there are none: whoever calls the model for its maps reports it
        return []
    return [head for head, each in heads.items() if each.data_ptr() == logits.data_ptr()]


def _reconstruction_among(heads: Mapping[str, Tensor], logits: Sequence[str], shape: Size) -> list[str]:
    """The name of the only head of the images' own shape, where those that could be the logits are of one width."""
    pictures = [head for head, each in heads.items() if each.shape == shape]
    is_code = len({heads[head].shape for head in logits}) == 1
    return pictures if is_code and len(pictures) == 1 else []


# ---------------------------------------------------------------------------------- whose labels are whose


def assign_labels(shapes: Shapes, labels: Mapping[str, Tensor]) -> tuple[dict[str, str], list[str]]:
    """Assign labels to heads: by their names, by their order where these are numbers, then by what fits only one head.

    Multi-hot labels `(N, K)` fit a head of K, measurements a head of one number, classes a head of enough of them.
    Where classes fit several heads, it is the one that has no class more; if there are none or several such, the first.

    Args:
        shapes: of the heads.
        labels: by their names, "" where they have none: `(N,)` or `(N, K)`.

    Returns:
        For each head that has labels their name; and the names of those labels for which the first head was taken.

    Example:
        >>> shapes = {"0": Size([14]), "1": Size([3])}
        >>> assign_labels(shapes, {"view": torch.tensor([0, 2]), "findings": torch.ones(2, 14)})
        ({'0': 'findings', '1': 'view'}, [])
        >>> assign_labels({"0": Size([5]), "1": Size([5])}, {"1": torch.tensor([0, 2]), "2": torch.tensor([4, 1])})
        ({'0': '1', '1': '2'}, [])
        >>> assign_labels({"0": Size([5]), "1": Size([5])}, {"": torch.tensor([0, 2])})
        ({'0': ''}, [''])
    """
    found: dict[str, str] = {}
    undecided: list[str] = []
    numbered = [name for name in labels if name.isdigit()]
    pairs = dict(zip(shapes, numbered, strict=False))
    are_numbered = len(numbered) == len(shapes) and all(head.isdigit() for head in shapes)
    if are_numbered and all(_fits(labels[name], shapes[head][0]) for head, name in pairs.items()):
        found = pairs
    for name in labels:
        same = [head for head in shapes if head not in found and _is_same(head, name)]
        if same:
            found[same[0]] = name
    rest = {name: each for name, each in labels.items() if name not in found.values()}
    for name, each in sorted(rest.items(), key=lambda item: not _is_certain(item[1])):
        free = {head: shape[0] for head, shape in shapes.items() if head not in found}
        fitting = _fitting(each, free, is_named=name != "" and not name.isdigit())
        exact = [head for head in fitting if shapes[head][0] == int(each.nan_to_num().max()) + 1]
        if fitting:
            found[exact[0] if len(exact) == 1 else fitting[0]] = name
        if len(fitting) > 1 and len(exact) != 1:
            undecided.append(name)
    return {head: found[head] for head in shapes if head in found}, undecided


@dataclass(frozen=True)
class HeadPlan:
    """How one head of a model is looked at.

    Args:
        layers: the names of its target layers; found at the look where there are none yet.
        name: of the head; None for the only one of a model.
        width: how many numbers it gives a sample.
        labels: the name of its labels, see `assign_labels`; None where it has none.
    """

    layers: tuple[str, ...] = ()
    name: str | None = None
    width: int = 0
    labels: str | None = None

    @property
    def is_bare_number(self) -> bool:
        """Whether it is one of several heads, gives one number, and has no labels: what is explained is the number."""
        return self.name is not None and self.width == 1 and self.labels is None

    def __str__(self) -> str:
        kind = {None: "without labels", "": "with the labels"}.get(
            self.labels, f'with the labels "{self.labels}"'
        )
        return f'"{self.name}" of {self.width} {kind}'

    def to_plain(self) -> list[Any]:
        """Lists, strings and numbers only."""
        return [list(self.layers), self.name, self.width, self.labels]

    @staticmethod
    def from_plain(plain: Sequence[Any]) -> HeadPlan:
        """The plan of what `to_plain` gave.

        Raises:
            InputError: where it is something else.
        """
        try:
            layers, name, width, labels = plain
            is_known = all(isinstance(each, str) for each in layers) and isinstance(width, int)
            if is_known and isinstance(name, (str, type(None))) and isinstance(labels, (str, type(None))):
                return HeadPlan(tuple(layers), name, width, labels)
        except (TypeError, ValueError):
            pass
        raise InputError(f"`heads` should be lists of layers, name, width and labels; got {plain!r}.")


_FILLERS = re.compile(r"(^|_)(y|out|outputs?|pred|preds|logits?|labels?|targets?|head|class|cls)(?=_|$)")


def _is_same(head: str, label: str) -> bool:
    """Whether a head and labels have one name, but for words such as "logits" and "label"."""
    if head.lower() == label.lower():
        return not head.isdigit()
    stems = [_FILLERS.sub("", each.lower()).strip("_") for each in (head, label)]
    return stems[0] == stems[1] != ""


def _is_certain(labels: Tensor) -> bool:
    """Whether labels show by their form which width a head for them has."""
    return labels.ndim == 2 or are_measurements(labels)


def _fitting(labels: Tensor, widths: Mapping[str, int], is_named: bool) -> list[str]:
    """The heads that labels can be of; whole numbers name one of several classes, floats 0 and 1 the only one."""
    fitting = [head for head, width in widths.items() if _fits(labels, width)]
    likely = [head for head in fitting if (widths[head] == 1) == labels.is_floating_point()]
    if fitting or labels.ndim > 1 or is_named:  # such as a number of the patient
        return likely or fitting
    return [head for head, width in widths.items() if width == 1]  # beyond every class, such as ages in years


def _fits(labels: Tensor, width: int) -> bool:
    """Whether labels can be those of a head of so many numbers."""
    if labels.ndim == 2:
        return labels.shape[1] == width
    if are_measurements(labels):
        return width == 1
    return int(labels.max()) < max(width, 2)


def first_head(shapes: Shapes, targets: Targets) -> str:
    """Choose one of several heads: the first for which there are such targets, or the first of all.

    Which one it is, and how to choose another, is logged once.

    Args:
        shapes: of the heads.
        targets: as in `attribute`.
    """
    labels: Any = None if callable(targets) else as_labels(targets, torch.device("cpu"))
    given = {"": labels.values} if isinstance(labels, Labels) else {}
    assigned, undecided = assign_labels(shapes, given)
    enough = [head for head in shapes if isinstance(labels, int) and labels < max(shapes[head][0], 2)]
    chosen = next(iter(assigned or enough or shapes))
    if undecided or not assigned:
        say_first(shapes, chosen)
    return chosen


def say_first(shapes: Shapes, chosen: str) -> None:
    """Log once which of several heads was taken without a reason, and how to choose another."""
    other = next((name for name in reversed([*shapes]) if name != chosen), chosen)
    log_once(
        f"The model has {len(shapes)} heads ({described(shapes)}), and nothing tells which is meant: the first that "
        f'fits is taken, `head="{chosen}"`. For another one pass `head="{other}"`; a SaliencyMonitor takes several, as '
        f"in `head={list(shapes)}`."
    )


def described(shapes: Shapes) -> str:
    """The heads and their widths in words.

    Example:
        >>> described({"age": Size([1]), "sex": Size([2])})
        '"age" of 1, "sex" of 2'
    """
    return ", ".join(f'"{name}" of {" x ".join(map(str, shape))}' for name, shape in shapes.items())
