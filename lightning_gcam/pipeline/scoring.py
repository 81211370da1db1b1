"""From maps to scores: each metric gets what it needs of the samples, the model's answers and the earlier looks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor
from torchmetrics import Metric

from lightning_gcam.data import SaliencyBatch
from lightning_gcam.metrics import (
    GroupedMeasurement,
    SampleScore,
    baseline_scores,
    measure_samples,
    needs,
    resolve_scores,
)
from lightning_gcam.metrics.registry import BASELINES, with_boxes
from lightning_gcam.metrics.samples import PerSample, score_counted
from lightning_gcam.pipeline.attribution import Attribution
from lightning_gcam.pipeline.captions import has_own_sigmoids
from lightning_gcam.pipeline.history import Memory
from lightning_gcam.pipeline.model_outputs import (
    Answers,
    Inquiry,
    class_probabilities,
    kept_map,
    kept_probability,
    random_map,
)
from lightning_gcam.utils.errors import InputError

Scores = str | Metric | Sequence[str | Metric] | Mapping[str, Metric] | None
"""Names, metrics `update(saliency, mask)`, or a mapping from names to metrics; None for the default ones."""

Inputs = tuple[Any, ...]
"""What a metric's `update` takes, one row a sample."""


_KNOWN_NEEDS = frozenset({"mask", "suspect", "forwards", "maps", "earlier", "random", "other"})


def check_scores(scores: Scores) -> None:
    """Refuse scores that are not known, and metrics that need what a look does not have.

    Raises:
        InputError: naming the score and what it needs.

    Example:
        >>> check_scores(["iou", "gini"])
    """
    for name, metric in resolve_scores(scores).items():
        beyond = needs(metric) - _KNOWN_NEEDS
        if beyond or (needs(metric) & {"forwards", "maps"} and getattr(metric, "perturbation", None) is None):
            lacking = " and ".join(sorted(beyond)) or "answers of the model, but has no `perturbation`"
            raise InputError(
                f'`scores` "{name}" needs {lacking}, which a look does not compute. Leave it out, and compute it by '
                "itself from `monitor.last_record` (see docs/scores.md)."
            )


def check_final_scores(scores: Scores) -> None:
    """As `check_scores`; and a look at the end has no earlier one to compare with.

    Raises:
        InputError: naming the score, and what to do.
    """
    check_scores(scores)
    if compares_looks(scores):
        raise InputError(
            "`final_scores` holds a drift, which compares a look with an earlier one. Ask for it at every look, with "
            "`scores=`."
        )


def check_streamed_scores(scores: Scores) -> None:
    """As `check_scores`; and of a whole dataset only numbers of single samples are kept, and each is seen once.

    Raises:
        InputError: naming the score, and what to do.

    Example:
        >>> check_streamed_scores(["energy", "insertion"])
    """
    check_scores(scores)
    for name, metric in resolve_scores(scores).items():
        if "earlier" in needs(metric):
            raise InputError(
                f'`scores` "{name}" compares a look with an earlier one, and an evaluation looks at each sample once. '
                "Leave it out; SaliencyMonitor has it."
            )
        if not isinstance(metric, SampleScore):
            raise InputError(
                f'`scores` "{name}" is a {type(metric).__name__}, which gives one value for all samples; an evaluation '
                "keeps a number of each, for intervals and for going on. Write it as a "
                "`lightning_gcam.metrics.SampleScore`."
            )


def compares_looks(scores: Scores) -> bool:
    """Whether one of the scores compares a look with an earlier one.

    Example:
        >>> compares_looks(["energy", "drift"]), compares_looks(None)
        (True, False)
    """
    return any("earlier" in needs(metric) for metric in resolve_scores(scores).values())


