"""One look: maps, perturbed outputs, scores and causal checks, in a Trainer or without one.

`analyze` is the only place where these steps are put together. How their work is divided among processes is the
caller's `map_fn`; everything else is the same everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import Any

import torch
from torch import Tensor, nn

from lightning_gcam.cam.calling import forward_at
from lightning_gcam.cam.detection import is_of_detections, may_detect
from lightning_gcam.cam.heads import HeadForward
from lightning_gcam.cam.targets import Targets
from lightning_gcam.data import SaliencyBatch
from lightning_gcam.metrics.measurement import ScoreResults
from lightning_gcam.metrics.perturbation import PerturbedOutputs
from lightning_gcam.metrics.registry import BASELINES, OutputNeeds
from lightning_gcam.pipeline.attribution import Attribution, attribute_in_chunks
from lightning_gcam.pipeline.captions import has_own_sigmoids, instead_of_classes
from lightning_gcam.pipeline.config import (
    CHECKING,
    PERTURBING,
    LookConfig,
    MapFn,
    OnFailure,
    Result,
    in_one_process,
)
from lightning_gcam.pipeline.heads import JoinedRecord, looks_at_heads
from lightning_gcam.pipeline.labels import forward_for, labels_of, plan_heads
from lightning_gcam.pipeline.model_outputs import (
    logits_for_versions,
    maps_of_random_weights,
    outputs_for_perturbed,
)
from lightning_gcam.pipeline.record import LookCost, LookHistory, SaliencyRecord, Stamp
from lightning_gcam.pipeline.rendering import Earlier
from lightning_gcam.pipeline.scoring import can_be_checked, score_maps
from lightning_gcam.shortcuts import Exchanges, Reliance, measure_reliance
from lightning_gcam.shortcuts.checks import image_changes, removed_objects
from lightning_gcam.shortcuts.exchange import check_sides
from lightning_gcam.shortcuts.regions import AnnotatedRegions, Donors, regions_of_batch
from lightning_gcam.utils.chunking import count_forwards
from lightning_gcam.utils.transfer import held_on_host


def analyze(
    model: nn.Module,
    batch: SaliencyBatch,
    config: LookConfig | None = None,
    map_fn: MapFn = in_one_process,
    *,
    stamp: Stamp | None = None,
    history: LookHistory | None = None,
    chunk_size: int | None = None,
    largest_label: int = -1,
    on_failure: OnFailure | None = None,
    agree: Callable[[bool], bool] = bool,
    with_checks: bool = True,
    host: SaliencyBatch | None = None,
) -> SaliencyRecord:
    """Compute the maps of a batch, score them, and check what the model relies on.

    Args:
        model: any `nn.Module`; it is left exactly as it was.
        batch: the samples, on the model's device.
        config: what is computed; the defaults where it is left out.
        map_fn: divides the work among processes; all of it is done here where it is left out.
        stamp: when the look was taken, and under which names it is shown.
        history: the earlier looks, for what compares looks; this one is added to it.
        chunk_size: how many samples to run at once; all where it is left out, fewer where memory runs out.
        largest_label: of all samples that the batch was chosen from; see `instead_of_classes`.
        on_failure: called where perturbed outputs, a check or a score fails, which are then left out; it raises where
            this is left out.
        agree: gives every process the first one's decision, where processes that round differently might part.
        with_checks: False leaves out the causal checks of this look, but for the accuracy; the same in every process.
        host: the same samples on the host, where they were copied already.

    Returns:
        A `SaliencyRecord`, all of it on the host: the maps are copied there once, and measured and drawn there.

    Raises:
        InputError: naming the argument, what came, and what to do.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
        >>> masks = torch.zeros(2, 8, 8, dtype=torch.bool)
        >>> masks[:, :4] = True
        >>> batch = SaliencyBatch(torch.rand(2, 1, 8, 8), labels=torch.tensor([0, 1]), masks=masks)
        >>> record = analyze(model, batch, LookConfig(methods="grad_cam", scores=["energy"]))
        >>> [name for name in record.scores if name.startswith("accuracy")]
        ['accuracy', 'accuracy_chance']
    """
    stamp, config = stamp or Stamp(), config or LookConfig()
    user = config.forward
    bind: MapFn = map_fn if may_detect(model, user) else in_one_process
    config = config.with_forward(bind(lambda _: forward_for(model, batch, user)))
    look = _Look(model, batch, config, map_fn, on_failure, agree, with_checks, history, host)
    if config.may_have_heads(batch):
        plans = config.plans or map_fn(lambda _: plan_heads(model, batch, config.head, config.forward))
        looks = map_fn(lambda _: looks_at_heads(batch, look.host, plans, stamp, history, largest_label))
        how: dict[str, Any] = {"on_failure": on_failure, "agree": agree, "with_checks": with_checks}
        how |= {"map_fn": map_fn, "chunk_size": chunk_size}
        records = {
            str(plan.name): analyze(model, config=config.at_head(plan), **each, **how)
            for plan, each in looks.items()
        }
        if records:
            return JoinedRecord.of(records, look.host, stamp)
    # every step is computed inside of `map_fn`: what fails in one process only must fail in all of them
    with torch.inference_mode(False), count_forwards() as counted:
        maps, size = look.attribution(chunk_size)
        if may_detect(model, user) and not is_of_detections(config.forward):  # which was not known before
            look = replace(
                look, config=config.with_forward(map_fn(lambda _: forward_for(model, batch, user)))
            )
        attribution, instead, is_checked = map_fn(lambda _: look.interpretation(maps, stamp, largest_label))
        if instead is not None:
            look = replace(look, config=replace(look.config, targets=instead))
            again, size = look.attribution(size)
            attribution, _, is_checked = map_fn(lambda _: look.interpretation(again, stamp, largest_label))
        outputs = look.perturbed_outputs(attribution, size)
        results, scored, earlier = map_fn(lambda _: look.scores(attribution, outputs, stamp))
        found, of_maps = _Found(), counted.images
        if is_checked:
            found, size = look.checks(attribution, size)
        cost = LookCost(of_maps, counted.images - of_maps)
        scores = found.reliance.beside(results.values) if found.reliance is not None else results.values
        return SaliencyRecord(
            look.host,
            scored,
            scores,
            stamp,
            results,
            earlier=earlier,
            chunk_size=size,
            cost=cost,
            **vars(found),
        )


def record_saliency(
    model: nn.Module,
    batch: SaliencyBatch,
    *,
    stamp: Stamp | None = None,
    chunk_size: int | None = None,
    **config: Any,
) -> SaliencyRecord:
    """Call `analyze` with the fields of a `LookConfig` as arguments.

    Args:
        model: as in `analyze`.
        batch: as in `analyze`.
        stamp: as in `analyze`.
        chunk_size: as in `analyze`.
        config: the fields of `LookConfig`.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
        >>> record_saliency(model, SaliencyBatch(torch.rand(2, 1, 8, 8)), scores=["gini"]).predictions.shape
        torch.Size([2])
    """
    return analyze(model, batch, LookConfig(**config), stamp=stamp, chunk_size=chunk_size)


@dataclass(frozen=True)
class _Found:
    """What the causal checks found.

    Args:
        reliance: their measurements; None where they failed, or there were none.
        exchanges: the properties that were exchanged.
        exchange_logits: `(N, K)` by the name of the version.
        checks_wait: whether they wait until accuracy is clearly above chance.
        checks_rest: whether they are left out at this look.
    """

    reliance: Reliance | None = None
    exchanges: Exchanges | None = None
    exchange_logits: Mapping[str, Tensor] = field(default_factory=dict)
    checks_wait: bool = False
    checks_rest: bool = False


@dataclass(frozen=True)
class _Look:
    """The steps of one look; each gives the same in every process."""

    model: nn.Module
    batch: SaliencyBatch
    config: LookConfig
    map_fn: MapFn
    on_failure: OnFailure | None
    agree: Callable[[bool], bool] = bool
    with_checks: bool = True
    history: LookHistory | None = None
    given_host: SaliencyBatch | None = None

    @cached_property
    def host(self) -> SaliencyBatch:
        """The samples on the host, where they are measured and drawn."""
        if self.given_host is not None:
            return self.given_host
        return self._of_samples("host", lambda: held_on_host(self.batch))

    @cached_property
    def annotated(self) -> AnnotatedRegions | None:
        """The regions of the samples that the checks change; None where the labels are no classes."""
        return self._of_samples("regions", lambda: regions_of_batch(self.host))

    def exchanges(self, maps: Tensor) -> Exchanges | None:
        """The properties that are exchanged, given the maps; those that need none have their donors once a run."""
        names, removal, annotated = self.config.exchange_names, self.config.removal, self.annotated
        if annotated is None or not names:
            return None
        if self.config.checks is not None:
            check_sides(names, len(self.batch.image_size))

        def choose() -> Mapping[str, Donors]:
            found = Exchanges.of(self.batch, names, None, removal, annotated)
            return found.donors if found is not None else {}

        known = self._of_samples(f"donors of {', '.join(names)}", choose)
        return Exchanges.of(self.batch, names, maps, removal, annotated, known)

    def _of_samples(self, name: str, compute: Callable[[], Result]) -> Result:
        """What depends on the samples alone, once a run."""
        return self.history.of_samples(name, self.batch, compute) if self.history is not None else compute()

    def _part(self, rows: list[int]) -> SaliencyBatch:
        """Some of the samples; no copy of them where it is all."""
        return self.batch if rows == list(range(len(self.batch))) else self.batch.select(rows)

    def _options(self, rows: list[int]) -> dict[str, Any]:
        """The arguments of `attribute` for some of the samples."""
        return {**self.config.attribute_options, "forward": forward_at(self.config.forward, rows)}

    def attribution(self, chunk_size: int | None) -> tuple[Attribution, int | None]:
        """The maps of all samples, on any device, and the size of the chunks that this process ran."""
        size = chunk_size

        def work(rows: list[int]) -> Attribution:
            nonlocal size
            part, options = self._part(rows), self._options(rows)
            targets = labels_of(part, self.host) if self.config.explains_labels else self.config.targets
            maps, size = attribute_in_chunks(self.model, part, targets, chunk_size=chunk_size, **options)
            return maps

        return self.map_fn(work, len(self.batch)), size

    def interpretation(
        self, maps: Attribution, stamp: Stamp, largest_label: int
    ) -> tuple[Attribution, Targets, bool]:
        """The maps on the host, what to explain instead of classes (or None), and whether to run checks."""
        names, instead, attribution = stamp.class_names, None, held_on_host(maps)
        if self.config.explains_labels:
            instead = instead_of_classes(self.host, attribution, names, largest_label)
        return attribution, instead, can_be_checked(self.host, attribution, self.config, names)

    def perturbed_outputs(self, attribution: Attribution, chunk_size: int | None) -> PerturbedOutputs:
        """The outputs for perturbed images that the scores need; none where computing them failed."""
        needed = self.config.resolved_scores.output_needs
        if isinstance(self.config.forward, HeadForward) and attribution.targets is None:
            needed = OutputNeeds(
                random_maps=needed.random_maps
            )  # of another head's classes are probabilities
        if not needed.perturbations and not needed.random_maps:
            return PerturbedOutputs()
        device, history = self.batch.images.device, self.history

        def perturbed(rows: list[int]) -> PerturbedOutputs:
            part, multi_label, targets = self._part(rows), self.config.multi_label, self.config.targets
            maps = attribution.select(rows).to(device)
            how = {"chunk_size": chunk_size, "multi_label": multi_label, **self._options(rows)}
            return outputs_for_perturbed(self.model, part, maps, needed, targets=targets, **how)

        def of_random_weights(rows: list[int]) -> PerturbedOutputs:
            part, maps = self._part(rows), attribution.select(rows).to(device)
            how = {"chunk_size": chunk_size, **self._options(rows)}
            return maps_of_random_weights(self.model, part, maps, targets=self.config.targets, **how)

        n, outputs = len(self.batch), PerturbedOutputs()
        if needed.perturbations:
            outputs = self._tried(PERTURBING, perturbed, n) or outputs
        if not needed.random_maps:
            return outputs
        random = None
        if history is not None:
            random = self.map_fn(lambda _: history.random_maps(attribution))
        if random is None:
            random = self._tried(PERTURBING, of_random_weights, n) or PerturbedOutputs()
            if history is not None:
                history.keep_random_maps(random, attribution)
        return PerturbedOutputs.merged([outputs, random])

    def scores(
        self,
        attribution: Attribution,
        outputs: PerturbedOutputs,
        stamp: Stamp,
    ) -> tuple[ScoreResults, Attribution, Earlier]:
        """The scores, the maps that were scored, and the earlier looks for the picture; then this look is the last."""
        scored = self._with_baselines(attribution) if self.config.with_baselines else attribution
        resolved, history = self.config.resolved_scores, self.history
        baselines = history.baselines_of(resolved) if history is not None else None
        results = score_maps(
            scored,
            self.host,
            resolved,
            self._leave_out if self.on_failure is not None else None,
            outputs=outputs.to("cpu"),
            earlier=history.maps if history is not None else None,
            baselines=baselines,
            multi_label=self.config.multi_label,
        )
        if history is None:
            return results, scored, Earlier()
        if baselines is None:
            history.keep_baselines(resolved, results.baselines)
        earlier = history.for_picture
        if self.config.compares_looks:
            history.keep(attribution, stamp.step)
        return results, scored, earlier

    def checks(self, attribution: Attribution, chunk_size: int | None) -> tuple[_Found, int | None]:
        """The causal checks, none where one of them failed; and the size of the chunks that this process ran.

        Every process makes the changed images of its share; regions, donors and the samples without their objects
        belong to the batch as a whole.
        """
        maps, *_ = attribution.maps.values()  # of the first method at the first layer
        config, history, size, logits = self.config, self.history, chunk_size, attribution.logits

        @cache
        def own_sigmoids() -> bool:
            return has_own_sigmoids(self.host, attribution)

        def measure(changed_logits: Mapping[str, Tensor]) -> Reliance:
            return measure_reliance(self.host, logits, changed_logits, maps, own_sigmoids(), self.annotated)

        @cache
        def exchanges() -> Exchanges | None:
            return self.exchanges(maps)

        def run_versions(rows: list[int]) -> PerturbedOutputs:
            nonlocal size
            if self.annotated is None:
                return PerturbedOutputs()
            images, names, removal = self.batch.images, config.check_names, config.removal
            bare = removed_objects(images, self.annotated, removal)
            versions = image_changes(self.batch, maps, names, removal, annotated=self.annotated, bare=bare)
            if (exchanged := exchanges()) is not None:
                versions.update(exchanged.versions(bare))
            outputs, size = logits_for_versions(
                self.model,
                self.batch,
                versions,
                rows=rows,
                chunk_size=chunk_size,
                forward=config.forward,
                squash=attribution.squash,
            )
            return outputs

        def measure_all(_: list[int]) -> _Found:
            changed, exchanged = outputs.to("cpu").logits, exchanges()
            reliance = measure(changed)
            if exchanged is None:
                return _Found(reliance)
            measured = exchanged.measure(logits, changed, own_sigmoids())
            reliance = replace(reliance, measurements={**reliance.measurements, **measured})
            of_exchanges = {name: changed[name] for name in exchanged.versions() if name in changed}
            return _Found(reliance, exchanged if of_exchanges else None, of_exchanges)

        waits = config.checks_wait and history is not None and history.is_checked
        if waits or not self.with_checks:
            untouched = self._tried(CHECKING, lambda _: measure({}))
            if untouched is None:
                return _Found(), size
            if waits and not self.agree(untouched.is_above_chance):
                return _Found(untouched, checks_wait=True), size
            if not self.with_checks:
                return _Found(untouched, checks_rest=True), size
        outputs = self._tried(CHECKING, run_versions, len(self.batch)) or PerturbedOutputs()
        found = self._tried(CHECKING, measure_all)
        if history is not None:
            history.is_checked |= len(outputs) > 0
        return found or _Found(), size

    def _with_baselines(self, attribution: Attribution) -> Attribution:
        """The maps and, on the same grid, those that do not depend on the model; where there is an object to lie on."""
        masks = self.host.object_masks
        if masks is None:
            return attribution
        others = {
            name: make(self.batch.image_size, masks.device).expand(masks.shape)
            for name, make in BASELINES.items()
            if name not in attribution.maps
        }
        ones = torch.ones(len(attribution), device=attribution.logits.device)
        peaks = {**attribution.peaks, **dict.fromkeys(others, ones)}
        return replace(attribution, maps={**attribution.maps, **others}, peaks=peaks)

    def _tried(self, step: str, work: Callable[[list[int]], Result], n: int | None = None) -> Result | None:
        """The result of some work that `map_fn` divides; None where it failed."""
        try:
            return self.map_fn(work, n)
        except Exception as error:
            self._report(step, error)
            return None

    def _leave_out(self, score: str, error: Exception) -> None:
        self._report(f'The score "{score}"', error)

    def _report(self, step: str, error: Exception) -> None:
        if self.on_failure is None:
            raise error
        self.on_failure(step, error)
