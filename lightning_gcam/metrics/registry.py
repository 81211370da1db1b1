"""The names of the scores, how a request becomes metrics, and the baselines that scores are compared with."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_gcam.metrics.base import needs
from lightning_gcam.metrics.curves import DeletionAUC, InsertionAUC
from lightning_gcam.metrics.faithfulness import ADCC, AverageDrop, AverageGain, AverageIncrease, WinRate
from lightning_gcam.metrics.localization import (
    EnergyChance,
    EnergyPointingGame,
    PointingGame,
    RegionLift,
    SuspectLift,
)
from lightning_gcam.metrics.overlap import (
    BestSaliencyIoU,
    PixelAveragePrecision,
    RelevanceRankAccuracy,
    SaliencyIoU,
)
from lightning_gcam.metrics.perturbation import Perturbation
from lightning_gcam.metrics.similarity import Coherency, RandomModelSimilarity, RandomModelSSIM, SaliencyDrift
from lightning_gcam.metrics.sparsity import (
    BlankRate,
    Complexity,
    PositionalConcentration,
    SaliencyEntropy,
    SaliencyGini,
)
from lightning_gcam.metrics.wsol import MaxBoxAccuracy
from lightning_gcam.utils.errors import InputError, InputTypeError

Scores = str | Metric | Sequence[str | Metric] | Mapping[str, Metric] | None
"""Names, metrics ``update(saliency, mask)``, or a mapping from names to metrics; None for the default ones."""


_CHANCE = "energy_chance"

# The one place where a score gets its name; the order is the order of every table.
_DEFAULT: dict[str, Callable[[], Metric]] = {
    "energy": EnergyPointingGame,
    _CHANCE: EnergyChance,
    "object_lift": RegionLift,
    "suspect_lift": SuspectLift,
    "pointing_game": PointingGame,
    "rank_accuracy": RelevanceRankAccuracy,
    "iou": SaliencyIoU,
    "blank_rate": BlankRate,
}
_ON_REQUEST: dict[str, Callable[[], Metric]] = {
    "best_iou": BestSaliencyIoU,
    "pixel_average_precision": PixelAveragePrecision,
    "max_box_accuracy": MaxBoxAccuracy,
    "max_box_accuracy_v1": lambda: MaxBoxAccuracy(version=1),
    "gini": SaliencyGini,
    "entropy": SaliencyEntropy,
    "complexity": Complexity,
    "positional_concentration": PositionalConcentration,
    "drift": SaliencyDrift,
    "drift_from_first": lambda: SaliencyDrift(since="first"),
    "drift_from_best": lambda: SaliencyDrift(since="best"),
    "average_drop": AverageDrop,
    "average_increase": AverageIncrease,
    "average_gain": AverageGain,
    "win_rate": WinRate,
    "coherency": Coherency,
    "adcc": ADCC,
    "insertion": InsertionAUC,
    "deletion": DeletionAUC,
    "random_model_similarity": RandomModelSimilarity,
    "random_model_ssim": RandomModelSSIM,
}
_SCORES = {**_DEFAULT, **_ON_REQUEST}


def available_scores() -> tuple[str, ...]:
    """Return the names of all scores, in the order of the tables; the first ones are on by default.

    Example:
        >>> from lightning_gcam.metrics import available_scores
        >>> available_scores()[:3], available_scores()[-1]
        (('energy', 'energy_chance', 'object_lift'), 'random_model_ssim')
    """
    return tuple(_SCORES)


def default_scores() -> tuple[str, ...]:
    """Return the names of the scores that are on by default: none costs a forward.

    Example:
        >>> from lightning_gcam.metrics import default_scores
        >>> len(default_scores()), default_scores()[:4]
        (8, ('energy', 'energy_chance', 'object_lift', 'suspect_lift'))
    """
    return tuple(_DEFAULT)


def resolve_scores(
    scores: str | Metric | Sequence[str | Metric] | Mapping[str, Metric] | None,
) -> dict[str, Metric]:
    """Convert a request for scores to fresh metrics by name.

    Args:
        scores: ``None`` for those of `default_scores`; a name out of `available_scores`; a
            ``torchmetrics.Metric`` with ``update(saliency, mask)``, which is cloned, reset, and named after its class
            (``PointingGame`` becomes ``pointing_game``); a sequence of these; or a mapping from names of your
            own to metrics.

    Returns:
        The metrics by name, in the order of the request, none of them shared with the caller. Energy is always
        beside its chance level: where it is requested alone, ``energy_chance`` stands right after it.

    Raises:
        InputTypeError: If something is neither a name nor a metric; it is an `InputError` and a `TypeError`.
        InputError: If a name is not known, or two scores have the same name.

    Example:
        >>> from lightning_gcam.metrics import PointingGame, resolve_scores
        >>> list(resolve_scores(["iou", "energy"]))
        ['iou', 'energy', 'energy_chance']
        >>> list(resolve_scores({"pointing_15": PointingGame(tolerance=15)}))
        ['pointing_15']
    """
    resolved: dict[str, Metric] = {}
    for name, metric in _named(scores):
        if name in resolved:
            raise InputError(
                f'`scores` has two scores named "{name}". '
                "Ask for it once, or name each yourself with a mapping from names to metrics."
            )
        resolved[name] = metric
    return _with_chance(resolved)


def _named(
    scores: str | Metric | Sequence[str | Metric] | Mapping[str, Metric] | None,
) -> Iterator[tuple[str, Metric]]:
    """Yield each requested score with its name."""
    if scores is None:
        scores = default_scores()
    if isinstance(scores, (str, Metric)):
        scores = [scores]
    if isinstance(scores, Mapping):
        yield from (_mapped(name, metric) for name, metric in scores.items())
    elif isinstance(scores, Sequence):
        yield from (_listed(score) for score in scores)
    else:
        raise InputTypeError(_expected(scores))


def _mapped(name: str, metric: Metric) -> tuple[str, Metric]:
    """Check one entry of a mapping, and copy its metric."""
    if not isinstance(name, str):
        raise InputTypeError(
            f"`scores` must be keyed by names, got the key {name!r}. Name each metric with a string."
        )
    if not isinstance(metric, Metric):
        raise InputTypeError(f'`scores["{name}"]` must be a torchmetrics.Metric, got {_describe(metric)}.')
    return name, _fresh(metric)


def _listed(score: str | Metric) -> tuple[str, Metric]:
    """Name one entry of a sequence, and make its metric."""
    if isinstance(score, str):
        return score, _by_name(score)
    if isinstance(score, Metric):
        return _snake_case(type(score).__name__), _fresh(score)
    raise InputTypeError(_expected(score))


def _by_name(name: str) -> Metric:
    """Make a fresh metric by its name."""
    if name not in _SCORES:
        near = difflib.get_close_matches(name, _SCORES, n=2)
        hint = "Did you mean " + " or ".join(f'"{n}"' for n in near) + "? " if near else ""
        raise InputError(f'`scores` "{name}" is not a score. {hint}Known: {", ".join(_SCORES)}.')
    return _SCORES[name]()


def _fresh(metric: Metric) -> Metric:
    """Copy a metric and reset the copy: the caller's own is never updated here."""
    metric = metric.clone()
    metric.reset()
    return metric