@dataclass(frozen=True)
class ScoreSheet:
    """The scores of a look, and what each was computed from.

    Args:
        values: plain numbers by name; a score that does not exist is not in it.
        evidence: the metric of each score and each sample's number; not for those that are no mean over samples.
        baselines: what a uniform map and a Gaussian in the middle score on the same masks, as `uniform/<score>` and
            `centre/<score>`; the latter stand among the values, too.
    """

    values: dict[str, float] = field(default_factory=dict)
    evidence: dict[str, tuple[SampleScore, PerSample]] = field(default_factory=dict)
    baselines: dict[str, float] = field(default_factory=dict)

    def measure(
        self, groups: Tensor | None = None, names: Sequence[str] | None = None
    ) -> dict[str, GroupedMeasurement]:
        """Each score with n, what was left out and its interval, over all samples and over each group of them.

        Args:
            groups: `(N,)` integers, negative for none; or `(N, K)` multi-hot.
            names: the groups' names, by number.
        """
        return {
            name: measure_samples(metric, sample, groups=groups, names=names)
            for name, (metric, sample) in self.evidence.items()
        }


@dataclass(frozen=True)
class _Look:
    """What the metrics of a look choose from."""

    attribution: Attribution
    batch: SaliencyBatch
    inquiry: Inquiry
    answers: Answers
    memory: Memory | None
    multi_label: bool

    def inputs(self, metric: Metric, name: str) -> Inputs | None:
        """What `metric` takes for the map `name`; None where the annotation or an earlier look for it is missing."""
        what, maps = needs(metric), self.attribution.maps[name]
        if what <= {"mask", "suspect"}:
            region = self._suspect() if "suspect" in what else self.batch.object_masks
            boxes = with_boxes(metric, self.batch.boxes) if "mask" in what else ()
            return None if region is None and what else (maps, region, *boxes)
        if "earlier" in what:
            return _pair(maps, self._earlier(metric, name))
        if "random" in what:
            return _pair(maps, self.answers.values.get(random_map(name)))
        return self._answered(metric, name, maps)

    def _answered(self, metric: Metric, name: str, maps: Tensor) -> Inputs | None:
        what, number = needs(metric), self.inquiry.questions.index(metric.perturbation)
        if "maps" in what:
            kept = self.answers.values.get(kept_map(name, number))
            if kept is None or "forwards" not in what:
                return _pair(maps, kept)
        after = self.answers.values.get(kept_probability(name, number))
        if after is None:
            return None
        if "maps" in what:
            return maps, kept, self._before(), after[:, 0]
        blank = ~(self.attribution.peaks[name] > 0)
        if "other" in what:
            other = self.answers.values[kept_probability(self._other(name), number)]
            return after[:, 0], other[:, 0], blank
        return (self._before(), after[:, 0], blank) if after.shape[1] == 1 else (after, blank)

    def _before(self) -> Tensor:
        assert self.attribution.targets is not None  # else no question was answered
        several = has_own_sigmoids(self.batch, self.attribution, self.multi_label)
        return class_probabilities(self.attribution.logits, self.attribution.targets, several)

    def _other(self, name: str) -> str:
        """The map to compare with: the first one, and for that the second."""
        names = list(self.attribution.maps)
        if len(names) < 2:
            raise InputError(
                '`scores` "win_rate" compares two maps of a sample, and there is one. Give two `methods`, or leave it '
                "out."
            )
        return names[1] if name == names[0] else names[0]

    def _suspect(self) -> Tensor | None:
        suspect = self.batch.suspect
        return suspect.expand(len(self.batch), -1, -1) if suspect is not None else None

    def _earlier(self, metric: Metric, name: str) -> Tensor | None:
        since = getattr(metric, "since", "previous")
        return self.memory.earlier(since, name) if self.memory is not None else None


def _pair(maps: Tensor, others: Tensor | None) -> Inputs | None:
    """Both maps; None where there are no others, or they are of other samples."""
    return None if others is None or others.shape != maps.shape else (maps, others.to(maps.device))


