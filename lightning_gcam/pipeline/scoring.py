"""Scores of maps: each metric is given what it needs of the samples, the perturbed outputs and the earlier looks.

And whether causal checks can be made of what was attributed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from torch import Tensor
from torchmetrics import Metric

from lightning_gcam.data import SaliencyBatch
from lightning_gcam.metrics import SampleScore, baseline_scores
from lightning_gcam.metrics.measurement import ScoreKey, ScoreResults
from lightning_gcam.metrics.perturbation import PerturbedKey, PerturbedOutputs
from lightning_gcam.metrics.registry import BASELINES, ResolvedScores, Scores, with_boxes
from lightning_gcam.metrics.samples import PerSample, extremes_of, score_counted, shared_by_scores
from lightning_gcam.pipeline.attribution import Attribution
from lightning_gcam.pipeline.captions import class_probabilities, has_own_sigmoids, subject_of
from lightning_gcam.pipeline.config import LookConfig
from lightning_gcam.shortcuts.regions import classes_of_labels
from lightning_gcam.utils.errors import InputError
from lightning_gcam.utils.transfer import to_host

Inputs = tuple[Any, ...]
"""The arguments of a metric's `update`, one row a sample."""

EarlierMaps = Mapping[str, Mapping[str, Tensor]]
"""The maps `(N, *S)` of earlier looks by their names: of the "previous", the "first" and the "best" look."""


@dataclass(frozen=True)
class _MetricInputs:
    """Everything that the metrics of a look take their arguments from."""

    attribution: Attribution
    batch: SaliencyBatch
    masks: Tensor | None
    suspect: Tensor | None
    scores: ResolvedScores
    outputs: PerturbedOutputs
    earlier: EarlierMaps
    multi_label: bool

    def inputs(self, score: str, name: str) -> Inputs | None:
        """The arguments of a score's metric for the map `name`; None where annotation or an earlier look is missing."""
        metric, what, maps = self.scores.metrics[score], self.scores.needs[score], self.attribution.maps[name]
        if what <= {"mask", "suspect"}:
            region = self.suspect if "suspect" in what else self.masks
            has_boxes = "mask" in what and self.batch.boxes is not None
            boxes = with_boxes(metric, self.batch.boxes) if has_boxes else ()
            return None if region is None and what else (maps, region, *boxes)
        if "earlier" in what:
            return _pair(maps, self.earlier.get(getattr(metric, "since", "previous"), {}).get(name))
        if "random" in what:
            return _pair(maps, self.outputs.random_maps.get(name))
        number = self.scores.output_needs.perturbations.index(metric.perturbation)
        return self._perturbed(what, number, name, maps)

    def _perturbed(self, what: frozenset[str], number: int, name: str, maps: Tensor) -> Inputs | None:
        """The arguments of a metric that compares the model's outputs with those for perturbed images."""
        if "maps" in what:
            kept = self.outputs.maps.get(PerturbedKey(name, number))
            if kept is None or "forwards" not in what:
                return _pair(maps, kept)
        after = self.outputs.probabilities.get(PerturbedKey(name, number))
        if after is None:
            return None
        if "maps" in what:
            return maps, kept, self._before, after[:, 0]
        blank = ~(self.attribution.peaks[name] > 0)
        if "other" in what:
            other = self.outputs.probabilities[PerturbedKey(self._other(name), number)]
            return after[:, 0], other[:, 0], blank
        return (self._before, after[:, 0], blank) if after.shape[1] == 1 else (after, blank)

    @cached_property
    def _before(self) -> Tensor:
        assert self.attribution.targets is not None  # else there are no probabilities of perturbed images
        multi_label = has_own_sigmoids(self.batch, self.attribution, self.multi_label)
        return class_probabilities(self.attribution.logits, self.attribution.targets, multi_label)

    def _other(self, name: str) -> str:
        """The map to compare with: the first one, and for that the second."""
        names = list(self.attribution.maps)
        if len(names) < 2:
            raise InputError(
                '`scores` "win_rate" compares two maps of a sample, and there is one. Give two `methods`, or leave it '
                "out."
            )
        return names[1] if name == names[0] else names[0]


def _pair(maps: Tensor, others: Tensor | None) -> Inputs | None:
    """Both maps; None where there are no others, or they are of other samples."""
    return None if others is None or others.shape != maps.shape else (maps, others.to(maps.device))


