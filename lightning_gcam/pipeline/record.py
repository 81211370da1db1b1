"""`SaliencyRecord`: everything that one look produced; and the history of a run's looks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lightning_gcam.cam.targets import Explains, are_multi_hot, predict, predictions_of
from lightning_gcam.data import SaliencyBatch
from lightning_gcam.data.saliency_batch import sample_names
from lightning_gcam.metrics import GroupedMeasurement, Measurement
from lightning_gcam.metrics.measurement import ScoreResults, table_rows
from lightning_gcam.metrics.perturbation import PerturbedOutputs
from lightning_gcam.pipeline import captions
from lightning_gcam.pipeline.attribution import Attribution
from lightning_gcam.pipeline.captions import class_probabilities, has_own_sigmoids
from lightning_gcam.pipeline.rendering import (
    Earlier,
    Edit,
    ExchangedSample,
    Style,
    draw,
    draw_exchanges,
    layout_of,
    title_of,
)
from lightning_gcam.shortcuts import Exchanges, Reliance
from lightning_gcam.shortcuts.regions import classes_of_labels
from lightning_gcam.utils.errors import InputError, is_whole_number
from lightning_gcam.visual import Figure, Normalize, check_scale
from lightning_gcam.visual.images import Scale
from lightning_gcam.visual.layout import FigureLayout, cut_samples


@dataclass(frozen=True)
class Stamp:
    """When a look was taken, and under which names it is shown.

    Args:
        step: on the x-axis of the loggers.
        epoch: of the training.
        log_prefix: what stands before the slash in every tag.
        class_names: for captions; the class's number where there is none.
        normalize: `(mean, std)` of the input normalization, undone for display.
        scale: what is drawn the brightest: "own", each map's own maximum; "shared", the highest peak of the samples;
            "run", the highest peak of the samples at this look and those before.
        show_change: whether a column beside each map shows what came and what went since the look before.
        sample_images: show each sample by itself as well, under a tag of its own.
        head: of which head the look is; "" for the only one.

    Raises:
        InputError: where `scale` is none of these words.
    """

    step: int = 0
    epoch: int = 0
    log_prefix: str = "saliency"
    class_names: Sequence[str] | None = None
    normalize: Normalize | None = None
    scale: Scale = "own"
    show_change: bool = False
    sample_images: bool = False
    head: str = ""

    def __post_init__(self) -> None:
        check_scale(self.scale)

    @property
    def style(self) -> Style:
        """How the picture is drawn."""
        return Style(self.class_names, self.normalize, self.scale, self.show_change)


class LookCost(NamedTuple):
    """How many images a look ran the model on in this process; three for each whose gradient was taken as well.

    Args:
        maps: for the maps and the scores.
        checks: for the causal checks.
    """

    maps: int = 0
    checks: int = 0


@dataclass(frozen=True)
class SaliencyRecord:
    """One look: the samples, the maps, the scores and the picture.

    Args:
        batch: the fixed samples.
        attribution: their maps, logits and targets.
        scores: plain numbers by name: `energy` for the first method, `<method>/energy` for each further one. A score
            that does not exist (no mask, every map blank) is not in it. The causal checks stand among them.
        stamp: when, and under which names.
        results: what each score was computed from, for `measurements`.
        reliance: the causal checks with n, interval and chance; None where the labels or the output are no classes, the
            logits are dense, or no check was to be made.
        earlier: what the picture shows of the looks before.
        chunk_size: how many images this process ran at once; None where it ran all of them.
        exchanges: the properties that were exchanged, with the donors; None where none was.
        exchange_logits: `(N, K)` logits for the changed images, by the names of `exchanges.versions()`.
        checks_wait: whether the causal checks wait, at this look, until accuracy is clearly above chance.
        checks_rest: whether they were left out at this look, to keep to `max_overhead`.
        cost: the forwards that the look took.
        heads: the record of each head of a model with several, by its name; see `JoinedRecord`.
    """

    batch: SaliencyBatch
    attribution: Attribution
    scores: dict[str, float]
    stamp: Stamp = field(default_factory=Stamp)
    results: ScoreResults = field(default_factory=ScoreResults)
    reliance: Reliance | None = None
    earlier: Earlier = field(default_factory=Earlier)
    chunk_size: int | None = None
    exchanges: Exchanges | None = None
    exchange_logits: Mapping[str, Tensor] = field(default_factory=dict)
    checks_wait: bool = False
    checks_rest: bool = False
    cost: LookCost = field(default_factory=LookCost)
    heads: Mapping[str, SaliencyRecord] = field(default_factory=dict)

    @property
    def parts(self) -> tuple[SaliencyRecord, ...]:
        """The records of the heads; this one where there are none."""
        return tuple(self.heads.values()) or (self,)

    @property
    def step(self) -> int:
        """The step on the loggers' x-axis."""
        return self.stamp.step

    @property
    def epoch(self) -> int:
        """The epoch of the training."""
        return self.stamp.epoch

    @property
    def tag(self) -> str:
        """The tag of the overlay: the same at every look."""
        return f"{self.stamp.log_prefix}/overlay"

    @property
    def metrics(self) -> dict[str, float]:
        """The scores under the names they are logged by."""
        return {f"{self.stamp.log_prefix}/{name}": value for name, value in self.scores.items()}

    @property
    def row(self) -> dict[str, float]:
        """Step, epoch and every score, as plain numbers: one line of a history."""
        return {"step": self.step, "epoch": self.epoch, **self.scores}

    @property
    def subject(self) -> Explains:
        """What the model's output is, as far as can be known; see `lightning_gcam.pipeline.captions.subject_of`."""
        return captions.subject_of(self.batch, self.attribution, self.stamp.class_names)

    @property
    def predictions(self) -> Tensor:
        """The predicted class of each sample, `(N,)`."""
        return predict(self.attribution.logits)

    @property
    def probabilities(self) -> Tensor:
        """The predicted class's probability, `(N,)`: softmax, or sigmoid for one logit and several marked classes."""
        return captions.probabilities(self.batch, self.attribution)

    @property
    def correct(self) -> list[bool | None]:
        """Whether each prediction is right; None where there is no label, or the output is not of classes."""
        return captions.correct(self.batch, self.attribution, self.stamp.class_names)

    @property
    def captions(self) -> list[str]:
        """One line a sample: true and predicted class with its probability, true and predicted value, or the score."""
        return captions.captions(self.batch, self.attribution, self.stamp.class_names)

    @cached_property
    def measurements(self) -> dict[str, Measurement]:
        """Each score with its n, what was left out, and a bootstrap interval."""
        return {name: found.overall for name, found in self.results.measure().items()}

    @cached_property
    def class_measurements(self) -> dict[str, GroupedMeasurement]:
        """The same for each class of the labels, with the worst one named; empty where no label names a class."""
        classes = classes_of_labels(self.batch)
        return self.results.measure(classes, self.stamp.class_names) if classes is not None else {}

    @cached_property
    def group_measurements(self) -> dict[str, GroupedMeasurement]:
        """The same for each of the samples' groups; empty where they have none."""
        return self.results.measure(self.batch.groups) if self.batch.groups is not None else {}

    @property
    def table(self) -> list[dict[str, str | float | int]]:
        """A row for each score, each causal check, each baseline and each group: value, n, left out, interval."""
        checks = self.reliance.measurements if self.reliance is not None else {}
        overall, by_group = self.measurements, self.group_measurements
        rows = table_rows({**overall, **checks}) + table_rows(self.results.baselines)
        for name, found in by_group.items():
            for group, each in found.groups.items():
                rows += table_rows({name: each}, f"group {group}")
        return rows

    @cached_property
    def overlay(self) -> npt.NDArray[np.uint8]:
        """The picture `(height, width, 3)` uint8: a card a sample, the image with its mask, a heatmap a method.

        Every logger and callback is handed this one array, so it is read-only: draw on a copy.
        """
        return _read_only(
            draw(self.batch, self.attribution, self.stamp.style, when=self._when, earlier=self.earlier)
        )

    @property
    def title(self) -> str:
        """The line above the picture: step, epoch, layer, and what the maps explain."""
        return title_of(self._when, self.batch, self.attribution, self.stamp.style)

    @property
    def _when(self) -> str:
        return f"step {self.step} · epoch {self.epoch}{self.stamp.head and f' · head {self.stamp.head}'}"

    def figure(self) -> Figure:
        """The picture as an object that a notebook shows by itself; its pixels are those of `overlay`."""
        return Figure(self.overlay)

    def exchange_figure(self, sample: int | None = None) -> Figure:
        """One sample with a property of its donor in each panel, and what the model predicts for it.

        Args:
            sample: its row in the batch; the first one with the most properties where it is left out.

        Raises:
            InputError: where the look made no exchange, or the sample has no donor.

        Example:
            >>> from torch import nn
            >>> from lightning_gcam.pipeline.run import record_saliency
            >>> layers = nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
            >>> batch = SaliencyBatch(torch.rand(4, 3, 16, 16), torch.tensor([0, 1, 0, 1]))
            >>> record = record_saliency(nn.Sequential(*layers), batch, checks=["color", "border"])
            >>> record.exchange_figure().image.shape[1:]
            (962, 3)
        """
        exchanged, style = self._exchanged(sample), self.stamp.style
        return Figure(draw_exchanges(exchanged, self.batch, self.attribution, style, when=self._when))

    def _exchanged(self, sample: int | None) -> ExchangedSample:
        """A sample with each property of its first donor, and what is predicted for it then."""
        exchanges, suffix = self.exchanges, "_swap_0"
        names = [each.removesuffix(suffix) for each in self.exchange_logits if each.endswith(suffix)]
        if exchanges is None or not names:
            raise InputError(
                "This look has no exchanged images to show: `checks` names no property, the checks wait until accuracy "
                "is above chance or have failed, the labels are no classes, or all samples are of one class. Name a "
                'property, such as `checks=["border"]`, and give samples of two classes.'
            )
        # those of "object" are measured on the images of "background"
        donors = {name: exchanges.donors.get(name, exchanges.donors.get("object")) for name in names}
        lent = {name: each.others[:, 0] for name, each in donors.items() if each is not None}
        counts = torch.stack([each >= 0 for each in lent.values()]).sum(dim=0).tolist()
        row = counts.index(max(counts)) if sample is None else sample
        if not is_whole_number(row, 0) or row >= len(counts) or not counts[row]:
            having = ", ".join(str(number) for number, count in enumerate(counts) if count)
            raise InputError(
                f"`sample` must be the number of a sample with a class and a donor of another one; got {sample!r}. "
                f"These have: {having}."
            )
        labels, own_sigmoids = exchanges.annotated.labels, has_own_sigmoids(self.batch, self.attribution)
        multi_label = are_multi_hot(labels)
        edits = []
        for name, rows in lent.items():
            if rows[row] >= 0:
                logits = self.exchange_logits[f"{name}{suffix}"][row][None]
                guess = predictions_of(logits, multi_label, own_sigmoids)[0].to(labels.device)
                image = exchanges.borrowed(name, rows, rows.new_tensor([row]))[0]
                edits.append(Edit(name, image, int(rows[row]), guess if logits.isfinite().all() else None))
        if labels.ndim == 2 and not multi_label:
            labels = labels.long().argmax(dim=1)
        rates = self.reliance.measurements if self.reliance is not None else {}
        return ExchangedSample(row, labels, edits, {name: each for name, each in rates.items() if each.n})

    @cached_property
    def sample_overlays(self) -> dict[str, npt.NDArray[np.uint8]]:
        """Each sample's part of the picture, `(height, width, 3)` uint8, by its tag, the same at every look."""
        tags = [f"{self.stamp.log_prefix}/sample/{name}" for name in sample_names(self.batch)]
        return dict(zip(tags, map(_read_only, cut_samples(self.overlay, self.layout)), strict=True))

    @property
    def pictures(self) -> dict[str, npt.NDArray[np.uint8]]:
        """The pictures by tag: the overlay; and, with `sample_images`, each sample by itself."""
        return {self.tag: self.overlay, **(self.sample_overlays if self.stamp.sample_images else {})}

    @property
    def layout(self) -> FigureLayout:
        """Where everything stands in the picture."""
        return layout_of(self.batch, self.attribution, self.stamp.style)


