"""`SaliencyMonitor`: looks at the same samples again and again while a network trains."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_gcam._errors import InputError
from lightning_gcam._lightning import Callback, LightningModule, Trainer, rank_zero_warn
from lightning_gcam.attribution import Attribution
from lightning_gcam.batch import Adapter, SaliencyBatch, as_saliency_batch
from lightning_gcam.callbacks import arguments
from lightning_gcam.callbacks.announcement import announce, say_what_even_gradients_mean, what_is_left_out
from lightning_gcam.callbacks.failures import FailurePolicy
from lightning_gcam.callbacks.processes import attribute_together, pool_candidates, same_everywhere
from lightning_gcam.callbacks.trainer_facts import (
    as_input,
    is_fitting,
    logged_step,
    moment,
    no_training_time_spent,
    precision,
)
from lightning_gcam.cam.capture import Forward
from lightning_gcam.cam.layers import TargetLayer, find_target_layer, resolve_target_layer
from lightning_gcam.cam.methods import Method, resolve_methods
from lightning_gcam.cam.reshape import Reshape
from lightning_gcam.cam.targets import check_classes
from lightning_gcam.fixed_batch import FixedBatch, Selection
from lightning_gcam.loggers import log_saliency, write_look
from lightning_gcam.loggers.files import next_version
from lightning_gcam.metrics import resolve_scores
from lightning_gcam.record import (
    SaliencyRecord,
    Scores,
    Stamp,
    attribute_in_chunks,
    record_saliency,
    score_maps,
)
from lightning_gcam.visual import Normalize, check_normalize


class SaliencyMonitor(Callback):
    """Show where a network looks while it trains, and score it, on the same validation samples at every look.

    The module needs no change and is left exactly as it was. Overlays go to every logger that takes pictures (PNG
    files where none does); scores are logged as `saliency/<score>`, so `ModelCheckpoint` and `EarlyStopping` can
    monitor them.

    Args:
        methods: a name (see `available_methods`), a callable `(activations, gradients) -> (N, h, w)`, or several.
        target_layer: a name from `model.named_modules()`; found where it is left out.
        targets: whose score the maps explain: "label", "predicted", a class, or a callable `logits -> (N,)`.
        num_samples: how many validation samples to look at.
        selection: "balanced" over the classes, "first", or positions in the order of delivery.
        batch: the samples, given by hand: a `SaliencyBatch` or any batch that can be read as one.
        every_n_epochs: look after the validation of every n-th epoch; None for never.
        every_n_train_steps: look after every n-th optimizer step; None for never.
        scores: names, metrics with `update(saliency, mask)`, or a mapping from names to metrics; None for all that
            the annotation allows.
        adapter: a function from a batch of your dataloader to a `SaliencyBatch`, for layouts that are not recognised.
        forward: `(module, images) -> logits`, for a module that is not simply called with the images.
        normalize: `(mean, std)` of your input normalization, undone for display.
        reshape_transform: from the layer's output to `(N, C, h, w)`, for layouts that are not recognised.
        class_names: for captions.
        log_prefix: what stands before the slash in every tag; two monitors in one Trainer need two.
        on_error: "warn" (the training goes on) or "raise".

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
        methods: Method | str | Sequence[Method | str] = "guidance_cam",
        target_layer: str | None = None,
        targets: Callable[[Tensor], Tensor] | int | str = "label",
        num_samples: int = 16,
        selection: Selection = "balanced",
        batch: Any | None = None,
        every_n_epochs: int | None = 1,
        every_n_train_steps: int | None = None,
        scores: Scores = None,
        adapter: Adapter | None = None,
        forward: Forward | None = None,
        normalize: Normalize | None = None,
        reshape_transform: Reshape | None = None,
        class_names: Sequence[str] | None = None,
        log_prefix: str = "saliency",
        on_error: str = "warn",
    ) -> None:
        super().__init__()
        arguments.check_whole("num_samples", num_samples)
        arguments.check_intervals(every_n_epochs, every_n_train_steps)
        arguments.check_targets(targets)
        arguments.check_prefix(log_prefix)
        arguments.check_class_names(class_names)
        if normalize is not None:
            check_normalize(normalize)
        resolve_scores(scores)
        self.methods = resolve_methods(methods)
        self.target_layer = target_layer
        self.targets = targets
        self.every_n_epochs = every_n_epochs
        self.every_n_train_steps = every_n_train_steps
        self.scores = scores
        self.adapter = adapter
        self.forward = forward
        self.normalize = normalize
        self.reshape_transform = reshape_transform
        self.class_names = class_names
        self.log_prefix = log_prefix
        self.last_record: SaliencyRecord | None = None
        self.history: list[dict[str, float]] = []
        self._failures = FailurePolicy(on_error)
        self._batch_by_hand = batch is not None
        self._fixed = (
            FixedBatch.of(as_saliency_batch(batch, adapter))
            if batch is not None
            else FixedBatch(num_samples, selection)
        )
        self._layer: TargetLayer | None = None
        self._directory: Path | None = None
        self._announced = False
        self._delivered = 0
        self._to_verify = False
        self._last_global_step = 0
        self._looked_at = (-1, -1)

    # -------------------------------------------------------------------------------- hooks: they only route

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse what can be seen to be wrong before anything runs."""
        self._check_alone(trainer)
        if self.target_layer is not None:
            resolve_target_layer(pl_module, self.target_layer)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Without validation data there is nothing to look at, but for samples given by hand."""
        if self._fixed.is_closed:
            self._prepare(trainer, pl_module, self._fixed.samples)
        elif not trainer.enable_validation:
            raise InputError(
                "There is no validation data to take samples from (no validation dataloader, no `validation_step`, or "
                "`limit_val_batches=0`). Give the samples by hand with `batch=`."
            )

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Where no sanity check ran, the first training batch serves to find the layer before the first step."""
        if self._layer is None and batch_idx == 0 and trainer.global_step == 0:
            samples = _read_or_none(batch, self.adapter)
            if samples is not None:
                self._prepare(trainer, pl_module, samples)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Look between validations."""
        if self._is_step_due(trainer) and (record := self._look(trainer, pl_module)) is not None:
            with self._failures.guard("Logging the saliency scores"):
                for logger in trainer.loggers:
                    logger.log_metrics({**record.metrics, "epoch": record.epoch}, step=record.step)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the end of the epoch where there is no validation (and the samples were given by hand)."""
        if not trainer.enable_validation:
            self._look_and_log(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A run without a single look must not pass in silence."""
        if not self.history and not self._failures.has_warned:
            self._failures.warn_once(
                "no look",
                "No look was taken in this run: the validation delivered no sample, or none was due. Check the "
                "validation dataloader and `every_n_epochs`, or give the samples by hand with `batch=`.",
            )

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A new stream of validation batches begins."""
        self._begin_stream()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A new stream of test batches begins."""
        self._begin_stream()

    def on_validation_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Collect the fixed samples from what Lightning delivers."""
        self._receive(trainer, pl_module, batch, batch_idx, dataloader_idx)

    def on_test_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Collect the fixed samples from what Lightning delivers."""
        self._receive(trainer, pl_module, batch, batch_idx, dataloader_idx)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look, and log the scores where callbacks and loggers find them."""
        self._end_stream(trainer, pl_module)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look, and log the scores where callbacks and loggers find them."""
        self._end_stream(trainer, pl_module)

    @property
    def state_key(self) -> str:
        """Two monitors keep their own state."""
        return self._generate_state_key(log_prefix=self.log_prefix)

    def state_dict(self) -> dict[str, Any]:
        """The samples, the layer and the history: tensors and plain Python only."""
        layer = self._layer.name if self._layer is not None else None
        return {"fixed_batch": self._fixed.state_dict(), "target_layer": layer, "history": self.history}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the samples, the layer and the history of the run that is resumed."""
        self.history = list(state_dict["history"])
        if self.target_layer is None:
            self.target_layer = state_dict["target_layer"]
        if not self._batch_by_hand and state_dict["fixed_batch"]:
            self._fixed.load_state_dict(state_dict["fixed_batch"])
            self._to_verify = True

    # -------------------------------------------------------------------------------- the fixed samples

    def _begin_stream(self) -> None:
        self._delivered = 0
        if not self._fixed.is_closed:
            self._fixed.reset()

    def _receive(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int
    ) -> None:
        wanted = not self._fixed.is_closed or self._to_verify or self._layer is None
        if not wanted or dataloader_idx != 0 or self._failures.has_given_up:
            return
        early = batch_idx == 0 and no_training_time_spent(trainer)
        with (
            self._failures.guard("Reading the validation batch", before_training=early),
            torch.inference_mode(False),
        ):
            samples = as_saliency_batch(batch, self.adapter)
            if not self._fixed.is_closed:
                self._fixed.offer(samples)
            elif self._to_verify:
                self._verify(samples)
            if self._layer is None:
                self._prepare(trainer, pl_module, self._fixed.samples if self._batch_by_hand else samples)

    def _prepare(self, trainer: Trainer, pl_module: LightningModule, samples: SaliencyBatch) -> None:
        """Find the layer and try one sample all the way, before any training time is spent."""
        with (
            self._failures.guard("Preparing the looks", before_training=no_training_time_spent(trainer)),
            torch.inference_mode(False),
            precision(trainer),
        ):
            first = samples.select([0]).to(pl_module.device)
            first = replace(first, images=as_input(trainer, first.images))
            layer = self._find_layer(pl_module, first.images)
            trial = record_saliency(
                pl_module,
                first,
                targets=self.targets,
                scores=self.scores,
                target_layer=layer.name,
                **self._options(),
            )
            if samples.labels is not None and samples.labels.ndim == 1:
                check_classes(
                    samples.labels[samples.labels >= 0], trial.attribution.logits.shape[1], "labels"
                )
            self._layer = layer

    def _options(self) -> dict[str, Any]:
        """What of the arguments `attribute` takes."""
        return {
            "methods": list(self.methods.values()),
            "reshape_transform": self.reshape_transform,
            "forward": self.forward,
        }

    def _find_layer(self, pl_module: nn.Module, images: Tensor) -> TargetLayer:
        if self.target_layer is None:
            return find_target_layer(
                pl_module, images, forward=self.forward, reshape_transform=self.reshape_transform
            )
        return TargetLayer(*resolve_target_layer(pl_module, self.target_layer))

    def _verify(self, samples: SaliencyBatch) -> None:
        """After a resume: do the validation data still hold the samples that were kept?"""
        position = self._fixed.first_difference(samples, self._delivered)
        self._delivered += len(samples)
        if position is not None:
            self._to_verify = False
            rank_zero_warn(
                f"The validation data changed since the checkpoint was written: sample {position} is another one now. "
                "The monitor goes on with the samples from the checkpoint, so its history stays comparable."
            )

    def _end_stream(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking:
            return
        self._to_verify = False
        if not self._fixed.is_closed and not self._failures.has_given_up:
            with self._failures.guard("Collecting the fixed samples"):
                self._fixed.close(pool_candidates(trainer, self._fixed))
        self._look_and_log(trainer, pl_module)

    # -------------------------------------------------------------------------------- one look

    def _is_epoch_due(self, trainer: Trainer) -> bool:
        if not is_fitting(trainer):
            return True
        return self.every_n_epochs is not None and (trainer.current_epoch + 1) % self.every_n_epochs == 0

    def _is_step_due(self, trainer: Trainer) -> bool:
        """After an optimizer step whose number fits, once: with accumulated gradients several batches share a step."""
        if self.every_n_train_steps is None or not self._fixed.is_closed or trainer.global_step == 0:
            return False
        new = trainer.global_step != self._last_global_step
        self._last_global_step = trainer.global_step
        return new and trainer.global_step % self.every_n_train_steps == 0

    def _look_and_log(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._is_epoch_due(trainer) and (record := self._look(trainer, pl_module)) is not None:
            with self._failures.guard("Logging the saliency scores"):
                pl_module.log_dict(record.metrics, on_step=False, on_epoch=True, batch_size=len(record.batch))

    def _look(self, trainer: Trainer, pl_module: LightningModule) -> SaliencyRecord | None:
        """Take a look and show it; None where there is nothing to look at, or the look failed."""
        if not self._fixed.is_closed or self._layer is None or self._failures.has_given_up:
            return None
        now = moment(trainer)
        if is_fitting(trainer) and now == self._looked_at:
            return self.last_record  # a validation right behind a look at a step meets the same weights
        record = self._record(trainer, pl_module, self._layer)
        if record is not None:
            self._looked_at, self.last_record = now, record
            self.history.append(record.row)
            with self._failures.guard("Showing the look"):
                self._show(trainer, record, self._layer)
        return record

    def _record(
        self, trainer: Trainer, pl_module: LightningModule, layer: TargetLayer
    ) -> SaliencyRecord | None:
        """The maps, by all processes together, and their scores, the same in all of them."""
        with torch.inference_mode(False):
            self._fixed.to(pl_module.device)
            batch = self._fixed.samples
            batch = replace(batch, images=as_input(trainer, batch.images))
            attribution = attribute_together(
                trainer, batch, lambda share: self._attribute(trainer, pl_module, layer, share)
            )
            scores: dict[str, float] = {}
            with self._failures.guard("Scoring the look"):
                scores = score_maps(attribution, batch, self.scores) if attribution is not None else {}
            if attribution is None:
                return None
            stamp = Stamp(
                logged_step(trainer), trainer.current_epoch, self.log_prefix, self.class_names, self.normalize
            )
            return SaliencyRecord(batch, attribution, same_everywhere(trainer, scores), stamp)

    def _attribute(
        self, trainer: Trainer, pl_module: LightningModule, layer: TargetLayer, batch: SaliencyBatch
    ) -> Attribution | None:
        """This process's share; None where it failed. Never more samples at once than the dataloader delivers."""
        with self._failures.guard("The look"), precision(trainer):
            attribution, self._fixed.largest_batch = attribute_in_chunks(
                pl_module,
                batch,
                self.targets,
                chunk_size=self._fixed.largest_batch,
                target_layer=layer.name,
                **self._options(),
            )
            return attribution
        return None

    def _show(self, trainer: Trainer, record: SaliencyRecord, layer: TargetLayer) -> None:
        for kind, message in what_is_left_out(record, self._fixed):
            self._failures.warn_once(kind, message)
        if not trainer.is_global_zero:
            return
        if not self._announced:
            self._announced = True
            announce(record, layer, self.scores, self.targets)
            if record.attribution.even_gradients:
                say_what_even_gradients_mean(layer)
        for logger in trainer.loggers:
            log_saliency(logger, record)
        if not trainer.loggers and not getattr(trainer, "fast_dev_run", False):
            root = Path(trainer.default_root_dir) / "lightning_gcam"
            self._directory = self._directory or next_version(root)
            write_look(self._directory, record)

    def _check_alone(self, trainer: Trainer) -> None:
        """Two monitors under one name would overwrite each other's tags and state."""
        callbacks = getattr(trainer, "callbacks", [])
        others = [each for each in callbacks if isinstance(each, SaliencyMonitor) and each is not self]
        if any(each.log_prefix == self.log_prefix for each in others):
            raise InputError(
                f'`log_prefix` "{self.log_prefix}" is used by two SaliencyMonitors. Give each its own.'
            )


def _read_or_none(batch: Any, adapter: Adapter | None) -> SaliencyBatch | None:
    """A training batch may have a layout of its own (two crops, mixed images); then the validation decides."""
    try:
        return as_saliency_batch(batch, adapter)
    except Exception:
        return None