def _with_chance(metrics: dict[str, Metric]) -> dict[str, Metric]:
    """Put the chance level right after the first energy, unless it is there already."""
    if _CHANCE in metrics or any(isinstance(metric, EnergyChance) for metric in metrics.values()):
        return metrics
    completed: dict[str, Metric] = {}
    for name, metric in metrics.items():
        completed[name] = metric
        if isinstance(metric, EnergyPointingGame) and _CHANCE not in completed:
            completed[_CHANCE] = _by_name(_CHANCE)
    return completed


def _snake_case(name: str) -> str:
    """Convert ``PointingGame`` to ``pointing_game``; ``IoU`` is one word."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name.replace("IoU", "Iou"))
    return spaced.lower()


def _expected(score: object) -> str:
    """Write the error for a request of the wrong type."""
    return (
        "`scores` must be a name, a torchmetrics.Metric, a sequence of these or a mapping from names to "
        f"metrics, got {_describe(score)}."
    )


def _describe(score: object) -> str:
    """Describe a value of the wrong type; a class in the place of an instance is the likely mistake."""
    if isinstance(score, type):
        return f"the class {score.__name__}. Make an instance: `{score.__name__}()`"
    return type(score).__name__


CENTRE_SIGMA = 1 / 4
"""The standard deviation of the centre map, as a share of each side."""


def uniform_map(size: tuple[int, ...], device: torch.device | str = "cpu") -> Tensor:
    """Return a map that is 1 everywhere: ``size`` float32.

    Args:
        size: The sides, such as height and width.
        device: Where it goes.

    Raises:
        ValueError: If ``size`` is not one to three positive integers.

    Example:
        >>> from lightning_gcam.metrics.functional import uniform_map
        >>> uniform_map((1, 3))
        tensor([[1., 1., 1.]])
    """
    _check_size(size)
    return torch.ones(size, device=device)


def centre_map(size: tuple[int, ...], device: torch.device | str = "cpu") -> Tensor:
    """Return a Gaussian in the middle, its standard deviation a quarter of each side: ``size`` float32.

    Photographers put objects in the middle, so that this map, which uses no image, does well on many data sets:
    its centre alone hits 69.6% of the objects of VOC07 in the pointing game.

    Args:
        size: The sides, such as height and width.
        device: Where it goes.

    Raises:
        ValueError: If ``size`` is not one to three positive integers.

    Example:
        >>> from lightning_gcam.metrics.functional import centre_map
        >>> centre_map((1, 3))
        tensor([[0.4111, 1.0000, 0.4111]])

    Source:
        Fong et al., 2019, arXiv 1910.08485 (TorchRay; the pointing game's centre baseline).
    """
    _check_size(size)
    along = (
        torch.exp(-0.5 * ((torch.arange(side, device=device) - (side - 1) / 2) / (CENTRE_SIGMA * side)) ** 2)
        for side in size
    )
    return reduce(lambda grid, side: grid[..., None] * side, along)


def _check_size(size: tuple[int, ...]) -> None:
    """Refuse what is not the size of a map."""
    if not 1 <= len(size) <= 3 or not all(isinstance(side, int) and side > 0 for side in size):
        raise InputError(
            f"`size` must be one to three sides in pixels, such as (height, width), got {size!r}."
        )


BASELINES = {"uniform": uniform_map, "centre": centre_map}
"""The baselines by name: from a size to a map."""


def baseline_scores(
    mask: Tensor,
    scores: str | Metric | Sequence[str | Metric] | Mapping[str, Metric] | None = None,
    boxes: Sequence[Tensor] | None = None,
) -> dict[str, dict[str, float]]:
    """Score a uniform map and a Gaussian in the middle on the same masks: scores that need no model.

    Args:
        mask: ``(N, *spatial)`` bool, True on the object.
        scores: As in `resolve_scores`; those that need something else than a mask, or none, are passed
            over.
        boxes: N tensors ``(M, 4)``, ``(M, 2 * d)`` in d dimensions, each sample's objects one by
            one, for the scores that match them by themselves (`MaxBoxAccuracy`); such take the box around
            the mask where they are left out.

    Returns:
        ``{"uniform": {score: value}, "centre": {score: value}}``; a score that does not exist (no sample has a
        mask) is not in it.

    Raises:
        TypeError: If ``mask`` is not bool.
        ValueError: If its shape is not ``(N, *spatial)``.

    Example:
        >>> import torch
        >>> from lightning_gcam.metrics import baseline_scores
        >>> mask = torch.zeros(1, 4, 4, dtype=torch.bool)
        >>> mask[:, :2] = True
        >>> baseline_scores(mask, ["energy", "pointing_game"])["uniform"]
        {'energy': 0.5, 'energy_chance': 0.5, 'pointing_game': 0.5}
    """
    found: dict[str, dict[str, float]] = {}
    for baseline, make in BASELINES.items():
        saliency = make(tuple(mask.shape[1:]), mask.device).expand(mask.shape)
        found[baseline] = {}
        for name, metric in resolve_scores(scores).items():
            if needs(metric) != {"mask"}:
                continue
            metric._to_sync = False  # every process scores the same masks
            metric.update(saliency, mask, *with_boxes(metric, boxes))
            value = float(metric.compute())
            if math.isfinite(value):
                found[baseline][name] = value
    return found


def with_boxes(metric: Metric, boxes: Sequence[Tensor] | None) -> tuple[Sequence[Tensor], ...]:
    """Return what a metric's ``update`` takes behind the mask: the boxes, where it takes them and there are some.

    Args:
        metric: Any metric. An attribute ``takes_boxes`` states it.
        boxes: N tensors ``(M, 4)`` in images, ``(M, 2 * d)`` in d dimensions, or ``None``.

    Example:
        >>> import torch
        >>> from lightning_gcam.metrics import MaxBoxAccuracy, PointingGame
        >>> boxes = [torch.tensor([[0.0, 0.0, 2.0, 2.0]])]
        >>> len(with_boxes(MaxBoxAccuracy(), boxes)), len(with_boxes(PointingGame(), boxes))
        (1, 0)
    """
    return (boxes,) if boxes is not None and getattr(metric, "takes_boxes", False) else ()


@dataclass(frozen=True)
class ResolvedScores:
    """Metrics by name, what each of them needs, and the outputs for perturbed images that all together need.

    Args:
        metrics: as `resolve_scores` returns them.
        needs: what each takes beside the maps, by the same names; see `needs`.
        output_needs: of all of them.
    """

    metrics: dict[str, Metric]
    needs: dict[str, frozenset[str]]
    output_needs: OutputNeeds

    @staticmethod
    def of(scores: Scores) -> ResolvedScores:
        """Resolve a request for scores.

        Example:
            >>> from lightning_gcam.metrics.registry import ResolvedScores
            >>> {name: sorted(each) for name, each in ResolvedScores.of(["iou", "blank_rate"]).needs.items()}
            {'iou': ['mask'], 'blank_rate': []}
        """
        metrics = resolve_scores(scores)
        needed = {name: needs(metric) for name, metric in metrics.items()}
        return ResolvedScores(metrics, needed, OutputNeeds.of(metrics))

    @property
    def compare_looks(self) -> bool:
        """Whether one of them compares a look with an earlier one."""
        return any("earlier" in each for each in self.needs.values())


@dataclass(frozen=True)
class OutputNeeds:
    """The outputs for perturbed images that the scores of a look need.

    Args:
        perturbations: each is made once for each map; its number is its position.
        with_probabilities: the numbers of those whose images need the explained class's probability.
        with_maps: the numbers of those whose images need maps.
        random_maps: whether the maps of the same model with random weights are needed.
    """

    perturbations: tuple[Perturbation, ...] = ()
    with_probabilities: frozenset[int] = frozenset()
    with_maps: frozenset[int] = frozenset()
    random_maps: bool = False

    @staticmethod
    def of(metrics: Mapping[str, Metric]) -> OutputNeeds:
        """The needs of some metrics; see `lightning_gcam.metrics.needs`.

        Example:
            >>> from lightning_gcam.metrics.registry import OutputNeeds, resolve_scores
            >>> OutputNeeds.of(resolve_scores(["average_drop", "average_gain", "coherency", "energy"])).perturbations
            (Perturbation(kind='keep', fill='zero', steps=0),)
        """
        pairs = [(getattr(metric, "perturbation", None), needs(metric)) for metric in metrics.values()]
        every = tuple(dict.fromkeys(each for each, _ in pairs if each is not None))

        def numbers(need: str) -> frozenset[int]:
            return frozenset(every.index(each) for each, needed in pairs if each and need in needed)

        random_maps = any("random" in needed for _, needed in pairs)
        return OutputNeeds(every, numbers("forwards"), numbers("maps"), random_maps)