def _read_only(picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    picture.flags.writeable = False
    return picture


PREVIOUS, FIRST, BEST = "previous", "first", "best"
Kept = TypeVar("Kept")


class LookHistory:
    """The maps of the previous, the first and the best look, on the CPU; and results that are the same at every look.

    The best look is the one at which the explained classes were the most probable, on average. `is_checked` is set at
    the first look whose causal checks were made.

    Example:
        >>> history = LookHistory()
        >>> history.maps
        {}
    """

    def __init__(self) -> None:
        self.is_checked = False
        self._of_samples: dict[str, tuple[list[Tensor], Any]] = {}
        self._baselines: list[tuple[object, dict[str, float]]] = []
        self._random_maps: PerturbedOutputs | None = None
        self._explained: Tensor | None = None
        self._maps: dict[str, dict[str, Tensor]] = {}
        self._confidence = float("-inf")
        self._step: int | None = None
        self._tops: dict[str, float] = {}

    def begin_run(self) -> None:
        """Forget what depends on the target layer, which another run may change; the earlier looks stay."""
        self._random_maps, self._baselines, self._of_samples = None, [], {}

    def of_samples(self, name: str, batch: SaliencyBatch, compute: Callable[[], Kept]) -> Kept:
        """What depends on the samples alone, computed once while they stay the same.

        Args:
            name: of the result.
            batch: the samples; their tensors are told apart as objects.
            compute: the result, where it is not known yet.
        """
        fields = [batch.images, batch.labels, batch.masks, *(batch.boxes or ()), batch.suspect]
        tensors = [each for each in fields if each is not None]
        known = self._of_samples.get(name)
        if known is None or not _are_same_objects(known[0], tensors):
            known = self._of_samples[name] = tensors, compute()
        return cast(Kept, known[1])

    @property
    def maps(self) -> Mapping[str, Mapping[str, Tensor]]:
        """The maps `(N, *S)` by name, of the "previous", the "first" and the "best" look, where there was one."""
        return self._maps

    @property
    def for_picture(self) -> Earlier:
        """The earlier looks as the picture of the next one shows them."""
        return Earlier(self._step, self._maps.get(PREVIOUS, {}), dict(self._tops))

    def keep(self, attribution: Attribution, step: int | None = None) -> None:
        """Keep the maps of the look at `step`: it is the previous one of the next."""
        self._step = step
        for name, peaks in attribution.peaks.items():
            self._tops[name] = max(self._tops.get(name, 0.0), float(peaks.nan_to_num(0, 0, 0).max()))
        maps = {name: each.detach().cpu() for name, each in attribution.maps.items()}
        self._maps.setdefault(FIRST, maps)
        self._maps[PREVIOUS] = maps
        confidence = _confidence(attribution)
        if confidence > self._confidence:
            self._maps[BEST], self._confidence = maps, confidence

    def random_maps(self, attribution: Attribution) -> PerturbedOutputs | None:
        """The maps of the model with random weights; None where they are not known for the classes explained now."""
        return self._random_maps if _same(attribution.targets, self._explained) else None

    def keep_random_maps(self, outputs: PerturbedOutputs, attribution: Attribution) -> None:
        """Keep the maps of random weights: they stay the same while the explained classes do."""
        if len(outputs):  # else computing them failed, and may succeed the next time
            self._random_maps, self._explained = outputs, attribution.targets

    def baselines_of(self, scores: object) -> dict[str, float] | None:
        """The `scores` of maps that do not depend on the model; None where they were not computed yet.

        Args:
            scores: a `ResolvedScores`, told apart as an object: two of the same names may be set differently.
        """
        return next((found for given, found in self._baselines if given is scores), None)

    def keep_baselines(self, scores: object, found: dict[str, float]) -> None:
        """Keep the scores of maps that do not depend on the model: they are the same at every look of a run."""
        self._baselines.append((scores, found))

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain Python only; what can be computed again is left out."""
        kept = {"confidence": self._confidence, "step": self._step, "tops": dict(self._tops)}
        return {"maps": dict(self._maps), **kept, "is_checked": self.is_checked}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over the looks of a checkpoint."""
        self._maps, self._confidence = dict(state["maps"]), float(state["confidence"])
        self._step, self._tops = state.get("step"), dict(state.get("tops", {}))
        self.is_checked = state.get("is_checked", False)


def _are_same_objects(one: Sequence[object], other: Sequence[object]) -> bool:
    return len(one) == len(other) and all(this is that for this, that in zip(one, other, strict=True))


def _same(now: Tensor | None, then: Tensor | None) -> bool:
    if now is None or then is None:
        return now is then
    return now.shape == then.shape and torch.equal(now, then.to(now.device))


def _confidence(attribution: Attribution) -> float:
    """How probable the explained classes are, on average; -inf where the maps explain no classes."""
    if attribution.targets is None:
        return float("-inf")
    own = attribution.squash in ("sigmoid", "log_sigmoid") if attribution.squash is not None else None
    return float(class_probabilities(attribution.logits, attribution.targets, own).nanmean())