def score_maps(
    attribution: Attribution,
    batch: SaliencyBatch,
    scores: Scores | ResolvedScores = None,
    on_failure: Callable[[str, Exception], None] | None = None,
    *,
    outputs: PerturbedOutputs | None = None,
    earlier: EarlierMaps | None = None,
    baselines: dict[str, float] | None = None,
    multi_label: bool = False,
) -> ScoreResults:
    """Compute every score of every map that exists.

    Args:
        attribution: the maps.
        batch: the samples they belong to.
        scores: names, metrics, or a mapping from names to metrics; None for those that are on by default; or what was
            resolved of these.
        on_failure: called with the name and the error of a score that raises, which is then left out; it raises where
            this is left out.
        outputs: the model's outputs for perturbed images (see `lightning_gcam.pipeline.model_outputs`).
        earlier: the maps of earlier looks, for scores that compare looks.
        baselines: the scores of maps that do not depend on the model, where they are known already: they are the same
            at every look.
        multi_label: as in `LookConfig`.

    Returns:
        The scores, `name` for the first map and `map/name` for each further one; where samples have groups, also the
        worst group's as `<name>_worst_group`; and as `centre/name` what a blob in the middle of the image scores on
        the same masks.
    """
    resolved = scores if isinstance(scores, ResolvedScores) else ResolvedScores.of(scores)
    outputs = outputs if outputs is not None else PerturbedOutputs()
    masks, suspect, metrics = batch.object_masks, batch.suspect_masks, resolved.metrics
    material = _MetricInputs(
        attribution, batch, masks, suspect, resolved, outputs, earlier or {}, multi_label
    )

    def failed(name: str, error: Exception) -> None:
        if on_failure is None:
            raise error
        on_failure(name, error)

    found: dict[ScoreKey, PerSample | float | None] = {}
    extremes = extremes_of(*attribution.maps.values())
    for (map_name, maps), of_maps in zip(attribution.maps.items(), extremes, strict=True):
        with shared_by_scores(maps, of_maps):
            for name, metric in metrics.items():
                try:
                    found[ScoreKey(map_name, name)] = _numbers(metric, material, name, map_name)
                except Exception as error:
                    failed(name, error)
    found, groups = _on_host(found, batch.groups)
    results = ScoreResults(maps=tuple(attribution.maps))
    for key, numbers in found.items():
        metric, is_first = metrics[key.score], key.map == results.maps[0]
        shown = key.score if is_first else f"{key.map}/{key.score}"
        if not isinstance(numbers, PerSample) or not isinstance(metric, SampleScore):
            values = {shown: numbers} if isinstance(numbers, float) else {}
        else:
            results.samples[key] = metric, numbers
            try:
                values = {shown: float(score_counted(numbers, metric._value))}
                if is_first and groups is not None:
                    values.update(_worst_group(key.score, metric, numbers, groups))
            except Exception as error:
                failed(key.score, error)
                continue
        for name, value in values.items():
            if math.isfinite(value):
                results.values[name] = value
    results.baselines.update(_baselines(metrics, attribution, batch) if baselines is None else baselines)
    centre = {name: value for name, value in results.baselines.items() if name.startswith("centre/")}
    return replace(results, values={**results.values, **centre})


def _numbers(metric: Metric, material: _MetricInputs, name: str, map_name: str) -> PerSample | float | None:
    """Each sample's number, or the value of a metric that has none; None where its arguments are missing."""
    inputs = material.inputs(name, map_name)
    if inputs is None:
        return None
    return metric.per_sample(*inputs) if isinstance(metric, SampleScore) else _value(metric, inputs)


def _on_host(
    found: Mapping[ScoreKey, PerSample | float | None], groups: Tensor | None
) -> tuple[dict[ScoreKey, PerSample | float | None], Tensor | None]:
    """Copy the numbers of all scores, and the groups, to the CPU at once: a device is waited for once."""
    samples = [each for each in found.values() if isinstance(each, PerSample)]
    tensors = [each for sample in samples for each in sample if each is not None]
    copies = iter(to_host([*tensors, *([groups] if groups is not None else [])]))
    on_host = {
        key: PerSample._make(next(copies) if part is not None else None for part in each)
        if isinstance(each, PerSample)
        else each
        for key, each in found.items()
    }
    return on_host, next(copies, None)


def _worst_group(
    name: str, metric: SampleScore, sample: PerSample, groups: Tensor
) -> Iterator[tuple[str, float]]:
    """The score over the group where it is worst."""
    better = metric.higher_is_better
    if better is None or not metric.requires_mask:
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
    metric.update(*(each.to(metric.device) if isinstance(each, Tensor) else each for each in inputs))
    return float(metric.compute())


def _baselines(
    metrics: Mapping[str, Metric], attribution: Attribution, batch: SaliencyBatch
) -> dict[str, float]:
    """The scores of maps that do not depend on the model, on these masks."""
    masks = batch.object_masks
    if masks is None or not attribution.maps.keys().isdisjoint(BASELINES):
        return {}
    judged = {name: metric for name, metric in metrics.items() if metric.higher_is_better is not None}
    return dict(_baseline_scores(masks, batch.boxes, judged))


def _baseline_scores(
    masks: Tensor, boxes: list[Tensor] | None, metrics: Mapping[str, Metric]
) -> Iterator[tuple[str, float]]:
    for name, metric in metrics.items():
        # what fails here has failed with the model's maps, too, and was reported there
        with suppress(Exception):
            scored = baseline_scores(masks, {name: metric}, boxes)
            yield from (
                (f"{baseline}/{name}", scored[baseline][name])
                for baseline in BASELINES
                if name in scored[baseline]
            )


def can_be_checked(
    batch: SaliencyBatch,
    attribution: Attribution,
    config: LookConfig,
    class_names: Sequence[str] | None = None,
) -> bool:
    """Whether causal checks can be measured: the labels are classes, and the model gives one score for each.

    The logits of a dense head cannot: they are read at the object, which the checks take away.
    """
    labels, k = classes_of_labels(batch), attribution.logits.shape[1]
    if not config.check_names or labels is None or attribution.in_mask is not None:
        return False
    fits = labels.shape[1] == k if labels.ndim == 2 else int(labels.max()) < max(k, 2)
    return fits and subject_of(batch, attribution, class_names) == "classes"
