"""A score with its number of samples, what was left out, a bootstrap interval, and the worst group."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from lightning_gcam.metrics.base import SampleScore
from lightning_gcam.metrics.samples import (
    PerSample,
    bootstrap_interval,
    cat_groups,
    check_groups,
    group_members,
    group_numbers,
    score_counted,
)
from lightning_gcam.utils.errors import InputError

_COUNTED, _BLANK, _NO_MASK, _UNDEFINED = range(4)


class Measurement(NamedTuple):
    """One score with the number of samples and its interval.

    Example:
        >>> from lightning_gcam.metrics import Measurement
        >>> print(Measurement(0.8, n=14, blank=1, no_mask=2, undefined=0, interval=(0.7, 0.9)))
        0.800 [0.700, 0.900], n = 14, left out 3 (1 blank, 2 without a mask)
    """

    value: float
    """The score; NaN if every sample was left out."""
    n: int
    """How many samples were scored."""
    blank: int
    """How many were left out because their map is blank."""
    no_mask: int
    """How many were left out because their mask is empty."""
    undefined: int
    """How many were left out because the score does not exist for them: 0/0, or a NaN among the forwards."""
    interval: tuple[float, float] | None
    """The bootstrap interval of 95%; ``None`` where there are too few samples for one."""
    no_room: int = 0
    """How many a causal check left out because their object leaves less than a quarter of the image."""

    @property
    def left_out(self) -> int:
        """How many samples were left out, for whatever reason."""
        return self.blank + self.no_mask + self.undefined + self.no_room

    def __str__(self) -> str:
        interval = "" if self.interval is None else f" [{self.interval[0]:.3f}, {self.interval[1]:.3f}]"
        reasons = [(self.blank, "blank"), (self.no_mask, "without a mask"), (self.undefined, "undefined")]
        reasons.append((self.no_room, "without room beside the object"))
        why = ", ".join(f"{count} {reason}" for count, reason in reasons if count)
        return f"{self.value:.3f}{interval}, n = {self.n}" + (
            f", left out {self.left_out} ({why})" if why else ""
        )


class GroupedMeasurement(NamedTuple):
    """One score over all samples, and over each group of them.

    Example:
        >>> from lightning_gcam.metrics import GroupedMeasurement, Measurement
        >>> low, high = (Measurement(value, 5, 0, 0, 0, None) for value in (0.2, 0.8))
        >>> found = GroupedMeasurement(high, {"cats": low, "dogs": high}, worst="cats")
        >>> print(found.groups[found.worst])
        0.200, n = 5
    """

    overall: Measurement
    """Over all samples, also those in no group."""
    groups: dict[int | str, Measurement]
    """By the group's number, or its name; in the order of the numbers. A group without samples is not in it."""
    worst: int | str | None
    """The group with the worst value; ``None`` where no end is better, or fewer than two groups have a value."""


