"""What the model says of changed images: asked once a look, however many scores share the answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from lightning_gcam.cam.capture import Forward
from lightning_gcam.cam.forward import called_with, in_place_of_all, logits_of
from lightning_gcam.cam.registry import resolve_methods
from lightning_gcam.cam.squashing import Squash
from lightning_gcam.cam.targets import Targets, are_marks, shares_of
from lightning_gcam.data import SaliencyBatch
from lightning_gcam.metrics import Perturbation, needs
from lightning_gcam.pipeline.attribution import Attribution
from lightning_gcam.pipeline.captions import has_own_sigmoids
from lightning_gcam.pipeline.chunks import attribute_in_chunks, in_chunks
from lightning_gcam.shortcuts.checks import Make
from lightning_gcam.utils.errors import InputError
from lightning_gcam.utils.isolation import untouched


@dataclass(frozen=True)
class Answers:
    """One row a sample of whatever was asked, by name.

    Args:
        values: tensors whose first dimension is N.
    """

    values: dict[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(next(iter(self.values.values()), ()))

    def to(self, device: torch.device | str) -> Answers:
        """The same answers on `device`."""
        return Answers({name: each.to(device) for name, each in self.values.items()})

    def select(self, rows: Sequence[int]) -> Answers:
        """Those of the samples at `rows`, in that order."""
        return Answers({name: each[list(rows)] for name, each in self.values.items()})

    @staticmethod
    def cat(parts: Sequence[Answers]) -> Answers:
        """Several batches as one, in order."""
        return Answers({name: torch.cat([part.values[name] for part in parts]) for name in parts[0].values})

    @staticmethod
    def merged(several: Iterable[Answers]) -> Answers:
        """Answers to different questions about the same samples, as one."""
        return Answers({name: each for answers in several for name, each in answers.values.items()})


@dataclass(frozen=True)
class Inquiry:
    """What the scores of a look want to know of the model.

    Args:
        questions: each asked once for each map; the number of a question is its position.
        with_probabilities: the numbers of those of whose images the explained class's probability is wanted.
        with_maps: the numbers of those of whose images the maps are wanted.
        random_maps: whether the maps of the same model with random weights are wanted.
    """

    questions: tuple[Perturbation, ...] = ()
    with_probabilities: frozenset[int] = frozenset()
    with_maps: frozenset[int] = frozenset()
    random_maps: bool = False

    @staticmethod
    def of(metrics: Mapping[str, Metric]) -> Inquiry:
        """What these metrics need; see `lightning_gcam.metrics.needs`.

        Example:
            >>> from lightning_gcam.metrics import resolve_scores
            >>> Inquiry.of(resolve_scores(["average_drop", "average_gain", "coherency", "energy"])).questions
            (Perturbation(kind='keep', fill='zero', steps=0),)
        """
        asked = [(getattr(metric, "perturbation", None), needs(metric)) for metric in metrics.values()]
        questions = tuple(dict.fromkeys(question for question, _ in asked if question is not None))

        def those_who_need(answer: str) -> frozenset[int]:
            return frozenset(questions.index(each) for each, what in asked if each and answer in what)

        random_maps = any("random" in what for _, what in asked)
        return Inquiry(questions, those_who_need("forwards"), those_who_need("maps"), random_maps)


def kept_probability(map_name: str, number: int) -> str:
    """The name of the explained class's probabilities `(N, steps + 1)` for the images of a question."""
    return f"{map_name}|{number}|probability"


def kept_map(map_name: str, number: int) -> str:
    """The name of the maps `(N, H, W)` of the images of a question."""
    return f"{map_name}|{number}|map"


def random_map(map_name: str) -> str:
    """The name of the maps `(N, H, W)` of the same model with random weights."""
    return f"{map_name}|random"


