"""`SaliencyMonitor`: computes and logs the saliency of the same samples at every look of a training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from lightning_gcam.callbacks.averaging import (
    as_validated,
    averaged,
    same_weights,
    weights_may_change,
    weights_of,
)
from lightning_gcam.callbacks.budget import CheckBudget
from lightning_gcam.callbacks.distributed import (
    all_ready,
    from_rank_zero,
    map_fn_of,
    same_record,
    share_plans,
    through_wrapper,
)
from lightning_gcam.callbacks.error_policy import THE_LOOK, FailurePolicy
from lightning_gcam.callbacks.publisher import Publisher
from lightning_gcam.callbacks.reading_notes import warn_of_unclear
from lightning_gcam.callbacks.resuming import CheckpointState, names_of, settings_of, state_of_plans
from lightning_gcam.callbacks.sample_collector import (
    SampleCollector,
    integer_images_explained,
    steps_fetch_batches,
)
from lightning_gcam.callbacks.trainer_state import (
    Schedule,
    as_inputs,
    check_intervals,
    is_fitting,
    logged_step,
    moment,
    monitored_names,
    no_training_time_spent,
    precision,
    progress_bars,
    total_steps,
)
from lightning_gcam.cam.heads import HeadPlan
from lightning_gcam.cam.invocation import Forward
from lightning_gcam.cam.layers import check_fuse, resolve_target_layers
from lightning_gcam.cam.layouts import Reshape
from lightning_gcam.cam.registry import Methods
from lightning_gcam.data import Adapter, SaliencyBatch
from lightning_gcam.data.fixed_samples import Selection, one_labelled
from lightning_gcam.loggers import ReportLogger
from lightning_gcam.metrics.registry import ResolvedScores, Scores
from lightning_gcam.pipeline.config import (
    LookConfig,
    check_class_names,
    check_final_scores,
    check_prefix,
    check_scores,
    check_targets,
)
from lightning_gcam.pipeline.dry_run import dry_run
from lightning_gcam.pipeline.heads import Layers, RunHistory
from lightning_gcam.pipeline.labels import for_planning
from lightning_gcam.pipeline.record import SaliencyRecord, Stamp
from lightning_gcam.pipeline.run import analyze
from lightning_gcam.shortcuts import Checks, Removal
from lightning_gcam.shortcuts.removal import DEFAULT_REMOVAL
from lightning_gcam.utils.errors import InputError, check_flag, check_whole
from lightning_gcam.utils.files import same_on_any_disk
from lightning_gcam.utils.lightning_compat import Callback, LightningModule, Trainer
from lightning_gcam.visual import Normalize, check_normalize, check_scale


@runtime_checkable
class SaliencyLookHook(Protocol):
    """A callback with the hook `on_saliency_look`, which a `SaliencyMonitor` in the same Trainer calls.

    Example:
        >>> class CountLooks(Callback):
        ...     looks = 0
        ...     def on_saliency_look(self, trainer, pl_module, monitor, record):
        ...         self.looks += record is not None
        >>> isinstance(CountLooks(), SaliencyLookHook), isinstance(Callback(), SaliencyLookHook)
        (True, False)
    """

    def on_saliency_look(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        monitor: SaliencyMonitor,
        record: SaliencyRecord | None,
    ) -> None:
        """Receive the record of a look, right after the look and in every process.

        Args:
            trainer: that runs.
            pl_module: the model.
            monitor: whose look it is.
            record: the look; None where it failed.
        """


class SaliencyMonitor(Callback):
    """Show where a network looks while it trains, and score it, on the same validation samples at every look.

    The module needs no change and is left exactly as it was. Overlays go to every logger that takes pictures (PNG
    files where none does); scores are logged as `saliency/<score>`, so `ModelCheckpoint` and `EarlyStopping` can
    monitor them.

    Args:
        methods: a name (see `available_methods`), a callable `(activations, gradients) -> (N, *grid)`, a `ModelMethod`
            that runs the model again, several of these, or a mapping from the maps' names to them.
        target_layer: a name from `model.named_modules()`; found where it is left out. Several names give a map each,
            all from one forward and one gradient; scores of the first method at the first layer are logged as
            `saliency/<score>`, the others as `saliency/<method>@<layer>/<score>`.
        fuse: makes one map of several layers' maps, by the "product" or the "mean" of the scaled maps.
        targets: whose score the maps explain: "label", "predicted", a class, "output" for the output of a regression
            itself, or a callable `logits -> (N,)`. "label" explains the output itself where a single output comes with
            float labels that are not all 0 or 1, and the prediction where there are no labels. A model that gives
            logits at every position (segmentation) is explained by their sum over each sample's mask or boxes, or where
            it predicts the class itself.
        num_samples: how many validation samples to look at.
        selection: "balanced" over the classes, "first", or positions in the order of delivery, under DDP that of all
            processes together. Where images come in several sizes, only the commonest is chosen from.
        batch: the samples, given by hand: a `SaliencyBatch` or any batch that can be read as one.
        every_n_epochs: look after the validation of every n-th epoch; None for never. Where a callback monitors a
            score, leave it at 1: Lightning's `EarlyStopping` raises where its score was never logged.
        every_n_train_steps: look after every n-th optimizer step; None for never. Samples that are collected are known
            after the first validation, so these looks begin there; with `batch` they begin at once.
        scores: names, metrics with `update(saliency, mask)`, or a mapping from names to metrics; None for all that
            the annotation allows.
        final_scores: further ones, taken once at the end of a fit, logged as `saliency/final/<score>` and kept in
            `monitor.final_record`: for those that cost many forwards, as `insertion` and `deletion` do.
        checks: what the model relies on: names out of `lightning_gcam.shortcuts.available_checks`, logged as
            `saliency/<score>`; `[]` for none. None for all that are on by default and that the annotation allows (15
            forwards of the samples without masks, 22 with), made at the first look, and further at those where
            accuracy is clearly above chance.
        max_overhead: looks may cost at most this share of the forwards that the training itself does between two of
            them (a sample that is trained on counts three). Where a look with all checks is dearer, the checks are made
            at one look in so many, which is logged once; maps and scores stay at every look. In a run of known length
            at least two looks behind the first have checks; and all have where a callback or a scheduler monitors the
            score of a check. None for checks at every look.
        removal: how they remove an object: "blur", "mean", "neighbours", or a callable from images and regions
            `(N, *S)` bool, of the size S of the images, to images.
        adapter: a function from a batch of your dataloader to a `SaliencyBatch`, for layouts that are not recognised.
        forward: `(module, images) -> logits`, for a module that is not simply called with the images.
        normalize: `(mean, std)` of your input normalization, undone for display.
        reshape_transform: from the layer's output to `(N, C, *grid)`, for layouts that are not recognised.
        class_names: for captions, and for labels that come as words; in the order of the logits.
        log_prefix: what stands before the slash in every tag; two monitors in one Trainer need two.
        sample_images: log each sample by itself as well, under the tag `saliency/sample/<its name or number>`.
        on_error: "warn" (the training goes on) or "raise".
        dataloader_idx: where there are several validation dataloaders, the one that the samples come from.
        scale: what is drawn the brightest: "own", each map's own maximum; "shared", the highest peak of all samples at
            this look, so that they can be compared; "run", the highest peak at this look and all before it. The legend
            says which; the raw peaks stand below the maps.
        show_change: a further column beside each map with what came and what went since the look before.
        head: which heads of a model with several are looked at: a name, its place in a tuple such as "1", or several of
            them. Left out, these are all that have names, and of those in a tuple the ones that the labels fit. The
            tags are `saliency/<head>/overlay` and `saliency/<head>/<score>`, "_" for signs that a logger may refuse.
        verbose: log a line at each look: accuracy and energy beside chance, and what the checks show the most of.

    Raises:
        InputError: naming the argument, what came, and what to do; before training time is spent.

    Example:
        >>> from lightning_gcam import SaliencyMonitor
        >>> monitor = SaliencyMonitor(methods=["guidance_cam", "grad_cam"], num_samples=8)
        >>> monitor.history
        []
    """

    def __init__(
        self,
        *,
        methods: Methods = "guidance_cam",
        target_layer: str | Sequence[str] | None = None,
        fuse: Literal["product", "mean"] | None = None,
        targets: Callable[[Tensor], Tensor] | int | str = "label",
        num_samples: int = 16,
        selection: Selection = "balanced",
        batch: Any | None = None,
        every_n_epochs: int | None = 1,
        every_n_train_steps: int | None = None,
        scores: Scores = None,
        final_scores: Scores = (),
        checks: Checks = None,
        max_overhead: float | None = 0.05,
        removal: Removal = DEFAULT_REMOVAL,
        adapter: Adapter | None = None,
        forward: Forward | None = None,
        normalize: Normalize | None = None,
        reshape_transform: Reshape | None = None,
        class_names: Sequence[str] | None = None,
        log_prefix: str = "saliency",
        sample_images: bool = False,
        on_error: str = "warn",
        dataloader_idx: int = 0,
        scale: Literal["own", "shared", "run"] = "own",
        show_change: bool = False,
        head: str | Sequence[str] | None = None,
        verbose: bool = False,
    ) -> None:
        super().__init__()
        check_whole("num_samples", num_samples)
        check_intervals(every_n_epochs, every_n_train_steps)
        check_targets(targets)
        check_fuse(fuse, target_layer)
        check_prefix(log_prefix)
        check_flag("sample_images", sample_images)
        check_class_names(class_names)
        check_whole("dataloader_idx", dataloader_idx, least=0)
        check_scale(scale)
        check_flag("show_change", show_change)
        check_flag("verbose", verbose)
        if normalize is not None:
            check_normalize(normalize)
        check_scores(scores)
        check_final_scores(final_scores)
        self.target_layer = target_layer
        self.class_names = class_names
        self.normalize = normalize
        self.log_prefix = log_prefix
        self.scale = scale
        self.show_change = show_change
        self.sample_images = sample_images
        self.verbose = verbose
        self.last_record: SaliencyRecord | None = None
        self.history: list[dict[str, float]] = []
        self.final_record: SaliencyRecord | None = None
        self._config = LookConfig(
            methods,
            None,  # known when the layer is found
            targets,
            ResolvedScores.of(scores),
            forward,
            reshape_transform,
            fuse,
            checks,
            removal,
            draws_earlier=show_change or scale == "run",
            head=head,
        )
        final = replace(self._config, scores=ResolvedScores.of(final_scores), checks=(), draws_earlier=False)
        self._final_config = final if final_scores else None
        self._failures = FailurePolicy(on_error)
        self._unclear: list[str] = []
        self._collection = SampleCollector(
            num_samples,
            selection,
            batch,
            adapter,
            class_names,
            dataloader_idx,
            forward,
            self._unclear.append,
        )
        self._schedule = Schedule(every_n_epochs, every_n_train_steps)
        self._budget = CheckBudget(max_overhead)
        self._looks = RunHistory()
        self._display = self._publisher()
        self._settings = settings_of(self._config, num_samples, selection, batch is not None)
        self._layers: Layers = {}
        self._known: list[HeadPlan] = []
        self._looked_at = (-1, -1)
        self._weights: dict[str, Tensor | None] = {}
        self._goes_on = self._has_fitted = False

    def _publisher(self, directory: Path | None = None) -> Publisher:
        return Publisher(self._failures, directory, schedule=str(self._schedule), verbose=self.verbose)

    @property
    def directory(self) -> Path | None:
        """Where the looks are written as files, in the process that writes; None where loggers take them."""
        return self._display.directory

    @property
    def pages(self) -> list[ReportLogger]:
        """The reports that lie beside the files, of a `CSVLogger` or without a logger; empty before the first look."""
        return self._display.pages

    def describe(self) -> str:
        """Print, and return, which layer is explained, why, and which other layers would do.

        Example:
            >>> text = SaliencyMonitor(target_layer="layer4").describe()
            SaliencyMonitor looks at layer "layer4", which was named.
        """
        text = _description(self._layers, self.target_layer)
        print(text)
        return text

    # -------------------------------------------------------------------------------- hooks: they only route

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begin a run: forget the last one's layer and failures, and refuse what can be seen to be wrong already."""
        self._check_alone(trainer)
        self._layers, self._looked_at = {}, (-1, -1)
        self._failures = FailurePolicy(self._failures.on_error)
        directory = self._display.directory if stage != "fit" else None
        self._display = self._publisher(directory)
        self._looks.begin_run()
        self._weights = {}
        if stage == "fit":
            self._goes_on = False
            if self._has_fitted and trainer.global_step == 0:
                self._forget()
            self._has_fitted = True
            self._collection.verify_next()
        if self.target_layer is not None:
            resolve_target_layers(pl_module, self.target_layer)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prepare samples given by hand, and refuse a fit without validation data otherwise."""
        self._schedule.begin(trainer)
        if trainer.enable_validation and not self._goes_on:
            self._collection.collect_anew()
        if self._collection.fixed.is_closed:
            self._prepare(trainer, pl_module, self._collection.fixed.samples)
        elif not trainer.enable_validation:
            raise InputError(
                "There is no validation data to take samples from (no validation dataloader, no `validation_step`, or "
                "`limit_val_batches=0`). Give the samples by hand with `batch=`."
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Choose the dataloader, where no sanity check did."""
        self._begin_stream(trainer)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Send the metrics of the epoch before, which are complete now."""
        self._display.keep_metrics(trainer, logged_step(trainer) - 1)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Find the layer with the first training batch, where no sanity check ran."""
        if not self._layers and batch_idx == 0 and trainer.global_step == 0:
            samples = self._collection.read_or_none(batch)
            images = for_planning(samples) if samples is not None else None
            self._prepare(trainer, pl_module, images, batch)
            self._warn_of_unclear()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Look between validations."""
        with self._failures.guard("Counting the training's forwards"):
            self._budget.count_trained(batch)
        if not self._schedule.is_step_due(trainer):
            return
        record = self._look(trainer, pl_module, logged_step(trainer))
        if record is not None:
            self._display.send_scores(trainer, record)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the end of the epoch where there is no validation (and the samples were given by hand)."""
        if not trainer.enable_validation:
            self._look_and_log(
                trainer, pl_module, logged_step(trainer) - 1
            )  # where Lightning logs its own now

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compute the final scores, show the last exchanges, and warn where the run had not a single look."""
        self._look_at_the_end(trainer, pl_module)
        self._display.show_last_exchanges(trainer)
        if not self.history and not self._failures.has_warned:
            self._failures.warn_once(
                "no look",
                "No look was taken in this run: the validation delivered no sample, or none was due. Check the "
                "validation dataloader and `every_n_epochs`, or give the samples by hand with `batch=`.",
            )
        self._display.keep_metrics(trainer, logged_step(trainer) - 1)
        self._display.finish()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Show the last exchanges of a run that ends early, and finish its pages; its own error is raised."""
        with suppress(Exception):
            self._display.show_last_exchanges(trainer)
        with suppress(Exception):
            self._display.finish()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Finish the pages beside the files, also those of a validation or a test by itself."""
        self._display.finish()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin a new stream of validation batches."""
        self._begin_stream(trainer)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin a new stream of test batches."""
        self._begin_stream(trainer)

    def on_validation_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int | None = None,
    ) -> None:
        """Collect the fixed samples from what Lightning delivers."""
        if not steps_fetch_batches(trainer):
            self._count_validated(trainer, batch)
            self._receive(trainer, pl_module, batch, batch_idx, dataloader_idx)

    def on_test_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int | None = None,
    ) -> None:
        """Collect the fixed samples from what Lightning delivers."""
        if not steps_fetch_batches(trainer):
            self._receive(trainer, pl_module, batch, batch_idx, dataloader_idx)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int | None = None,
    ) -> None:
        """Collect them here where the module's step fetches its batches itself."""
        if steps_fetch_batches(trainer):
            self._count_validated(trainer, batch)
            self._receive(trainer, pl_module, batch, batch_idx, dataloader_idx)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look, and log the scores where callbacks and loggers find them."""
        self._end_stream(trainer, pl_module)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int | None = None,
    ) -> None:
        """Collect them here where the module's step fetches its batches itself."""
        if steps_fetch_batches(trainer):
            self._receive(trainer, pl_module, batch, batch_idx, dataloader_idx)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look, and log the scores where callbacks and loggers find them."""
        self._end_stream(trainer, pl_module)

    @property
    def state_key(self) -> str:
        """The key of this monitor's state, by its prefix."""
        return self._generate_state_key(log_prefix=self.log_prefix)

    def state_dict(self) -> dict[str, Any]:
        """The samples, the layer and the history: tensors and plain Python only."""
        state = {
            "fixed_batch": self._collection.fixed.state_dict(),
            **state_of_plans([*self._layers]),
            "history": list(self.history),
            "settings": dict(self._settings),
        }
        if self._config.compares_looks or self._looks.is_checked:
            state["memory"] = self._looks.state_dict()
        if budget := self._budget.state_dict():
            state["budget"] = budget
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the samples, the layer and the history of the run that is resumed."""
        with self._failures.guard("Going on with the looks of the checkpoint (it begins afresh)"):
            self._resume(CheckpointState.of(state_dict))

    def _resume(self, kept: CheckpointState) -> None:
        """Take over from a checkpoint what can be compared with the looks to come, and warn of the rest."""
        self._goes_on = True
        changed = kept.changed(self._settings)
        has_samples = not kept.has_other_samples(self._settings)
        if has_samples and self._collection.is_another(kept.fixed_batch):
            changed.append("`batch` holds other samples")
        before = [list(plan.layers) for plan in kept.plans]
        if self.target_layer is not None and any(names_of(self.target_layer) != each for each in before):
            changed.append(f"`target_layer` was {before[0]!r} and is {self.target_layer!r}")
        if has_samples:
            self._collection.load_state_dict(kept.fixed_batch)
        self._known = kept.plans if kept.has_same_heads(self._settings) else []
        if not changed:
            self.history, self._looks = kept.history, kept.looks or RunHistory()
            self._budget.load_state_dict(kept.budget)
        elif kept.history or kept.fixed_batch:
            self._failures.warn_once(
                "not compared",
                f"The looks of the checkpoint cannot be compared with those to come: {'; '.join(changed)}. Its history "
                f"{'is' if has_samples else 'and its samples are'} not used: it begins afresh.",
            )

    def _forget(self) -> None:
        """Forget what was found in another training."""
        self.last_record, self.final_record, self._known = None, None, []
        self._begin_history()
        self._collection.begin_run()

    def _begin_history(self) -> None:
        """Begin the looks afresh: those before cannot be compared with those to come."""
        self.history, self._looks = [], RunHistory()
        self._budget.forget()

    # -------------------------------------------------------------------------------- the fixed samples

    def _begin_stream(self, trainer: Trainer) -> None:
        with self._failures.guard("Choosing the dataloader", before_training=no_training_time_spent(trainer)):
            self._collection.begin(trainer)

    def _count_validated(self, trainer: Trainer, batch: Any) -> None:
        if is_fitting(trainer) and not trainer.sanity_checking:
            with self._failures.guard("Counting the training's forwards"):
                self._budget.count_validated(batch)

    def _receive(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int | None,
    ) -> None:
        to_prepare = batch_idx == 0 and not self._layers and not self._failures.has_given_up
        if batch_idx == 0 and weights_may_change(trainer, self):
            with self._failures.guard("Noting the weights that are validated"):
                self._weights["validated"] = weights_of(trainer, pl_module)
        if not (self._collection.is_open or to_prepare):
            return
        early = batch_idx == 0 and no_training_time_spent(trainer)
        taken = None
        with (
            self._failures.guard("Reading the validation batch", before_training=early),
            torch.inference_mode(False),
        ):
            taken = self._collection.take(trainer, batch, batch_idx, dataloader_idx)
            if taken is not None:
                self._warn_of_change(self._collection.receive(taken.samples))
        if to_prepare:
            samples, part = (taken.samples, taken.part) if taken is not None else (None, None)
            self._prepare(trainer, pl_module, samples, part)
        self._warn_of_unclear()

    def _warn_of_change(self, position: int | None) -> None:
        if position is not None:
            self._failures.warn_once(
                "changed data",
                f"The validation data changed since the samples were taken: sample {position} is another one now. "
                "(Other data, or a shuffled validation dataloader?) The monitor goes on with the samples it has, "
                "so that its history stays comparable.",
            )

    def _warn_of_unclear(self) -> None:
        """Warn of annotation that could not be read; labels that found their heads are none."""
        have_heads = any(plan.name is not None and plan.labels is not None for plan in self._layers)
        while self._unclear:
            warn_of_unclear(self._failures, have_heads, self._unclear.pop(0))

    def _prepare(
        self, trainer: Trainer, pl_module: LightningModule, samples: SaliencyBatch | None, batch: Any = None
    ) -> None:
        if not all_ready(trainer, samples is not None) or samples is None:
            return
        with (
            self._failures.guard("Preparing the looks", before_training=no_training_time_spent(trainer)),
            torch.inference_mode(False),
        ):
            if self.normalize is not None:
                check_normalize(self.normalize, samples.images.shape[1])
            with integer_images_explained(batch):
                self._layers = self._find_layers(trainer, pl_module, samples)
        if not all_ready(trainer, bool(self._layers)):
            self._layers = {}

    def _find_layers(self, trainer: Trainer, pl_module: LightningModule, samples: SaliencyBatch) -> Layers:
        """The layers of each head that were named, those of the checkpoint, or the one that is found."""
        if self.target_layer is not None or not self._known:
            return self._dry_run(trainer, pl_module, samples, [])
        try:
            return self._dry_run(trainer, pl_module, samples, self._known)
        except InputError:
            layers = self._dry_run(trainer, pl_module, samples, [])
        before, now = (
            dict.fromkeys(name for plan in each for name in plan.layers) for each in (self._known, layers)
        )
        self._failures.warn_once(
            "another layer",
            f"The layer of the checkpoint ({', '.join(before)}) cannot be looked at in this model. It is "
            f'searched anew: the looks are at "{", ".join(now)}", and the history begins afresh.',
        )
        self._known = []
        self._begin_history()
        return layers

    def _dry_run(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        samples: SaliencyBatch,
        plans: list[HeadPlan],
    ) -> Layers:
        """Find the heads and their layers, and analyze one sample all the way."""
        forward = through_wrapper(trainer, self._config.forward)
        config = replace(self._config, target_layer=self.target_layer, forward=forward, plans=plans)
        with precision(trainer), progress_bars(trainer):
            one = as_inputs(trainer, one_labelled(samples), pl_module.device)
            return dry_run(pl_module, one, config, whole=samples)

    def _end_stream(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking:
            return
        changed = self._collection.end(trainer)
        if isinstance(changed, Exception):
            self._failures.report("Collecting the fixed samples", changed)
        else:
            self._warn_of_change(changed)
        if faults := self._collection.faults:
            self._failures.warn_once("faults", faults)
        if self._collection.has_others and self.history:
            self._failures.warn_once(
                "other samples",
                "This validation lacks samples of the one before, so that others were chosen. The looks before cannot "
                "be compared with those to come: the history begins afresh.",
            )
            self._begin_history()
        validated = self._weights.pop("validated", None)
        with as_validated(trainer, pl_module, self, validated, self._failures):
            self._look_and_log(trainer, pl_module, logged_step(trainer))

    # -------------------------------------------------------------------------------- one look

    def _look_and_log(self, trainer: Trainer, pl_module: LightningModule, step: int) -> None:
        fitting = is_fitting(trainer)
        if (
            self._schedule.is_epoch_due(trainer)
            and (record := self._look(trainer, pl_module, step)) is not None
        ):
            # not in Lightning's own row: there, a logger that refuses our scores would end the training
            to_loggers = False if fitting else None
            with self._failures.guard("Logging the saliency scores"):
                pl_module.log_dict(
                    record.metrics, on_step=False, on_epoch=True, sync_dist=True, logger=to_loggers
                )
            if fitting:
                self._display.send_scores(trainer, record)

    def _look(self, trainer: Trainer, pl_module: LightningModule, step: int) -> SaliencyRecord | None:
        """Take a look and show it at `step`; None where there is nothing to look at, or the look failed."""
        if not self._collection.fixed.is_closed or self._failures.has_given_up:
            return None
        now = moment(trainer)
        weights = weights_of(trainer, pl_module) if self._schedule.takes_steps else None
        if (
            is_fitting(trainer)
            and now == self._looked_at
            and same_weights(weights, self._weights.get("seen"))
        ):
            return self.last_record  # a validation right behind a look at a step meets the same weights
        record = self._record(trainer, pl_module, step, self._config)
        self._failures.count(succeeded=record is not None)
        if record is not None:
            self._looked_at, self._weights["seen"], self.last_record = now, weights, record
            self.history.append(record.row)
            if is_fitting(trainer):
                self._budget.add_look(record)
            self._display.show(trainer, record, self._collection.fixed, self._layers, self._config)
        self._call_look_hooks(trainer, pl_module, record)
        return record

    def _call_look_hooks(
        self, trainer: Trainer, pl_module: LightningModule, record: SaliencyRecord | None
    ) -> None:
        """Call `on_saliency_look` of every callback that has it, wherever it stands in the list."""
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            with self._failures.guard(f"`on_saliency_look` of {type(callback).__name__}"):
                if isinstance(callback, SaliencyLookHook):
                    callback.on_saliency_look(trainer, pl_module, self, record)

    def _look_at_the_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compute the final scores, once; they are logged as `<prefix>/final/<score>`."""
        if self._final_config is None or not self._collection.fixed.is_closed or self._failures.has_given_up:
            return
        last = self.last_record if moment(trainer) == self._looked_at else None
        step = last.step if last is not None else logged_step(trainer) - 1
        with averaged(trainer, pl_module):
            record = self._record(trainer, pl_module, step, self._final_config)
        if record is None:
            return
        self.final_record = record
        named = replace(record, scores={f"final/{name}": value for name, value in record.scores.items()})
        self._display.add_scores(trainer, named)

    def _record(
        self, trainer: Trainer, pl_module: LightningModule, step: int, config: LookConfig
    ) -> SaliencyRecord | None:
        """Analyze the fixed samples with all processes; None in each of them where one failed."""
        style = (self.class_names, self.normalize, self.scale, self.show_change)
        stamp = Stamp(step, trainer.current_epoch, self.log_prefix, *style, sample_images=self.sample_images)
        plans = share_plans(trainer, [*self._layers])
        if not plans:
            return None
        with_checks = from_rank_zero(trainer, self._allows_checks(trainer, step, config))
        fixed, forward = self._collection.fixed, through_wrapper(trainer, config.forward)
        map_fn = map_fn_of(trainer, pl_module)
        try:
            with torch.inference_mode(False), progress_bars(trainer):
                record = analyze(
                    pl_module,
                    map_fn(lambda _: self._samples(trainer, pl_module)),
                    config.at_plans(plans, forward),
                    map_fn,
                    stamp=stamp,
                    history=self._looks,
                    chunk_size=fixed.largest_batch,  # never more than the dataloader delivers
                    largest_label=fixed.largest_label,
                    on_failure=self._failures.report,
                    agree=partial(from_rank_zero, trainer),
                    with_checks=with_checks,
                )
        except Exception as error:
            self._failures.report(THE_LOOK, error)
            return None
        fixed.largest_batch = record.chunk_size or fixed.largest_batch
        return same_record(trainer, record)

    def _allows_checks(self, trainer: Trainer, step: int, config: LookConfig) -> bool:
        """Whether this look makes the causal checks, as far as this process counted."""
        if not is_fitting(trainer) or not config.check_names:
            return True
        of_ours = (name for name in monitored_names(trainer) if name.startswith(f"{self.log_prefix}/"))
        monitored = {name for name in of_ours if name.rpartition("/")[2] in config.check_scores}
        return self._budget.allows_checks(step, total_steps(trainer), monitored)

    def _samples(self, trainer: Trainer, pl_module: LightningModule) -> SaliencyBatch:
        """The fixed samples where the model is, as it takes them now."""
        fixed = self._collection.fixed
        fixed.to(pl_module.device)
        return as_inputs(trainer, fixed.samples, pl_module.device)

    def _check_alone(self, trainer: Trainer) -> None:
        """Refuse two monitors under one name, which would overwrite each other's tags and state."""
        callbacks = getattr(trainer, "callbacks", [])
        others = [each for each in callbacks if isinstance(each, SaliencyMonitor) and each is not self]
        if any(same_on_any_disk(each.log_prefix, self.log_prefix) for each in others):
            raise InputError(
                f'`log_prefix` "{self.log_prefix}" is used by two SaliencyMonitors. Give each its own, different in '
                "more than capital letters: some disks do not tell these apart."
            )


def _description(layers: Layers, named: str | Sequence[str] | None) -> str:
    """The target layers, why they were chosen, and which others would do, as a text of a few lines."""
    if layers:
        pairs = [
            (f' for head "{plan.name}"' if plan.name else "", each)
            for plan in layers
            for each in layers[plan]
        ]
        return "\n".join(f"SaliencyMonitor looks{head} at layer {layer.describe()}" for head, layer in pairs)
    if named is not None:
        names = [named] if isinstance(named, str) else list(named)
        shown = " and ".join(f'"{name}"' for name in names)
        return f"SaliencyMonitor looks at layer {shown}, which was named."
    return (
        "SaliencyMonitor has no layer yet: it is found with the first batch, before the first training step. To find "
        "it now: lightning_gcam.cam.find_target_layer(model, images).describe()."
    )