def score_maps(
    attribution: Attribution,
    batch: SaliencyBatch,
    scores: Scores = None,
    on_failure: Callable[[str, Exception], None] | None = None,
    *,
    answers: Answers | None = None,
    memory: Memory | None = None,
    multi_label: bool = False,
) -> ScoreSheet:
    """Every score of every map that exists.

    Args:
        attribution: the maps.
        batch: the samples they belong to.
        scores: names, metrics, or a mapping from names to metrics; None for those that are on by default.
        on_failure: told the name and the error of a score that raises, which is then left out; it raises where this
            is left out.
        answers: what the model said to the scores' questions (see `lightning_gcam.pipeline.model_outputs.ask`).
        memory: the earlier looks.
        multi_label: as in `lightning_gcam.pipeline.model_outputs.ask`.

    Returns:
        The scores, `name` for the first map and `map/name` for each further one; where samples have groups, also the
        worst group's as `<name>_worst_group`; and as `centre/name` what a blob in the middle of the image scores on
        the same masks.
    """
    metrics = resolve_scores(scores)
    look = _Look(attribution, batch, Inquiry.of(metrics), answers or Answers(), memory, multi_label)
    sheet = ScoreSheet()
    for index, map_name in enumerate(attribution.maps):
        prefix = f"{map_name}/" if index else ""
        for name, metric in metrics.items():
            try:
                inputs = look.inputs(metric, map_name)
                if inputs is None:
                    continue
                if not isinstance(metric, SampleScore):
                    found = {name: _value(metric, inputs)}
                else:
                    sample = metric.per_sample(*inputs)
                    sheet.evidence[prefix + name] = metric, sample
                    found = dict(_of_samples(name, metric, sample, batch.groups if not index else None))
            except Exception as error:
                if on_failure is None:
                    raise
                on_failure(name, error)
                continue
            sheet.values.update(
                {prefix + each: value for each, value in found.items() if math.isfinite(value)}
            )
    sheet.baselines.update(_baselines(scores, metrics, look))
    centre = {name: value for name, value in sheet.baselines.items() if name.startswith("centre/")}
    return replace(sheet, values={**sheet.values, **centre})


def _of_samples(
    name: str, metric: SampleScore, sample: PerSample, groups: Tensor | None
) -> Iterator[tuple[str, float]]:
    """The score over all samples, and over the group where it is worst."""
    yield name, float(score_counted(sample, metric._value))
    better = metric.higher_is_better
    if groups is None or better is None or not metric.requires_mask:
        return
    members = [groups == each for each in groups.unique() if each >= 0]
    parts = [PerSample(sample.values[rows], sample.counted[rows]) for rows in members]
    values = [float(score_counted(part, metric._value)) for part in parts]
    there = [value for value in values if math.isfinite(value)]
    if len(there) > 1:
        yield f"{name}_worst_group", min(there) if better else max(there)


def _value(metric: Metric, inputs: Inputs) -> float:
    metric._to_sync = False  # every process scores the same maps; torchmetrics would add them up
    metric.reset()
    metric.update(*inputs)
    return float(metric.compute())


def _baselines(scores: Scores, metrics: Mapping[str, Metric], look: _Look) -> dict[str, float]:
    """What maps that know nothing of the model score on these masks: the same at every look.

    They are kept by what was asked for, not by its names: `scores` and `final_scores` may give one name to two scores.
    """
    batch, memory = look.batch, look.memory
    masks = batch.object_masks
    if masks is None or not look.attribution.maps.keys().isdisjoint(BASELINES):
        return {}
    if memory is not None and (kept := memory.baselines_of(scores)) is not None:
        return kept
    judged = {name: metric for name, metric in metrics.items() if metric.higher_is_better is not None}
    found = dict(_baseline_scores(masks, batch.boxes, judged))
    if memory is not None:
        memory.keep_baselines(scores, found)
    return found


def _baseline_scores(
    masks: Tensor, boxes: list[Tensor] | None, metrics: Mapping[str, Metric]
) -> Iterator[tuple[str, float]]:
    for name, metric in metrics.items():
        with suppress(Exception):  # what fails here has failed with the model's maps, and was told there
            scored = baseline_scores(masks, {name: metric}, boxes)
            yield from (
                (f"{baseline}/{name}", scored[baseline][name])
                for baseline in BASELINES
                if name in scored[baseline]
            )