def ask(
    model: nn.Module,
    batch: SaliencyBatch,
    attribution: Attribution,
    inquiry: Inquiry,
    *,
    targets: Targets = None,
    chunk_size: int | None = None,
    multi_label: bool = False,
    **options: Any,
) -> Answers:
    """Ask the model the questions of the scores.

    Args:
        model: any `nn.Module`; it is left exactly as it was.
        batch: the samples, on the model's device.
        attribution: their maps.
        inquiry: what is asked.
        targets: what the maps explain where that is no class (a callable, or "output").
        chunk_size: how many images to run at once; as many as there are samples where it is left out.
        multi_label: whether each logit has a sigmoid of its own also where a sample is labelled with one class.
        options: `methods`, `target_layer`, `fuse`, `forward` and `reshape_transform` as in `attribute`.

    Raises:
        InputError: where probabilities are asked for and the maps explain no class.
    """
    asked = _Asked(model, batch, attribution, targets, chunk_size or len(batch), options, multi_label)
    values: dict[str, Tensor] = {}
    for name, maps in attribution.maps.items():
        for number, question in enumerate(inquiry.questions):
            if number in inquiry.with_probabilities:
                values[kept_probability(name, number)] = asked.probabilities(question, maps)
            if number in inquiry.with_maps:
                values[kept_map(name, number)] = asked.maps_of_kept(question, name, maps)
    return Answers(values)


def ask_random_model(
    model: nn.Module,
    batch: SaliencyBatch,
    attribution: Attribution,
    *,
    targets: Targets = None,
    chunk_size: int | None = None,
    **options: Any,
) -> Answers:
    """The maps of the same samples, for the same classes, by the same model with random weights.

    Args:
        model: any `nn.Module`; it is left exactly as it was.
        batch: the samples, on the model's device.
        attribution: their maps.
        targets: as in `ask`.
        chunk_size: as in `ask`.
        options: as in `ask`.

    Raises:
        InputError: where the model's parameters are sharded.
    """
    forward = called_with(in_place_of_all(model), options.pop("forward", None))
    asked = _Asked(
        model, batch, attribution, targets, chunk_size or len(batch), {**options, "forward": forward}
    )
    return Answers({random_map(name): maps for name, maps in asked.attribute(batch.images).items()})


def answer_images(
    model: nn.Module,
    batch: SaliencyBatch,
    changed: Mapping[str, Tensor | Make],
    *,
    rows: Sequence[int] | None = None,
    chunk_size: int | None = None,
    forward: Forward | None = None,
    squash: Squash | Literal["unknown"] | None = "unknown",
) -> tuple[Answers, int]:
    """The logits of changed versions of a batch, in one go where memory allows.

    Args:
        model: any `nn.Module`; it is left exactly as it was.
        batch: the samples, for the regions of a dense head.
        changed: images `(N, C, H, W)` by the name of the change, or functions that make those of some samples (see
            `lightning_gcam.shortcuts.checks.image_changes`): then no more than a chunk of them exist at once.
        rows: the numbers of the samples that are wanted; all where it is left out.
        chunk_size: how many images to run at once; all where it is left out.
        forward: as in `attribute`.
        squash: what the model does to its logits, as in `Attribution`; a softmax is seen without that.

    Returns:
        Logits `(rows, K)` by the same names, and how many images went through at once.
    """
    rows = range(len(batch)) if rows is None else rows
    if not changed:
        return Answers(), chunk_size or len(rows)
    wanted, masks = [(name, row) for name in changed for row in rows], batch.object_masks

    def work(piece: slice) -> Tensor:
        parts = [
            _some_of(changed[name], [row for _, row in group], batch.images.device)
            for name, group in groupby(wanted[piece], key=lambda each: each[0])
        ]
        regions = masks[[row for _, row in wanted[piece]]] if masks is not None else None
        return logits_of(model, torch.cat(parts), None, forward=forward, masks=regions, squash=squash)

    with untouched(model):
        logits, size = in_chunks(len(wanted), work, chunk_size)
    return Answers(dict(zip(changed, torch.cat(logits).split(len(rows)), strict=True))), size


def _some_of(changed: Tensor | Make, rows: list[int], device: torch.device) -> Tensor:
    """The changed images of some samples."""
    at = torch.tensor(rows, device=device)
    return changed(at) if callable(changed) else changed[at]