class Measured(Metric):
    """Wrap a score so that ``compute`` gives its value with n, what was left out, an interval, and its groups.

    It keeps each sample's numbers, a few bytes, never its map: the intervals of any group can be had, and
    neither the split into batches nor the number of processes changes one. (Sums that carry random weights
    would need a weight for each sample that does not depend on the process it is in.)

    As input to ``forward`` and ``update`` it accepts what the score does, and ``groups``: ``(N,)`` integers,
    negative for none, such as classes or a batch's ``groups``; or ``(N, K)`` multi-hot, where a sample is in
    each group that is marked. ``compute`` returns a `GroupedMeasurement`.

    Args:
        score: Any of this package's scores, or your own over `SampleScore`; it is cloned, and reset.
        names: The groups' names, by number; one that has none goes by its number.
        resamples: How often the bootstrap draws.
        seed: Of the bootstrap.
        kwargs: Passed on to `torchmetrics.Metric`.

    Raises:
        InputError: If ``score`` is not a `SampleScore`; in ``update``, if ``groups`` does not fit, or is
            there in some batches only.

    Example:
        >>> import torch
        >>> from lightning_gcam.metrics import EnergyPointingGame, Measured
        >>> metric = Measured(EnergyPointingGame(), names=["cats", "dogs"])
        >>> saliency = torch.tensor([[[3.0, 1.0]], [[1.0, 3.0]], [[1.0, 1.0]]])
        >>> mask = torch.tensor([[[True, False]]] * 3)
        >>> metric.update(saliency, mask, groups=torch.tensor([0, 1, 0]))
        >>> overall, groups, worst = metric.compute()
        >>> overall.value, overall.n, worst, groups[worst].value
        (0.5, 3, 'dogs', 0.25)
    """

    is_differentiable: bool = False
    full_state_update: bool = False

    score: SampleScore
    rows: list[Tensor]
    reasons: list[Tensor]
    groups: list[Tensor]

    def __init__(
        self,
        score: SampleScore,
        *,
        names: Sequence[str] | None = None,
        resamples: int = 1000,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not isinstance(score, SampleScore):
            raise InputError(
                f"`score` must be one of this package's scores, got {type(score).__name__}. Write your own over "
                "`SampleScore`: an interval needs each sample's numbers."
            )
        self.score = copy.deepcopy(score)
        self.score.reset()
        self.names, self.resamples, self.seed = names, resamples, seed
        self.add_state("rows", [], dist_reduce_fx="cat")
        self.add_state("reasons", [], dist_reduce_fx="cat")
        self.add_state("groups", [], dist_reduce_fx=cat_groups)

    def update(self, *inputs: Any, groups: Tensor | None = None, **named: Any) -> None:
        """Add a batch: what the score takes, and perhaps the samples' groups."""
        sample = self.score.per_sample(*inputs, **named)
        if groups is not None:
            check_groups(groups, len(sample.counted))
        if len(self.rows) > 0 and (groups is None) == (len(self.groups) > 0):
            raise InputError("`groups` must come with every batch, or with none.")
        self.rows.append(sample.values.detach().to(self.device))
        self.reasons.append(_reasons(sample).to(self.device))
        if groups is not None:
            self.groups.append(group_numbers(groups).to(self.device))

    def compute(self) -> GroupedMeasurement:
        """Return the score over all samples, and over each group."""
        return _grouped(self.score, *self._all_rows(), self.names, self.resamples, self.seed)

    def _all_rows(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return all rows, reasons and groups; of no length where there are none."""
        # After the processes were brought together the states are tensors, and no more lists.
        if len(self.rows) == 0:
            nothing = torch.zeros(0, *self.score.total.shape, device=self.device)
            return nothing, torch.zeros(0, dtype=torch.uint8, device=self.device), _no_groups(self.device)
        groups = cat_groups(self.groups) if len(self.groups) > 0 else _no_groups(self.device)
        return dim_zero_cat(self.rows), dim_zero_cat(self.reasons), groups

    def _sync_dist(self, *args: Any, **kwargs: Any) -> None:
        """Gather one tensor a state from each process; torchmetrics gives one without samples another shape."""
        rows, reasons, groups = self._all_rows()
        self.rows, self.reasons, self.groups = [rows], [reasons], [groups]
        super()._sync_dist(*args, **kwargs)


def _no_groups(device: torch.device) -> Tensor:
    """Return the groups of no sample, ``(0, 1)``."""
    return torch.zeros(0, 1, dtype=torch.int64, device=device)


def _grouped(
    score: SampleScore,
    rows: Tensor,
    reasons: Tensor,
    numbers: Tensor,
    names: Sequence[str] | None,
    resamples: int,
    seed: int,
) -> GroupedMeasurement:
    """Measure the score over all samples, and over each group of them."""
    groups: dict[int | str, Measurement] = {}
    for number, members in group_members(numbers).items():
        name = names[number] if names is not None and number < len(names) else number
        groups[name] = _measured(score, rows[members], reasons[members], resamples, seed)
    overall = _measured(score, rows, reasons, resamples, seed)
    return GroupedMeasurement(overall, groups, worst_group(groups, score.higher_is_better))


def _measured(score: SampleScore, rows: Tensor, reasons: Tensor, resamples: int, seed: int) -> Measurement:
    """Measure the score over the samples given."""
    counted, bounds = reasons == _COUNTED, _bounds(score)
    blank, no_mask, undefined = (int((reasons == reason).sum()) for reason in (_BLANK, _NO_MASK, _UNDEFINED))
    if not counted.any():
        return Measurement(float("nan"), 0, blank, no_mask, undefined, None)
    rows = rows[counted].cpu()
    value = float(score_counted(PerSample(rows, torch.ones(len(rows), dtype=torch.bool)), score._value))
    interval = bootstrap_interval(rows, score._value, bounds=bounds, resamples=resamples, seed=seed)
    return Measurement(value, len(rows), blank, no_mask, undefined, interval)


def _bounds(score: SampleScore) -> tuple[float, float] | None:
    """Return the bounds of a sample's number, where the score is their plain mean; None where it is not."""
    low, high = score.plot_lower_bound, score.plot_upper_bound
    plain = type(score)._value is SampleScore._value
    return (low, high) if plain and low is not None and high is not None else None


def measure(
    score: SampleScore, *inputs: Any, resamples: int = 1000, seed: int = 0, **named: Any
) -> Measurement:
    """Measure a score on one batch.

    Args:
        score: Any of this package's scores; it is left as it was.
        inputs: What its ``update`` takes.
        resamples: How often the bootstrap draws.
        seed: Of the bootstrap.
        named: What its ``update`` takes by name.

    Raises:
        ValueError: What the score raises.

    Example:
        >>> import torch
        >>> from lightning_gcam.metrics import EnergyPointingGame, measure
        >>> saliency = torch.tensor([[[3.0, 1.0]], [[1.0, 3.0]], [[0.0, 0.0]]])
        >>> mask = torch.tensor([[[True, False]]] * 3)
        >>> print(measure(EnergyPointingGame(), saliency, mask))
        0.500 [0.250, 0.750], n = 2, left out 1 (1 blank)
    """
    return measure_samples(score, score.per_sample(*inputs, **named), resamples=resamples, seed=seed).overall


def measure_groups(
    score: SampleScore,
    *inputs: Any,
    groups: Tensor,
    names: Sequence[str] | None = None,
    resamples: int = 1000,
    seed: int = 0,
    **named: Any,
) -> GroupedMeasurement:
    """Measure a score on one batch, over all samples and over each group of them.

    Args:
        score: Any of this package's scores; it is left as it was.
        inputs: What its ``update`` takes.
        groups: ``(N,)`` integers, negative for none; or ``(N, K)`` multi-hot.
        names: The groups' names, by number.
        resamples: How often the bootstrap draws.
        seed: Of the bootstrap.
        named: What its ``update`` takes by name.

    Raises:
        ValueError: What the score raises; or if ``groups`` does not fit.

    Example:
        >>> import torch
        >>> from lightning_gcam.metrics import EnergyPointingGame, measure_groups
        >>> saliency, mask = torch.tensor([[[3.0, 1.0]], [[1.0, 3.0]]]), torch.tensor([[[True, False]]] * 2)
        >>> found = measure_groups(EnergyPointingGame(), saliency, mask, groups=torch.tensor([7, 4]))
        >>> found.worst, {group: each.value for group, each in found.groups.items()}
        (4, {4: 0.25, 7: 0.75})
    """
    sample = score.per_sample(*inputs, **named)
    return measure_samples(score, sample, groups=groups, names=names, resamples=resamples, seed=seed)


def measure_samples(
    score: SampleScore,
    sample: PerSample,
    *,
    groups: Tensor | None = None,
    names: Sequence[str] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> GroupedMeasurement:
    """Measure a score whose number of each sample is known already.

    Args:
        score: Any of this package's scores; it is left as it was.
        sample: What its ``per_sample`` gave.
        groups: ``(N,)`` integers, negative for none; or ``(N, K)`` multi-hot.
        names: The groups' names, by number.
        resamples: How often the bootstrap draws.
        seed: Of the bootstrap.

    Raises:
        InputError: If ``groups`` does not fit.

    Example:
        >>> import torch
        >>> from lightning_gcam.metrics import EnergyPointingGame, measure_samples
        >>> score = EnergyPointingGame()
        >>> sample = score.per_sample(torch.tensor([[[3.0, 1.0]]]), torch.tensor([[[True, False]]]))
        >>> measure_samples(score, sample).overall.value
        0.75
    """
    rows, reasons = sample.values.detach().cpu(), _reasons(sample).cpu()
    if groups is None:
        return GroupedMeasurement(_measured(score, rows, reasons, resamples, seed), {}, None)
    check_groups(groups, len(sample.counted))
    return _grouped(score, rows, reasons, group_numbers(groups).cpu(), names, resamples, seed)


class ScoreKey(NamedTuple):
    """Which map a score is of."""

    map: str
    """The map's name: a method's, or ``method@layer``."""
    score: str
    """The score's name."""


@dataclass(frozen=True)
class ScoreResults:
    """The scores of all maps, and each sample's number that they were computed from.

    Args:
        values: Plain numbers by the name under which they are logged (see `name_of`); a score that does not
            exist is not in it.
        samples: The metric of each score, and each sample's number; not for those that are no mean over samples.
        baselines: What a uniform map and a Gaussian in the middle score on the same masks, as ``uniform/<score>``
            and ``centre/<score>``; the latter stand among the values, too.
        maps: The names of the maps, in order.
    """

    values: dict[str, float] = field(default_factory=dict)
    samples: dict[ScoreKey, tuple[SampleScore, PerSample]] = field(default_factory=dict)
    baselines: dict[str, float] = field(default_factory=dict)
    maps: tuple[str, ...] = ()

    def name_of(self, key: ScoreKey) -> str:
        """Return the name under which a score is logged: ``score`` for the first map, ``map/score`` for others.

        Example:
            >>> from lightning_gcam.metrics.measurement import ScoreKey, ScoreResults
            >>> results = ScoreResults(maps=("guidance_cam", "grad_cam"))
            >>> [results.name_of(ScoreKey(name, "energy")) for name in results.maps]
            ['energy', 'grad_cam/energy']
        """
        return key.score if self.maps[:1] == (key.map,) else f"{key.map}/{key.score}"

    def measure(
        self, groups: Tensor | None = None, names: Sequence[str] | None = None
    ) -> dict[str, GroupedMeasurement]:
        """Measure each score over all samples and over each group of them; by the name it is logged under.

        Args:
            groups: ``(N,)`` integers, negative for none; or ``(N, K)`` multi-hot.
            names: The groups' names, by number.
        """
        return {
            self.name_of(key): measure_samples(metric, sample, groups=groups, names=names)
            for key, (metric, sample) in self.samples.items()
        }


Row = dict[str, str | float | int]
"""One line of a table of scores."""


def table_rows(found: Mapping[str, Measurement | float], samples: str = "all") -> list[Row]:
    """Return a row for each score: value, n, left out, interval; empty cells where there is the value alone.

    Args:
        found: What was measured, or values, by the scores' names.
        samples: Which samples these are of.

    Example:
        >>> from lightning_gcam.metrics.measurement import table_rows
        >>> [row["n"] for row in table_rows({"iou": Measurement(0.5, 3, 1, 0, 0, None), "uniform/iou": 0.25})]
        [3, '']
    """
    columns = ("score", "samples", "value", "n", "left_out", "low", "high")
    rows: list[Row] = []
    for score, each in found.items():
        cells: tuple[str | float | int, ...]
        if isinstance(each, Measurement):
            cells = each.value, each.n, each.left_out, *(each.interval or ("", ""))
        else:
            cells = each, "", "", "", ""
        rows.append(dict(zip(columns, (score, samples, *cells), strict=True)))
    return rows


def worst_group(groups: dict[int | str, Measurement], higher_is_better: bool | None) -> int | str | None:
    """Name the group with the worst value; ``None`` where no end is better, or fewer than two have a value."""
    valued = {name: each.value for name, each in groups.items() if each.value == each.value}
    if higher_is_better is None or len(valued) < 2:
        return None
    return (min if higher_is_better else max)(valued, key=lambda name: valued[name])


def _reasons(sample: PerSample) -> Tensor:
    """Return why each sample is left out, or that it counts: ``(N,)`` uint8."""
    reasons = torch.where(sample.counted, _COUNTED, _UNDEFINED)
    for marked, reason in ((sample.no_mask, _NO_MASK), (sample.blank, _BLANK)):
        if marked is not None:
            reasons = torch.where(marked & ~sample.counted, reason, reasons)
    return reasons.to(torch.uint8)
