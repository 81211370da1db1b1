"""`SaliencyEvaluation`: methods and scores over a whole dataset, in `trainer.test`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from lightning_gcam.callbacks.distributed import holds_whole_model
from lightning_gcam.callbacks.error_policy import FailurePolicy
from lightning_gcam.callbacks.evaluation_runner import EvaluationPlan, EvaluationRun, settings_of
from lightning_gcam.callbacks.evaluation_table import EvaluationState, Table, check_about, measure_checks
from lightning_gcam.callbacks.sample_collector import (
    check_index,
    delivered_by,
    loaders_of,
    part_of,
    steps_fetch_batches,
)
from lightning_gcam.cam.heads import check_head
from lightning_gcam.cam.invocation import Forward
from lightning_gcam.cam.layers import check_fuse, resolve_target_layers
from lightning_gcam.cam.layouts import Reshape
from lightning_gcam.cam.registry import Methods
from lightning_gcam.data import Adapter
from lightning_gcam.evaluation import EvaluationResult, SampleStore
from lightning_gcam.metrics.registry import ResolvedScores, Scores
from lightning_gcam.pipeline.config import (
    LookConfig,
    check_class_names,
    check_prefix,
    check_streamed_scores,
    check_targets,
)
from lightning_gcam.shortcuts import Checks
from lightning_gcam.utils.errors import InputError, check_flag, check_whole
from lightning_gcam.utils.files import same_on_any_disk
from lightning_gcam.utils.lightning_compat import Callback, LightningModule, Trainer


class SaliencyEvaluation(Callback):
    """Compare saliency methods by their scores over a whole dataset, in `trainer.test`.

    Every test batch is explained by all methods, and scored, by the code that `SaliencyMonitor` runs at a look; of each
    sample only its numbers are kept, on disk, so that memory does not grow with the dataset, and an evaluation that was
    interrupted goes on where it stopped when it is run again. Several processes share the samples as Lightning deals
    them, and each sample is counted once. At the end the table is printed, written as `scores.csv` and
    `evaluation.json`, and logged.

    In it stand also causal checks: what the model relies on, measured on a few samples that are chosen out of the whole
    dataset. However large that is, they cost 15 forwards of
    `check_samples` samples behind the last batch, 22 with masks.

    It is given to the Trainer (`trainer.test` takes no callbacks), and does nothing in `fit` and `validate`.

    Args:
        methods: as in `SaliencyMonitor`; those that are functions of activations and gradients share a forward and a
            gradient a batch.
        scores: names, metrics, or a mapping from names to metrics; None for the default ones that the annotation
            allows. Metrics of your own have to be a `lightning_gcam.metrics.SampleScore`.
        checks: what the model relies on: names out of `lightning_gcam.shortcuts.available_checks`; None for all
            that are on by default and that the annotation allows, `[]` for none. All need labels that are classes, and
            many of them no other annotation.
        check_samples: how many samples the checks are made on: as even over the classes as the dataset allows, of each
            class the first ones.
        target_layer: as in `SaliencyMonitor`.
        fuse: as in `SaliencyMonitor`.
        targets: as in `SaliencyMonitor`.
        adapter: as in `SaliencyMonitor`.
        forward: as in `SaliencyMonitor`.
        reshape_transform: as in `SaliencyMonitor`.
        class_names: for labels that come as words; in the order of the logits.
        multi_label: whether each logit has a sigmoid of its own, for scores that need a probability; needed where
            a row has one class of several. With multi-hot labels it is known.
        chunk_size: how many samples go through the model at once; a batch where it is left out, and less where memory
            runs out.
        baselines: whether a uniform map and a Gaussian in the middle are scored on the same masks.
        directory: where the table is written, and what is done so far is kept; without one, the table goes to a new
            `lightning_gcam/version_<n>` under the Trainer's `default_root_dir`. While another program evaluates into
            it, this one is refused.
        resume: go on with what an interrupted evaluation of the same settings, weights and samples has done.
        resamples: how often the bootstrap of the intervals draws.
        log_prefix: what stands before the slash in every tag.
        on_error: "warn" (a batch that fails is left out, counted, and tried again when it is run again) or "raise".
        dataloader_idx: where there are several test dataloaders, the one whose samples are taken.
        about: plain facts to write into `evaluation.json`, such as the dataset's name.
        head: which head of a model with several is evaluated; the first that has labels where it is left out.

    Raises:
        InputError: naming the argument, what came, and what to do.

    Example:
        >>> from lightning_gcam import SaliencyEvaluation
        >>> evaluation = SaliencyEvaluation(methods=["guidance_cam", "grad_cam"], scores=["energy", "average_drop"])
        >>> callbacks = [evaluation]  # Trainer(callbacks=callbacks).test(model, datamodule=datamodule)
        >>> evaluation.result is None  # an EvaluationResult, once that is done
        True
    """

    def __init__(
        self,
        *,
        methods: Methods = "guidance_cam",
        scores: Scores = None,
        checks: Checks = None,
        check_samples: int = 64,
        target_layer: str | Sequence[str] | None = None,
        fuse: Literal["product", "mean"] | None = None,
        targets: Callable[[Tensor], Tensor] | int | str = "label",
        adapter: Adapter | None = None,
        forward: Forward | None = None,
        reshape_transform: Reshape | None = None,
        class_names: Sequence[str] | None = None,
        multi_label: bool = False,
        chunk_size: int | None = None,
        baselines: bool = True,
        directory: str | Path | None = None,
        resume: bool = True,
        resamples: int = 1000,
        log_prefix: str = "saliency_evaluation",
        on_error: str = "warn",
        dataloader_idx: int = 0,
        about: Mapping[str, Any] | None = None,
        head: str | None = None,
    ) -> None:
        super().__init__()
        check_targets(targets)
        check_prefix(log_prefix)
        check_class_names(class_names)
        check_whole("dataloader_idx", dataloader_idx, least=0)
        check_flag("multi_label", multi_label)
        check_whole("resamples", resamples)
        check_whole("check_samples", check_samples)
        if chunk_size is not None:
            check_whole("chunk_size", chunk_size, expected="a whole number from 1, or None for whole batches")
        check_about(about)
        check_fuse(fuse, target_layer)
        check_streamed_scores(scores)
        folder = Path(directory) if directory is not None else None
        config = LookConfig(
            methods,
            target_layer,
            targets,
            ResolvedScores.of(scores),
            forward,
            reshape_transform,
            fuse,
            checks,
            multi_label=multi_label,
            with_baselines=baselines,
            head=check_head(head) if head is not None else None,
        )
        how = (adapter, class_names, chunk_size, resume, folder, log_prefix, check_samples)
        self.dataloader_idx = dataloader_idx
        self.log_prefix = log_prefix
        self.result: EvaluationResult | None = None
        self._plan = EvaluationPlan(config, *how)
        self._failures = FailurePolicy(on_error, "the test")
        self._table = Table(folder, resamples, dict(about or {}))
        self._stream: EvaluationRun | None = None

    @property
    def directory(self) -> Path | None:
        """Where the table was written, in the process that writes; None before that."""
        return self._table.written_to

    def is_unfinished(self, module: LightningModule) -> bool:
        """Whether an evaluation of the same settings and weights has begun in `directory`, and did not finish.

        Args:
            module: the model, with its weights.
        """
        root = self._plan.directory
        if root is None or not self._plan.resume:
            return False
        settings = settings_of(self._plan.config, module, self._plan.config.target_layer, self._plan.adapter)
        return bool(SampleStore(self._plan.parts_in(root, settings)).digests())

    # -------------------------------------------------------------------------------- hooks: they only route

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse what can be seen to be wrong before a batch is read."""
        if stage != "test":
            return
        self.result, self._stream = None, None
        self._failures = FailurePolicy(self._failures.on_error, "the test")
        if not holds_whole_model(trainer):
            raise InputError(
                "SaliencyEvaluation lets each process explain samples of its own, for which it needs the whole model; "
                f'{type(trainer.strategy).__name__} gives it a part. Test with `strategy="ddp"`, or on one device.'
            )
        if self._plan.config.target_layer is not None:
            resolve_target_layers(pl_module, self._plan.config.target_layer)
        self._check_alone(trainer)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin, or continue an interrupted evaluation."""
        loaders = loaders_of(trainer)
        check_index(self.dataloader_idx, loaders, "test")
        loader = part_of(loaders, 0, self.dataloader_idx, loaders)
        self._stream = EvaluationRun.begin(trainer, pl_module, self._plan, self._failures, loader)

    def on_test_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int | None = None,
    ) -> None:
        """Explain and score the samples of a batch, and keep their numbers."""
        if not steps_fetch_batches(trainer):
            self._receive(trainer, batch, batch_idx, dataloader_idx)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int | None = None,
    ) -> None:
        """As `on_test_batch_start`, for a `test_step` that fetches the batches itself."""
        if steps_fetch_batches(trainer):
            self._receive(trainer, batch, batch_idx, dataloader_idx)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Gather the numbers of all processes, make the causal checks, and show the table."""
        stream, self._stream = self._stream, None
        if stream is not None:
            try:
                state = _state_of(stream)
                table = self._table.make(trainer, state)
                with torch.inference_mode(False):
                    reliance = measure_checks(trainer, pl_module, state, self._failures)
                self.result = replace(table, reliance=reliance)
                try:
                    self._table.show(trainer, self.result, self.log_prefix, self._failures)
                finally:  # where showing raises in one process, the others wait for it here
                    self._table.tidy(trainer, stream.parts, self.result)
            finally:
                stream.end()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Log how an interrupted evaluation can be continued."""
        if self._stream is not None:
            self._stream.report_interruption()
            self._stream.end()

    @property
    def state_key(self) -> str:
        """The key of this evaluation's state, by its prefix."""
        return self._generate_state_key(log_prefix=self.log_prefix)

    def _receive(self, trainer: Trainer, batch: Any, batch_idx: int, dataloader_idx: int | None) -> None:
        batch = delivered_by(trainer, batch, batch_idx, dataloader_idx, self.dataloader_idx)
        if batch is not None and self._stream is not None:
            with torch.inference_mode(False):
                self._stream.receive(batch)

    def _check_alone(self, trainer: Trainer) -> None:
        callbacks = getattr(trainer, "callbacks", [])
        others = [each for each in callbacks if isinstance(each, SaliencyEvaluation) and each is not self]
        if any(same_on_any_disk(each.log_prefix, self.log_prefix) for each in others):
            raise InputError(
                f'`log_prefix` "{self.log_prefix}" is used by two SaliencyEvaluations. Give each its own, different in '
                "more than capital letters: some disks do not tell these apart."
            )


def _state_of(stream: EvaluationRun) -> EvaluationState:
    """How far an evaluation has come in this process."""
    return EvaluationState(
        stream.plan.config,
        stream.parts,
        stream.positions,
        stream.unlabelled,
        stream.failed,
        stream.first_digest,
        stream.module.device,
        stream.settings["weights"],
        stream.choice,
        stream.evaluator.chunk_size if stream.evaluator is not None else stream.plan.chunk_size,
        stream.plan.class_names,
    )