def _logits_in_chunks(
    model: nn.Module,
    images: Tensor,
    classes: Tensor | None,
    regions: Tensor | None,
    forward: Forward | None,
    chunk_size: int | None,
    squash: Squash | Literal["unknown"] | None,
) -> tuple[Tensor, int]:
    """The logits `(N, K)`, and how many images went through at once."""

    def work(piece: slice) -> Tensor:
        targets = classes[piece] if classes is not None else None
        masks = regions[piece] if regions is not None else None
        return logits_of(model, images[piece], targets, forward=forward, masks=masks, squash=squash)

    parts, size = in_chunks(len(images), work, chunk_size)
    return torch.cat(parts), size


@dataclass(frozen=True)
class _Asked:
    """One model, one batch, and how they are run."""

    model: nn.Module
    batch: SaliencyBatch
    attribution: Attribution
    targets: Targets
    chunk_size: int
    options: dict[str, Any]
    multi_label: bool = False

    def probabilities(self, question: Perturbation, maps: Tensor) -> Tensor:
        """The explained class's probability for each image of a question, `(N, steps + 1)`."""
        classes, masks = _explained(self.attribution), self.batch.object_masks
        found = torch.full((len(self.batch), question.num_images), torch.nan, device=maps.device)
        with untouched(self.model):
            for index, images in question.images(self.batch.images, maps, self.chunk_size):
                rows, steps = index.unbind(dim=1)
                regions = masks[rows] if masks is not None else None
                forward, squash = self.options.get("forward"), self.attribution.squash
                logits, _ = _logits_in_chunks(
                    self.model, images, classes[rows], regions, forward, None, squash
                )
                several = has_own_sigmoids(self.batch, self.attribution, self.multi_label)
                found[rows, steps] = class_probabilities(logits, classes[rows], several)
        return found

    def maps_of_kept(self, question: Perturbation, name: str, maps: Tensor) -> Tensor:
        """The map of the same name, of the images of which only what is salient is left."""
        images = torch.cat([each for _, each in question.images(self.batch.images, maps, len(maps))])
        method = name.partition("@")[0]
        table = resolve_methods(self.options["methods"])
        return self.attribute(images, methods={method: table[method]})[name]

    def attribute(self, images: Tensor, **other: Any) -> dict[str, Tensor]:
        """The maps of changed images, at the same layers, for the same classes."""
        explains = self.attribution.explains
        explained = explains if explains in ("output", "norm", "error") else self.targets
        targets = self.attribution.targets if self.attribution.targets is not None else explained
        changed = SaliencyBatch(images, masks=self.batch.object_masks)
        options = {**self.options, **other, "chunk_size": self.chunk_size}
        return attribute_in_chunks(self.model, changed, targets, **options)[0].maps


def _explained(attribution: Attribution) -> Tensor:
    """The classes that the maps explain.

    Raises:
        InputError: where they explain something else.
    """
    if attribution.targets is None:
        raise InputError(
            "`scores` that ask for the probability of a class (average_drop, insertion and the like) need maps that "
            "explain classes, and these explain the output itself or a score of your own. Leave them out."
        )
    return attribution.targets


def class_probabilities(logits: Tensor, classes: Tensor, several: bool | None = None) -> Tensor:
    """The probability of each sample's class: softmax, or sigmoid of a single logit and of marked classes.

    Args:
        logits: `(N, K)`.
        several: whether a sample can be of several classes, so that each logit has a sigmoid of its own; as the classes
            show where it is left out.
        classes: `(N,)`, or `(N, K)` multi-hot: then the mean over the marked ones, NaN where none is.

    Example:
        >>> class_probabilities(torch.tensor([[0.0, 0.0]]), torch.tensor([1]))
        tensor([0.5000])
    """
    if logits.shape[1] == 1 and classes.ndim == 1:
        return torch.where(classes > 0, logits[:, 0], -logits[:, 0]).float().sigmoid()
    shares = shares_of(logits, are_marks(classes) if several is None else several)
    if classes.ndim == 2:
        marks = classes.to(shares)
        return (shares * marks).sum(dim=1) / marks.sum(dim=1)
    return shares.gather(1, classes[:, None]).squeeze(1)
